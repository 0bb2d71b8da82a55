"""The concept in a linear encoder: principal components of the genes."""

from __future__ import annotations

import numpy as np

from stcsm.models import GeneVAE
from stcsm.space import HeldOutCounts, choose_components, some_spots
from stcsm.tl._members import BLOCK, gene_blocks, member_shares
from stcsm.tl._store import Concept

GENES, SPOTS = 4000, 5000
"""The number of components is chosen on at most so many genes and spots."""
EXTRA, PASSES = 10, 6
"""Directions beyond the components, and passes over the genes, that find the axes to three digits."""


def linear_maps(model: GeneVAE, concepts: list[Concept]) -> np.ndarray:
    """Saliency maps (K, S') of concepts in a linear encoder.

    The encoder is that of principal component analysis, with all genes that have a count as samples (faint ones help
    here: benchmarks/RECOVERY.md) and their depth-corrected input u as features (of several sections, the spots of all,
    u taken within each); held-out counts choose the number of components. The score of a concept, its members' mean
    latent minus that of all genes, times a gene's latent, is linear in u, so its gradient is one map for all genes.
    """
    seed = int(model.settings["seed"])
    axes, centre = _axes(model, _number(model, seed), seed)
    share = member_shares(model, concepts)
    latents = np.zeros((len(concepts), axes.shape[1]))
    for block in gene_blocks(share, len(model.spots)):
        latents += share[:, block] @ ((_inputs(model, block) - centre) @ axes)
    return latents @ axes.T


def _inputs(model: GeneVAE, genes: np.ndarray) -> np.ndarray:
    """Depth-corrected profiles u (n, S') of genes, whatever form the model's own encoder takes them in."""
    counts = model.reader.profiles(genes)
    return np.log1p(counts / (model.expected_counts(genes) + np.float32(0.5)))


def _axes(model: GeneVAE, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Leading principal axes (S', n) of the genes, and their mean (S',), in passes over blocks of genes.

    Block Krylov iteration (Musco & Musco 2015, arXiv 1504.05477): axes are sought among the directions of all passes.
    The last ones stand little above the noise, and the newest directions alone would need many times the passes.
    """
    genes = np.flatnonzero(model.reader.gene_totals > 0)
    blocks = [genes[start : start + BLOCK] for start in range(0, len(genes), BLOCK)]
    spots = model.reader.n_spots
    centre = sum(_inputs(model, block).sum(axis=0, dtype=np.float64) for block in blocks) / len(genes)
    width = min(n + EXTRA, spots, len(genes))
    newest = np.linalg.qr(np.random.default_rng(seed).normal(size=(spots, width)))[0]
    basis = newest
    for _ in range(PASSES):
        room = spots - basis.shape[1]
        if room < 1:
            break
        image = np.zeros_like(newest)
        for block in blocks:
            u = _inputs(model, block) - centre
            image += u.T @ (u @ newest)
        for _again in range(2):  # once leaves rounding errors behind that grow from pass to pass
            image -= basis @ (basis.T @ image)
        # Beyond what the genes span the new directions are arbitrary: they do no harm, and weigh nothing.
        newest = np.linalg.qr(image)[0][:, :room]
        basis = np.hstack([basis, newest])
    basis = np.linalg.qr(basis)[0]
    inner = np.zeros((basis.shape[1],) * 2)
    for block in blocks:
        scores = (_inputs(model, block) - centre) @ basis
        inner += scores.T @ scores
    _, rotation = np.linalg.eigh(inner)
    return basis @ rotation[:, ::-1][:, :n], np.asarray(centre)


def _number(model: GeneVAE, seed: int) -> int:
    """Number of components, chosen on some of a large section."""
    rng = np.random.default_rng(seed)
    genes = model.trained_genes
    genes = genes if len(genes) <= GENES else np.sort(rng.choice(genes, GENES, replace=False))
    spots = some_spots(model.coordinates, SPOTS, seed)
    return choose_components(HeldOutCounts(model.reader.counts(genes, spots), seed=seed), seed=seed)
