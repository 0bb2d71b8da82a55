"""The tissue of the simulated bulb: an irregular outline, rings of layers within it, and the image of a section."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
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
SIDE = 600
"""Longest side of the image in pixels."""
# what each stain takes from red, green and blue light, as optical densities (Ruifrok & Johnston 2001)
HAEMATOXYLIN = np.array([0.65, 0.70, 0.29])
EOSIN = np.array([0.07, 0.99, 0.11])
# per layer, from the core outwards: nuclei a pixel at 12 micrometres, and eosin
NUCLEI = np.array([0.34, 0.30, 0.05, 0.14, 0.10])
PINK = np.array([0.24, 0.22, 0.25, 0.22, 0.25])
GLASS = np.array([243.0, 241.0, 244.0])

Field = Callable[[np.ndarray], np.ndarray]
"""Positions (n, 2), in distances between spots from the centre, to values (n,)."""


@dataclass(frozen=True)
class Tissue:
    """A tissue that can be asked anywhere, at spots and at pixels.

    Parameters
    ----------
    outward
        How far out a position lies: 0 at the centre, the last edge on the outline, in distances between spots.
    warp
        Smooth displacement of the boundaries between layers.
    edges
        Boundaries between layers, from the core outwards, and the outline.
    """

    outward: Field
    warp: Field
    edges: np.ndarray

    def inside(self, xy: np.ndarray) -> np.ndarray:
        """Whether a position lies within the outline, or less than a spot beyond it."""
        return self.outward(xy) <= self.edges[-1] + 0.6

    def layer_shares(self, xy: np.ndarray) -> np.ndarray:
        """Share of each layer in the cells at a position, shape (n, number of layers); rows sum to one."""
        ring = self.outward(xy) + self.warp(xy)
        within = expit((self.edges[None, :-1] - ring[:, None]) / BLUR)
        return np.diff(np.column_stack([np.zeros(len(ring)), within, np.ones(len(ring))]), axis=1)


def make_tissue(n_spots: int, lattice: str, rng: np.random.Generator) -> tuple[Tissue, np.ndarray]:
    """Tissue and the positions of its spots.

    Returns
    -------
    Tissue
    xy : (n_spots, 2)
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
    xy = grid[chosen]
    outline = float(outward(xy).max())
    wander = smooth_field(rng, length=0.9 * outline, n_waves=32)

    def warp(at: np.ndarray) -> np.ndarray:
        return 0.05 * outline * wander(at)

    edges = np.append(np.quantile(outward(xy) + warp(xy), np.cumsum(SHARES)[:-1]), outline)
    return Tissue(outward, warp, edges), xy


def smooth_field(rng: np.random.Generator, length: float, n_waves: int = 128) -> Field:
    """Draw a random field of mean 0, variance 1 and a Gaussian kernel of width `length`.

    By random Fourier features (Rahimi & Recht 2007, Random features for large-scale kernel machines).
    """
    frequency = rng.normal(size=(2, n_waves)) / length
    phase = rng.uniform(0, 2 * np.pi, size=n_waves)
    weight = rng.normal(size=n_waves)
    weight *= np.sqrt(2 / (weight**2).sum())  # variance 1 in every draw, not on average only
    return lambda xy: np.cos(xy @ frequency + phase) @ weight


def _lattice(half: int, lattice: str) -> np.ndarray:
    rows, columns = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    if lattice == "hex":  # odd rows stand half a step to the right
        columns = columns + 0.5 * (rows % 2)
        rows = rows * (np.sqrt(3) / 2)
    return np.column_stack([columns.ravel(), rows.ravel()])


def draw_section(
    tissue: Tissue, corner: np.ndarray, extent: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Image of the tissue, as a section stained with haematoxylin and eosin.

    Parameters
    ----------
    tissue
        Outline and layers.
    corner, extent
        Upper left corner and size (x, y) of the image, in distances between spots.
    rng
        Of the nuclei, islands and stains.

    Returns
    -------
    image : uint8 array (height, width, 3)
    scale : float
        Pixels of the image between two spots.
    """
    scale = SIDE / float(extent.max())
    width, height = np.ceil(extent * scale).astype(int)
    y, x = np.mgrid[0:height, 0:width]
    xy = np.column_stack([x.ravel(), y.ravel()]) / scale + corner
    grain = scale / 16.7  # drawn for 200 micrometres between spots, 12 a pixel
    ragged = 0.14 * _noise((height, width), 5 * grain, rng)

    outward = tissue.outward(xy).reshape(height, width)
    cover = np.clip((tissue.edges[-1] + 0.7 + ragged - outward) * scale / 2, 0, 1)
    shares = tissue.layer_shares(xy).reshape(height, width, len(LAYERS))

    nuclei = shares @ NUCLEI
    pink = shares @ PINK
    # granule cells lie in islands, strung along the rings
    islands = _noise((height, width), 1.6 * grain, rng)
    bands = np.sin(2 * np.pi * (outward + 2 * ragged) / 0.75) + 0.9 * islands
    nuclei *= 1 + shares[..., 0] * 0.45 * np.clip(bands, -1.6, 1.6)
    # glomeruli are pale balls without nuclei, in a shell of cells
    ball = _distance_to_centres(shares[..., LAYERS.index("Glomerular Layer")], 9.5 * grain, rng) / (4.2 * grain)
    glomerular = shares[..., LAYERS.index("Glomerular Layer")]
    nuclei *= 1 + glomerular * np.where(ball < 0.85, -0.92, 2.2 * np.exp(-(((ball - 1.1) / 0.25) ** 2)))
    pink *= 1 - 0.25 * glomerular * (ball < 0.85)

    drawn = (rng.random((height, width)) < nuclei) * rng.uniform(0.6, 1.4, size=(height, width))
    blue = ndimage.gaussian_filter(drawn, 0.75 * max(grain, 0.6)) + 0.25 * ndimage.gaussian_filter(nuclei, 2 * grain)
    pink = np.clip(pink * (1 + 0.16 * _noise((height, width), 0.7, rng) + 0.8 * ragged), 0.02, None)
    density = cover[..., None] * (1.9 * blue[..., None] * HAEMATOXYLIN + pink[..., None] * EOSIN)
    dirt = 1.2 * _noise((height, width), 12 * grain, rng) + rng.normal(0, 0.8, size=(height, width))
    light = GLASS + dirt[..., None]
    return np.clip(light * np.exp(-density), 0, 255).astype(np.uint8), scale


def _noise(shape: tuple[int, int], width: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of mean 0 and standard deviation 1; `width` in pixels."""
    noise: np.ndarray = np.asarray(ndimage.gaussian_filter(rng.normal(size=shape), width))
    return (noise - noise.mean()) / noise.std()


def _distance_to_centres(share: np.ndarray, apart: float, rng: np.random.Generator) -> np.ndarray:
    """Distance in pixels to the nearest of some centres, at least `apart` from each other, where `share` is high."""
    candidates = np.argwhere(share > 0.75)
    centres = np.empty((0, 2))
    for at in candidates[rng.permutation(len(candidates))[:3000]]:
        if not len(centres) or ((centres - at) ** 2).sum(axis=1).min() >= apart**2:
            centres = np.vstack([centres, at])
    free = np.ones(share.shape, dtype=bool)
    free[tuple(centres.astype(int).T)] = False
    return ndimage.distance_transform_edt(free) if len(centres) else np.full(share.shape, np.inf)
