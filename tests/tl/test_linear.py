"""The linear part of the concept map is principal component analysis."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
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


def test_axes_that_stand_little_above_the_noise_are_found(monkeypatch):
    """Singular values as on a bulb of 262 spots: one large, two middling, two a tenth above the noise."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(n, 5)))[0] for n in (4000, 250))
    noise = rng.normal(size=(4000, 250))
    top = np.linalg.norm(noise, 2)
    profiles = noise + (left * (np.array([6, 2, 1.5, 0.8, 0.7]) * top)) @ right.T
    monkeypatch.setattr("stcsm.tl._linear._inputs", lambda model, genes: profiles[genes])
    stand_in = SimpleNamespace(reader=SimpleNamespace(n_spots=250, gene_totals=np.ones(4000)))
    axes, _ = _axes(stand_in, 5, seed=0)
    exact = np.linalg.svd(profiles - profiles.mean(axis=0), full_matrices=False)[2][:5]
    assert np.linalg.svd(exact @ axes, compute_uv=False).min() > 0.999


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
