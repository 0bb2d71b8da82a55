"""What the members of a concept show by themselves: their mean standardised expression."""

from __future__ import annotations

import numpy as np
from anndata import AnnData

from stcsm.models import GeneVAE
from stcsm.tl._store import Concept


def member_expression(adata: AnnData, model: GeneVAE, concepts: list[Concept]) -> np.ndarray:
    """Mean standardised log-normalised expression of each concept's members, (K, S').

    Counts are divided by the spot's depth (relative to the mean spot), ``log1p`` is taken, and each gene is brought to
    mean 0 and standard deviation 1 over spots before genes are averaged by their weights.
    """
    depth = model.reader.depth * len(model.spots)
    maps = np.zeros((len(concepts), len(model.spots)))
    for k, concept in enumerate(concepts):
        genes = adata.var_names.get_indexer(concept.members)
        kept = model.reader.gene_totals[genes] > 0
        profiles = np.log1p(model.reader.profiles(genes[kept]) / depth)
        profiles -= profiles.mean(axis=1, keepdims=True)
        spread = profiles.std(axis=1, keepdims=True)
        profiles /= np.where(spread > 0, spread, 1)
        weights = concept.weights[kept]
        maps[k] = weights @ profiles / np.abs(weights).sum()
    return maps
