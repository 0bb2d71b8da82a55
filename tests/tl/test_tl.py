"""The analysis steps on a tissue with two known regions."""

from __future__ import annotations

import tempfile
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.metrics import roc_auc_score

import stcsm
from stcsm import _keys, tl
from stcsm.attribution import attribute
from stcsm.models import GeneVAE


def _saved(model):
    folder = Path(tempfile.mkdtemp()) / "model"
    model.save(folder)
    return folder


def assert_equal(a, b):
    """Two AnnData hold the same, down to what ``.uns`` holds; NaN equals NaN."""
    same(a.X, b.X)
    pd.testing.assert_frame_equal(a.obs, b.obs)
    pd.testing.assert_frame_equal(a.var, b.var)
    for name in ("uns", "obsm", "varm", "obsp", "layers"):
        same(dict(getattr(a, name)), dict(getattr(b, name)))


def same(x, y):
    """Recursive equality of what an AnnData can hold."""
    if isinstance(x, dict):
        assert list(x) == list(y)
        for key in x:
            same(x[key], y[key])
    elif sparse.issparse(x):
        assert (x != y).nnz == 0
    elif isinstance(x, pd.DataFrame):
        pd.testing.assert_frame_equal(x, y)
    else:
        np.testing.assert_array_equal(x, y)


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
    maps = tl.gene_saliency(tissue, model, "left", ["a3", "b3"])  # integrated gradients by default
    vector = tissue.uns["stcsm"]["concepts"]["left"]["vectors"][0]
    inputs = model.inputs(["a3", "b3"])
    with torch.no_grad():
        rise = (model.encoder(inputs) - model.encoder(torch.zeros_like(inputs))).numpy() @ vector
    np.testing.assert_allclose(np.asarray(maps.X).sum(axis=1), rise, rtol=1e-3)


def test_labels_become_concepts_and_keep_their_name(tissue, model, tmp_path):
    tissue.obs["region"] = tissue.obs["region"].astype(object)
    tissue.obs.loc["spot5", "region"] = np.nan
    tl.concepts(tissue, model, groupby="region")
    assert list(tissue.varm[_keys.CONCEPT_SCORE]) == ["A_left", "B"]
    record = tissue.uns["stcsm"]["concepts"]["A_left"]
    assert record["label"] == "A/left"
    assert {m[0] for m in record["genes"]} <= {"a", "c"}
    tl.saliency(tissue, model, "A/left")
    assert list(tissue.obsm[_keys.CONCEPT_SALIENCY]) == ["A_left"]


def test_results_survive_h5ad(tissue, model, tmp_path):
    tl.concepts(tissue, model, genes={"Körnerzellen": ["a0"], "x / y": ["b0"]}, groupby="region")
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


def test_what_is_known_of_concepts_and_their_order_survive_h5ad(tissue, model, tmp_path):
    tl.concepts(tissue, model, genes={"z": ["a0", "a1"], "b/c": ["b0"], "a": ["a0", "b0"]})
    tl.combine(tissue, "both", ["z", "b/c"], minus=["a"])
    tissue.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    table = tl.concept_table(back)
    pd.testing.assert_frame_equal(table, tl.concept_table(tissue))
    assert list(table.index) == ["z", "b_c", "a", "both"]
    assert list(table["label"]) == ["z", "b/c", "a", "both"]
    assert list(table["source"]) == ["genes", "genes", "genes", "combination"]
    assert table.loc["z", ["n_given", "n_found", "n_usable"]].tolist() == [2, 2, 2]
    before, after = tissue.uns["stcsm"]["concepts"], back.uns["stcsm"]["concepts"]
    assert list(after["both"]["info"]["plus"]) == ["z", "b_c"]
    assert list(after["both"]["info"]["minus"]) == ["a"]
    for key, one in before.items():
        np.testing.assert_array_equal(one["vectors"], after[key]["vectors"])
        for part in ("genes", "weights"):
            assert list(one[part]) == list(after[key][part])


def test_concepts_that_are_deleted_by_hand_are_gone(tissue, model):
    tl.concepts(tissue, model, genes={"z": ["a0", "a1"], "a": ["b0"]})
    tl.concepts(tissue, model, genes={"new": ["b1"]})
    assert list(tl.concept_table(tissue).index) == ["z", "a", "new"]
    del tissue.uns["stcsm"]["concepts"]["z"]
    assert list(tl.concept_table(tissue).index) == ["a", "new"]
    tl.concepts(tissue, model, genes={"last": ["b1"]}, keep=False)
    assert list(tissue.uns["stcsm"]["concept_info"].index) == ["last"]


def test_concepts_in_another_format_are_refused_with_the_fix(tissue, model):
    tl.concepts(tissue, model, genes={"z": ["a0", "a1"]})
    record = tissue.uns["stcsm"]["concepts"]["z"]
    record["members"] = record.pop("genes")
    with pytest.raises(ValueError, match=r"cannot read; replace them: .*keep=False"):
        tl.saliency(tissue, model)
    tl.concepts(tissue, model, genes={"y": ["a0", "a1"]}, keep=False)
    assert list(tl.concept_table(tissue).index) == ["y"]


def test_a_classifier_of_one_gene_has_no_accuracy_and_a_column_for_it(tissue, model):
    tl.concepts(tissue, model, genes={"one": ["a0"]}, estimator="cav")
    table = tl.concept_table(tissue)
    assert table[["cv_accuracy", "cv_auroc"]].isna().all(axis=None)
    assert table.columns[-1] == "fraction"


def test_nothing_but_our_keys_is_written(tissue, model):
    before = tissue.copy()
    tl.concepts(tissue, model, genes={"left": ["a0"]}, groupby="region")
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
    maps = []
    for a, m in ((adata.copy(), first), (other, again)):
        tl.concepts(a, m, genes={"left": ["a0"]}, groupby="region")
        tl.saliency(a, m)
        tl.concept_map(a, m)
        maps.append((a.obsm["concept_saliency"], a.obsm["concept_map"]))
    pd.testing.assert_frame_equal(maps[0][0], maps[1][0])
    pd.testing.assert_frame_equal(maps[0][1], maps[1][1])


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_normalising_afterwards_does_not_reach_the_model(trained, kind):
    import scanpy as sc

    adata = trained[0].copy()
    adata.X = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": lambda x: x.toarray()}[kind](adata.X)
    model = GeneVAE(adata, n_latent=6, n_hidden=32)
    before = model.inputs(["a0", "b1"])
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    assert (model.inputs(["a0", "b1"]) == before).all()
    with pytest.raises(ValueError, match="log-normalised"):
        GeneVAE(adata, n_latent=6, n_hidden=32)
    with pytest.raises(ValueError, match="log-normalised"):
        stcsm.pp.spot_graph(adata)


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


def test_members_of_an_ensemble_are_averaged_after_standardising(trained):
    adata, _ = trained
    both = GeneVAE(adata, n_latent=6, n_hidden=32, n_seeds=2, seed=3)
    both.train(max_epochs=3, progress=False)
    a = adata.copy()
    tl.concepts(a, both, genes={"left": ["a0"]})
    tl.saliency(a, both)
    assert {"X_stcsm", "X_stcsm_var", "X_stcsm_1", "X_stcsm_1_var"} <= set(a.varm)
    assert a.uns["stcsm"]["concepts"]["left"]["vectors"].shape == (2, 6)
    vectors = a.uns["stcsm"]["concepts"]["left"]["vectors"]
    scores = [both.get_latent_representation(member=m) @ vectors[m] for m in (0, 1)]
    expected = np.mean([(s - np.nanmean(s)) / np.nanstd(s) for s in scores], axis=0)
    np.testing.assert_allclose(a.varm["concept_score"]["left"], expected, rtol=1e-4, atol=1e-5)
    tl.concepts(a, both.__class__.load(_saved(both), a), genes={"left": ["a0"]})
    a.varm["X_stcsm_tsne"] = np.zeros((a.n_vars, 2))
    a.varm["X_stcsm_umap"] = np.zeros((a.n_vars, 2))
    one = GeneVAE(adata, n_latent=6, n_hidden=32)
    one.train(max_epochs=1, progress=False)
    tl.embed_genes(a, one)
    assert "X_stcsm_1" not in a.varm  # left behind by the larger ensemble
    assert "X_stcsm_tsne" in a.varm  # the user's
    assert "X_stcsm_umap" not in a.varm  # of the earlier embedding


def test_similar_genes_are_those_of_the_region(tissue, model):
    tl.embed_genes(tissue, model)
    table = tl.similar_genes(tissue, "a0", n=10)
    assert table.index[0] == "a0"
    assert table["r"].iloc[0] == 1
    assert (table.index.str[0] == "a").sum() >= 9
    assert (table["q_of_latents"].iloc[1:] >= table["p_of_latents"].iloc[1:]).all()


def test_names_that_are_nearly_right_are_suggested(tissue, model):
    tl.concepts(tissue, model, genes={"granule": ["a0", "a1"]})
    tl.saliency(tissue, model)
    with pytest.raises(ValueError, match="did you mean 'granule'"):
        tl.rank_genes_concept(tissue, "granul")
    with pytest.raises(ValueError, match=r"found 'concept_salience'; there are \['concept_saliency'\]"):
        stcsm.pl.saliency(tissue, key="concept_salience")
    with pytest.raises(ValueError, match="found no layers; name one"):
        GeneVAE.setup_anndata(tissue, layer="counts")


def test_p_values_that_are_lost_are_warned_of_and_none_that_are_not(tissue, model, caplog):
    tl.concepts(tissue, model, genes={"left": ["a0", "a1"]})
    tl.saliency(tissue, model)
    tl.significance(tissue, model, n_random=19)
    tl.saliency(tissue, model)
    assert caplog.text.count("p and q of earlier maps are dropped") == 1
    assert "significance" not in tissue.uns["stcsm"]
    tl.significance(tissue, model, n_random=19)
    tl.concepts(tissue, model, genes={"left": ["a2"]})  # another concept now: its p goes with its map
    assert "significance" not in tissue.uns["stcsm"]
    tl.saliency(tissue, model)
    assert caplog.text.count("p and q of earlier maps are dropped") == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, m: tl.concepts(a, m), "found neither"),
        (lambda a, m: tl.concepts(a, m, genes={"x": ["A0"]}), "case"),
        (lambda a, m: tl.concepts(a, m, genes={"x": ["c29"]}), "none"),
        (lambda a, m: tl.concepts(a, m, genes={" ": ["a0"]}), "name"),
        (lambda a, m: tl.concepts(a, m, genes={"..": ["a0"]}), "name"),
        (lambda a, m: tl.concepts(a, m, genes={"_index": ["a0"]}), "name"),
        (lambda a, m: tl.concepts(a, m, genes={"\ud800": ["a0"]}), "name"),
        (lambda a, m: tl.concepts(a, m, genes={"a/b": ["a0"], "a_b": ["a1"]}), "rename"),
        (lambda a, m: tl.concepts(a, m, genes="nowhere"), "neither"),
        (lambda a, m: tl.concepts(a, m, groupby="nowhere"), "column of adata.obs"),
        (lambda a, m: tl.concepts(a, m, groupby="ONE"), "did you mean 'one'"),
        (lambda a, m: tl.concepts(a, m, groupby="one"), "at least two labels"),
        (lambda a, m: tl.concepts(a, m, genes={"x": ["a0"]}, estimator="median"), "estimator"),
        (lambda a, m: tl.saliency(a, m), "found none"),
        (lambda a, m: tl.similar_genes(a, "a0"), "embedding"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(tissue, model, call, message):
    tissue.obs["one"] = "all"
    before = tissue.copy()
    with pytest.raises(ValueError, match=message):
        call(tissue, model)
    assert_equal(tissue, before)


@pytest.mark.parametrize("path", [Path("nowhere.gmt"), "nowhere.gmt", "~/nowhere", "no/where"])
def test_a_path_that_leads_nowhere_is_named_and_changes_nothing(tissue, model, path):
    before = tissue.copy()
    with pytest.raises(FileNotFoundError, match=r"Expected a GMT file, found nothing at .*where"):
        tl.concepts(tissue, model, genes=path)
    assert_equal(tissue, before)


def test_a_step_that_fails_midway_changes_nothing(tissue, model, monkeypatch):
    tl.concepts(tissue, model, genes={"left": ["a0"]})
    before = tissue.copy()

    def broken(*_):
        raise ValueError("broken")

    monkeypatch.setattr(GeneVAE, "decode", broken)
    with pytest.raises(ValueError, match="broken"):
        tl.concept_map(tissue, model)
    assert_equal(tissue, before)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: a._inplace_subset_obs(np.arange(50)),
        lambda a: a._inplace_subset_var(np.arange(50)),
        lambda a: setattr(a, "var_names", [f"x{i}" for i in range(a.n_vars)]),
    ],
)
@pytest.mark.parametrize("step", [tl.embed_genes, tl.saliency, tl.decoded, tl.concept_map])
def test_changing_the_tissue_in_place_is_noticed(trained, spoil, step):
    adata = trained[0].copy()
    GeneVAE.setup_anndata(adata)
    model = GeneVAE(adata, n_latent=6, n_hidden=32)
    model.train(max_epochs=1, progress=False)
    tl.concepts(adata, model, genes={"left": ["a0"]})
    spoil(adata)
    before = adata.copy()
    with pytest.raises(ValueError, match="subset or renamed"):
        step(adata, model)
    assert_equal(adata, before)


def test_genes_that_are_gone_are_left_out_not_replaced(trained, tmp_path):
    adata, model = trained
    whole = adata.copy()
    tl.concepts(whole, model, genes={"left": ["a0", "a1"], "gone": ["a1"]})
    model.save(tmp_path / "m")
    fewer = whole[:, [g for g in whole.var_names if g != "a1"]].copy()
    again = GeneVAE.load(tmp_path / "m", fewer)
    with pytest.raises(ValueError, match="none of 1"):
        tl.decoded(fewer, again, "gone")
    tl.decoded(fewer, again, "left")
    assert roc_auc_score(in_region(fewer, "A/left"), fewer.obsm[_keys.CONCEPT_DECODED]["left"]) > 0.95


def test_names_that_share_a_key_stay_apart_across_calls(tissue, model):
    tl.concepts(tissue, model, genes={"p/q": ["a0"]})
    with pytest.raises(ValueError, match="rename"):
        tl.concepts(tissue, model, genes={"p_q": ["b0"]})
    assert tissue.uns["stcsm"]["concepts"]["p_q"]["label"] == "p/q"


def test_old_maps_go_with_an_old_concept(tissue, model):
    tl.concepts(tissue, model, genes={"x": ["a0"], "y": ["b0"]})
    tl.saliency(tissue, model)
    tl.concepts(tissue, model, genes={"x": ["a0"]})
    assert list(tissue.obsm["concept_saliency"]) == ["x", "y"]  # the same concept again: its map still holds
    tl.concepts(tissue, model, genes={"x": ["b5"]})
    assert list(tissue.obsm["concept_saliency"]) == ["y"]
    tl.concepts(tissue, model, genes={"z": ["a0"]}, keep=False)
    assert "concept_saliency" not in tissue.obsm
    assert list(tissue.uns["stcsm"]["concepts"]) == ["z"]


def test_graph_of_other_spots_is_recomputed(tissue, model):
    tl.concepts(tissue, model, genes={"left": ["a0"]})
    tl.concept_map(tissue, model)
    part = tissue[:40].copy()
    GeneVAE.setup_anndata(part)
    small = GeneVAE(part, n_latent=6, n_hidden=32)
    small.train(max_epochs=1, progress=False)
    tl.concepts(part, small, genes={"left": ["a0"]})
    tl.concept_map(part, small)
    np.testing.assert_allclose(np.asarray(part.obsp["stcsm_spot_graph"].sum(axis=1)), 1, rtol=1e-5)


@pytest.mark.parametrize("method", ["smoothgrad", "integrated_gradients", "rectgrad"])
def test_a_map_is_the_mean_over_genes_whatever_the_batches(tissue, model, method, monkeypatch):
    """Noise too is that of a gene's number among all, not among those of a batch."""
    tl.concepts(tissue, model, genes={"left": ["a0"]})
    monkeypatch.setattr("stcsm.tl._maps.BLOCK", 30)
    tl.saliency(tissue, model, method=method)
    vector = tissue.uns["stcsm"]["concepts"]["left"]["vectors"][0].astype(np.float32)
    every = attribute(model.encoder, model.inputs(model.trained_genes), vector, method)
    expected = every.double().mean(dim=0).numpy()
    found = tissue.obsm["concept_saliency"]["left"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_clusters_as_numbers_beside_nan(tissue, model):
    tissue.obs["cluster"] = np.where(in_region(tissue, "B"), 1.0, 2.0)
    tissue.obs.loc["spot3", "cluster"] = np.nan
    tl.concepts(tissue, model, groupby="cluster")
    assert list(tissue.varm[_keys.CONCEPT_SCORE]) == ["1", "2"]
    tissue.obs["depth"] = np.linspace(0, 1, tissue.n_obs)
    with pytest.raises(ValueError, match="fractional"):
        tl.concepts(tissue, model, groupby="depth")
    tissue.obs["number"] = np.arange(tissue.n_obs)
    with pytest.raises(ValueError, match="64 different numbers"):
        tl.concepts(tissue, model, groupby="number")


def test_every_estimator_decodes_to_the_region_of_its_genes(tissue, model):
    for estimator in ("contrast", "mean", "cav"):
        tl.concepts(tissue, model, genes={"left": ["a0", "a1"]}, estimator=estimator)
        tl.decoded(tissue, model)
        assert roc_auc_score(in_region(tissue, "A/left"), tissue.obsm[_keys.CONCEPT_DECODED]["left"]) > 0.95


def test_a_label_of_one_spot_is_left_out(tissue, model):
    tissue.obs.loc["spot0", "region"] = "lonely"
    tl.concepts(tissue, model, groupby="region")
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


def test_a_gene_umap_lays_genes_of_a_region_together_and_is_dropped_with_the_embedding(tissue, model):
    with pytest.raises(ValueError, match="gene embedding"):
        tl.gene_umap(tissue)
    tl.embed_genes(tissue, model)
    tl.gene_umap(tissue, n_neighbors=8)
    xy = tissue.varm["X_stcsm_umap"]
    known = np.isfinite(tissue.varm["X_stcsm"]).all(axis=1)
    np.testing.assert_array_equal(np.isfinite(xy).all(axis=1), known)
    again = tissue.copy()
    tl.gene_umap(again, n_neighbors=8)
    np.testing.assert_array_equal(again.varm["X_stcsm_umap"], xy)
    kind = tissue.var_names.str[0]
    centre = {k: np.nanmean(xy[kind == k], axis=0) for k in "ab"}
    own = np.linalg.norm(xy[kind == "a"] - centre["a"], axis=1)
    other = np.linalg.norm(xy[kind == "a"] - centre["b"], axis=1)
    assert np.nanmean(own < other) > 0.9
    tl.embed_genes(tissue, model)
    assert "X_stcsm_umap" not in tissue.varm


def test_messages_say_how_to_go_on(tissue, model):
    with pytest.raises(ValueError, match=r'To go on with its other genes: missing="report"'):
        tl.concepts(tissue, model, genes={"x": ["a0", "a00"]})
    tissue.obs["layer"] = np.where(tissue.obs["region"] == "B", "2: Bee", "1: Left")
    tl.concepts(tissue, model, groupby="layer", groups="left")
    assert list(tl.concept_table(tissue).index) == ["1: Left"]
    tl.saliency(tissue, model, "Left")
    assert stcsm.pl.saliency(tissue, "Left", show=False).get_title() == "1: Left"
    for call, name in (
        (lambda: tl.concepts(tissue, model, groupby="layer", groups="Be"), "2: Bee"),
        (lambda: tl.concepts(tissue, model, groupby="layr"), "layer"),
        (lambda: tl.saliency(tissue, model, method="salience"), "saliency"),
        (lambda: stcsm.pl.saliency(tissue, "Leftt"), "1: Left"),
    ):
        with pytest.raises(ValueError, match=f"did you mean '{name}'"):
            call()


def test_the_table_counts_in_integers_and_tells_the_verdict(tissue, model):
    tl.concepts(tissue, model, genes={"left": ["a0", "a1", "a2"], "right": ["b0", "b1"]})
    tl.saliency(tissue, model)
    tl.significance(tissue, model, n_random=299)
    table = tl.concept_table(tissue)
    assert [str(value) for value in table["n_given"]] == ["3", "2"]
    assert all(p == float(f"{p:.3g}") for p in table["p"])
    assert "meaning" not in table
    tl.sanity(tissue, model, "left", n_random=5, n_draws=1)
    table = tl.concept_table(tissue)
    assert table.loc["left", "sanity"] == tissue.uns["stcsm"]["sanity"]["summary"].loc["left", "line"]
    assert table.loc["left", "meaning"]
    assert table.loc["right", "meaning"] == ""
