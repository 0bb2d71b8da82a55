"""Lattices are found whatever their unit, rotation and offset; points that lie on none are not forced on one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stcsm.space import (
    array_coordinates,
    bin_positions,
    check_grid_size,
    find_lattice,
    fold_hexagonal,
    lattice_positions,
    nearest_neighbour_distance,
    whole_positions,
)


def square(n_rows, n_cols):
    rows, cols = (v.ravel() for v in np.meshgrid(range(n_rows), range(n_cols), indexing="ij"))
    return rows, cols, np.column_stack([cols, rows]).astype(float)


def hexagonal(n_rows, n_half):
    """Space Ranger's array: rows, half columns, and coordinates in spot distances."""
    rows, cols = (v.ravel() for v in np.meshgrid(range(n_rows), range(n_half), indexing="ij"))
    there = (rows + cols) % 2 == 0
    rows, cols = rows[there], cols[there]
    return rows, cols, np.column_stack([cols / 2, rows * np.sqrt(3) / 2])


def turned(xy, degrees, scale, offset):
    a = np.deg2rad(degrees)
    return xy @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) * scale + offset


@settings(deadline=None, max_examples=40)
@given(
    degrees=st.floats(-44, 44),
    scale=st.floats(1e-3, 1e4),
    offset=st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5)),
    jitter=st.floats(0, 0.2),
    seed=st.integers(0, 99),
)
def test_square_array_in_any_frame(degrees, scale, offset, jitter, seed):
    rng = np.random.default_rng(seed)
    rows, cols, xy = square(16, 21)
    kept = rng.random(len(rows)) > 0.2
    rows, cols = rows[kept], cols[kept]
    xy = xy[kept] + rng.uniform(-jitter, jitter, size=(len(rows), 2))
    found = lattice_positions(turned(xy, degrees, scale, np.array(offset) * scale))
    assert found.kind == "square"
    assert not len(found.moved)
    np.testing.assert_array_equal(found.rows - found.rows.min(), rows - rows.min())
    np.testing.assert_array_equal(found.cols - found.cols.min(), cols - cols.min())


@settings(deadline=None, max_examples=25)
@given(degrees=st.floats(-29, 29), scale=st.floats(1e-2, 1e3), jitter=st.floats(0, 0.1), seed=st.integers(0, 99))
def test_hexagonal_array_in_any_frame(degrees, scale, jitter, seed):
    rng = np.random.default_rng(seed)
    rows, cols, xy = hexagonal(20, 30)
    xy = xy + rng.uniform(-jitter, jitter, size=xy.shape)
    found = lattice_positions(turned(xy, degrees, scale, [13, -7]))
    assert found.kind == "hexagonal"
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.cols - found.cols.min(), cols)
    np.testing.assert_allclose(
        found.origin + np.column_stack([found.cols, found.rows]) @ found.axes,
        turned(xy, degrees, scale, [13, -7]),
        atol=2.5 * jitter * scale + 1e-6 * scale,
    )


def test_holes_and_islands_do_not_lose_a_step():
    rows, cols, xy = square(40, 40)
    ring = ((rows - 20) ** 2 + (cols - 20) ** 2 > 100) & (cols % 20 != 3)
    found = lattice_positions(turned(xy[ring], 17, 55.0, [0, 0]))
    np.testing.assert_array_equal(found.rows, rows[ring])
    np.testing.assert_array_equal(found.cols, cols[ring])


def test_array_coordinates_stay_what_they_are():
    rng = np.random.default_rng(0)
    rows, cols, xy = square(12, 15)
    found = lattice_positions(xy + np.array([7, 9]) + rng.uniform(-0.2, 0.2, size=xy.shape))
    np.testing.assert_array_equal(found.rows, rows + 9)
    np.testing.assert_array_equal(found.cols, cols + 7)


def test_two_spots_on_one_cell_become_neighbours():
    rows, cols, xy = square(8, 8)
    kept = ~((rows == 3) & (cols == 4))
    rows, cols, xy = rows[kept], cols[kept], xy[kept]
    late = np.flatnonzero((rows == 3) & (cols == 5))[0]
    xy[late] = [3.1, 3.0]  # on the cell of column 3, whose neighbour of column 4 is free
    found = lattice_positions(xy)
    assert found.moved.tolist() == [late]
    assert (found.rows[late], found.cols[late]) == (3, 4)
    assert len(np.unique(found.rows * 100 + found.cols)) == len(xy)


@pytest.mark.parametrize("n", [50, 500])
def test_clouds_lie_on_no_lattice(n):
    assert find_lattice(np.random.default_rng(n).uniform(size=(n, 2))) is None


@pytest.mark.parametrize("direction", [(1, 0), (0, 1), (3, 4)])
def test_one_line_of_spots(direction):
    positions = lattice_positions(np.arange(12)[:, None] * np.array(direction, dtype=float))
    steps = np.abs(np.diff(positions.rows)) + np.abs(np.diff(positions.cols))
    assert (steps == 1).all()


def test_one_spot():
    positions = lattice_positions([[3.5, 9.25]])
    assert len(positions.rows) == 1


def test_bins_are_squares_of_their_size():
    xy = np.array([[0.0, 0.0], [9.99, 0], [10.0, 0], [0, 25.0]])
    positions = bin_positions(xy, 10)
    assert positions.cols.tolist() == [0, 0, 1, 0]
    assert positions.rows.tolist() == [0, 0, 0, 2]


@settings(deadline=None, max_examples=30)
@given(st.floats(0.1, 10), st.integers(0, 1000))
def test_points_lie_within_half_a_bin_of_its_centre(size, seed):
    xy = np.random.default_rng(seed).normal(scale=20, size=(60, 2))
    positions = bin_positions(xy, size)
    centres = positions.origin + np.column_stack([positions.cols, positions.rows]) @ positions.axes
    assert np.abs(xy - centres).max() <= size / 2 * (1 + 1e-6)


def test_hexagonal_gaps_close_without_two_spots_meeting():
    rows, cols, _ = hexagonal(11, 17)
    folded = fold_hexagonal(rows, cols)
    assert len(np.unique(rows * 100 + folded)) == len(rows)
    assert folded.max() == 8
    rows, cols, _ = square(5, 6)
    np.testing.assert_array_equal(fold_hexagonal(rows, cols), cols)


def test_hexagonal_positions_lie_as_on_the_array():
    rows, steps = (x.ravel() for x in np.meshgrid(range(4), range(5), indexing="ij"))
    coordinates = array_coordinates(rows, 2 * steps + rows % 2)
    distance = np.linalg.norm(coordinates[:, None] - coordinates, axis=2)
    assert nearest_neighbour_distance(coordinates) == pytest.approx(1)
    assert (np.abs(distance - 1) < 1e-9).sum(axis=1).max() == 6
    np.testing.assert_array_equal(array_coordinates(rows, steps), np.column_stack([steps, rows]))


def test_positions_that_are_no_whole_numbers():
    assert whole_positions([1.0, 2.0], [3, 4])[0].tolist() == [1, 2]
    for rows, cols in (([1.5, 2], [1, 2]), ([1, np.nan], [1, 2]), (["a", "b"], [1, 2]), (None, [1, 2])):
        assert whole_positions(rows, cols) is None


@pytest.mark.parametrize("coords", [[[0, np.nan], [1, 1]], [[0, 0, 0], [1, 1, 1]]])
def test_unusable_coordinates_are_refused(coords):
    with pytest.raises(ValueError, match="Expected"):
        lattice_positions(coords)
    with pytest.raises(ValueError, match="Expected"):
        bin_positions(coords, 1)


@pytest.mark.parametrize("size", [0, -1, np.nan, np.inf])
def test_bin_size_is_positive(size):
    with pytest.raises(ValueError, match="bin size"):
        bin_positions([[0, 0], [1, 1]], size)


def test_large_grid_is_refused_with_the_arithmetic():
    with pytest.raises(MemoryError, match=r"1000000 x 1000000 cells"):
        check_grid_size(1_000_000, 1_000_000)
    with pytest.raises(MemoryError, match="larger bins"):
        bin_positions([[0, 0], [1e7, 1e7]], 1)
