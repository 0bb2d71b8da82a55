"""Tables of many columns and dictionaries of many small arrays, written to a zarr group as anndata writes them.

zarr takes milliseconds for every array, and results hold a dozen for each concept. Arrays of one type and shape differ
in the bytes of their values alone, so the first of each is written by anndata, and the others are copies of its files
with values of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata.io import write_elem

METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup")
"""Files of a group or an array that hold no values."""


class Writer:
    """Writes elements to groups of one zarr format.

    Parameters
    ----------
    zarr_format
        2 or 3.
    """

    def __init__(self, zarr_format: int) -> None:
        self._format = zarr_format
        self._known: dict[tuple[Any, ...], tuple[dict[str, bytes], str, Callable[[bytes], Any]]] = {}

    def write(self, path: Path, value: Any) -> None:
        """Write a value to a folder that is not there yet, such that anndata reads it."""
        if isinstance(value, Mapping):
            self._put(path, self._files({}))
            for key, one in value.items():
                self.write(path / key, one)
        elif isinstance(value, pd.DataFrame) and all(isinstance(kind, np.dtype) for kind in value.dtypes):
            self._frame(path, value)
        else:
            self._leaf(path, value)

    def _frame(self, path: Path, frame: pd.DataFrame) -> None:
        import zarr

        self._put(path, self._files(frame.iloc[:, :0]))
        zarr.open_group(path, mode="r+").attrs["column-order"] = list(frame.columns)
        for name, column in frame.items():
            self._leaf(path / str(name), column.to_numpy())

    def _leaf(self, path: Path, value: Any) -> None:
        kind = (type(value), getattr(value, "dtype", None), np.shape(value)) if _plain(value) else None
        if kind is not None and kind in self._known:
            same, name, compress = self._known[kind]
            self._put(path, {**same, name: bytes(compress(_bytes(value)))})
            return
        files = self._files(value)
        self._put(path, files)
        names = [name for name in files if name.rsplit("/", 1)[-1] not in METADATA]
        if kind is None or len(names) != 1:  # zarr keeps no values where they are all zero
            return
        for compress in _compressions():  # copied is only what gives the bytes that zarr wrote
            if files[names[0]] == bytes(compress(_bytes(value))):
                same = {name: data for name, data in files.items() if name != names[0]}
                self._known[kind] = same, names[0], compress
                return

    def _files(self, value: Any) -> dict[str, bytes]:
        """Files of a value as anndata writes it, in one piece and not compressed."""
        import zarr

        held: dict[str, Any] = {}
        group = zarr.open_group(zarr.storage.MemoryStore(held), mode="w", zarr_format=self._format)  # type: ignore[arg-type]
        how = {"compressor": None, "chunks": np.shape(value)} if _plain(value) and np.ndim(value) else {}
        write_elem(group, "value", value, dataset_kwargs=how)
        return {
            name.removeprefix("value/"): data.to_bytes() for name, data in held.items() if name.startswith("value/")
        }

    def _put(self, path: Path, files: dict[str, bytes]) -> None:
        for name, data in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)


def _compressions() -> tuple[Callable[[bytes], Any], ...]:
    """Of arrays, none; of single values, which anndata does not leave to be chosen, those of format 3 and 2."""
    from numcodecs import Blosc, Zstd

    return bytes, Zstd(level=0).encode, Blosc().encode


def _plain(value: Any) -> bool:
    """Whether a value is text or a number, or an array of such."""
    if isinstance(value, np.ndarray):
        return value.size > 0 and (value.dtype.kind in "biuf" or _is_text(value))
    return isinstance(value, str | int | float | np.number | np.bool_)


def _is_text(value: np.ndarray) -> bool:
    return value.dtype.kind == "U" or (value.dtype == object and all(isinstance(one, str) for one in value.flat))


def _bytes(value: Any) -> bytes:
    """Values as zarr stores them without compression."""
    from numcodecs import VLenUTF8

    array = np.asarray(value)
    if _is_text(array):
        return bytes(VLenUTF8().encode(array.astype(object).ravel()))
    return array.astype(array.dtype.newbyteorder("<")).tobytes()
