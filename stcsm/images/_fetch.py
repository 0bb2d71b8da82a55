"""Fetch a published checkpoint from an address that the user gives."""

from __future__ import annotations

from pathlib import Path

import h5py
import pooch

from ._architecture import Architecture
from ._keras import load_keras_weights
from ._vae import ImageVAE

__all__ = ["fetch_pretrained"]


def fetch_pretrained(
    url: str,
    known_hash: str | None = None,
    *,
    path: str | Path | None = None,
    architecture: Architecture | None = None,
    progress: bool = True,
) -> ImageVAE:
    """Download a Keras checkpoint once, keep it, and load it.

    Parameters
    ----------
    url
        Address of the HDF5 file (http, https, ftp or doi). None is built in: the published file has no permanent one.
    known_hash
        Such as ``"sha256:..."``; a file that differs is refused. None takes what comes.
    path
        Folder to keep it in; pooch's cache by default.
    architecture
        See `load_keras_weights`.
    progress
        Whether to show a progress bar.

    Raises
    ------
    FileNotFoundError
        If nothing can be had from the address.
    ValueError
        If the file does not match ``known_hash`` or is no such checkpoint.
    """
    folder = pooch.os_cache("stcsm") if path is None else Path(path)
    try:
        file = Path(pooch.retrieve(url, known_hash, path=folder, progressbar=progress))
    except OSError as error:  # requests' errors are OSErrors
        raise FileNotFoundError(
            f"Expected a Keras weights file at {url}, found no way to fetch it ({type(error).__name__}: {error}); get "
            "it by other means, and read it with load_keras_weights."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"Expected the file of known_hash {known_hash} (and an address of http, https, ftp or doi) at {url}, found "
            f"otherwise: {error}"
        ) from error
    if not h5py.is_hdf5(file):
        file.unlink()  # or every later call would find it
        raise ValueError(
            f"Expected an HDF5 file at {url}, found something else, perhaps a page about it; give the address of the "
            "file itself."
        )
    return load_keras_weights(file, architecture)
