"""What genes show by themselves: the mean standardised expression of a concept's members, and of genes like them."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from stcsm.models import GeneVAE
from stcsm.tl._concepts import score_genes
from stcsm.tl._members import BLOCK, gene_blocks, member_shares
from stcsm.tl._store import Concept

N_NEAREST = 10
"""Genes that stand beside the members: twenty or thirty dilute what ten add (benchmarks/RECOVERY.md)."""


def member_expression(model: GeneVAE, concepts: list[Concept]) -> np.ndarray:
    """Mean standardised log-normalised expression of each concept's members, (K, S'); zero where it has none.

    Counts are divided by the spot's depth (relative to the mean spot), ``log1p`` is taken, and each gene is brought to
    mean 0 and standard deviation 1 over spots before genes are averaged by their weights.
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
    trained = model.trained_genes
    n = min(N_NEAREST, len(trained))
    rows = np.empty((len(concepts), n), dtype=np.int64)
    for first in range(0, len(concepts), BLOCK):
        scores = score_genes([z[trained] for z in latents], concepts[first : first + BLOCK])
        rows[first : first + BLOCK] = trained[np.argsort(-scores, axis=0, kind="stable")[:n].T]
    where = (np.repeat(np.arange(len(concepts)), n), rows.ravel())
    return sparse.csc_array((np.ones(rows.size), where), shape=(len(concepts), len(model.reader.gene_totals)))


def _mean_expression(model: GeneVAE, share: sparse.csc_array) -> np.ndarray:
    """Standardised expression averaged by shares (K, G)."""
    depth = model.reader.depth * len(model.spots)
    maps = np.zeros((share.shape[0], len(model.spots)))
    for block in gene_blocks(share):
        profiles = np.log1p(model.reader.profiles(block) / depth).astype(np.float64)
        profiles -= profiles.mean(axis=1, keepdims=True)
        spread = profiles.std(axis=1, keepdims=True)
        maps += share[:, block] @ (profiles / np.where(spread > 0, spread, 1))
    return maps
