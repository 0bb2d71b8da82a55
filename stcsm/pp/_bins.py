"""Bins of points as spots, and maps on bins back to the points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from stcsm import _keys
from stcsm._layers import counts_matrix
from stcsm._lazy import column, in_memory
from stcsm.pp._sections import section_names
from stcsm.space import check_counts, stored_blocks, whole_positions


def bin_spots(
    adata: AnnData, *, layer: str | None = None, labels: str | None = None, batch_key: str | None = None
) -> AnnData:
    """Add up the counts of all spots (cells, beads, small bins) of each cell of the grid.

    Parameters
    ----------
    adata
        With rows and columns (:func:`stcsm.pp.to_grid`); not changed.
    layer
        Layer of the counts; None is ``.X``, ``"raw"`` is ``.raw``.
    labels
        Column of ``.obs`` whose commonest label each bin is to have (spots without a label do not vote).
    batch_key
        Column of ``.obs`` that names each spot's section, where there are several: each has bins of its own. By
        default the one that :func:`stcsm.pp.to_grid` was given.

    Returns
    -------
    AnnData of bins x genes: ``.X`` counts (CSR), ``.obs["array_row"]``, ``["array_col"]``, ``["n_spots"]``, the
    labels and the section, ``.obsm["spatial"]`` the mean coordinates of each bin's spots, ``.var`` as it was.

    Raises
    ------
    ValueError
        If there are no rows and columns, or no such layer or column, or values that are not counts.
    """
    rows, cols = _positions(adata)
    batch_key = batch_key or _batch_key(adata)
    sections, section = np.unique(_section_of(adata, batch_key), return_inverse=True)
    if labels is not None and labels not in adata.obs:
        raise ValueError(f"Expected a column of adata.obs, found no {labels!r} among {sorted(map(str, adata.obs))}")
    matrix = counts_matrix(adata, layer)
    check_counts(matrix, adata.obs_names, adata.var_names)
    cells, bin_of = np.unique(np.column_stack([section, rows, cols]), axis=0, return_inverse=True)
    bin_of = bin_of.ravel()
    n = np.bincount(bin_of)
    summed = _summed(matrix, bin_of, len(cells))
    obs = pd.DataFrame(
        {_keys.ARRAY_ROW: cells[:, 1], _keys.ARRAY_COL: cells[:, 2], "n_spots": n},
        index=[f"bin_{r}_{c}" + (f"-{sections[b]}" if batch_key else "") for b, r, c in cells],
    )
    if batch_key:
        obs[batch_key] = pd.Categorical(sections[cells[:, 0]])
    if labels is not None:
        obs[labels] = _commonest(column(adata.obs, labels), bin_of, len(cells))
    bins = AnnData(summed, obs=obs, var=in_memory(adata.var).copy())
    if batch_key:
        bins.uns[_keys.UNS] = {"grid": {"batch_key": batch_key}}
    if _keys.SPATIAL in adata.obsm:
        coords = np.asarray(adata.obsm[_keys.SPATIAL], dtype=np.float64)
        sums = np.column_stack([np.bincount(bin_of, weights=c, minlength=len(cells)) for c in coords.T])
        bins.obsm[_keys.SPATIAL] = sums / n[:, None]
    return bins


def _summed(matrix: Any, bin_of: np.ndarray, n_bins: int) -> sparse.csr_matrix:
    """Counts (bins, G) of counts (S, G), read a block at a time."""
    blocks: dict[int, list[Any]] = {}
    for row, first, block in stored_blocks(matrix):
        part = bin_of[row : row + block.shape[0]]
        ones = np.ones(len(part), dtype=np.float32)
        to_bins = sparse.csr_matrix((ones, (part, np.arange(len(part)))), shape=(n_bins, len(part)))
        added = to_bins @ sparse.csr_matrix(block, dtype=np.float32)
        held = blocks.setdefault(first, [added])
        held[0] = held[0] if held[0] is added else held[0] + added
    return sparse.csr_matrix(sparse.hstack([blocks[c][0] for c in sorted(blocks)], format="csr"))


def from_bins(adata: AnnData, bins: AnnData, keys: Sequence[str] | str | None = None) -> None:
    """Bring maps on bins back to the spots (cells, beads) that the bins were made of: each gets its bin's value.

    Parameters
    ----------
    adata
        The spots, with the rows and columns (and sections) that the bins were made with.
    bins
        What :func:`stcsm.pp.bin_spots` returned, with maps.
    keys
        Tables in ``bins.obsm``; None takes all tables of concepts that are there.

    Writes
    ------
    ``adata.obsm[key]``
        DataFrame (S, K); NaN where there is no such bin.

    Raises
    ------
    ValueError
        If either has no rows and columns, a table is not there, or bins stand twice.
    """
    if keys is None:
        keys = [key for key in _keys.CONCEPT_TABLES if key in bins.obsm]
    keys = [keys] if isinstance(keys, str) else list(keys)
    absent = [key for key in keys if key not in bins.obsm]
    if absent or not keys:
        raise ValueError(
            f"Expected tables of concepts in bins.obsm, found {sorted(map(str, bins.obsm))}"
            f"{f' and no {absent[0]!r}' if absent else ''}; run stcsm.tl.concept_map(bins, model) first"
        )
    batch_key = _batch_key(bins)
    index = pd.MultiIndex.from_arrays([_section_of(bins, batch_key), *_positions(bins)])
    if index.has_duplicates:
        raise ValueError(
            f"Expected each bin once, found {int(index.duplicated().sum())} that stand more than once"
            + ("" if batch_key else "; if these are bins of several sections: stcsm.pp.to_grid(bins, batch_key=...)")
        )
    at = index.get_indexer(pd.MultiIndex.from_arrays([_section_of(adata, batch_key), *_positions(adata)]))
    made = {}
    for key in keys:
        table = in_memory(bins.obsm[key])
        frame = table if isinstance(table, pd.DataFrame) else pd.DataFrame(np.asarray(table))
        values = frame.to_numpy(dtype=np.float64)[at]
        values[at < 0] = np.nan
        made[key] = pd.DataFrame(values, index=adata.obs_names.rename(None), columns=frame.columns)
    for key, frame in made.items():
        adata.obsm[key] = frame


def _batch_key(adata: AnnData) -> str | None:
    """Column of the sections that a grid was made for."""
    return adata.uns.get(_keys.UNS, {}).get("grid", {}).get("batch_key")


def _section_of(adata: AnnData, batch_key: str | None) -> np.ndarray:
    names = section_names(adata, batch_key)
    return np.full(adata.n_obs, "") if names is None else names


def _positions(adata: AnnData) -> tuple[np.ndarray, np.ndarray]:
    positions = whole_positions(adata.obs.get(_keys.ARRAY_ROW), adata.obs.get(_keys.ARRAY_COL))
    if positions is None:
        raise ValueError(
            "Expected whole numbers in obs['array_row'] and obs['array_col'], found none; run "
            "stcsm.pp.to_grid(adata, bin_size=...) first"
        )
    return positions


def _commonest(labels: pd.Series, bin_of: np.ndarray, n_bins: int) -> pd.Categorical:
    """The label that most spots of a bin have; the first where two are level, none where none is labelled."""
    values = pd.Categorical(labels)
    known = values.codes >= 0
    votes = sparse.coo_matrix(
        (np.ones(known.sum()), (bin_of[known], values.codes[known])), shape=(n_bins, max(len(values.categories), 1))
    ).toarray()
    codes = np.where(votes.any(axis=1), votes.argmax(axis=1), -1)
    return pd.Categorical.from_codes(codes, categories=values.categories)
