"""What the members of a concept show by themselves: their mean standardised expression."""

from __future__ import annotations

import numpy as np

from stcsm.models import GeneVAE
from stcsm.tl._members import member_shares
from stcsm.tl._store import Concept


def member_expression(model: GeneVAE, concepts: list[Concept]) -> np.ndarray:
    """Mean standardised log-normalised expression of each concept's members, (K, S'); zero where it has none.

    Counts are divided by the spot's depth (relative to the mean spot), ``log1p`` is taken, and each gene is brought to
    mean 0 and standard deviation 1 over spots before genes are averaged by their weights.
    """
    depth = model.reader.depth * len(model.spots)
    share, blocks = member_shares(model, concepts)
    maps = np.zeros((len(concepts), len(model.spots)))
    for block in blocks:
        profiles = np.log1p(model.reader.profiles(block) / depth).astype(np.float64)
        profiles -= profiles.mean(axis=1, keepdims=True)
        spread = profiles.std(axis=1, keepdims=True)
        maps += share[:, block] @ (profiles / np.where(spread > 0, spread, 1))
    return maps
