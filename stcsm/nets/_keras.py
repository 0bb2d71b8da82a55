"""Weights that Keras wrote, by order, kind and shape of the network layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "norm": (nn.BatchNorm2d, nn.BatchNorm1d),
    "dense": (nn.Linear,),
    "conv": (nn.Conv2d, nn.ConvTranspose2d),
}
_WEIGHTS = {"kernel": "weight", "bias": "bias"}
_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


@dataclass
class KerasLayer:
    """Arrays of one Keras layer by role: kernel, bias, gamma, ..."""

    name: str
    arrays: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """``"norm"``, ``"dense"``, ``"conv"``, or ``"other"``."""
        if set(self.arrays) == set(_NORM):
            return "norm"
        if set(self.arrays) == set(_WEIGHTS):
            return {2: "dense", 4: "conv"}.get(self.arrays["kernel"].ndim, "other")
        return "other"


def read_keras_layers(path: Path) -> list[KerasLayer]:
    """Layers of a Keras 2 HDF5 file in the order of the model, nested models expanded; nothing is unpickled.

    Parameters
    ----------
    path
        What ``save_weights`` wrote, or ``save`` (group ``model_weights``).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not an HDF5 file, is damaged, or is not in this layout.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Expected a weights file at {path}, found no such file.")
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            return list(_layers(root, path))
    except (OSError, RuntimeError) as error:  # h5py meets damage inside with either
        raise ValueError(f"Expected an HDF5 file at {path}, found another or a damaged one: {error}") from error


def load_keras_layers(layers: Sequence[KerasLayer], network: nn.Module, path: Path, fix: str) -> None:
    """Copy Keras layers into a network, all or none.

    The numbers in Keras's layer names depend on what else the process had built, so layers are matched by order, kind
    and shape.

    Parameters
    ----------
    layers
        In the order of the model.
    network
        Has its layers in the same order.
    path
        Where they come from, for messages.
    fix
        What messages advise where the file is of another network.

    Raises
    ------
    ValueError
        If the file has another number of layers of a kind, or an array is of another shape or not finite; the network
        is as it was.
    """
    found: list[tuple[Tensor, Tensor]] = []
    for kind, types in _KINDS.items():
        held = [layer for layer in layers if layer.kind == kind]
        wanted = [(name, module) for name, module in network.named_modules() if isinstance(module, types)]
        if len(held) != len(wanted):
            raise ValueError(
                f"Expected {len(wanted)} Keras layers of kind {kind!r} in {path}, found {len(held)}: "
                f"{[layer.name for layer in held]}; {fix}."
            )
        for layer, (name, module) in zip(held, wanted, strict=True):
            for role, target in keras_targets(module).items():
                label = f"{layer.name}/{role}"
                found.append((target, from_keras(layer.arrays[role], role, target, label, name, path, fix)))
    copy_all(found)


def keras_targets(module: nn.Module) -> dict[str, Tensor]:
    """Tensors of a torch network layer under Keras's names of their roles; empty for a layer without weights."""
    if isinstance(module, _KINDS["norm"]):
        return {role: getattr(module, name) for role, name in _NORM.items()}
    if isinstance(module, _KINDS["dense"] + _KINDS["conv"]):
        return {role: getattr(module, name) for role, name in _WEIGHTS.items()}
    return {}


def from_keras(
    array: NDArray[np.float32], role: str, target: Tensor, label: str, name: str, path: Path, fix: str
) -> Tensor:
    """An array with its axes in torch's order.

    Kernels of convolutions have the axes (height, width, in, out), those of transposed ones (height, width, out, in),
    dense ones (in, out).

    Raises
    ------
    ValueError
        If it does not fit `target`, the tensor of the network layer `name`, or is not finite.
    """
    value = torch.from_numpy(np.array(array, dtype=np.float32))
    if role == "kernel":
        value = value.t() if value.ndim == 2 else value.permute(3, 2, 0, 1) if value.ndim == 4 else value
    if value.shape != target.shape:
        raise ValueError(
            f"Expected {label} to fit {name}, of shape {tuple(target.shape)}, found {tuple(value.shape)} after "
            f"transposition in {path}; {fix}."
        )
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"Expected finite weights, found NaN or infinity in {label} of {path}.")
    return value


def copy_all(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Copy the second tensor of each pair into the first."""
    with torch.no_grad():
        for target, value in pairs:
            target.copy_(value)


def _layers(root: h5py.Group, path: Path) -> Iterator[KerasLayer]:
    """Keras layers in the order of the model.

    A nested model lists all trainable weights before the running means and variances, so arrays are grouped by the name
    of their layer.
    """
    for group_name in _names(root, "layer_names", path):
        group = root.get(group_name)
        if not isinstance(group, h5py.Group):
            raise ValueError(
                f"Expected the Keras layer {group_name!r} that {path} lists, found none; is the file complete?"
            )
        layers: dict[str, KerasLayer] = {}
        for weight in _names(group, "weight_names", path):
            array = group.get(weight)
            if not isinstance(array, h5py.Dataset) or array.dtype.kind not in "fiu":
                raise ValueError(
                    f"Expected the array {weight!r} that {group_name!r} lists in {path}, found none; is the file "
                    "complete?"
                )
            owner, _, role = weight.rpartition("/")
            if not owner:  # conv_1_W, whose axes depend on the back end of that time
                raise ValueError(
                    f"Expected weights named layer/kernel:0, as Keras 2 writes them, found {weight!r} in {path}, as of "
                    "Keras 1; load it in Keras 2 and save it there."
                )
            layers.setdefault(owner, KerasLayer(owner)).arrays[role.split(":")[0]] = np.asarray(array)
        yield from layers.values()


def _names(group: h5py.Group, attribute: str, path: Path) -> list[str]:
    """Read a list of names; Keras splits lists above 64 kB into numbered attributes."""
    if attribute in group.attrs:
        return _text(group.attrs[attribute])
    names: list[str] = []
    part = 0
    while f"{attribute}{part}" in group.attrs:
        names += _text(group.attrs[f"{attribute}{part}"])
        part += 1
    if not part and "layers" in group:
        raise ValueError(
            f"Expected the HDF5 that Keras 2 writes, found weights as Keras 3 saves them in {path}; write them again "
            "with model.save('model.h5') in Keras."
        )
    if not part:
        raise ValueError(
            f"Expected the attribute {attribute!r} in {group.name!r} of {path}, as Keras 2's save_weights writes it, "
            "found none; is this a weights file of Keras 2 (HDF5)?"
        )
    return names


def _text(values: object) -> list[str]:
    return [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in np.atleast_1d(np.asarray(values))]
