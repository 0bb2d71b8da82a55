"""Which spot graph: components, neighbours, steps and, at the scale of spots, width, by held-out counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from stcsm.space._components import spot_components
from stcsm.space._counts import log_normalise
from stcsm.space._filter import spatial_filter
from stcsm.space._heldout import HeldOutCounts
from stcsm.space._similarity import nearest_spots, similarity_graph

COMPONENTS = (5, 10, 20)
NEIGHBOURS = (15, 30, 50, 80)
STEPS = (1, 2, 3, 4, 6, 8)
SPOT_WIDTHS = (0.0, 0.5, 1.0, 2.0)
"""Widths that held-out counts choose from at the scale of spots, in nearest-neighbour distances."""


@dataclass(frozen=True)
class GraphSetting:
    """One graph and how well it predicts: a row of the selection table."""

    width: float
    n_pcs: int
    n_neighbors: int
    steps: int
    gain: float
    prior: float


def some_spots(coords: NDArray[np.float64], most: int, seed: int, patches: int = 10) -> NDArray[np.intp]:
    """Spots that stand for a large section: a few patches, each whole, so that neighbours stay neighbours."""
    from scipy.spatial import cKDTree

    spots = len(coords)
    if spots <= most:
        return np.arange(spots)
    rng = np.random.default_rng(seed)
    tree = cKDTree(coords)
    chosen = np.zeros(spots, dtype=bool)
    centres = coords[rng.permutation(spots)]
    each = most // patches
    for centre in centres:
        chosen[np.asarray(tree.query(centre, k=each)[1])] = True
        if chosen.sum() > most - each:
            break
    return np.flatnonzero(chosen)


def choose_graph(
    counts: csr_array,
    coords: NDArray[np.float64],
    *,
    unit: float,
    widths: Sequence[float],
    n_pcs: Sequence[int],
    n_neighbors: Sequence[int],
    steps: Sequence[int],
    seed: int = 0,
    tick: Callable[[], object] = lambda: None,
) -> list[GraphSetting]:
    """Score spot graphs by held-out counts; the best is first.

    Every graph is built on 70% of the counts alone, the same 70% is diffused over it, and what it predicts is the other
    30% (:class:`HeldOutCounts`). Steps are added while they help. Where several widths are given, the width is settled
    first, with the middle components and neighbours.

    Parameters
    ----------
    counts
        Whole numbers (S, G).
    coords
        Coordinates (S, 2 or 3).
    unit
        Nearest-neighbour distance.
    widths, n_pcs, n_neighbors, steps
        Candidates; one of a kind settles that kind.
    seed
        Of the thinning.
    tick
        Called after each graph, for a progress bar.

    Returns
    -------
    list of GraphSetting
        All that were tried, the best first.
    """
    held = HeldOutCounts(counts, seed=seed)
    values = log_normalise(held.kept)
    tried: list[GraphSetting] = []

    def run(width: float, pcs: Sequence[int], neighbours: Sequence[int]) -> None:
        smoother = spatial_filter(coords, width, unit=unit, dtype=np.float32) if width else None
        scores = spot_components(values, max(pcs), smoother, seed=seed)
        for p in pcs:
            nearest = nearest_spots(scores[:, :p], max(neighbours))
            for k in neighbours:
                for t, gain, prior in _walk(held, similarity_graph(nearest, k), steps):
                    tried.append(GraphSetting(float(width), p, k, t, gain, prior))
                tick()

    if len(widths) > 1:
        for width in widths:
            run(width, n_pcs[len(n_pcs) // 2 :][:1], n_neighbors[len(n_neighbors) // 2 :][:1])
        widths = [max(tried, key=lambda s: s.gain).width]
    run(widths[0], n_pcs, n_neighbors)
    return sorted(dict.fromkeys(tried), key=lambda s: -s.gain)


def _walk(held: HeldOutCounts, graph: csr_array, steps: Sequence[int]) -> Iterator[tuple[int, float, float]]:
    """Diffuse step by step, scoring where asked, until the score falls."""
    smoothed, depth, done, last = held.training, held.depth, 0, -np.inf
    for step in sorted(steps):
        for _ in range(step - done):
            smoothed, depth = np.asarray(graph @ smoothed), np.asarray(graph @ depth)
        done = step
        gain, prior = held.gain(smoothed, depth)
        yield step, gain, prior
        if gain < last:
            return
        last = gain
