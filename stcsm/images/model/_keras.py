"""The published weights: a Keras 2.2 HDF5 file, read by order and shape, or fetched from an address."""

from __future__ import annotations

from pathlib import Path

import h5py
import pooch

from stcsm.images.model._network import Architecture
from stcsm.images.model._vae import ImageVAE
from stcsm.nets import load_keras_layers, read_keras_layers

__all__ = ["fetch_pretrained", "load_keras_weights"]


def load_keras_weights(path: str | Path, architecture: Architecture | None = None) -> ImageVAE:
    """Read a face model that was saved by Keras's ``save_weights``.

    The numbers in Keras's layer names depend on what else the process had built, so Keras layers are matched by order,
    kind and shape: the encoder's convolutions, its dense layer, the heads of mean and log variance, then the decoder (a
    nested model in the published file).

    Parameters
    ----------
    path
        The HDF5 file. Kernels have the axes (height, width, in, out), those of transposed convolutions (height, width,
        out, in), dense ones (in, out).
    architecture
        That of the file; the published one by default.

    Returns
    -------
    The model, in evaluation mode.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not an HDF5 file, not in this layout, or of another architecture; the message names the first array
        that differs.
    """
    path = Path(path)
    layers = read_keras_layers(path)
    model = ImageVAE(architecture)
    load_keras_layers(layers, model, path, "pass the Architecture of the file")
    return model.eval()


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
        Address of the HDF5 file (http, https, ftp or doi). There is no default: the published file has no permanent
        address.
    known_hash
        Such as ``"sha256:..."``; a file with another hash is refused. None accepts any file.
    path
        Folder of the downloaded file; pooch's cache by default.
    architecture
        See `load_keras_weights`.
    progress
        Whether to show a progress bar.

    Raises
    ------
    FileNotFoundError
        If the download fails.
    ValueError
        If the file does not match ``known_hash`` or is not such a checkpoint.
    """
    folder = pooch.os_cache("stcsm") if path is None else Path(path)
    try:
        file = Path(pooch.retrieve(url, known_hash, path=folder, progressbar=progress))
    except OSError as error:  # requests' errors are OSErrors
        raise FileNotFoundError(
            f"Expected a Keras weights file at {url}, found no way to download it "
            f"({type(error).__name__}: {error}); get the file by other means, and read it with load_keras_weights."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"Expected a file with known_hash {known_hash} at {url} (http, https, ftp or doi), found another: {error}"
        ) from error
    if not h5py.is_hdf5(file):
        file.unlink()  # otherwise every later call would use it
        raise ValueError(
            f"Expected an HDF5 file at {url}, found something else, perhaps a web page; give the address of the file "
            "itself."
        )
    return load_keras_weights(file, architecture)
