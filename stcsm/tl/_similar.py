"""Genes like a seed gene."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from stcsm.concepts import benjamini_hochberg, correlation_p, match_genes, nearest_genes
from stcsm.tl._concepts import read_embedding


def similar_genes(adata: AnnData, gene: str, n: int = 50) -> pd.DataFrame:
    """Find the genes whose embedding correlates most with a seed gene's.

    Parameters
    ----------
    adata
        With a gene embedding (:func:`stcsm.tl.embed_genes`); not changed.
    gene
        The seed gene.
    n
        Number of genes, the seed included (50 in Brocki & Chung 2019).

    Returns
    -------
    DataFrame indexed by gene, the seed first, with the columns ``r`` (Pearson correlation over the L latents), ``p``
    (two-sided, t distribution with L - 2 degrees of freedom) and ``q`` (Benjamini-Hochberg over all genes). With
    several members of an ensemble, the r of each is averaged on Fisher's scale, and p and q belong to that average as
    if to one member, which is cautious.

    Raises
    ------
    ValueError
        If there is no embedding, the gene is unknown (close names are suggested) or has no counts, or n < 1.
    """
    if not isinstance(gene, str):
        raise TypeError(f"Expected the name of one gene, found {type(gene).__name__}; call it once for each gene")
    latents = read_embedding(adata)
    index = int(match_genes([gene], adata.var_names, missing="error").index[0])
    if len(latents) == 1:
        near = nearest_genes(latents[0], index, n)
        table = pd.DataFrame({"r": near.r, "p": near.p, "q": near.q}, index=adata.var_names[near.index])
    else:
        table = _consensus(latents, index, n, adata.var_names)
    table.index.name = "gene"
    return table


def _consensus(latents: list[np.ndarray], index: int, n: int, var_names: pd.Index) -> pd.DataFrame:
    if n < 1:
        raise ValueError(f"Expected n of at least 1, found {n}")
    fisher = np.zeros(len(var_names))
    for z in latents:
        near = nearest_genes(z, index, len(var_names))
        r = np.full(len(var_names), np.nan)
        r[near.index] = near.r
        fisher += np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)) / len(latents)
    r = np.tanh(fisher)
    r[index] = np.nan
    tested = np.flatnonzero(np.isfinite(r))
    p = correlation_p(r[tested], latents[0].shape[1])
    q = benjamini_hochberg(p)
    order = np.argsort(-r[tested], kind="stable")[: n - 1]
    rows = np.concatenate([[index], tested[order]])
    return pd.DataFrame(
        {
            "r": np.concatenate([[1.0], r[tested][order]]),
            "p": np.concatenate([[np.nan], p[order]]),
            "q": np.concatenate([[np.nan], q[order]]),
        },
        index=var_names[rows],
    )
