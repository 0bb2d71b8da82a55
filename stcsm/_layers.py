"""The matrix of counts of an AnnData: ``.X``, a layer, or ``.raw``."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from stcsm import _keys

logger = logging.getLogger(__name__)

RAW = "raw"
"""Name under which counts in ``adata.raw`` are asked for, where no layer is called so."""


def counts_matrix(adata: Any, layer: str | None) -> Any:
    """Return the matrix of counts (S, G): dense, sparse or backed, as it is, without a copy where that is possible.

    ``"raw"`` is ``adata.raw.X`` at the genes of ``adata.var_names``, unless a layer is called so.

    Raises
    ------
    ValueError
        If the layer does not exist, or if there is no matrix, or ``adata.raw`` lacks genes.
    """
    if layer is None:
        matrix = adata.X
        if matrix is None:
            raise ValueError("Expected counts in adata.X, found None; name the layer that holds them: layer=...")
        return matrix
    if layer == RAW and layer not in adata.layers and adata.raw is not None:
        return _raw_counts(adata)
    if layer not in adata.layers:
        there = _keys.layer_names(adata.layers)
        raise ValueError(
            f"Expected a layer named {layer!r}, found {f'the layers {there}' if there else 'no layers'}; name one of "
            "them, or none for the counts in adata.X"
        )
    return adata.layers[layer]


def _raw_counts(adata: Any) -> Any:
    raw = adata.raw
    names, there = adata.var_names.astype(str), raw.var_names.astype(str)  # identifiers may be numbers in one of them
    if names.equals(there):
        return raw.X
    columns = there.get_indexer(names) if there.is_unique else np.full(adata.n_vars, -1)
    if (columns < 0).any():
        raise ValueError(
            f"Expected every gene of the AnnData once in adata.raw, found that {(columns < 0).sum()} of {adata.n_vars} "
            f"are not (such as {adata.var_names[(columns < 0).argmax()]!r}); take raw as an AnnData of its own: "
            "counts = adata.raw.to_adata()"
        )
    logger.info(f"counts are those of adata.raw at {adata.n_vars} of its {raw.n_vars} genes")
    if np.array_equal(columns, np.sort(columns)):
        return raw.X[:, columns]
    order = np.argsort(columns)  # files give their columns in order only
    return raw.X[:, columns[order]][:, np.argsort(order)]
