"""Spatial coherence of maps, through squidpy."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from scipy.spatial import cKDTree

NEIGHBOURS = 6
GRAPH = "spatial_connectivities"


def morans_i(coords: np.ndarray, maps: np.ndarray, parts: Sequence[Any] = (slice(None),)) -> np.ndarray:
    """Moran's I of maps over the graph of each spot's six nearest neighbours.

    Parameters
    ----------
    coords
        (S, 2 or 3).
    maps
        (S, K), finite.
    parts
        Spots of each section; neighbours lie in one section.

    Returns
    -------
    (K,) about 0 for a map without pattern, near 1 for a smooth one; NaN for a constant map.
    """
    import squidpy as sq

    n_spots, n_maps = maps.shape
    if n_spots < 3:
        return np.full(n_maps, np.nan)
    pairs = [_neighbours(coords[part], np.arange(n_spots)[part]) for part in parts]
    spot, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    graph = sparse.csr_matrix((np.ones(len(spot)), (spot, other)), shape=(n_spots, n_spots))
    names = [f"map{i}" for i in range(n_maps)]
    shell = AnnData(obs=pd.DataFrame(maps, columns=names, index=pd.RangeIndex(n_spots).astype(str)))
    shell.obsp[GRAPH] = graph
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant maps, which get NaN below
        table = sq.gr.spatial_autocorr(
            shell, connectivity_key=GRAPH, genes=names, mode="moran", attr="obs", n_perms=None, copy=True,
            show_progress_bar=False,
        )  # fmt: skip
    found = table["I"].reindex(names).to_numpy(dtype=np.float64)
    constant = np.ptp(maps, axis=0) <= 1e-12 * np.abs(maps).max(axis=0)
    return np.where(constant, np.nan, found)


def _neighbours(coords: np.ndarray, spots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each spot of a section, and each of its nearest."""
    k = min(NEIGHBOURS, len(spots) - 1)
    if k < 1:
        return spots[:0], spots[:0]
    near = np.asarray(cKDTree(coords).query(coords, k=k + 1)[1])
    # Of spots in one place, the spot itself need not come first.
    others = np.array([[t for t in row if t != s][:k] for s, row in enumerate(near)])
    return np.repeat(spots, k), spots[others.ravel()]
