"""How wide a region is: how far surroundings predict a spot, whether it is one cell or many, how far a map reaches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from stcsm.space._components import spot_components
from stcsm.space._counts import log_normalise, thin_counts
from stcsm.space._filter import nearest_neighbour_distance, smooth, spatial_filter

WIDTHS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0)
"""Widths that are tried, in nearest-neighbour distances."""
N_COMPONENTS = 10
"""Leading components that are predicted, weighted by their variance."""
TOLERANCE = 0.01
"""The widest width whose R2 lies within this share of the best is taken.

It averages the most counts for the same R2.
"""
REGULAR = 0.15
"""Coefficient of variation of nearest-neighbour distances below which spots lie on a lattice (ST 0.05, Visium 0.001,
cells and beads 0.2 to 0.4, a Poisson process 0.52)."""
SHARED = 0.4
"""Share of a component's real variance that surroundings must explain for a spot to be more than one cell (measured:
spots of many cells 0.5 to 0.9, single cells 0 to 0.35)."""

TOGETHER = 0.7
"""The same share from which on single cells of a kind lie together, so that kinds of cells are the regions (measured:
embryo 0.77 and 0.90; cortex, where kinds of cells are mixed, 0.57 and 0.60)."""
EXPLAINED = 0.8
"""Share of a map's variance that neighbours must explain where it is smoothed over them (benchmarks/RECOVERY.md)."""
LABEL_NEIGHBOURS = 6
LABELS_TOGETHER = 0.6
"""Share of neighbours of one label, beyond chance, from which on labels are regions (measured: chambers, tumours and
cortical layers 0.66 to 0.92; kinds of cells in an embryo 0.53 and 0.59; layers of the bulb 0.30 to 0.38)."""

Cells = Literal["one", "many"]
Scale = Literal["region", "spot"]


@dataclass(frozen=True)
class RegionWidth:
    """The width of a region and what it rests on.

    Attributes
    ----------
    width
        Width for maps and for the graph: half of ``best`` where a spot holds many cells, all of it where one.
    best
        Width at which neighbours, the spot itself left out, predict its leading components best.
    cells
        ``"many"`` if the spots lie on a lattice and surroundings explain a component well, else ``"one"``.
    irregularity
        Coefficient of variation of the nearest-neighbour distances.
    shared
        Largest share, over the five leading components, of the real variance (of thinned halves in common) that
        neighbours explain.
    widths, r2
        The curve: widths tried, and R2 over the ten leading components.
    """

    width: float
    best: float
    cells: Cells
    irregularity: float
    shared: float
    widths: NDArray[np.float64]
    r2: NDArray[np.float64]

    @property
    def scale(self) -> Scale:
        """``"spot"`` for single cells whose kinds lie together: held-out counts find how far a kind reaches.

        Where kinds of cells are mixed, a region is a mixture, and spots of many cells are mixtures already.
        """
        return "spot" if self.cells == "one" and self.shared >= TOGETHER else "region"


def irregularity(coords: NDArray[np.float64]) -> float:
    """Coefficient of variation of the distances to the nearest other spot: 0 on a lattice."""
    where = np.unique(coords, axis=0)
    distance = np.asarray(cKDTree(where).query(where, k=2)[0])[:, 1]
    return float(distance.std() / distance.mean())


def region_width(
    counts: csr_array,
    coords: NDArray[np.float64],
    *,
    unit: float,
    irregular: float,
    cells: Literal["auto", "one", "many"] = "auto",
    seed: int = 0,
) -> RegionWidth:
    """Choose the width of a region without labels (docs/method.md).

    Each spot's leading principal components are predicted by a Gaussian mean of its neighbours, itself left out; R2 by
    width says how far a region reaches. A spot of many cells is an average over a region already, so half of that width
    is right for it; a single cell is not, and needs all of it. Which of the two holds is read from two facts: arrays of
    spots are lattices while cells are not; and the surroundings of a spot explain most of what is real in it, while a
    cell's type is mostly its own.

    Parameters
    ----------
    counts
        Whole numbers (S, G).
    coords
        Coordinates (S, 2 or 3).
    unit
        The nearest-neighbour distance (of the whole section, where this is a part of it).
    irregular
        :func:`irregularity` of the whole section.
    cells
        ``"one"`` or ``"many"`` where it is known how many cells a spot holds.
    seed
        Seed of the thinning that measures how much of a component is real.
    """
    values = log_normalise(counts)
    n = max(min(N_COMPONENTS, min(values.shape) - 1), 1)
    scores = spot_components(values, n, seed=seed)
    variance = np.square(scores).sum(axis=0)
    curve = np.array([_explained(scores, coords, width, unit) for width in WIDTHS])
    total = curve @ variance / variance.sum()
    top = float(total.max())
    best = WIDTHS[int(np.flatnonzero(total >= top - TOLERANCE * abs(top)).max())]
    shared = float(np.max((curve.max(axis=0) / _reality(counts, values, scores, seed))[:5]))
    kind: Cells = cells if cells != "auto" else ("many" if irregular < REGULAR and shared > SHARED else "one")
    return RegionWidth(best / 2 if kind == "many" else best, best, kind, irregular, shared, np.array(WIDTHS), total)


def _explained(
    scores: NDArray[np.float64], coords: NDArray[np.float64], width: float, unit: float
) -> NDArray[np.float64]:
    """R2 of each component by the neighbours of each spot; a spot without neighbours in reach gets the mean (0)."""
    neighbours = spatial_filter(coords, width, include_self=False, unit=unit)
    return 1 - np.square(scores - neighbours @ scores).sum(axis=0) / np.maximum(np.square(scores).sum(axis=0), 1e-300)


def _reality(counts: csr_array, values: csr_array, scores: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Share of each component's variance that is not counting noise.

    The correlation between the components of two thinned halves, corrected to the whole (Spearman-Brown).
    """
    # Genes' loadings, from the scores: the halves are projected on the same directions.
    mean = np.asarray(values.mean(axis=0)).ravel()
    loadings = values.T @ scores - np.outer(mean, scores.sum(axis=0))
    halves = []
    for half in thin_counts(counts, 0.5, np.random.default_rng(seed)):
        projected = log_normalise(half) @ loadings
        halves.append(projected - projected.mean(axis=0))
    a, b = halves
    together = (a * b).sum(axis=0)
    size = np.sqrt(np.square(a).sum(axis=0) * np.square(b).sum(axis=0))
    correlation = np.clip(together / np.maximum(size, 1e-300), 0.05, 1)
    return 2 * correlation / (1 + correlation)


def smooth_regions(
    maps: NDArray[np.float64], coords: NDArray[np.float64], most: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smooth each map as far as its own neighbours explain it, and at most as far as regions reach.

    The width is the largest at which the Gaussian mean of a spot's neighbours, itself left out, explains 80% of the
    map's variance. Wide regions are smoothed over, and layers one spot wide, which their neighbours do not explain,
    stay as they are.

    Parameters
    ----------
    maps
        A map in each column, (S, K).
    coords
        Coordinates (S, 2 or 3).
    most
        Largest width, in nearest-neighbour distances: :attr:`RegionWidth.best`.

    Returns
    -------
    maps, widths
        Smoothed maps (S, K), and the width of each (K,), 0 for those left as they are.
    """
    out, widths = maps.copy(), np.zeros(maps.shape[1])
    unit = nearest_neighbour_distance(coords)
    centred = maps - maps.mean(axis=0)
    variance = np.square(centred).mean(axis=0)
    left = np.flatnonzero(variance > 0)
    for width in sorted((w for w in WIDTHS if w <= most), reverse=True):
        if not len(left):
            break
        smoothed, weight = smooth(centred[:, left], coords, width, unit=unit)
        own = weight[:, None]
        # The mean of the others; a spot without neighbours in reach gets the mean of the map.
        others = np.where(own < 1, (smoothed - own * centred[:, left]) / np.maximum(1 - own, 1e-12), 0)
        far = np.square(centred[:, left] - others).mean(axis=0) <= (1 - EXPLAINED) * variance[left]
        out[:, left[far]] = smoothed[:, far] + maps[:, left[far]].mean(axis=0)
        widths[left[far]] = width
        left = left[~far]
    return out, widths


def label_coherence(labels: NDArray[np.integer], coords: NDArray[np.float64]) -> float:
    """How often a spot's six nearest spots share its label, beyond chance: 1 always, 0 as often as any spots (kappa).

    Parameters
    ----------
    labels
        Number of each spot's label, (S,).
    coords
        Coordinates of these spots, (S, 2 or 3).
    """
    n = min(LABEL_NEIGHBOURS, len(labels) - 1)
    near = np.asarray(cKDTree(coords).query(coords, k=n + 1)[1])[:, 1:]
    same = float((labels[near] == labels[:, None]).mean())
    chance = float(np.square(np.bincount(labels) / len(labels)).sum())
    return (same - chance) / max(1 - chance, 1e-12)
