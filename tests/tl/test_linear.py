"""The linear part of the concept map is principal component analysis."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.decomposition import PCA

import stcsm
from stcsm.tl._linear import _axes, _inputs, linear_maps
from stcsm.tl._store import read_concepts


def test_axes_are_those_of_principal_component_analysis(model):
    axes, centre = _axes(model, 1, seed=0)
    u = _inputs(model, np.flatnonzero(model.reader.gene_totals > 0))
    reference = PCA(1, svd_solver="full").fit(u.astype(np.float64))
    np.testing.assert_allclose(centre, reference.mean_, atol=1e-5)
    angles = np.linalg.svd(axes.T @ reference.components_.T, compute_uv=False)
    assert angles.min() > 0.9999


def axes_of(profiles, n, monkeypatch):
    """Axes of given profiles (genes, spots), and the exact ones."""
    n_genes, n_spots = profiles.shape
    monkeypatch.setattr("stcsm.tl._linear._inputs", lambda model, genes: profiles[genes])
    stand_in = SimpleNamespace(reader=SimpleNamespace(n_spots=n_spots, gene_totals=np.ones(n_genes)))
    axes, _ = _axes(stand_in, n, seed=0)
    exact = np.linalg.svd(profiles - profiles.mean(axis=0), full_matrices=False)[2][: axes.shape[1]]
    return axes, exact


def test_axes_that_stand_little_above_the_noise_are_found(monkeypatch):
    """Singular values as on a bulb of 262 spots: one large, two middling, two a tenth above the noise."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(n, 5)))[0] for n in (4000, 250))
    noise = rng.normal(size=(4000, 250))
    profiles = noise + (left * (np.array([6, 2, 1.5, 0.8, 0.7]) * np.linalg.norm(noise, 2))) @ right.T
    axes, exact = axes_of(profiles, 5, monkeypatch)
    assert np.linalg.svd(exact @ axes, compute_uv=False).min() > 0.999


@pytest.mark.parametrize(
    ("n_genes", "n_spots", "n"), [(2, 300, 1), (12, 300, 5), (30, 300, 5), (60, 300, 10), (300, 3, 2), (40, 20, 5)]
)
def test_axes_of_few_genes_or_few_spots_are_found(n_genes, n_spots, n, monkeypatch):
    profiles = np.random.default_rng(1).normal(size=(n_genes, n_spots))
    axes, exact = axes_of(profiles, n, monkeypatch)
    np.testing.assert_allclose(axes.T @ axes, np.eye(n), atol=1e-8)
    assert np.linalg.svd(exact @ axes, compute_uv=False).min() > 0.999


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_profiles_without_enough_axes_give_finite_ones(rank, monkeypatch):
    rng = np.random.default_rng(2)
    profiles = rng.normal(size=(40, rank)) @ rng.normal(size=(rank, 50)) + 1.0
    axes, exact = axes_of(profiles, 5, monkeypatch)
    np.testing.assert_allclose(axes.T @ axes, np.eye(5), atol=1e-8)
    if rank:
        assert np.linalg.svd(exact[:rank] @ axes, compute_uv=False).min() > 0.999


def test_map_is_the_members_projection(tissue, model):
    stcsm.tl.concepts(tissue, model, genes={"a": ["a0", "a1"], "b": ["b0"]})
    concepts = read_concepts(tissue)
    maps = linear_maps(model, concepts)
    assert maps.shape == (len(concepts), len(model.spots))
    first = concepts[0]
    genes = tissue.var_names.get_indexer(list(first.members))
    u = _inputs(model, genes)
    # A projection onto fewer axes correlates with what is projected.
    direct = (u - _inputs(model, model.trained_genes).mean(axis=0)).mean(axis=0)
    assert np.corrcoef(direct, maps[0])[0, 1] > 0.5
