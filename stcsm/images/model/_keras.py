"""The published weights: a Keras 2.2 HDF5 file, read by order and shape, or fetched from an address."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pooch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stcsm.images.model._network import Architecture
from stcsm.images.model._vae import ImageVAE

__all__ = ["fetch_pretrained", "load_keras_weights"]

_TORCH: dict[str, tuple[type[nn.Module], ...]] = {
    "norm": (nn.BatchNorm2d, nn.BatchNorm1d),
    "dense": (nn.Linear,),
    "conv": (nn.Conv2d, nn.ConvTranspose2d),
}
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


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
    if not path.is_file():
        raise FileNotFoundError(f"Expected a weights file at {path}, found no such file.")
    try:
        with h5py.File(path, "r") as file:
            layers = list(_layers(file.get("model_weights", file)))
    except OSError as error:
        raise ValueError(f"Expected an HDF5 file at {path}, found another or a damaged one: {error}") from error
    model = ImageVAE(architecture)
    for kind, types in _TORCH.items():
        found = [layer for layer in layers if layer.kind == kind]
        wanted = [(name, module) for name, module in model.named_modules() if isinstance(module, types)]
        if len(found) != len(wanted):
            raise ValueError(
                f"Expected {len(wanted)} Keras layers of kind {kind!r} in {path}, found {len(found)}: "
                f"{[x.name for x in found]}."
            )
        for layer, (name, module) in zip(found, wanted, strict=True):
            layer.into(module, name)
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


# ---------------------------------------------------------------- the file


@dataclass
class _Layer:
    """Arrays of one Keras layer by role: kernel, bias, gamma, ..."""

    name: str
    arrays: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        if set(self.arrays) == set(_NORM):
            return "norm"
        if set(self.arrays) == {"kernel", "bias"}:
            return {2: "dense", 4: "conv"}.get(self.arrays["kernel"].ndim, "other")
        return "other"

    def into(self, module: nn.Module, name: str) -> None:
        """Copy the arrays into a torch module, with axes transposed."""
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm2d | nn.BatchNorm1d)
        if self.kind == "norm":
            targets = dict(
                zip(_NORM, (module.weight, module.bias, module.running_mean, module.running_var), strict=True)
            )
        else:
            targets = {"kernel": module.weight, "bias": module.bias}
        for role, target in targets.items():
            value = torch.from_numpy(np.array(self.arrays[role], dtype=np.float32))
            if role == "kernel":
                value = value.t() if self.kind == "dense" else value.permute(3, 2, 0, 1)
            if not isinstance(target, Tensor) or value.shape != target.shape:
                wanted = tuple(target.shape) if isinstance(target, Tensor) else None
                raise ValueError(
                    f"Expected {self.name}/{role} to fit {name}, of shape {wanted}, found "
                    f"{tuple(value.shape)} after transposition; pass the Architecture of the file."
                )
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f"Expected finite weights, found NaN or infinity in {self.name}/{role}.")
            with torch.no_grad():
                target.copy_(value)


def _text(values: Sequence[bytes | str]) -> list[str]:
    return [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in values]


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Read a list of names; Keras splits lists above 64 kB into numbered attributes."""
    if attribute in group.attrs:
        return _text(group.attrs[attribute])
    names: list[str] = []
    part = 0
    while f"{attribute}{part}" in group.attrs:
        names += _text(group.attrs[f"{attribute}{part}"])
        part += 1
    if not part:
        raise ValueError(
            f"Expected the attribute {attribute!r} in {group.name!r}, as Keras's save_weights writes it, found none."
        )
    return names


def _layers(root: h5py.Group) -> Iterator[_Layer]:
    """Keras layers in the order of the model, with nested models expanded.

    A nested model lists all trainable weights before the running means and variances, so arrays are grouped by the name
    of their layer.
    """
    for group_name in _names(root, "layer_names"):
        if group_name not in root:
            raise ValueError(
                f"Expected the Keras layer {group_name!r} that the file lists, found none; is the file complete?"
            )
        group = root[group_name]
        layers: dict[str, _Layer] = {}
        for weight in _names(group, "weight_names"):
            if weight not in group:
                raise ValueError(
                    f"Expected the array {weight!r} that {group_name!r} lists, found none; is the file complete?"
                )
            owner, _, role = weight.rpartition("/")
            layers.setdefault(owner, _Layer(owner)).arrays[role.split(":")[0]] = np.asarray(group[weight])
        yield from layers.values()
