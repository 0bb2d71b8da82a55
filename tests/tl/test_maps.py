"""Where maps are written, what serves them, and what goes with them."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

import stcsm.tl._maps
from stcsm import tl
from stcsm.attribution import TABLE, mean_attribution, method_class
from stcsm.models import GeneVAE

SETS = {"left": ["a0", "a1", "a2"], "right": ["b0", "b1", "b2"]}


@pytest.fixture
def named(tissue, model):
    tl.concepts(tissue, model, genes=SETS)
    return tissue


@pytest.fixture
def attributions(monkeypatch):
    """Methods of the attributions that were computed."""
    done: list[str] = []

    def counted(encoder, batches, concepts, method="saliency", **rest):
        done.append(method)
        return mean_attribution(encoder, batches, concepts, method, **rest)

    monkeypatch.setattr(stcsm.tl._maps, "mean_attribution", counted)
    return done


def short_training(adata, **settings) -> GeneVAE:
    model = GeneVAE(adata, n_latent=6, n_hidden=32, smoothing=0.0, **settings)
    model.train(max_epochs=2, progress=False)
    return model


def test_latents_are_attributed_once_for_every_step_that_asks_the_same(tissue, attributions):
    model = short_training(tissue)
    tl.concepts(tissue, model, genes=SETS)
    tl.saliency(tissue, model)
    tl.saliency(tissue, model, "left", key_added="mine")
    tl.significance(tissue, model, n_random=9)
    tl.concept_map(tissue, model, graph=False)
    tl.differential(tissue, "region", "A/left", model=model, n_random=9, spots_a_block=4)
    tl.sanity(tissue, model, n_draws=1)  # of fewer genes than it takes at most, so of the same
    assert attributions == ["saliency"]
    tl.saliency(tissue, model, method="integrated_gradients")
    tl.saliency(tissue, model, method="integrated_gradients", steps=7)
    tl.saliency(tissue, model, genes=["a0", "b0"])
    assert attributions == ["saliency", "integrated_gradients", "integrated_gradients", "saliency"]


@pytest.mark.parametrize("method", sorted(TABLE))
def test_every_method_maps_fewer_concepts_than_latents(named, model, method):
    """As those of the engine over the same genes, whether or not the latents' maps are made in their place."""
    genes = ["a0", "b0", "c0"]
    tl.saliency(named, model, method=method, genes=genes)
    vectors = np.stack([named.uns["stcsm"]["concepts"][key]["vectors"][0] for key in SETS])
    rows = named.var_names.get_indexer(genes)
    expected = mean_attribution(model.encoder, model.inputs(rows), vectors, method)
    np.testing.assert_allclose(named.obsm["concept_saliency"].T, expected, rtol=1e-4, atol=1e-6)


def test_maps_that_are_kept_are_those_of_the_weights_as_they_are(tissue):
    model = short_training(tissue)
    tl.concepts(tissue, model, genes=SETS)
    tl.saliency(tissue, model)
    before = tissue.obsm["concept_saliency"].copy()
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.mul_(1.5)
    tl.concepts(tissue, model, genes=SETS)
    tl.saliency(tissue, model)
    vectors = np.stack([tissue.uns["stcsm"]["concepts"][key]["vectors"][0] for key in SETS])
    expected = mean_attribution(model.encoder, model.inputs(model.trained_genes), vectors)
    np.testing.assert_allclose(tissue.obsm["concept_saliency"].T, expected, rtol=1e-4, atol=1e-6)
    assert not np.allclose(before, tissue.obsm["concept_saliency"])


def test_parameters_that_are_arrays_are_not_mistaken_for_one_another(named, model):
    maps = []
    for scale in (0.0, 1.0):
        noise = scale * torch.randn(2, len(model.trained_genes), 64, generator=torch.Generator().manual_seed(0))
        tl.saliency(named, model, method="smoothgrad", samples=2, noise=noise)
        maps.append(named.obsm["concept_saliency"]["left"].to_numpy())
    tl.saliency(named, model)
    np.testing.assert_allclose(maps[0], named.obsm["concept_saliency"]["left"], rtol=1e-4, atol=1e-7)
    assert not np.allclose(maps[1], maps[0], rtol=1e-3)


def test_a_new_rule_method_is_a_class_and_a_table_entry(named, model, monkeypatch):
    """It is served, tested and checked; what is not linear asks for the number of random concepts."""
    toy = type("Toy", (method_class("guided_backprop"),), {})
    monkeypatch.setitem(TABLE, "toy", toy)
    tl.saliency(named, model, method="guided_backprop")
    expected = named.obsm["concept_saliency"].copy()
    tl.saliency(named, model, method="toy")
    pd.testing.assert_frame_equal(named.obsm["concept_saliency"], expected)
    assert named.uns["stcsm"]["saliency"]["method"] == "toy"
    with pytest.raises(ValueError, match="Expected n_random for method 'toy'"):
        tl.significance(named, model)
    tl.significance(named, model, n_random=9)
    tl.sanity(named, model, method="toy", n_draws=1)
    assert tl.gene_saliency(named, model, "left", ["a0"], method="toy").shape == (1, 64)


def test_a_new_linear_method_serves_random_concepts_at_once(named, model, monkeypatch, attributions):
    monkeypatch.setitem(TABLE, "toy", type("Toy", (method_class("saliency"),), {}))
    tl.saliency(named, model, method="toy")
    tl.significance(named, model)
    assert named.uns["stcsm"]["significance"]["n_random"] == 1000
    assert attributions == ["toy"]


def test_steps_write_into_the_key_that_they_are_given(named, model, tmp_path):
    before = set(named.obsm)
    tl.saliency(named, model, key_added="mine", method="input_x_gradient")
    tl.concept_map(named, model, key_added="map", parts="expression", graph=False)
    tl.decoded(named, model, key_added="drawn")
    tl.mean_expression(named, key_added="shown")
    assert set(named.obsm) - before == {"mine", "map", "drawn", "shown"}
    assert named.uns["stcsm"]["saliency_mine"]["method"] == "input_x_gradient"
    assert list(named.uns["stcsm"]["concept_map_map"]["parts"]) == ["expression"]
    tl.saliency(named, model)
    assert named.uns["stcsm"]["saliency"]["method"] == "saliency"
    tl.significance(named, model, n_random=19, key="mine")
    assert {"mine_pval", "mine_qval"} <= set(named.obsm)
    assert "concept_saliency_pval" not in named.obsm
    assert named.uns["stcsm"]["significance_mine"]["method"] == "input_x_gradient"
    assert "p" in tl.concept_table(named, key="mine")
    assert "p" not in tl.concept_table(named)
    table = tl.differential(named, "region", "A/left", model=model, key="mine", n_random=19, spots_a_block=4)
    assert table["p_random"].notna().all()
    named.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    tl.significance(back, model, n_random=19, key="mine")
    pd.testing.assert_frame_equal(back.obsm["mine_pval"], named.obsm["mine_pval"])


@pytest.mark.parametrize(
    ("key", "message"),
    [("spatial", "something else"), ("concept_map", "another step"), ("a/b", "without '/'"), (" ", "without '/'")],
)
def test_keys_that_are_taken_are_refused(named, model, key, message):
    with pytest.raises(ValueError, match=message):
        tl.saliency(named, model, key_added=key)
    assert "concept_saliency" not in named.obsm


def test_what_goes_is_named(named, model, caplog):
    tl.saliency(named, model)
    tl.saliency(named, model, key_added="mine")
    tl.significance(named, model, n_random=9)
    tl.significance(named, model, n_random=9, key="mine")
    tl.sanity(named, model, n_draws=1)
    with caplog.at_level(logging.WARNING):
        tl.decoded(named, model, key_added="mine")
    assert "p and q of earlier maps are dropped (.obsm['mine'])" in caplog.text
    assert "maps of stcsm.tl.saliency in .obsm['mine'] are replaced" in caplog.text
    assert "saliency_mine" not in named.uns["stcsm"]
    caplog.clear()
    tl.concepts(named, model, genes={"left": ["a5"]})
    for lost in (".obsm['concept_saliency']", ".obsm['concept_saliency_pval']", ".obsm['mine']", "['sanity']"):
        assert lost in caplog.text
    assert list(named.obsm["mine"]) == ["right"]
    caplog.clear()
    tl.concepts(named, model, genes={"new": ["a6"]})
    assert not caplog.text
    tl.concepts(named, model, genes={"last": ["a6"]}, keep=False)
    assert "concepts are dropped: left, right, new (keep=False)" in caplog.text
    assert not {"mine", "concept_saliency", "concept_saliency_pval"} & set(named.obsm)
    assert not {"saliency", "significance", "decoded_mine"} & set(named.uns["stcsm"])


def test_the_stored_embedding_is_read_unless_the_counts_are_others(tissue, model, tmp_path, monkeypatch):
    tl.embed_genes(tissue, model)
    with monkeypatch.context() as closed:
        closed.setattr(GeneVAE, "get_latent_representation", None)
        tl.concepts(tissue, model, genes=SETS)
        tl.decoded(tissue, model)
        tl.saliency(tissue, model, genes="nearest")
        tl.rank_genes_concept(tissue, "left", model, n_random=9)
    model.save(tmp_path / "model")
    other = tissue.copy()
    other.X[:, 0] = 0
    other.X.eliminate_zeros()
    loaded = GeneVAE.load(tmp_path / "model", other)
    tl.concepts(other, loaded, genes={"left": ["a1"]})
    np.testing.assert_array_equal(other.varm["X_stcsm"], loaded.get_latent_representation())
    assert np.isnan(other.varm["X_stcsm"][0]).all()


def test_gene_sets_are_matched_before_the_training_and_said_once(tissue, caplog):
    tissue.obs.loc["spot0", "region"] = "lonely"
    with caplog.at_level(logging.WARNING):
        sets = tl.match_gene_sets(tissue, genes=SETS) + tl.match_gene_sets(tissue, groupby="region", n_markers=5)
    assert caplog.text.count("labels of a single spot are left out") == 1
    assert sets.names == ["left", "right", "A/left", "B"]
    assert len(sets) == 4
    assert sets.genes["right"] == SETS["right"]
    caplog.clear()
    model = short_training(tissue)
    tl.concepts(tissue, model, genes=sets)
    assert not [r for r in caplog.records if r.name.startswith("stcsm.tl")]
    direct = tissue.copy()
    del direct.uns["stcsm"]["concepts"]
    tl.concepts(direct, model, genes=SETS)
    tl.concepts(direct, model, groupby="region", n_markers=5)
    pd.testing.assert_frame_equal(direct.varm["concept_score"], tissue.varm["concept_score"])
    pd.testing.assert_frame_equal(tl.concept_table(direct), tl.concept_table(tissue))


def test_matched_gene_sets_are_refused_where_they_do_not_belong(tissue, model):
    sets = tl.match_gene_sets(tissue, model, genes=SETS)
    with pytest.raises(ValueError, match="twice"):
        sets + sets
    with pytest.raises(ValueError, match="nothing beside matched gene sets, found groupby="):
        tl.concepts(tissue, model, genes=sets, groupby="region")
    fewer = tissue[:, 1:].copy()
    with pytest.raises(ValueError, match="the same genes"):
        sets + tl.match_gene_sets(fewer, genes={"x": ["b0"]})
    tissue.var_names = [f"x{g}" for g in tissue.var_names]
    with pytest.raises(ValueError, match="match them again"):
        tl.concepts(tissue, genes=sets)
