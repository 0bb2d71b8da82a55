"""The mouse olfactory bulb of Stahl et al. 2016, from this machine or fetched."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import anndata as ad

from stcsm import _keys
from stcsm.datasets._mob_fetch import fetch_mob
from stcsm.datasets._mob_files import (
    MobFiles,
    check_replicate,
    check_shape,
    counts_name,
    files_beside,
    find_files,
)
from stcsm.io import add_labels, read_st

DATA_VARIABLE = "STCSM_DATA_DIR"
RINGS = ("GCL", "MCL", "EPL", "OPL", "GL", "ONL")
"""Usual short names of the bulb's layers, from the core outwards."""


def mouse_olfactory_bulb(
    replicate: int = 1, *, path: str | Path | None = None, base_url: str | None = None, progress: bool = True
) -> ad.AnnData:
    """Load one of the twelve sections of mouse olfactory bulb of Stahl et al. 2016 (Science 353:78).

    Looked for in this order: `path`; the folder of the environment variable ``STCSM_DATA_DIR``, or `mob` in it; the
    cache; the official address.

    Parameters
    ----------
    replicate
        1 to 12; the paper on concept saliency maps uses 1.
    path
        The count matrix (plain or gzipped), or a folder that holds it under its official name; then nothing is fetched.
    base_url
        Address that holds the files; default the environment variable ``STCSM_MOB_URL``, else the official one.
    progress
        Show a progress bar while fetching.

    Returns
    -------
    AnnData
        Spots x genes, as `stcsm.io.read_st` gives it: with the picture where it and its transformation lie beside the
        counts or can be fetched, and with ``.obs["layer"]`` where labels (`Rep11_layers.csv`) lie beside them.

    Raises
    ------
    FileNotFoundError
        The counts are nowhere; the message says which file to put where.
    ValueError
        No such replicate, or a file that is not this replicate's (another shape).

    Examples
    --------
    >>> adata = stcsm.datasets.mouse_olfactory_bulb(11)  # doctest: +SKIP
    """
    check_replicate(replicate)
    files = _local(replicate, path) or _cached(replicate, base_url, progress)
    adata = _read(files)
    check_shape(adata.shape, replicate, str(files.counts))
    if files.labels is not None:
        add_labels(adata, files.labels)
        names = adata.obs[_keys.LAYER].cat.categories
        if set(names) <= set(RINGS):
            adata.obs[_keys.LAYER] = adata.obs[_keys.LAYER].cat.reorder_categories([r for r in RINGS if r in names])
    return adata


def _local(replicate: int, path: str | Path | None) -> MobFiles | None:
    if path is None:
        folder = os.environ.get(DATA_VARIABLE)
        return find_files(Path(folder).expanduser(), replicate) if folder else None
    path = Path(path).expanduser()
    if path.is_file():
        return files_beside(path, replicate)
    files = find_files(path, replicate)
    if files is None:
        what = "there is no such file or folder" if not path.exists() else "it is not there, nor in its mob folder"
        raise FileNotFoundError(
            f"Expected {counts_name(replicate)} (plain or .gz) in {path}, found that {what}; "
            "put it there, or leave path= out to fetch it."
        )
    return files


def _cached(replicate: int, base_url: str | None, progress: bool) -> MobFiles:
    import pooch

    folder = Path(pooch.os_cache("stcsm")) / "mob"
    files = find_files(folder, replicate)
    if files is None:
        counts = fetch_mob(replicate, folder, base_url=base_url, progress=progress)[0]
        files = files_beside(counts, replicate)
    return files


def _read(files: MobFiles) -> ad.AnnData:
    if files.picture is None:
        return read_st(files.counts)
    try:
        return read_st(
            files.counts, image=files.picture, transformation=files.transformation, image_shape=files.image_shape
        )
    except (ValueError, OSError) as error:
        adata = read_st(files.counts)  # raises by itself where the counts are at fault
        warnings.warn(f"Read without its picture: {error}", stacklevel=3)
        return adata
