"""Outlines of regions of spots: lines between neighbours of different labels, and around the tissue."""

from __future__ import annotations

import numpy as np
from scipy.spatial import Voronoi, cKDTree


def spacing(xy: np.ndarray) -> float:
    """Median distance of a spot to its nearest neighbour."""
    if len(xy) < 2:
        return 1.0
    nearest = np.asarray(cKDTree(xy).query(xy, k=2)[0])
    return float(np.median(nearest[:, 1])) or 1.0


def outlines(xy: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Lines between spots of different labels, and between labelled spots and the empty space around them.

    Parameters
    ----------
    xy
        (S, 2).
    labels
        (S,) integers; negative for spots without a label.

    Returns
    -------
    (n, 2, 2): start and end of each line.
    """
    pitch = spacing(xy)
    outside = _around(xy, pitch)
    label = np.concatenate([np.where(labels < 0, -1, labels), np.full(len(outside), -1)])
    cells = Voronoi(np.concatenate([xy, outside]))
    pairs = np.asarray(cells.ridge_points)
    ends = np.asarray([v if len(v) == 2 else (-1, -1) for v in cells.ridge_vertices])
    wanted = (label[pairs[:, 0]] != label[pairs[:, 1]]) & (ends >= 0).all(axis=1)
    lines: np.ndarray = cells.vertices[ends[wanted]]
    return lines


def _around(xy: np.ndarray, pitch: float) -> np.ndarray:
    """Points that fill the space around the spots, and holes, as far from one another as spots are."""
    low, high = xy.min(axis=0) - 3 * pitch, xy.max(axis=0) + 3 * pitch
    # On the array of the spots where there is one, so that lines around the tissue are straight.
    start = xy[0] - pitch * np.ceil((xy[0] - low) / pitch)
    mesh = np.meshgrid(*(np.arange(s, h + pitch, pitch) for s, h in zip(start, high, strict=True)))
    points = np.stack(mesh, axis=-1).reshape(-1, 2)
    return points[np.asarray(cKDTree(xy).query(points)[0]) > 0.8 * pitch]


def inmost(xy: np.ndarray, labels: np.ndarray, label: int) -> np.ndarray:
    """The spot of a label that lies deepest among its own: a place for the label's name."""
    own, other = xy[labels == label], xy[labels != label]
    outside = _around(xy, spacing(xy))
    distance = np.asarray(cKDTree(np.concatenate([other, outside])).query(own)[0])
    place: np.ndarray = own[int(np.argmax(distance))]
    return place
