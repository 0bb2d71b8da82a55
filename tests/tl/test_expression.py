"""The parts of the concept map that genes show by themselves."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
from scipy import sparse

import stcsm
from stcsm.models import GeneVAE
from stcsm.space import spatial_filter
from stcsm.tl import _concept_map, _expression
from stcsm.tl._expression import N_NEAREST, member_expression, nearest_expression
from stcsm.tl._maps import highest_scoring
from stcsm.tl._store import read_concepts
from tests.tl.conftest import make_tissue


def standardised(tissue, model):
    """log1p of counts over relative depth, each gene to mean 0 and standard deviation 1; (G, S)."""
    counts = tissue.X.toarray().T.astype(np.float64)
    depth = counts.sum(axis=0) / counts.sum() * counts.shape[1]
    profiles = np.log1p(counts / depth)
    profiles -= profiles.mean(axis=1, keepdims=True)
    spread = profiles.std(axis=1, keepdims=True)
    return profiles / np.where(spread > 0, spread, 1)


def nearest(tissue, model, concept):
    """The trained genes of highest score, as the stored scores have them."""
    scores = tissue.varm["concept_score"][concept.key].iloc[model.trained_genes]
    return tissue.var_names.get_indexer(scores.nlargest(N_NEAREST).index)


def test_members_alone_are_their_mean_expression(tissue, model):
    stcsm.tl.concepts(tissue, model, genes={"x": ["a0", "b1", "c2"]})
    expected = standardised(tissue, model)[tissue.var_names.get_indexer(["a0", "b1", "c2"])].mean(axis=0)
    np.testing.assert_allclose(member_expression(model, read_concepts(tissue))[0], expected, atol=1e-5)


@pytest.mark.parametrize("members", [["a0"], ["a0", "a1", "b3"], [f"a{i}" for i in range(20)]])
def test_each_nearest_gene_counts_as_one_member_and_once(tissue, model, members):
    stcsm.tl.concepts(tissue, model, genes={"x": members})
    (concept,) = read_concepts(tissue)
    joined = sorted({*tissue.var_names.get_indexer(members), *nearest(tissue, model, concept)})
    assert len(joined) > len(members)
    expected = standardised(tissue, model)[joined].mean(axis=0)
    np.testing.assert_allclose(nearest_expression(model, [concept])[0], expected, atol=1e-5)


def test_members_keep_their_weights_beside_the_nearest(tissue, model):
    """Weights 3 and -1: shares .75 and -.25, 1.6 members in effect; a gene beside them counts as one."""
    stcsm.tl.concepts(tissue, model, genes={"x": {"a0": 3.0, "b0": -1.0}})
    (concept,) = read_concepts(tissue)
    at = tissue.var_names.get_indexer(["a0", "b0"])
    weights = np.zeros(tissue.n_vars)
    weights[nearest(tissue, model, concept)] = 1
    weights[at] = np.array([0.75, -0.25]) * 1.6
    expected = weights @ standardised(tissue, model) / np.abs(weights).sum()
    np.testing.assert_allclose(nearest_expression(model, [concept])[0], expected, atol=1e-5)


def test_a_concept_without_members_has_its_nearest_genes(tissue, model):
    stcsm.tl.concepts(tissue, model, groupby="region", estimator="profile")
    concepts = read_concepts(tissue)
    assert all(len(c.members) == 0 for c in concepts)
    assert not member_expression(model, concepts).any()
    found = nearest_expression(model, concepts)
    for concept, row in zip(concepts, found, strict=True):
        expected = standardised(tissue, model)[nearest(tissue, model, concept)].mean(axis=0)
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_the_answer_does_not_depend_on_blocks(tissue, model, monkeypatch):
    stcsm.tl.concepts(tissue, model, genes={"x": ["a0", "a1"], "y": ["b0"], "z": ["c0", "b2"]})
    concepts = read_concepts(tissue)
    whole = nearest_expression(model, concepts)
    monkeypatch.setattr(_expression, "CONCEPTS_AT_ONCE", 1)
    monkeypatch.setattr("stcsm.tl._members.VALUES", 7 * 64)
    np.testing.assert_allclose(nearest_expression(model, concepts), whole, atol=1e-12)
    np.testing.assert_allclose(nearest_expression(model, concepts[1:2]), whole[1:2], atol=1e-12)


def test_an_ensembles_nearest_genes_are_those_of_the_stored_scores():
    """Trained genes alone, though the scores are of one scale over all: half of the genes are not trained on."""
    adata = make_tissue(n_genes=90)
    GeneVAE.setup_anndata(adata)
    totals = np.asarray(adata.X.sum(axis=0)).ravel()
    model = GeneVAE(adata, n_latent=6, n_hidden=32, n_seeds=2, smoothing=0.0, min_counts=int(np.median(totals)))
    model.train(max_epochs=10, progress=False)
    assert len(model.trained_genes) < 50
    stcsm.tl.concepts(adata, model, genes={"x": ["a0"], "y": ["b0", "b1"]})
    for concept in read_concepts(adata):
        joined = sorted({*adata.var_names.get_indexer(concept.members), *nearest(adata, model, concept)})
        assert set(adata.varm["concept_score"][concept.key].nlargest(N_NEAREST).index) - set(adata.var_names[joined])
        expected = standardised(adata, model)[joined].mean(axis=0)
        np.testing.assert_allclose(nearest_expression(model, [concept])[0], expected, atol=1e-5)


def test_sections_are_standardised_each_within_its_own():
    """A gene that is high in one section is weighed in the other as if that one were alone."""
    first, second = make_tissue(0), make_tissue(1)
    second.X = sparse.csr_matrix(second.X.toarray() * np.where(second.var_names == "b1", 30, 1))
    both = anndata.concat({"one": first, "two": second}, label="section", index_unique="-")
    GeneVAE.setup_anndata(both, batch_key="section")
    model = GeneVAE(both, n_latent=4, n_hidden=8, smoothing=0.0)
    model.train(max_epochs=1, progress=False)
    stcsm.tl.concepts(both, model, genes={"x": ["a0", "b1"]})
    found = member_expression(model, read_concepts(both))[0]
    for tissue, own in ((first, slice(0, 64)), (second, slice(64, 128))):
        expected = standardised(tissue, model)[tissue.var_names.get_indexer(["a0", "b1"])].mean(axis=0)
        np.testing.assert_allclose(found[own], expected, atol=1e-5)


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
    np.testing.assert_allclose(member_expression(loaded, read_concepts(other))[0][seen], expected, atol=1e-5)


def test_genes_that_have_lost_their_counts_are_not_the_nearest(tissue, model, tmp_path):
    model.save(tmp_path / "model")
    counts = tissue.X.toarray()
    counts[:, 30:42] = 0
    other = make_tissue()
    other.X = sparse.csr_matrix(counts)
    loaded = GeneVAE.load(tmp_path / "model", other)
    stcsm.tl.concepts(other, loaded, genes={"x": ["a0"]})
    scores = other.varm["concept_score"]["x"]
    assert scores.iloc[30:42].isna().all()
    (found,) = highest_scoring(loaded, scores.to_numpy()[:, None], N_NEAREST)
    assert sorted(other.var_names[found]) == sorted(scores.iloc[loaded.trained_genes].nlargest(N_NEAREST).index)
    (few,) = highest_scoring(loaded, scores.to_numpy()[:, None], 1000)
    assert len(few) == len(loaded.trained_genes) - 12


def test_what_genes_show_is_smoothed_over_space(tissue, model, monkeypatch):
    stcsm.tl.concepts(tissue, model, genes={"x": ["a0"]})
    stcsm.pp.spot_graph(tissue, width=1.0)
    smoother = spatial_filter(tissue.obsm["spatial"], 1.0)
    monkeypatch.setattr(_concept_map, "diffuse", lambda graph, maps, steps: maps)
    concepts = read_concepts(tissue)
    for part, smooth in (("expression", True), ("nearest", True), ("saliency", False)):
        view = _concept_map.PARTS[part](model, concepts)[0]
        expected = smoother @ view if smooth else view
        stcsm.tl.concept_map(tissue, model, parts=part)
        found = tissue.obsm["concept_map"]["x"]
        np.testing.assert_allclose(found, (expected - expected.mean()) / expected.std(), atol=1e-6)


@pytest.mark.parametrize(
    ("parts", "weights"),
    [
        (None, [1, 1, 1.5, 1.5]),
        (("nearest", "saliency"), [1.5, 1]),
        ("linear", [1]),
        ({"expression": 0.5, "linear": 2}, [0.5, 2]),
    ],
)
def test_parts_have_their_weights(tissue, model, monkeypatch, parts, weights):
    """Parts that are orthogonal patterns of one size."""
    stcsm.tl.concepts(tissue, model, genes={"x": ["a0"]})
    patterns = np.linalg.qr(np.c_[np.ones(64), np.random.default_rng(0).normal(size=(64, 4))])[0][:, 1:] * 8
    for i, part in enumerate(("saliency", "linear", "expression", "nearest")):
        monkeypatch.setitem(_concept_map.PARTS, part, lambda *_, i=i: patterns[:, [i]].T.copy())
    stcsm.tl.concept_map(tissue, model, graph=False, **({} if parts is None else {"parts": parts}))
    record = tissue.uns["stcsm"]["concept_map"]
    names = ["saliency", "linear", "expression", "nearest"]
    asked = names if parts is None else [parts] if isinstance(parts, str) else list(parts)
    assert list(record["parts"]) == asked
    assert list(record["weights"]) == weights
    expected = patterns[:, [names.index(p) for p in asked]] @ np.array(weights)
    np.testing.assert_allclose(tissue.obsm["concept_map"]["x"], expected / np.linalg.norm(weights), atol=1e-10)


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
