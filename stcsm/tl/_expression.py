"""What the members of a concept show by themselves: their mean standardised expression."""

from __future__ import annotations

import numpy as np

from stcsm.models import GeneVAE
from stcsm.tl._store import Concept, member_rows

BLOCK = 256
"""Genes that are dense at once."""


def member_expression(model: GeneVAE, concepts: list[Concept]) -> np.ndarray:
    """Mean standardised log-normalised expression of each concept's members, (K, S').

    Counts are divided by the spot's depth (relative to the mean spot), ``log1p`` is taken, and each gene is brought to
    mean 0 and standard deviation 1 over spots before genes are averaged by their weights.
    """
    depth = model.module.depth.cpu().numpy() * len(model.spots)
    maps = np.zeros((len(concepts), len(model.spots)))
    for k, concept in enumerate(concepts):
        rows, weights = member_rows(concept, model.gene_names)
        seen = model.reader.gene_totals[rows] > 0
        rows, weights = rows[seen], weights[seen]
        for start in range(0, len(rows), BLOCK):
            profiles = np.log1p(model.reader.profiles(rows[start : start + BLOCK]) / depth)
            profiles -= profiles.mean(axis=1, keepdims=True)
            spread = profiles.std(axis=1, keepdims=True)
            maps[k] += weights[start : start + BLOCK] @ (profiles / np.where(spread > 0, spread, 1))
        maps[k] /= max(float(np.abs(weights).sum()), 1e-12)
    return maps
