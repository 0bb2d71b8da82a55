"""One answer from several members, and one scale in each section."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stcsm.concepts import standardise
from stcsm.models import GeneVAE


def average_members(values: Sequence[np.ndarray]) -> np.ndarray:
    """Average tables (n, K) of the members, column by column.

    Latent spaces of different seeds are neither aligned nor of one scale, so each column is brought to mean 0 and
    standard deviation 1 first. A single member is returned as it is, in its own units.
    """
    if len(values) == 1:
        return np.asarray(values[0], dtype=np.float64)
    return np.mean([standardise(v) for v in values], axis=0)


def standardise_sections(model: GeneVAE, maps: np.ndarray) -> np.ndarray:
    """Maps (S', K) brought to mean 0 and standard deviation 1 over the spots, of several sections over those of each.

    What the model knows of a gene is where in its section it is found, not how much of it one section has beside
    another, so maps compare the places of a section. Spots without a count, of which
    a model may be loaded on some, have no say and stay at the mean.
    """
    out = np.zeros(maps.shape, dtype=np.float64)
    for own in counted_spots(model):
        out[own] = standardise(maps[own])
    return out


def counted_spots(model: GeneVAE) -> list[np.ndarray]:
    """Spots with counts among the model's, of each part of the tissue."""
    every = np.arange(len(model.spots))
    seen = np.asarray(model.reader.depth) > 0
    return [every[own][seen[own]] for _, own in model.parts()]
