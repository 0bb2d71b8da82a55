"""What the members of a concept show by themselves: their mean standardised expression."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from stcsm.models import GeneVAE
from stcsm.tl._store import Concept, member_rows

BLOCK = 256
"""Genes that are dense at once."""


def member_expression(model: GeneVAE, concepts: list[Concept]) -> np.ndarray:
    """Mean standardised log-normalised expression of each concept's members, (K, S'); zero where it has none.

    Counts are divided by the spot's depth (relative to the mean spot), ``log1p`` is taken, and each gene is brought to
    mean 0 and standard deviation 1 over spots before genes are averaged by their weights.
    """
    depth = model.module.depth.cpu().numpy() * len(model.spots)
    totals = model.reader.gene_totals
    rows, columns, weights = [], [], []
    for k, concept in enumerate(concepts):
        if len(concept.members):
            genes, w = member_rows(concept, model.gene_names)
            seen = totals[genes] > 0
            rows.append(np.full(int(seen.sum()), k))
            columns.append(genes[seen])
            weights.append(w[seen] / max(float(np.abs(w[seen]).sum()), 1e-12))
    maps = np.zeros((len(concepts), len(model.spots)))
    if not rows:
        return maps
    share = sparse.csc_array(
        (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), shape=(len(concepts), len(totals))
    )
    used = np.unique(np.concatenate(columns))
    for start in range(0, len(used), BLOCK):
        block = used[start : start + BLOCK]
        profiles = np.log1p(model.reader.profiles(block) / depth).astype(np.float64)
        profiles -= profiles.mean(axis=1, keepdims=True)
        spread = profiles.std(axis=1, keepdims=True)
        maps += share[:, block] @ (profiles / np.where(spread > 0, spread, 1))
    return maps
