"""Fetch a published checkpoint from an address that the user gives."""

from __future__ import annotations

from pathlib import Path

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
    ValueError
        If the file does not match ``known_hash`` or is no such checkpoint.
    """
    file = pooch.retrieve(
        url,
        known_hash,
        path=pooch.os_cache("stcsm") if path is None else Path(path),
        progressbar=progress,
    )
    return load_keras_weights(file, architecture)
