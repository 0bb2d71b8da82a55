"""The linear part of the concept map is principal component analysis."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA

import stcsm
from stcsm.tl._linear import _axes, _inputs, linear_maps
from stcsm.tl._store import read_concepts


def test_axes_are_those_of_principal_component_analysis(model):
    axes, centre = _axes(model, 1, seed=0)
    u = _inputs(model, model.trained_genes)
    reference = PCA(1, svd_solver="full").fit(u.astype(np.float64))
    np.testing.assert_allclose(centre, reference.mean_, atol=1e-5)
    angles = np.linalg.svd(axes.T @ reference.components_.T, compute_uv=False)
    assert angles.min() > 0.99


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
