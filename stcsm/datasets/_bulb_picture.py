"""Draws the simulated bulb as a haematoxylin and eosin section."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from stcsm.datasets._bulb_tissue import LAYERS, Tissue

SIDE = 600
"""Longest side in pixels."""
# what each stain takes from red, green and blue light, as optical densities (Ruifrok & Johnston 2001)
HAEMATOXYLIN = np.array([0.65, 0.70, 0.29])
EOSIN = np.array([0.07, 0.99, 0.11])
# per layer, from the core outwards: nuclei a pixel at 12 micrometres, and eosin
NUCLEI = np.array([0.34, 0.30, 0.05, 0.14, 0.10])
PINK = np.array([0.24, 0.22, 0.25, 0.22, 0.25])
GLASS = np.array([243.0, 241.0, 244.0])


def draw_section(
    tissue: Tissue, corner: np.ndarray, extent: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Picture of the tissue.

    Parameters
    ----------
    tissue
        Outline and layers.
    corner, extent
        Upper left corner and size (x, y) of the picture, in distances between spots.
    rng
        Places the nuclei.

    Returns
    -------
    picture : uint8 array (height, width, 3)
    scale : float
        Pixels of the picture between two spots.
    """
    scale = SIDE / float(extent.max())
    width, height = np.ceil(extent * scale).astype(int)
    y, x = np.mgrid[0:height, 0:width]
    places = np.column_stack([x.ravel(), y.ravel()]) / scale + corner
    grain = scale / 16.7  # drawn for 200 micrometres between spots, 12 a pixel
    ragged = 0.14 * _noise((height, width), 5 * grain, rng)

    outward = tissue.outward(places).reshape(height, width)
    cover = np.clip((tissue.edges[-1] + 0.7 + ragged - outward) * scale / 2, 0, 1)
    shares = tissue.layer_shares(places).reshape(height, width, len(LAYERS))

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
