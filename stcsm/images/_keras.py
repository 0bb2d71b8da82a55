"""The published checkpoint: weights as Keras 2.2 writes them, in HDF5, read by order and shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ._architecture import Architecture
from ._vae import ImageVAE

__all__ = ["load_keras_weights"]

_TORCH: dict[str, tuple[type[nn.Module], ...]] = {
    "norm": (nn.BatchNorm2d, nn.BatchNorm1d),
    "dense": (nn.Linear,),
    "conv": (nn.Conv2d, nn.ConvTranspose2d),
}
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def load_keras_weights(path: str | Path, architecture: Architecture | None = None) -> ImageVAE:
    """Read a face model that was saved by Keras's ``save_weights``.

    Numbers in Keras's layer names depend on what else its process had built, so layers are taken by order, kind and
    shape: encoder convolutions, its dense layer, the heads of mean and log variance, then the decoder (a nested model
    in the published file).

    Parameters
    ----------
    path
        The HDF5 file. Kernels lie as (height, width, in, out), those of transposed convolutions as (height, width, out,
        in), dense ones as (in, out).
    architecture
        What the file should hold; the published one by default.

    Returns
    -------
    The model, in evaluation mode.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no HDF5 file, not in this layout, or of another architecture; the message names the first array that
        differs.
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
                f"Expected {len(wanted)} layers of kind {kind!r} in {path}, found {len(found)}: "
                f"{[x.name for x in found]}."
            )
        for layer, (name, module) in zip(found, wanted, strict=True):
            layer.into(module, name)
    return model.eval()


@dataclass
class _Layer:
    """The arrays of one Keras layer by role: kernel, bias, gamma, ..."""

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
        """Copy the arrays into a torch module, axes turned."""
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
                    f"Expected {self.name}/{role} to fit {name}, of shape {wanted} once its axes are turned, found "
                    f"{tuple(value.shape)}; pass the Architecture that the file was made with."
                )
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f"Expected finite weights, found NaN or infinity in {self.name}/{role}.")
            with torch.no_grad():
                target.copy_(value)


def _text(values: Sequence[bytes | str]) -> list[str]:
    return [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in values]


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Read a list of names; Keras splits one of more than 64 kB over numbered attributes."""
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
    """Layers in the order of the model, those of nested models in their place.

    A nested model lists all its trainable weights before the running means and variances, so arrays are brought
    together by their layer's name.
    """
    for group_name in _names(root, "layer_names"):
        if group_name not in root:
            raise ValueError(
                f"Expected the layer {group_name!r} that the file lists, found no such group; is the file whole?"
            )
        group = root[group_name]
        layers: dict[str, _Layer] = {}
        for weight in _names(group, "weight_names"):
            if weight not in group:
                raise ValueError(
                    f"Expected the array {weight!r} that {group_name!r} lists, found none; is the file whole?"
                )
            owner, _, role = weight.rpartition("/")
            layers.setdefault(owner, _Layer(owner)).arrays[role.split(":")[0]] = np.asarray(group[weight])
        yield from layers.values()
