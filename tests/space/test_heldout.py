"""The score of a smoother: nothing for the depth profile, the formula for any other, most for the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from stcsm.space import HeldOutCounts, log_normalise, spatial_filter, thin_counts


def tissue(n_side: int = 16, genes: int = 60, seed: int = 0, mean: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of a square array, and rates: each gene is high in one half of the tissue."""
    rows, cols = (v.ravel() for v in np.meshgrid(range(n_side), range(n_side), indexing="ij"))
    left = (cols < n_side // 2)[:, None] == (np.arange(genes) % 2 == 0)
    return np.column_stack([cols, rows]).astype(float), np.where(left, 1.6, 0.4) * mean


def counts_of(rate: np.ndarray, seed: int = 0) -> sparse.csr_array:
    return sparse.csr_array(np.random.default_rng(seed).poisson(rate).astype(np.float32))


def test_depth_alone_gains_nothing():
    held = HeldOutCounts(counts_of(tissue()[1]))
    gain, _ = held.gain(np.outer(held.depth, held.training.sum(axis=0)), held.depth)
    assert gain == pytest.approx(0, abs=1e-6)


def test_gain_is_the_formula():
    counts = counts_of(tissue(6, 8)[1])
    held = HeldOutCounts(counts, seed=4)
    smoothed = np.random.default_rng(1).uniform(0.5, 2, held.training.shape).astype(np.float32)
    gain, a = held.gain(smoothed, held.depth)
    _, taken = thin_counts(counts, 0.7, np.random.default_rng(4))
    n = held.training.sum(axis=0)
    share = held.depth[:, None] * (smoothed + a) / (n * held.depth[:, None] + a)
    share /= share.sum(axis=0)
    x = taken.toarray()
    expected = (x * np.log(share / held.depth[:, None])).sum() / x.sum()
    assert gain == pytest.approx(expected, rel=1e-4)


def test_the_truth_predicts_best():
    xy, rate = tissue()
    held = HeldOutCounts(counts_of(rate))
    smoother = spatial_filter(xy, 1.5)
    gains = {
        "truth": held.gain((0.7 * rate).astype(np.float32), rate.sum(axis=1) / rate.sum())[0],
        "smoothed": held.gain(np.asarray(smoother @ held.training), np.asarray(smoother @ held.depth))[0],
        "raw": held.gain(held.training, held.depth)[0],
    }
    assert gains["truth"] > gains["smoothed"] > gains["raw"] > 0
    # The Kullback-Leibler divergence of the true profile from the depth profile, less what sampling takes.
    p = rate / rate.sum(axis=0)
    depth = rate.sum(axis=1) / rate.sum()
    assert gains["truth"] == pytest.approx((p * np.log(p / depth[:, None])).sum(axis=0).mean(), rel=0.05)


def components_score(held: HeldOutCounts, taken: np.ndarray, smoother: np.ndarray, a: float, rank: int) -> float:
    """The formula, by a singular value decomposition in float64."""
    x, e = smoother @ held.training, smoother @ held.depth
    log = np.log((x + a) / (np.outer(e, held.training.sum(axis=0)) + a))
    mean = log.mean(axis=1, keepdims=True)
    u, sd, vt = np.linalg.svd(log - mean, full_matrices=False)
    noise = np.square(sd[rank:]).mean() if rank < len(sd) else 0.0
    factor = np.clip(1 - noise / np.square(sd[:rank]), 0, 1)
    share = held.depth[:, None] * np.exp(smoother @ (mean + u[:, :rank] * (factor * sd[:rank]) @ vt[:rank]))
    share /= share.sum(axis=0)
    return float((taken * np.log(share / held.depth[:, None])).sum() / taken.sum())


@pytest.mark.parametrize("genes", [20, 60], ids=["more spots than genes", "more genes than spots"])
@pytest.mark.parametrize("width", [0, 1])
def test_gain_of_components_is_the_formula(genes, width):
    xy, rate = tissue(6, genes)
    counts = counts_of(rate)
    held = HeldOutCounts(counts, seed=4)
    smoother = spatial_filter(xy, width)
    gain, a = held.gain_of_components(smoother if width else None, 3)
    _, taken = thin_counts(counts, 0.7, np.random.default_rng(4))
    dense = smoother.toarray()
    assert gain == pytest.approx(components_score(held, taken.toarray(), dense, a, 3), rel=1e-3)
    for other in (a / 2, a * 2):
        assert components_score(held, taken.toarray(), dense, other, 3) < 1.001 * gain


def test_all_components_are_the_counts_themselves():
    held = HeldOutCounts(counts_of(tissue(6, 20)[1]))
    gain, a = held.gain_of_components(None, 100)
    expected, prior = held.gain(held.training, held.depth)
    assert a == prior
    assert gain == pytest.approx(expected, rel=1e-4)


def test_one_component_finds_two_halves():
    _, rate = tissue()
    held = HeldOutCounts(counts_of(rate))
    p = rate / rate.sum(axis=0)
    truth = (p * np.log(p / (rate.sum(axis=1) / rate.sum())[:, None])).sum(axis=0).mean()
    one = held.gain_of_components(None, 1)[0]
    assert held.gain(held.training, held.depth)[0] < held.gain_of_components(None, 20)[0] < one
    assert one == pytest.approx(truth, rel=0.1)


def test_too_few_counts_are_refused():
    with pytest.raises(ValueError, match="too few counts to hold some out"):
        HeldOutCounts(sparse.csr_array(np.eye(5, dtype=np.float32)))


def test_log_normalised_halves_of_one_section_agree():
    counts = counts_of(tissue()[1])
    a, b = (log_normalise(part).toarray().ravel() for part in thin_counts(counts, 0.5, np.random.default_rng(0)))
    assert np.corrcoef(a, b)[0, 1] > 0.1
