"""The analysis steps on a tissue with two known regions."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.metrics import roc_auc_score

import stcsm
from stcsm import _keys, tl
from stcsm.models import GeneVAE


def in_region(adata, region):
    return (adata.obs["region"] == region).to_numpy()


def test_concept_of_one_gene_finds_its_region(tissue, model):
    tl.concepts(tissue, model, genes={"left": "a0", "right": ["b0", "b1"]})
    tl.saliency(tissue, model)
    tl.decoded(tissue, model)
    tl.concept_map(tissue, model)
    for key in (_keys.CONCEPT_SALIENCY, _keys.CONCEPT_DECODED, _keys.CONCEPT_MAP):
        assert roc_auc_score(in_region(tissue, "A/left"), tissue.obsm[key]["left"]) > 0.95, key
        assert roc_auc_score(in_region(tissue, "B"), tissue.obsm[key]["right"]) > 0.95, key


def test_genes_of_the_region_carry_its_concept(tissue, model):
    tl.concepts(tissue, model, genes={"left": ["a0"]})
    scores = tissue.varm[_keys.CONCEPT_SCORE]["left"]
    group = tissue.var_names.str[0]
    known = scores.notna().to_numpy()
    assert roc_auc_score(group[known] == "a", scores[known]) > 0.98
    assert scores.isna().sum() == 1  # the gene without a count


def test_saliency_of_all_genes_is_the_mean_of_gene_maps(tissue, model):
    tl.concepts(tissue, model, genes={"left": ["a0", "a1"]})
    tl.saliency(tissue, model, genes=["a0", "b3", "c1"], method="input_x_gradient")
    single = tl.gene_saliency(tissue, model, "left", ["a0", "b3", "c1"], method="input_x_gradient")
    np.testing.assert_allclose(
        tissue.obsm[_keys.CONCEPT_SALIENCY]["left"], np.asarray(single.X).mean(axis=0), rtol=1e-4, atol=1e-6
    )


def test_integrated_gradients_of_a_gene_sum_to_its_score_difference(tissue, model):
    tl.concepts(tissue, model, genes={"left": ["a0"]})
    maps = tl.gene_saliency(tissue, model, "left", ["a3", "b3"], method="integrated_gradients")
    import torch

    vector = tl._store.read_concepts(tissue, "left")[0].vectors[0]
    inputs = model.inputs(["a3", "b3"])
    with torch.no_grad():
        rise = (model.encoder(inputs) - model.encoder(torch.zeros_like(inputs))).numpy() @ vector
    np.testing.assert_allclose(np.asarray(maps.X).sum(axis=1), rise, rtol=1e-3)


def test_layers_become_concepts_and_keep_their_name(tissue, model, tmp_path):
    tissue.obs["region"] = tissue.obs["region"].astype(object)
    tissue.obs.loc["spot5", "region"] = np.nan
    tl.concepts(tissue, model, layers="region")
    assert list(tissue.varm[_keys.CONCEPT_SCORE]) == ["A_left", "B"]
    record = tissue.uns["stcsm"]["concepts"]["A_left"]
    assert record["label"] == "A/left"
    assert {m[0] for m in record["members"]} <= {"a", "c"}
    tl.saliency(tissue, model, "A/left")
    assert list(tissue.obsm[_keys.CONCEPT_SALIENCY]) == ["A_left"]


def test_results_survive_h5ad(tissue, model, tmp_path):
    tl.concepts(tissue, model, genes={"Körnerzellen": ["a0"], "x / y": ["b0"]}, layers="region")
    tl.saliency(tissue, model)
    tl.decoded(tissue, model)
    tl.concept_map(tissue, model)
    tissue.obs["region"] = tissue.obs["region"].astype("category")
    tissue.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    for key in (_keys.CONCEPT_SALIENCY, _keys.CONCEPT_DECODED, _keys.CONCEPT_MAP):
        pd.testing.assert_frame_equal(back.obsm[key], tissue.obsm[key])
    pd.testing.assert_frame_equal(back.varm[_keys.CONCEPT_SCORE], tissue.varm[_keys.CONCEPT_SCORE])
    tl.saliency(back, model)
    pd.testing.assert_frame_equal(back.obsm[_keys.CONCEPT_SALIENCY], tissue.obsm[_keys.CONCEPT_SALIENCY])


def test_nothing_but_our_keys_is_written(tissue, model):
    before = tissue.copy()
    tl.concepts(tissue, model, genes={"left": ["a0"]}, layers="region")
    tl.saliency(tissue, model)
    tl.concept_map(tissue, model)
    assert (tissue.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(tissue.obs, before.obs)
    pd.testing.assert_frame_equal(tissue.var, before.var)
    assert set(tissue.uns) == {"stcsm"}
    assert set(tissue.obsm) == {"spatial", "concept_saliency", "concept_map"}
    assert set(tissue.obsp) == {"stcsm_spot_graph"}


@pytest.mark.parametrize("kind", ["csc", "dense", "csr_array"])
def test_kind_of_matrix_does_not_matter(trained, kind):
    adata, _ = trained
    other = adata.copy()
    other.X = {"csc": sparse.csc_matrix, "dense": lambda x: x.toarray(), "csr_array": sparse.csr_array}[kind](adata.X)
    GeneVAE.setup_anndata(other)
    again = GeneVAE(other, n_latent=6, n_hidden=32)
    again.train(max_epochs=3, progress=False)
    first = GeneVAE(adata, n_latent=6, n_hidden=32)
    first.train(max_epochs=3, progress=False)
    np.testing.assert_array_equal(first.get_latent_representation(), again.get_latent_representation())


def test_view_gives_the_numbers_of_its_copy(trained):
    adata, _ = trained
    view, copy = adata[10:60], adata[10:60].copy()
    latents = []
    for a in (view, copy):
        GeneVAE.setup_anndata(a)
        m = GeneVAE(a, n_latent=6, n_hidden=32)
        m.train(max_epochs=2, progress=False)
        latents.append(m.get_latent_representation())
    np.testing.assert_array_equal(*latents)
    assert adata.n_obs == 64


def test_members_of_an_ensemble_are_the_models_of_their_seeds(trained):
    adata, _ = trained
    both = GeneVAE(adata, n_latent=6, n_hidden=32, n_seeds=2, seed=3)
    both.train(max_epochs=3, progress=False)
    alone = GeneVAE(adata, n_latent=6, n_hidden=32, seed=4)
    alone.train(max_epochs=3, progress=False)
    a = adata.copy()
    tl.concepts(a, both, genes={"left": ["a0"]})
    tl.saliency(a, both)
    assert {"X_stcsm", "X_stcsm_var", "X_stcsm_1", "X_stcsm_1_var"} <= set(a.varm)
    assert a.uns["stcsm"]["concepts"]["left"]["vectors"].shape == (2, 6)
    assert abs(a.varm["concept_score"]["left"].mean()) < 1e-6  # members are standardised before they are averaged
    assert alone.get_latent_representation().shape == both.get_latent_representation(member=1).shape


def test_similar_genes_are_those_of_the_region(tissue, model):
    tl.embed_genes(tissue, model)
    table = tl.similar_genes(tissue, "a0", n=10)
    assert table.index[0] == "a0"
    assert table["r"].iloc[0] == 1
    assert (table.index.str[0] == "a").sum() >= 9
    assert (table["q"].iloc[1:] >= table["p"].iloc[1:]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, m: tl.concepts(a, m), "found neither"),
        (lambda a, m: tl.concepts(a, m, genes={"x": ["A0"]}), "case"),
        (lambda a, m: tl.concepts(a, m, genes={"x": ["c29"]}), "none"),
        (lambda a, m: tl.concepts(a, m, genes={" ": ["a0"]}), "name"),
        (lambda a, m: tl.concepts(a, m, genes={"..": ["a0"]}), "name"),
        (lambda a, m: tl.concepts(a, m, genes={"a/b": ["a0"], "a_b": ["a1"]}), "rename"),
        (lambda a, m: tl.concepts(a, m, genes="nowhere"), "neither"),
        (lambda a, m: tl.concepts(a, m, layers="nowhere"), "column of adata.obs"),
        (lambda a, m: tl.concepts(a, m, layers="one"), "at least two layers"),
        (lambda a, m: tl.concepts(a, m, genes={"x": ["a0"]}, estimator="median"), "estimator"),
        (lambda a, m: tl.saliency(a, m), "found none"),
        (lambda a, m: tl.similar_genes(a, "a0"), "embedding"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(tissue, model, call, message):
    tissue.obs["one"] = "all"
    keys = [set(tissue.uns["stcsm"]), set(tissue.obsm), set(tissue.varm)]
    with pytest.raises(ValueError, match=message):
        call(tissue, model)
    assert keys == [set(tissue.uns["stcsm"]), set(tissue.obsm), set(tissue.varm)]


def test_layer_of_one_spot_is_left_out(tissue, model):
    tissue.obs.loc["spot0", "region"] = "lonely"
    tl.concepts(tissue, model, layers="region")
    assert "lonely" not in tissue.varm[_keys.CONCEPT_SCORE]


def test_untrained_or_foreign_model_is_refused(tissue, model):
    fresh = GeneVAE(tissue, n_latent=6, n_hidden=32)
    with pytest.raises(ValueError, match="trained"):
        tl.embed_genes(tissue, fresh)
    tl.concepts(tissue, model, genes={"left": ["a0"]})
    other = GeneVAE(tissue, n_latent=6, n_hidden=32, seed=9)
    other.train(max_epochs=1, progress=False)
    with pytest.raises(ValueError, match="another one"):
        tl.saliency(tissue, other)


def test_squidpy_reads_the_maps(tissue, model):
    sq = pytest.importorskip("squidpy")
    tl.concepts(tissue, model, genes={"left": ["a0"]})
    tl.saliency(tissue, model)
    e = sq.pl.extract(tissue, "concept_saliency")
    sq.gr.spatial_neighbors(e)
    sq.gr.spatial_autocorr(e, attr="obs", genes="left", show_progress_bar=False)
    assert e.uns["moranI"].loc["left", "I"] > 0.5


def test_public_names():
    for name in ("concepts", "saliency", "concept_map", "decoded", "similar_genes", "gene_saliency", "embed_genes"):
        assert callable(getattr(stcsm.tl, name))
