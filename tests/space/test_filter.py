"""The spatial filter: known answers on lattices, invariants on any point cloud, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stcsm.space import _filter, _memory, nearest_neighbour_distance, smooth, spatial_filter, spatial_order


def lattice(rows: int, columns: int, step: float = 1.0) -> np.ndarray:
    y, x = np.mgrid[:rows, :columns]
    return np.column_stack([x.ravel(), y.ravel()]) * step


def test_distance_of_a_lattice_is_its_step() -> None:
    assert nearest_neighbour_distance(lattice(5, 7, step=103.5)) == pytest.approx(103.5)


def test_distance_ignores_duplicates() -> None:
    xy = np.concatenate([lattice(4, 4)] * 3)
    assert nearest_neighbour_distance(xy) == pytest.approx(1.0)


def test_three_spots_on_a_line_by_hand() -> None:
    kernel = spatial_filter(np.array([[0.0, 0], [1, 0], [2, 0]]), 1.0).toarray()
    a, b = np.exp(-0.5), np.exp(-2.0)
    middle = np.array([a, 1, a]) / (1 + 2 * a)
    left = np.array([1, a, b]) / (1 + a + b)
    np.testing.assert_allclose(kernel, [left, middle, left[::-1]], rtol=1e-12)


def test_truncation_keeps_the_rim_and_nothing_beyond() -> None:
    xy = lattice(9, 9)
    kernel = spatial_filter(xy, 1.0, truncate=2.0)
    centre = 4 * 9 + 4
    reached = np.flatnonzero(kernel[[centre]].toarray())
    distance = np.linalg.norm(xy[reached] - xy[centre], axis=1)
    assert len(reached) == 13  # lattice points within a disc of radius 2, the four on its rim among them
    assert distance.max() == pytest.approx(2.0)


def test_width_zero_is_the_identity() -> None:
    kernel = spatial_filter(lattice(3, 4), 0)
    np.testing.assert_array_equal(kernel.toarray(), np.eye(12))


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.float64, st.tuples(st.integers(2, 40), st.integers(2, 3)), elements=st.floats(-1e3, 1e3, width=32)),
    st.floats(0.05, 5),
)
def test_rows_sum_to_one_and_bounds_hold(xy: np.ndarray, width: float) -> None:
    if len(np.unique(xy, axis=0)) < 2:
        return
    kernel = spatial_filter(xy, width)
    np.testing.assert_allclose(kernel.sum(axis=1), 1, rtol=1e-12)
    assert kernel.data.min() >= 0
    values = np.random.default_rng(0).normal(size=len(xy))
    smooth = kernel @ values
    assert smooth.min() >= values.min() - 1e-9
    assert smooth.max() <= values.max() + 1e-9
    assert kernel.has_sorted_indices


def test_turning_shifting_and_scaling_the_tissue_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    xy = rng.normal(size=(200, 2))
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    here = spatial_filter(xy, 1.5)
    there = spatial_filter(1e4 + 37 * xy @ turn, 1.5)
    np.testing.assert_allclose(here.toarray(), there.toarray(), atol=1e-6)


def test_duplicates_share_their_value() -> None:
    xy = np.concatenate([lattice(4, 4), lattice(4, 4)[:3]])
    smoothed = spatial_filter(xy, 0.5) @ np.random.default_rng(0).normal(size=19)
    np.testing.assert_allclose(smoothed[:3], smoothed[16:], rtol=1e-12)


def test_without_self_leaves_the_diagonal_empty() -> None:
    kernel = spatial_filter(np.array([[0.0, 0], [1, 0], [2, 0], [50, 0]]), 0.5, include_self=False)
    np.testing.assert_array_equal(kernel.diagonal(), 0)
    np.testing.assert_allclose(kernel.sum(axis=1), [1, 1, 1, 0])


def test_blocks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    xy = np.random.default_rng(1).uniform(size=(101, 2))
    whole = spatial_filter(xy, 2.0, dtype=np.float32)
    maps = np.random.default_rng(2).normal(size=(101, 3))
    at_once = smooth(maps, xy, 2.0)
    monkeypatch.setattr(_filter, "_PAIRS", 40)
    parts = spatial_filter(xy, 2.0, dtype=np.float32)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole.toarray(), parts.toarray())
    for a, b in zip(at_once, smooth(maps, xy, 2.0), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("width", [0.0, 0.5, 2.0])
def test_smooth_is_the_filter_times_the_maps(width: float) -> None:
    xy = np.random.default_rng(1).uniform(size=(101, 2))
    maps = np.random.default_rng(2).normal(size=(101, 3))
    kernel = spatial_filter(xy, width)
    smoothed, own = smooth(maps, xy, width)
    np.testing.assert_array_equal(smoothed, kernel @ maps)
    np.testing.assert_array_equal(own, kernel.diagonal())


@pytest.mark.parametrize(
    ("coords", "width", "message"),
    [
        (np.array([[0.0, 0]]), 1.0, "at least 2 spots, found 1"),
        (np.zeros((0, 2)), 1.0, "at least 2 spots, found 0"),
        (np.zeros((5, 2)), 1.0, "found all 5 spots at"),
        (np.zeros((5, 4)), 1.0, r"found \(5, 4\)"),
        (np.zeros(5), 1.0, r"found \(5,\)"),
        (np.array([["a", "b"], ["c", "d"]]), 1.0, "numeric coordinates"),
        (lattice(2, 2), -1.0, "found -1.0"),
        (lattice(2, 2), float("nan"), "found nan"),
    ],
)
def test_refusals_say_what_was_found(coords: np.ndarray, width: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spatial_filter(coords, width)


def test_nan_coordinates_are_counted() -> None:
    xy = lattice(3, 3)
    xy[[2, 5], 0] = [np.nan, np.inf]
    with pytest.raises(ValueError, match=r"2 of 9 spots .* \(rows 2, 5\)"):
        spatial_filter(xy, 1.0)


def test_a_filter_larger_than_memory_is_refused_with_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "available_memory", lambda: 1000)
    with pytest.raises(MemoryError, match=r"400 spots x \d+ neighbours .* bytes"):
        spatial_filter(lattice(20, 20), 5.0)


def test_order_on_the_curve_keeps_neighbours_together():
    xy = np.random.default_rng(0).permutation(lattice(32, 32))
    placed = xy[spatial_order(xy)]
    # Each quarter of the curve is a quarter of the square.
    quarters = np.floor(placed / 15.5001).astype(int).reshape(4, 256, 2)
    assert (quarters == quarters[:, :1]).all()
    assert len(np.unique(quarters[:, 0], axis=0)) == 4
    solid = np.column_stack([xy, np.zeros(len(xy))])
    np.testing.assert_array_equal(np.sort(spatial_order(solid)), np.arange(len(xy)))
