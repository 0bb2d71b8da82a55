"""What genes show by themselves: the mean standardised expression of a concept's members, and of genes like them."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from stcsm.models import GeneVAE
from stcsm.tl._concepts import CONCEPTS_AT_ONCE, score_genes
from stcsm.tl._ensemble import counted_spots
from stcsm.tl._maps import highest_scoring
from stcsm.tl._members import gene_blocks, member_shares
from stcsm.tl._store import Concept

N_NEAREST = 10
"""Genes that stand beside the members: five do as well, twenty dilute them (benchmarks/RECOVERY.md)."""


def member_expression(model: GeneVAE, concepts: list[Concept]) -> np.ndarray:
    """Mean standardised log-normalised expression of each concept's members, (K, S'); zero where it has none.

    Counts are divided by the spot's depth (relative to the mean spot), ``log1p`` is taken, and each gene is brought to
    mean 0 and standard deviation 1 over spots before genes are averaged by their weights; of several sections, each
    within its own.
    """
    return _mean_expression(model, member_shares(model, concepts))


def nearest_expression(model: GeneVAE, concepts: list[Concept]) -> np.ndarray:
    """Mean standardised log-normalised expression of each concept's members and its nearest genes, (K, S').

    The nearest are the ten trained genes of highest concept score. Those that are no members count as much as one
    member does (of unequal weights: as one of the members' effective number, 1 over the sum of squared shares).
    """
    share = member_shares(model, concepts)
    square = np.asarray(share.multiply(share).sum(axis=1)).ravel()
    members = sparse.diags_array(1 / np.where(square > 0, square, 1)) @ share
    beside = _nearest(model, concepts)
    joined = sparse.csc_array(members + beside - beside.multiply(share != 0))
    total = np.asarray(abs(joined).sum(axis=1)).ravel()
    return _mean_expression(model, sparse.csc_array(sparse.diags_array(1 / np.where(total > 0, total, 1)) @ joined))


def _nearest(model: GeneVAE, concepts: list[Concept]) -> sparse.csc_array:
    """One at each concept's nearest genes, (K, G)."""
    latents = [model.get_latent_representation(member=m) for m in range(model.n_members)]
    genes = np.vstack(
        [
            highest_scoring(model, score_genes(latents, concepts[first : first + CONCEPTS_AT_ONCE]), N_NEAREST)
            for first in range(0, len(concepts), CONCEPTS_AT_ONCE)
        ]
    )
    where = (np.repeat(np.arange(len(concepts)), genes.shape[1]), genes.ravel())
    return sparse.csc_array((np.ones(genes.size), where), shape=(len(concepts), len(latents[0])))


def _mean_expression(model: GeneVAE, share: sparse.csc_array) -> np.ndarray:
    """Standardised expression averaged by shares (K, G), within each section; zero at spots without a count."""
    maps = np.zeros((share.shape[0], len(model.spots)))
    depth = np.asarray(model.reader.depth, dtype=np.float64)
    parts = counted_spots(model)
    for block in gene_blocks(share, len(model.spots)):
        profiles = model.reader.profiles(block).astype(np.float64)
        for own in parts:
            part = np.log1p(profiles[:, own] / (depth[own] / depth[own].mean()))
            part -= part.mean(axis=1, keepdims=True)
            spread = part.std(axis=1, keepdims=True)
            profiles[:, own] = part / np.where(spread > 0, spread, 1)
        maps += share[:, block] @ profiles
    return maps
