"""Spots to the cells of a grid: arrays by their lattice, clouds of points by bins.

A lattice is found from coordinates in any unit, rotation and offset; its points are rows and columns, the *array
positions* of the spots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from stcsm.space._filter import check_coords, nearest_neighbour_distance
from stcsm.space._memory import require_memory

CLASHES = 0.1
"""A lattice that puts more than this share of the spots on cells of others is not theirs."""
_BATCH = 64  # images that a model holds at least, for the memory check
IMAGES = 20
"""Approximate number of images of the input's size that a convolutional model holds for each gene."""
ORDER = 0.5
"""Mean alignment of the directions to neighbours below which there is no lattice; 1 is perfect, 0 is none."""
RESIDUAL = 0.25
"""Root mean square distance of spots from their lattice point, in spacings, above which there is no lattice."""
_BOND = 1.2  # neighbours: within so many nearest-neighbour distances; a square's diagonal is at 1.41
_ROUNDS = 8  # of finding the spacing
_WINDOW = 0.5  # of the spacing: what is averaged; a square's diagonal is one spacing away
_FIRST = 4.0  # radius of the first fit, in spacings
_GROWTH = 1.6  # so much further reaches each fit than the one before
_SAMPLE = 200_000  # bonds of so many spots say what the directions are


@dataclass(frozen=True)
class ArrayPositions:
    """Rows and columns of spots on a grid.

    Attributes
    ----------
    rows, cols
        Whole numbers, (S,). On a hexagonal array columns count half steps, as Space Ranger does: in each row every
        other column is empty.
    kind
        ``"square"``, ``"hexagonal"`` or ``"bins"``.
    moved
        Indices of spots whose cell was taken by a spot nearer to its centre, and that went to the nearest free one.
    origin, axes
        Coordinates of the centre of cell (0, 0), and of a step of one column and one row: (2,), (2, 2).
    residual
        Root mean square distance of the spots from their cell's centre, in cells.
    """

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    kind: str
    moved: NDArray[np.int64]
    origin: NDArray[np.float64]
    axes: NDArray[np.float64]
    residual: float


def lattice_positions(coords: ArrayLike) -> ArrayPositions | None:
    """Cells of spots that lie on a square or hexagonal array, one spot a cell; None where they lie on none.

    Parameters
    ----------
    coords
        (S, 2), any unit, rotation and offset; spots may be off their lattice point and points may be missing.

    Raises
    ------
    ValueError
        If a coordinate is not finite or a spot has three of them.
    MemoryError
        If the grid would not fit.
    """
    found = find_lattice(coords)
    if found is None:
        return None
    steps, moved = _one_each(found.positions, found.axes)
    if len(moved) > CLASHES * len(steps) and len(moved) > 1:
        return None
    return _as_positions(steps, moved, found, found.residual)


def _as_positions(
    steps: NDArray[np.int64], moved: NDArray[np.int64], found: Lattice, residual: float
) -> ArrayPositions:
    """Lattice points, (S, 2), as rows and columns."""
    cols, rows = steps.T
    axes, origin = found.axes, found.origin
    if found.kind == "hexagonal":
        # Steps along axes 60 degrees apart, to rows and half columns: a row up is half a step to the right.
        cols = 2 * cols + rows
        axes = np.stack([axes[0] / 2, axes[1] - axes[0] / 2])
    first = _first_cell(cols, rows, origin, axes)
    cols, rows = cols - first[0], rows - first[1]
    origin = origin + first @ axes
    check_grid_size(int(np.ptp(rows)) + 1, int(np.ptp(cols)) + 1)
    return ArrayPositions(rows, cols, found.kind, moved, origin, axes, residual)


def shared_lattice_positions(coords: ArrayLike, sections: NDArray[np.intp]) -> ArrayPositions | None:
    """Cells of several sections on one array, one spot of a section a cell; None where they lie on none.

    The lattice is that of the section with most spots; the others are brought to it, so coordinates have to be in one
    frame.

    Parameters
    ----------
    coords
        (S, 2).
    sections
        Number of each spot's section, (S,).

    Raises
    ------
    ValueError, MemoryError
        As for :func:`lattice_positions`.
    """
    xy = check_coords(coords, at_least=1)
    largest = int(np.bincount(sections).argmax())
    found = find_lattice(xy[sections == largest])
    if found is None:
        return None
    positions = (xy - found.origin) @ np.linalg.inv(found.axes)
    steps, moved = np.zeros(positions.shape, dtype=np.int64), []
    for b in np.unique(sections):
        own = np.flatnonzero(sections == b)
        steps[own], away = _one_each(positions[own], found.axes)
        if len(away) > CLASHES * len(own) and len(away) > 1:
            return None
        moved.append(own[away])
    off = (positions - np.rint(positions)) @ found.axes
    residual = float(np.sqrt(np.mean(np.square(off).sum(axis=1))) / np.sqrt(np.square(found.axes[0]).sum()))
    return _as_positions(steps, np.concatenate(moved), found, residual)


def bin_positions(coords: ArrayLike, size: float) -> ArrayPositions:
    """Bins of points: squares of side ``size`` (in the coordinates' unit) from the smallest coordinates on.

    Raises
    ------
    ValueError
        If a coordinate is not finite, a point has three of them, or ``size`` is not a positive number.
    MemoryError
        If the grid would not fit.
    """
    xy = check_coords(coords, at_least=1)
    if xy.shape[1] != 2:
        raise ValueError(f"Expected two coordinates a spot, found {xy.shape[1]}: a grid is flat; take one section")
    if not (np.isfinite(size) and size > 0):
        raise ValueError(f"Expected a positive bin size, found {size!r}")
    low = xy.min(axis=0)
    n_cols, n_rows = (np.floor(np.ptp(xy, axis=0) / size) + 1).tolist()
    check_grid_size(n_rows, n_cols, f"use larger bins than {size:g}")
    cells = np.floor((xy - low) / size).astype(np.int64)
    origin = low + size / 2
    off = (xy - origin) / size - cells
    residual = float(np.sqrt(np.mean(np.square(off).sum(axis=1))))
    nobody = np.zeros(0, dtype=np.int64)
    return ArrayPositions(cells[:, 1], cells[:, 0], "bins", nobody, origin, size * np.eye(2), residual)


def bins_across(n_spots: int, n_sections: int) -> int:
    """Bins along the longer side with which a bin holds about four spots, for a message."""
    return max(1, round((n_spots / n_sections / 4) ** 0.5))


def fold_hexagonal(rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.int64]:
    """Columns without the gaps of a hexagonal array: each row moves by half a step at most, and no cell stays empty.

    Columns are returned as they are if the array is not hexagonal: row plus column is neither even everywhere nor odd
    everywhere, or there is a single row or column.
    """
    parity = (rows + cols) % 2
    hexagonal = len(np.unique(parity)) == 1 and len(np.unique(rows)) > 1 and len(np.unique(cols)) > 1
    return (cols - cols.min()) // 2 if hexagonal else cols


def array_coordinates(rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.float64]:
    """Coordinates (S, 2) of the positions of a square or hexagonal array, its pitch as the unit.

    On a hexagonal array (see :func:`fold_hexagonal`) a column is half a step and a row lies sin 60 degrees higher.
    """
    hexagonal = fold_hexagonal(rows, cols) is not cols
    across, up = (0.5, 0.75**0.5) if hexagonal else (1.0, 1.0)
    return np.column_stack([across * cols, up * rows])


def check_grid_size(
    n_rows: float, n_cols: float, fix: str = "check the coordinates for spots far away", images: int = 1
) -> None:
    """Refuse a grid of which a batch of images would not fit the memory.

    Parameters
    ----------
    n_rows, n_cols
        Size of the grid.
    fix
        What the user can do, for the message.
    images
        Images held for each gene of the batch.

    Raises
    ------
    MemoryError
        With the arithmetic.
    """
    require_memory(
        4.0 * n_rows * n_cols * _BATCH * images,
        f"{n_rows:.0f} x {n_cols:.0f} cells x {_BATCH} genes a batch x {images} images a gene x 4 bytes",
        fix,
    )


def _first_cell(
    cols: NDArray[np.int64], rows: NDArray[np.int64], origin: NDArray[np.float64], axes: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Cell that becomes (0, 0); coordinates that already count cells stay as they are."""
    if np.abs(axes - np.eye(2)).max() < 0.15:
        return np.rint(-origin).astype(np.int64)
    return np.array([cols.min(), rows.min()])


def _one_each(positions: NDArray[np.float64], axes: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Nearest lattice point of every spot; where two have the same, the nearer keeps it, the other gets a free one."""
    steps = np.rint(positions).astype(np.int64)
    off = np.square((positions - steps) @ axes).sum(axis=1)
    order = np.lexsort((np.arange(len(steps)), off))
    _, first = np.unique(steps[order], axis=0, return_index=True)
    keeps = np.zeros(len(steps), dtype=bool)
    keeps[order[first]] = True
    moved = np.flatnonzero(~keeps)
    if len(moved) > CLASHES * len(steps) and len(moved) > 1:
        return steps, moved
    taken = set(map(tuple, steps[keeps].tolist()))
    for spot in moved:
        steps[spot] = _nearest_free(positions[spot], steps[spot], axes, taken)
        taken.add(tuple(steps[spot].tolist()))
    return steps, moved


def _nearest_free(
    position: NDArray[np.float64], start: NDArray[np.int64], axes: NDArray[np.float64], taken: set[tuple[int, ...]]
) -> NDArray[np.int64]:
    reach = 1
    while True:
        span = np.arange(-reach, reach + 1)
        around = start + np.stack(np.meshgrid(span, span), axis=-1).reshape(-1, 2)
        free = np.array([c for c in around.tolist() if tuple(c) not in taken], dtype=np.int64).reshape(-1, 2)
        if len(free):
            return free[np.argmin(np.square((free - position) @ axes).sum(axis=1))]
        reach += 1


def whole_positions(
    rows: ArrayLike | None, cols: ArrayLike | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Rows and columns as whole numbers, or None where they are absent or are no whole numbers."""
    if rows is None or cols is None:
        return None
    try:
        both = np.column_stack([np.asarray(rows, dtype=np.float64), np.asarray(cols, dtype=np.float64)])
    except (TypeError, ValueError):
        return None
    if not np.isfinite(both).all() or (both != np.rint(both)).any():
        return None
    whole = both.astype(np.int64)
    return whole[:, 0], whole[:, 1]


@dataclass(frozen=True)
class Lattice:
    """Spots on a lattice.

    Attributes
    ----------
    kind
        ``"square"`` or ``"hexagonal"``.
    positions
        Where each spot lies in units of the axes, (S, 2): column, row.
    origin, axes
        ``coords = origin + positions @ axes``; shapes (2,) and (2, 2).
    residual
        Root mean square distance of the spots from their lattice points, in spacings.
    """

    kind: str
    positions: NDArray[np.float64]
    origin: NDArray[np.float64]
    axes: NDArray[np.float64]
    residual: float


def find_lattice(coords: ArrayLike) -> Lattice | None:
    """Find the square or hexagonal lattice that spots lie on, or None where they lie on none.

    Directions to nearest neighbours say which kind and how it is turned (mean of exp(4 i angle) or exp(6 i angle));
    axes and origin are then fitted by least squares to spots within a radius that grows, so that the lattice is carried
    over holes and to the rim without a step lost.

    Parameters
    ----------
    coords
        Coordinates of the spots, (S, 2), in any unit.

    Raises
    ------
    ValueError
        If a coordinate is not finite, or there are not two of them.
    """
    xy = check_coords(coords, at_least=1)
    if xy.shape[1] != 2:
        raise ValueError(f"Expected two coordinates a spot, found {xy.shape[1]}: a grid is flat; take one section")
    if len(np.unique(xy, axis=0)) < 2:
        return Lattice("square", np.zeros_like(xy), xy[0], np.eye(2), 0.0)
    found = _first_axis(xy)
    if found is None:
        return None
    kind, axis = found
    turn = np.exp(0.5j * np.pi) if kind == "square" else np.exp(1j * np.pi / 3)
    z = xy[:, 0] + 1j * xy[:, 1]
    spacing = abs(axis)
    centre = z[np.argmin(np.abs(z - np.median(z.real) - 1j * np.median(z.imag)))]
    origin = np.array([centre.real, centre.imag])
    axes = np.array([[axis.real, axis.imag], [(axis * turn).real, (axis * turn).imag]])
    away = np.abs(z - centre) / spacing
    radius, reach = _FIRST, float(away.max())
    while True:
        near = away <= radius
        steps = np.rint((xy[near] - origin) @ np.linalg.inv(axes))
        origin, axes = _fit(xy[near], steps, turn, axes)
        if radius >= reach:
            break
        radius *= _GROWTH
    positions = (xy - origin) @ np.linalg.inv(axes)
    off = (positions - np.rint(positions)) @ axes
    residual = float(np.sqrt(np.mean(np.square(off).sum(axis=1))) / spacing)
    if not residual <= RESIDUAL:
        return None
    return Lattice(kind, positions, origin, axes, residual)


def _first_axis(xy: NDArray[np.float64]) -> tuple[str, complex] | None:
    """Kind of the lattice and one axis, as a complex number, that lies within 45 (30) degrees of the x axis."""
    unit = nearest_neighbour_distance(xy)
    tree = cKDTree(xy)
    some = xy[:: max(len(xy) // _SAMPLE, 1)]
    distance, other = tree.query(some, k=min(9, len(xy)))
    z, to = xy[:, 0] + 1j * xy[:, 1], some[:, 0] + 1j * some[:, 1]
    bonds = (z[np.asarray(other)] - to[:, None])[distance > 0]
    short = bonds[np.abs(bonds) <= _BOND * unit]
    order = {k: complex(np.mean((short / np.abs(short)) ** k)) for k in (4, 6)}
    # A single line of spots fits both; it is taken for a row of a square.
    m = 4 if abs(order[4]) >= abs(order[6]) - 0.05 else 6
    if abs(order[m]) < ORDER:
        return None
    axis = unit * np.exp(1j * np.angle(order[m]) / m)
    for _ in range(_ROUNDS):
        # Where spots are off their points the nearest are too near, so the window that is averaged moves to its mean.
        turns = np.rint(np.angle(bonds / axis) * m / (2 * np.pi))
        along = bonds * np.exp(-2j * np.pi * turns / m)
        axis = complex(np.mean(along[np.abs(along - axis) <= _WINDOW * abs(axis)]))
    return ("square" if m == 4 else "hexagonal"), axis


def _fit(
    xy: NDArray[np.float64], steps: NDArray[np.float64], turn: complex, before: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Origin and axes that bring lattice steps closest to the coordinates; free axes if spots span both directions."""
    if all(len(np.unique(steps[:, d])) > 2 for d in (0, 1)) and len(steps) >= 12:
        design = np.column_stack([steps, np.ones(len(steps))])
        solved, _, rank, _ = np.linalg.lstsq(design, xy, rcond=None)
        if rank == 3:
            return np.asarray(solved[2], np.float64), np.asarray(solved[:2], np.float64)
    z, w = xy[:, 0] + 1j * xy[:, 1], steps[:, 0] + turn * steps[:, 1]
    if np.ptp(w.real) == 0 and np.ptp(w.imag) == 0:
        return xy.mean(axis=0) - steps[0] @ before, before
    centred = w - w.mean()
    axis = np.vdot(centred, z) / np.vdot(centred, centred)
    origin = z.mean() - axis * w.mean()
    return (
        np.array([origin.real, origin.imag]),
        np.array([[axis.real, axis.imag], [(axis * turn).real, (axis * turn).imag]]),
    )
