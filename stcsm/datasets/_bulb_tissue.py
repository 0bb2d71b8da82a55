"""Shape of the simulated bulb: an irregular outline, rings of layers within it, and smooth random fields over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

LAYERS = (
    "Granular Cell Layer",
    "Mitral Cell Layer",
    "Outer Plexiform Layer",
    "Glomerular Layer",
    "Olfactory Nerve Layer",
)
"""From the core outwards, named as in replicate 11 of Stahl et al. 2016."""
SHARES = (0.26, 0.14, 0.23, 0.20, 0.17)
"""Share of the spots that lie in each, near those of replicate 11."""
BLUR = 0.18
"""Width of a boundary, in distances between spots: a spot near one holds cells of both sides."""

Field = Callable[[np.ndarray], np.ndarray]
"""Places (n, 2) to values (n,)."""


@dataclass(frozen=True)
class Tissue:
    """A tissue that can be asked anywhere, at spots and at pixels.

    Parameters
    ----------
    outward
        How far out a place lies: 0 at the centre, the last edge on the outline, in distances between spots.
    warp
        Smooth displacement of the boundaries between layers.
    edges
        Boundaries between layers, from the core outwards, and the outline.
    """

    outward: Field
    warp: Field
    edges: np.ndarray

    def inside(self, places: np.ndarray) -> np.ndarray:
        """Whether a place lies within the outline, or less than a spot beyond it."""
        return self.outward(places) <= self.edges[-1] + 0.6

    def layer_shares(self, places: np.ndarray) -> np.ndarray:
        """Share of each layer in the cells at a place, shape (n, number of layers); rows sum to one."""
        ring = self.outward(places) + self.warp(places)
        within = expit((self.edges[None, :-1] - ring[:, None]) / BLUR)
        return np.diff(np.column_stack([np.zeros(len(ring)), within, np.ones(len(ring))]), axis=1)


def make_tissue(n_spots: int, lattice: str, rng: np.random.Generator) -> tuple[Tissue, np.ndarray]:
    """Tissue and the places of its spots.

    Returns
    -------
    Tissue
    places : (n_spots, 2)
        x and y on the lattice, one apart, the centre of the tissue at 0, sorted by row and column.
    """
    amplitude = rng.normal(size=4) * np.array([0.07, 0.06, 0.04, 0.02])
    phase = rng.uniform(0, 2 * np.pi, size=4)
    tilt = rng.uniform(0, np.pi)

    def outward(at: np.ndarray) -> np.ndarray:
        angle = np.arctan2(at[:, 1], at[:, 0])
        waves = sum(a * np.cos(k * angle + p) for k, (a, p) in enumerate(zip(amplitude, phase, strict=True), start=2))
        return np.hypot(at[:, 0], at[:, 1]) / ((1 + 0.16 * np.cos(2 * (angle - tilt))) * (1 + waves))

    mean_radius = np.sqrt(n_spots / np.pi)
    grid = _lattice(int(np.ceil(2 * mean_radius)) + 2, lattice)
    # the n innermost points of the lattice: exactly as many spots as asked for, inside one outline
    chosen = np.sort(np.argsort(outward(grid), kind="stable")[:n_spots])
    places = grid[chosen]
    outline = float(outward(places).max())
    wander = smooth_field(rng, length=0.9 * outline, n_waves=32)

    def warp(at: np.ndarray) -> np.ndarray:
        return 0.05 * outline * wander(at)

    edges = np.append(np.quantile(outward(places) + warp(places), np.cumsum(SHARES)[:-1]), outline)
    return Tissue(outward, warp, edges), places


def smooth_field(rng: np.random.Generator, length: float, n_waves: int = 128) -> Field:
    """Draw a random field of mean 0, variance 1 and a Gaussian kernel of width `length`.

    By random Fourier features (Rahimi & Recht 2007, Random features for large-scale kernel machines).
    """
    frequency = rng.normal(size=(2, n_waves)) / length
    phase = rng.uniform(0, 2 * np.pi, size=n_waves)
    weight = rng.normal(size=n_waves)
    weight *= np.sqrt(2 / (weight**2).sum())  # variance 1 in every draw, not on average only
    return lambda places: np.cos(places @ frequency + phase) @ weight


def _lattice(half: int, lattice: str) -> np.ndarray:
    rows, columns = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    if lattice == "hex":  # odd rows stand half a step to the right
        columns = columns + 0.5 * (rows % 2)
        rows = rows * (np.sqrt(3) / 2)
    return np.column_stack([columns.ravel(), rows.ravel()])
