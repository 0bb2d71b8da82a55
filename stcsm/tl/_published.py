"""Concepts as published: a seed gene and its nearest genes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData

from stcsm.concepts import match_genes, nearest_genes
from stcsm.models import GeneVAE, PublishedVAE
from stcsm.tl._state import (
    Concept,
    check_fits,
    distinct_keys,
    embedding,
    encode_genes,
    is_embedded,
    write_concepts,
    write_embedding,
)


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
        Genes of a concept, the seed included (published: 50).
    sampled
        Use samples from the posteriors as the genes' latents, as the published code does, in place of their means: for
        the published model only. Two samples share few of the nearest genes.
    seed
        Of the samples.

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
    encoded = None if is_embedded(adata, model) else encode_genes(model)
    means = embedding(adata, model) if encoded is None else [mean for mean, _ in encoded]
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
                genes=np.asarray(adata.var_names[near], dtype=object),
                weights=np.ones(len(near)),
                vectors=vectors,
                info={"seed_gene": name, "n_given": n, "n_found": len(near), "n_usable": len(near), "sampled": sampled},
            )
        )
    if encoded is not None:
        write_embedding(adata, model, encoded)
    write_concepts(adata, made, means, model.fingerprint())
