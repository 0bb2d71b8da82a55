"""Concepts as the paper makes them: a seed gene and its nearest genes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData

from stcsm import _keys
from stcsm.concepts import match_genes, nearest_genes
from stcsm.models import GeneVAE, PublishedVAE
from stcsm.tl._concepts import score_genes
from stcsm.tl._embed import check_fits, embed_genes
from stcsm.tl._store import Concept, columns, distinct_keys, read_concepts, write_concepts


def published_concepts(
    adata: AnnData,
    model: GeneVAE,
    genes: Sequence[str] | str,
    n: int = 50,
    *,
    sampled: bool = False,
    seed: int = 0,
) -> None:
    """Make a concept of each seed gene: the mean latent of its ``n`` most correlated genes (Brocki & Chung 2019).

    Parameters
    ----------
    adata
        The AnnData of the model.
    model
        A trained model.
    genes
        Seed genes; each names its concept.
    n
        Genes of a concept, the seed included (50 in the paper).
    sampled
        Take draws from the posteriors for the genes' latents, as the published code does, in place of their means: for
        the published model only. Two draws share few of the nearest genes.
    seed
        Of the draw.

    Writes
    ------
    ``adata.uns["stcsm"]["concepts"]``, ``adata.uns["stcsm"]["concept_info"]``, ``adata.varm["concept_score"]``
        As :func:`stcsm.tl.concepts` does with ``estimator="mean"``; concepts that are there stay.
    ``adata.varm["X_stcsm"]``
        The embedding (posterior means).

    Raises
    ------
    ValueError
        If a gene is unknown or has no counts, n < 1, the model is not trained, or ``sampled`` is asked of another kind.
    """
    check_fits(adata, model)
    names = [genes] if isinstance(genes, str) else list(genes)
    keys = distinct_keys(names)
    index = match_genes(names, adata.var_names, missing="error").index
    means = [model.get_latent_representation(member=m) for m in range(model.n_members)]
    latents = means
    if sampled:
        if not isinstance(model, PublishedVAE):
            raise ValueError(f"Expected a model of GeneVAE.published for sampled latents, found {type(model).__name__}")
        latents = [model.sampled_latents(seed)]
    made = []
    for name, row in zip(names, index, strict=True):
        # Members of an ensemble may disagree on neighbours: those of the first are the concept's.
        near = np.asarray(nearest_genes(latents[0], int(row), n).index)
        vectors = np.stack([np.asarray(z[near], dtype=np.float64).mean(axis=0) for z in latents])
        made.append(
            Concept(
                key=keys[name],
                label=name,
                source="genes",
                estimator="mean",
                members=np.asarray(adata.var_names[near], dtype=object),
                weights=np.ones(len(near)),
                vectors=vectors,
                info={"seed_gene": name, "n_given": n, "n_found": len(near), "n_usable": len(near), "sampled": sampled},
            )
        )
    embed_genes(adata, model)
    write_concepts(adata, made, model.fingerprint())
    stored = read_concepts(adata)
    adata.varm[_keys.CONCEPT_SCORE] = columns(stored, score_genes(means, stored), adata.var_names)
