"""The gene embedding in two dimensions, by scanpy."""

from __future__ import annotations

import numpy as np
from anndata import AnnData

from stcsm import _keys
from stcsm._lazy import check_writable
from stcsm.tl._state import embedding


def gene_umap(adata: AnnData, *, n_neighbors: int = 15, min_dist: float = 0.5, seed: int = 0) -> None:
    """Lay the genes out in two dimensions by their embedding: genes beside one another have similar profiles.

    scanpy computes the neighbours and the UMAP. Distances across the plot mean little; a concept's genes can be trusted
    to be alike by their scores, not by their places here.

    Parameters
    ----------
    adata
        With a gene embedding (:func:`stcsm.tl.embed_genes`); of an ensemble the first member's is used.
    n_neighbors
        Genes that count as neighbours of a gene (:func:`scanpy.pp.neighbors`).
    min_dist
        How close points lie (:func:`scanpy.tl.umap`).
    seed
        Of the layout.

    Writes
    ------
    ``adata.varm["X_stcsm_umap"]``
        (G, 2); NaN for genes without a count. :func:`stcsm.pl.embedding` draws it with ``basis="umap"``.

    Raises
    ------
    ValueError
        If there is no embedding, or ``n_neighbors`` is below 2.
    """
    import scanpy as sc

    check_writable(adata)
    if n_neighbors < 2:
        raise ValueError(f"Expected n_neighbors of 2 or more, found {n_neighbors}")
    latents = embedding(adata)[0]
    known = np.isfinite(latents).all(axis=1)
    genes = AnnData(latents[known].astype(np.float32))
    sc.pp.neighbors(genes, n_neighbors=n_neighbors, use_rep="X", transformer="sklearn", random_state=seed)  # exact
    sc.tl.umap(genes, min_dist=min_dist, random_state=seed)
    places = np.full((adata.n_vars, 2), np.nan)
    places[known] = genes.obsm["X_umap"]
    adata.varm[_keys.GENE_UMAP] = places
