"""The lattice that spots of an array lie on, found from coordinates in any unit, rotation and offset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from stcsm.space._coords import check_coords, nearest_neighbour_distance

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
class Lattice:
    """Spots on a lattice.

    Attributes
    ----------
    kind
        ``"square"`` or ``"hexagonal"``.
    places
        Where each spot lies in units of the axes, (S, 2): column, row.
    origin, axes
        ``coords = origin + places @ axes``; shapes (2,) and (2, 2).
    residual
        Root mean square distance of the spots from their lattice points, in spacings.
    """

    kind: str
    places: NDArray[np.float64]
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
    places = (xy - origin) @ np.linalg.inv(axes)
    off = (places - np.rint(places)) @ axes
    residual = float(np.sqrt(np.mean(np.square(off).sum(axis=1))) / spacing)
    if not residual <= RESIDUAL:
        return None
    return Lattice(kind, places, origin, axes, residual)


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
        # Where spots are off their places the nearest are too near, so the window that is averaged moves to its mean.
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
