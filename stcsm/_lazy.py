"""What a lazy AnnData (``anndata.experimental.read_lazy``) holds beside its counts, in memory.

There, tables (``.obs``, ``.var``, tables in ``.obsm`` and ``.uns``) are ``Dataset2D`` and arrays are dask's. Labels,
coordinates and results are small: a step reads what it needs of them whole. Counts are large: they are read in blocks
(:func:`stcsm.space.stored_blocks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


def in_memory(value: Any) -> Any:
    """Return a table as pandas holds it and an array as numpy or scipy do; what is in memory is returned as it is.

    Dictionaries are read with all that is in them, into a new dictionary.
    """
    if hasattr(value, "to_memory"):  # Dataset2D, sparse matrices on disk
        return value.to_memory()
    if isinstance(value, Mapping):
        return {key: in_memory(item) for key, item in value.items()}
    if hasattr(value, "compute"):  # dask
        return _plain(value.compute())
    return value


def _plain(array: Any) -> Any:
    """Text of a zarr store comes in numpy's own string type, which few functions of pandas and h5py take."""
    return array.astype(object) if getattr(getattr(array, "dtype", None), "kind", "") == "T" else array


def column(frame: Any, name: str) -> pd.Series:
    """Return a column of ``adata.obs`` or ``adata.var`` as pandas holds it; of a lazy table no other column is read."""
    held: pd.Series = in_memory(frame[[name]])[name] if hasattr(frame, "to_memory") else frame[name]
    return held


def columns(frame: Any, names: list[str]) -> np.ndarray:
    """Return columns of numbers as one array (n, number of columns)."""
    return np.column_stack([column(frame, name).to_numpy() for name in names])


def check_writable(adata: Any) -> None:
    """Refuse an AnnData that results cannot be written into, before any work is done for them.

    Raises
    ------
    ValueError
        If it is a view of a backed AnnData, which anndata would have to copy into another file.
    """
    if adata.is_view and adata.isbacked:
        raise ValueError(
            "Expected an AnnData that results can be written into, found a view (some spots or genes) of a backed one; "
            "read the view into memory: adata = adata.to_memory()"
        )
