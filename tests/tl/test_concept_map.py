"""The parts of the concept map, and how they are put together."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
from scipy import sparse

import stcsm
from stcsm.models import GeneVAE
from stcsm.space import spatial_filter
from tests.tl.conftest import make_tissue

N_NEAREST = 10


def standardised(tissue, model):
    """log1p of counts scaled to a tenth of the median depth, each gene to mean 0 and standard deviation 1; (G, S)."""
    counts = tissue.X.toarray().T.astype(np.float64)
    depth = counts.sum(axis=0)
    profiles = np.log1p(counts * np.median(depth) / 10 / depth)
    profiles -= profiles.mean(axis=1, keepdims=True)
    spread = profiles.std(axis=1, keepdims=True)
    return profiles / np.where(spread > 0, spread, 1)


def nearest(tissue, model, key):
    """The trained genes of highest score, as the stored scores have them."""
    scores = tissue.varm["concept_score"][key].iloc[model.trained_genes]
    return tissue.var_names.get_indexer(scores.nlargest(N_NEAREST).index)


def part(tissue, model, name, key="x"):
    """The map of a part alone, before it is carried over the spot graph."""
    stcsm.tl.concept_map(tissue, model, parts=name, graph=False)
    return tissue.obsm["concept_map"][key].to_numpy()


def unit(values):
    """Mean 0 and standard deviation 1 over the spots."""
    return (values - values.mean()) / values.std()


def test_genes_of_the_concept_alone_are_their_mean_expression(tissue, model):
    stcsm.tl.concepts(tissue, model, genes={"x": ["a0", "b1", "c2"]})
    expected = standardised(tissue, model)[tissue.var_names.get_indexer(["a0", "b1", "c2"])].mean(axis=0)
    np.testing.assert_allclose(part(tissue, model, "expression"), unit(expected), atol=1e-5)


@pytest.mark.parametrize("genes", [["a0"], ["a0", "a1", "b3"], [f"a{i}" for i in range(20)]])
def test_each_nearest_gene_counts_as_one_of_the_set_and_once(tissue, model, genes):
    stcsm.tl.concepts(tissue, model, genes={"x": genes})
    joined = sorted({*tissue.var_names.get_indexer(genes), *nearest(tissue, model, "x")})
    assert len(joined) > len(genes)
    expected = standardised(tissue, model)[joined].mean(axis=0)
    np.testing.assert_allclose(part(tissue, model, "nearest"), unit(expected), atol=1e-5)


def test_genes_of_the_set_keep_their_weights_beside_the_nearest(tissue, model):
    """Weights 3 and -1: shares .75 and -.25, 1.6 genes in effect; a gene beside them counts as one."""
    stcsm.tl.concepts(tissue, model, genes={"x": {"a0": 3.0, "b0": -1.0}})
    at = tissue.var_names.get_indexer(["a0", "b0"])
    weights = np.zeros(tissue.n_vars)
    weights[nearest(tissue, model, "x")] = 1
    weights[at] = np.array([0.75, -0.25]) * 1.6
    expected = weights @ standardised(tissue, model)
    np.testing.assert_allclose(part(tissue, model, "nearest"), unit(expected), atol=1e-5)


def test_a_concept_without_genes_has_its_nearest_genes(tissue, model):
    stcsm.tl.concepts(tissue, model, groupby="region", estimator="profile")
    keys = list(tissue.varm["concept_score"])
    assert all(len(tissue.uns["stcsm"]["concepts"][key]["genes"]) == 0 for key in keys)
    for key in keys:
        assert not part(tissue, model, "expression", key).any()
        expected = standardised(tissue, model)[nearest(tissue, model, key)].mean(axis=0)
        np.testing.assert_allclose(part(tissue, model, "nearest", key), unit(expected), atol=1e-5)


def test_the_answer_does_not_depend_on_blocks(tissue, model, monkeypatch):
    stcsm.tl.concepts(tissue, model, genes={"x": ["a0", "a1"], "y": ["b0"], "z": ["c0", "b2"]})
    stcsm.tl.concept_map(tissue, model, parts="nearest", graph=False)
    whole = tissue.obsm["concept_map"].copy()
    monkeypatch.setattr("stcsm.tl._maps.CONCEPTS_AT_ONCE", 1)
    monkeypatch.setattr("stcsm.tl._maps.VALUES", 7 * 64)
    stcsm.tl.concept_map(tissue, model, parts="nearest", graph=False)
    np.testing.assert_allclose(tissue.obsm["concept_map"], whole, atol=1e-12)
    stcsm.tl.concept_map(tissue, model, "y", parts="nearest", graph=False)
    np.testing.assert_allclose(tissue.obsm["concept_map"]["y"], whole["y"], atol=1e-12)


def test_an_ensembles_nearest_genes_are_those_of_the_stored_scores():
    """Trained genes alone, though the scores are of one scale over all: half of the genes are not trained on."""
    adata = make_tissue(n_genes=90)
    GeneVAE.setup_anndata(adata)
    totals = np.asarray(adata.X.sum(axis=0)).ravel()
    model = GeneVAE(adata, n_latent=6, n_hidden=32, n_seeds=2, smoothing=0.0, min_counts=int(np.median(totals)))
    model.train(max_epochs=10, progress=False)
    assert len(model.trained_genes) < 50
    sets = {"x": ["a0"], "y": ["b0", "b1"]}
    stcsm.tl.concepts(adata, model, genes=sets)
    for key, genes in sets.items():
        joined = sorted({*adata.var_names.get_indexer(genes), *nearest(adata, model, key)})
        assert set(adata.varm["concept_score"][key].nlargest(N_NEAREST).index) - set(adata.var_names[joined])
        expected = standardised(adata, model)[joined].mean(axis=0)
        np.testing.assert_allclose(part(adata, model, "nearest", key), unit(expected), atol=1e-5)


def test_sections_are_standardised_each_within_its_own():
    """A gene that is high in one section is weighed in the other as if that one were alone."""
    first, second = make_tissue(0), make_tissue(1)
    second.X = sparse.csr_matrix(second.X.toarray() * np.where(second.var_names == "b1", 30, 1))
    both = anndata.concat({"one": first, "two": second}, label="section", index_unique="-")
    GeneVAE.setup_anndata(both, batch_key="section")
    model = GeneVAE(both, n_latent=4, n_hidden=8, smoothing=0.0)
    model.train(max_epochs=1, progress=False)
    stcsm.tl.concepts(both, model, genes={"x": ["a0", "b1"]})
    found = part(both, model, "expression")
    for tissue, own in ((first, slice(0, 64)), (second, slice(64, 128))):
        expected = standardised(tissue, model)[tissue.var_names.get_indexer(["a0", "b1"])].mean(axis=0)
        np.testing.assert_allclose(found[own], unit(expected), atol=1e-5)


def test_a_spot_that_has_lost_its_counts_is_nan_and_the_others_are_not(tissue, model, tmp_path):
    model.save(tmp_path / "model")
    counts = tissue.X.toarray()
    counts[5] = 0
    other = make_tissue()
    other.X = sparse.csr_matrix(counts)
    loaded = GeneVAE.load(tmp_path / "model", other)
    stcsm.tl.concepts(other, loaded, genes={"x": ["a0"]})
    stcsm.tl.saliency(other, loaded)
    stcsm.tl.decoded(other, loaded)
    stcsm.tl.concept_map(other, loaded)
    for key in ("concept_map", "concept_saliency", "concept_decoded"):
        assert np.flatnonzero(other.obsm[key]["x"].isna()).tolist() == [5]
    seen = np.arange(64) != 5
    for graph in (True, False):
        stcsm.tl.concept_map(other, loaded, graph=graph)
        known = other.obsm["concept_map"]["x"].to_numpy()[seen]
        np.testing.assert_allclose([known.mean(), known.std()], [0, 1], atol=1e-6)
    expected = standardised(other[seen], model)[other.var_names.get_loc("a0")]
    np.testing.assert_allclose(part(other, loaded, "expression")[seen], unit(expected), atol=1e-5)


def test_genes_that_have_lost_their_counts_are_not_the_nearest(tissue, model, tmp_path):
    model.save(tmp_path / "model")
    counts = tissue.X.toarray()
    counts[:, 30:42] = 0
    other = make_tissue()
    other.X = sparse.csr_matrix(counts)
    loaded = GeneVAE.load(tmp_path / "model", other)
    stcsm.tl.concepts(other, loaded, genes={"x": ["a0"]})
    assert other.varm["concept_score"]["x"].iloc[30:42].isna().all()
    joined = sorted({other.var_names.get_loc("a0"), *nearest(other, loaded, "x")})
    expected = standardised(other, loaded)[joined].mean(axis=0)
    np.testing.assert_allclose(part(other, loaded, "nearest"), unit(expected), atol=1e-5)
    stcsm.tl.saliency(other, loaded, genes="nearest", n_genes=1000)
    assert list(other.uns["stcsm"]["saliency"]["n_genes"]) == [len(loaded.trained_genes) - 12]


def test_expression_is_smoothed_over_space(tissue, model):
    """Over a graph that joins every spot to itself alone."""
    stcsm.tl.concepts(tissue, model, genes={"x": ["a0"]})
    alone = {name: part(tissue, model, name) for name in ("expression", "nearest", "saliency")}
    stcsm.pp.spot_graph(tissue, width=1.0)
    tissue.obsp["stcsm_spot_graph"] = sparse.eye(64, format="csr")
    smoother = spatial_filter(tissue.obsm["spatial"], 1.0)
    for name, view in alone.items():
        expected = view if name == "saliency" else smoother @ view
        stcsm.tl.concept_map(tissue, model, parts=name)
        np.testing.assert_allclose(tissue.obsm["concept_map"]["x"], unit(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("parts", "weights"),
    [
        (None, [1, 1, 3, 3]),
        (("nearest", "saliency"), [3, 1]),
        ("linear", [1]),
        ({"expression": 0.5, "linear": 2}, [0.5, 2]),
    ],
)
def test_parts_have_their_weights(tissue, model, parts, weights):
    stcsm.tl.concepts(tissue, model, genes={"x": ["a0"]})
    asked = ["saliency", "decoded", "expression", "nearest"]
    if parts is not None:
        asked = [parts] if isinstance(parts, str) else list(parts)
    alone = [part(tissue, model, name) for name in asked]
    stcsm.tl.concept_map(tissue, model, graph=False, **({} if parts is None else {"parts": parts}))
    record = tissue.uns["stcsm"]["concept_map"]
    assert list(record["parts"]) == asked
    assert list(record["weights"]) == weights
    np.testing.assert_allclose(tissue.obsm["concept_map"]["x"], unit(np.array(weights) @ alone), atol=1e-10)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"linear": 0}, "above zero, found 0 for 'linear'"),
        ({"linear": float("nan")}, "above zero, found nan"),
        ({"lines": 1}, "found 'lines'"),
        ({}, "found 'none'"),
    ],
)
def test_weights_that_are_none_are_refused(tissue, model, parts, message):
    stcsm.tl.concepts(tissue, model, genes={"x": ["a0"]})
    with pytest.raises(ValueError, match=message):
        stcsm.tl.concept_map(tissue, model, parts=parts)
    assert "concept_map" not in tissue.obsm


def test_the_linear_part_is_the_projection_of_the_genes_of_a_concept(tissue, model):
    """A projection onto fewer axes correlates with what is projected."""
    stcsm.tl.concepts(tissue, model, genes={"x": ["a0", "a1"], "y": ["b0"]})
    counts = tissue.X.toarray().T.astype(np.float64)
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    u = np.log1p(counts / (expected + 0.5))
    direct = (u[tissue.var_names.get_indexer(["a0", "a1"])] - u[model.trained_genes].mean(axis=0)).mean(axis=0)
    assert np.corrcoef(direct, part(tissue, model, "linear"))[0, 1] > 0.5


def scales(tissue, key="concept_map"):
    """Scale and smoothing of each concept's map."""
    record = tissue.uns["stcsm"][key]
    return list(record["scales"]), list(record["smoothing"])


@pytest.mark.parametrize(("labels", "scale"), [("halves", "region"), ("stripes", "spot")])
def test_labels_decide_the_scale_of_their_concepts(tissue, model, labels, scale):
    """Halves of the tissue are regions; stripes one spot wide are not. The map of a gene is the same beside either."""
    x = tissue.obsm["spatial"][:, 0]
    tissue.obs["label"] = np.where(x < 4, "a", "b") if labels == "halves" else np.where(x % 2, "a", "b")
    stcsm.tl.concepts(tissue, model, genes={"x": ["a0"]})
    stcsm.tl.concept_map(tissue, model)
    alone = tissue.obsm["concept_map"]["x"].copy()
    own = scales(tissue)[0][0]
    fresh = tissue.copy()
    del fresh.obsp["stcsm_spot_graph"], fresh.uns["stcsm"]["spot_graph"]
    stcsm.tl.concepts(fresh, model, groupby="label", estimator="profile")
    stcsm.tl.concept_map(fresh, model, ["a", "b"])
    assert scales(fresh)[0] == [scale, scale]
    assert "neighbours share a label" in fresh.uns["stcsm"]["concept_map"]["reason"][0]
    stcsm.tl.concept_map(fresh, model)
    assert scales(fresh)[0] == [own, scale, scale]
    np.testing.assert_allclose(fresh.obsm["concept_map"]["x"], alone, atol=1e-10)


def test_both_scales_stand_side_by_side(tissue, model):
    stcsm.tl.concepts(tissue, model, genes={"x": ["a0"]})
    stcsm.tl.concept_map(tissue, model)
    stored = tissue.obsp["stcsm_spot_graph"].copy()
    for scale in ("region", "spot"):
        stcsm.tl.concept_map(tissue, model, scale=scale, key_added=scale)
        assert scales(tissue, f"concept_map_{scale}")[0] == [scale]
        other = tissue.copy()
        stcsm.pp.spot_graph(other, scale)
        stcsm.tl.concept_map(other, model)
        np.testing.assert_allclose(tissue.obsm[scale]["x"], other.obsm["concept_map"]["x"], atol=1e-10)
    assert (tissue.obsp["stcsm_spot_graph"] != stored).nnz == 0
    with pytest.raises(ValueError, match="scale to be one of"):
        stcsm.tl.concept_map(tissue, model, scale="cell")


def test_a_graph_that_the_user_chose_serves_labels_too(tissue, model):
    stcsm.pp.spot_graph(tissue, "spot")
    stcsm.tl.concepts(tissue, model, groupby="region", estimator="profile")
    stcsm.tl.concept_map(tissue, model)
    assert scales(tissue)[0] == ["spot", "spot"]


def test_maps_of_wide_regions_are_smoothed_last_and_others_are_not(tissue, model, monkeypatch):
    stcsm.tl.concepts(tissue, model, genes={"x": ["a0", "a1", "a2"]})
    stcsm.pp.spot_graph(tissue, "region")
    reach = tissue.uns["stcsm"]["spot_graph"]["best_width"]
    found = {}
    for wide in (False, True):
        monkeypatch.setattr("stcsm.tl._concept_map.regions_are_wide", lambda *_, wide=wide: wide)
        stcsm.tl.concept_map(tissue, model)
        found[wide], widths = tissue.obsm["concept_map"]["x"].to_numpy(), scales(tissue)[1]
        assert widths == ([reach] if wide else [0])
    smoothed = spatial_filter(tissue.obsm["spatial"], reach) @ found[False]
    np.testing.assert_allclose(found[True], unit(smoothed), atol=1e-10)
    stcsm.tl.concept_map(tissue, model, scale="spot")
    assert scales(tissue)[1] == [0]
