"""The parts of the concept map that genes show by themselves."""

from __future__ import annotations

import numpy as np
import pytest

import stcsm
from stcsm.tl import _concept_map, _expression
from stcsm.tl._concepts import score_genes
from stcsm.tl._expression import N_NEAREST, member_expression, nearest_expression
from stcsm.tl._store import read_concepts


def standardised(tissue, model):
    """log1p of counts over relative depth, each gene to mean 0 and standard deviation 1; (G, S)."""
    counts = tissue.X.toarray().T.astype(np.float64)
    depth = counts.sum(axis=0) / counts.sum() * counts.shape[1]
    profiles = np.log1p(counts / depth)
    profiles -= profiles.mean(axis=1, keepdims=True)
    spread = profiles.std(axis=1, keepdims=True)
    return profiles / np.where(spread > 0, spread, 1)


def nearest(model, concept):
    """The trained genes of highest score."""
    scores = score_genes([model.get_latent_representation()], [concept])[:, 0]
    order = [g for g in np.argsort(-scores, kind="stable") if g in set(model.trained_genes)]
    return order[:N_NEAREST]


def test_members_alone_are_their_mean_expression(tissue, model):
    stcsm.tl.concepts(tissue, model, genes={"x": ["a0", "b1", "c2"]})
    expected = standardised(tissue, model)[tissue.var_names.get_indexer(["a0", "b1", "c2"])].mean(axis=0)
    np.testing.assert_allclose(member_expression(model, read_concepts(tissue))[0], expected, atol=1e-5)


@pytest.mark.parametrize("members", [["a0"], ["a0", "a1", "b3"], [f"a{i}" for i in range(20)]])
def test_each_nearest_gene_counts_as_one_member_and_once(tissue, model, members):
    stcsm.tl.concepts(tissue, model, genes={"x": members})
    (concept,) = read_concepts(tissue)
    joined = sorted({*tissue.var_names.get_indexer(members), *nearest(model, concept)})
    assert len(joined) > len(members) or len(members) > N_NEAREST
    expected = standardised(tissue, model)[joined].mean(axis=0)
    np.testing.assert_allclose(nearest_expression(model, [concept])[0], expected, atol=1e-5)


def test_members_keep_their_weights_beside_the_nearest(tissue, model):
    """Weights 3 and -1: shares .75 and -.25, 1.6 members in effect; a gene beside them counts as one."""
    stcsm.tl.concepts(tissue, model, genes={"x": {"a0": 3.0, "b0": -1.0}})
    (concept,) = read_concepts(tissue)
    at = tissue.var_names.get_indexer(["a0", "b0"])
    weights = np.zeros(tissue.n_vars)
    weights[nearest(model, concept)] = 1
    weights[at] = np.array([0.75, -0.25]) * 1.6
    expected = weights @ standardised(tissue, model) / np.abs(weights).sum()
    np.testing.assert_allclose(nearest_expression(model, [concept])[0], expected, atol=1e-5)


def test_a_concept_without_members_has_its_nearest_genes(tissue, model):
    stcsm.tl.concepts(tissue, model, layers="region", estimator="profile")
    concepts = read_concepts(tissue)
    assert all(len(c.members) == 0 for c in concepts)
    assert not member_expression(model, concepts).any()
    found = nearest_expression(model, concepts)
    for concept, row in zip(concepts, found, strict=True):
        expected = standardised(tissue, model)[nearest(model, concept)].mean(axis=0)
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_the_answer_does_not_depend_on_blocks(tissue, model, monkeypatch):
    stcsm.tl.concepts(tissue, model, genes={"x": ["a0", "a1"], "y": ["b0"], "z": ["c0", "b2"]})
    concepts = read_concepts(tissue)
    whole = nearest_expression(model, concepts)
    monkeypatch.setattr(_expression, "BLOCK", 1)
    monkeypatch.setattr("stcsm.tl._members.BLOCK", 7)
    np.testing.assert_allclose(nearest_expression(model, concepts), whole, atol=1e-12)
    np.testing.assert_allclose(nearest_expression(model, concepts[1:2]), whole[1:2], atol=1e-12)


def test_what_genes_show_counts_twice(tissue, model, monkeypatch):
    """Parts that are orthogonal patterns: the map weighs them 1, 1, 2, 2."""
    stcsm.tl.concepts(tissue, model, genes={"x": ["a0"]})
    patterns = np.linalg.qr(np.c_[np.ones(64), np.random.default_rng(0).normal(size=(64, 4))])[0][:, 1:] * 8
    for i, part in enumerate(("saliency", "linear", "expression", "nearest")):
        monkeypatch.setitem(_concept_map.PARTS, part, lambda *_, i=i: patterns[:, [i]].T.copy())
    stcsm.tl.concept_map(tissue, model, graph=False)
    expected = patterns @ np.array([1, 1, 2, 2]) / np.sqrt(10)
    np.testing.assert_allclose(tissue.obsm["concept_map"]["x"], expected, atol=1e-10)
    record = tissue.uns["stcsm"]["concept_map"]
    assert list(record["parts"]) == ["saliency", "linear", "expression", "nearest"]
    assert list(record["weights"]) == [1, 1, 2, 2]
