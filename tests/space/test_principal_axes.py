"""Principal axes of samples, in memory or in a file, against the exact ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.decomposition import PCA

from stcsm.space import gather, principal_axes


def axes_of(profiles, n):
    """Axes of samples (n, F), and the exact ones."""
    axes, centre = principal_axes(csr_array(profiles), n)
    np.testing.assert_allclose(centre, profiles.mean(axis=0), atol=1e-10)
    exact = np.linalg.svd(profiles - profiles.mean(axis=0), full_matrices=False)[2][: axes.shape[1]]
    return axes, exact


def test_axes_are_those_of_principal_component_analysis():
    rng = np.random.default_rng(3)
    u = rng.normal(size=(90, 64)) + 5 * np.outer(rng.normal(size=90), rng.normal(size=64))
    axes, _ = axes_of(u, 1)
    reference = PCA(1, svd_solver="full").fit(u)
    angles = np.linalg.svd(axes.T @ reference.components_.T, compute_uv=False)
    assert angles.min() > 0.9999


@pytest.mark.parametrize("shape", [(90, 64), (64, 90)])
def test_axes_are_the_same_from_a_scratch_file(shape):
    u = np.random.default_rng(4).normal(size=shape)
    blocks = ((start, 0, csr_array(u[start : start + 17])) for start in range(0, len(u), 17))
    for found, expected in zip(
        principal_axes(gather(blocks, shape, limit=0), 3),
        principal_axes(csr_array(u.astype(np.float32)), 3),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_samples_are_needed():
    with pytest.raises(ValueError, match="found none"):
        principal_axes(csr_array((0, 4)), 2)


def test_axes_that_stand_little_above_the_noise_are_found():
    """Singular values as on a bulb of 262 spots: one large, two middling, two a tenth above the noise."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(n, 5)))[0] for n in (4000, 250))
    noise = rng.normal(size=(4000, 250))
    profiles = noise + (left * (np.array([6, 2, 1.5, 0.8, 0.7]) * np.linalg.norm(noise, 2))) @ right.T
    axes, exact = axes_of(profiles, 5)
    assert np.linalg.svd(exact @ axes, compute_uv=False).min() > 0.999


@pytest.mark.parametrize(
    ("n_genes", "n_spots", "n"), [(2, 300, 1), (12, 300, 5), (30, 300, 5), (60, 300, 10), (300, 3, 2), (40, 20, 5)]
)
def test_axes_of_few_genes_or_few_spots_are_found(n_genes, n_spots, n):
    profiles = np.random.default_rng(1).normal(size=(n_genes, n_spots))
    axes, exact = axes_of(profiles, n)
    np.testing.assert_allclose(axes.T @ axes, np.eye(n), atol=1e-8)
    assert np.linalg.svd(exact @ axes, compute_uv=False).min() > 0.999


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_profiles_without_enough_axes_give_finite_ones(rank):
    rng = np.random.default_rng(2)
    profiles = rng.normal(size=(40, rank)) @ rng.normal(size=(rank, 50)) + 1.0
    axes, exact = axes_of(profiles, 5)
    np.testing.assert_allclose(axes.T @ axes, np.eye(5), atol=1e-8)
    if rank:
        assert np.linalg.svd(exact[:rank] @ axes, compute_uv=False).min() > 0.999
