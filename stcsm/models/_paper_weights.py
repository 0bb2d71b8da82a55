"""Weights of the original Keras model into the published model's layers."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

_BASES = ((nn.ConvTranspose2d, "conv2d_transpose"), (nn.Conv2d, "conv2d"), (nn.Linear, "dense"))
_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def read_reference_weights(npz: str | Path, encoder: nn.Module, decoder: nn.Module) -> None:
    """Copy an archive's arrays into encoder and decoder, all or none.

    Keras numbers the layers of a kind in the order in which they are made, over encoder and decoder together.

    Raises
    ------
    FileNotFoundError, ValueError
        As :meth:`stcsm.models.PublishedVAE.load_published_weights` says.
    """
    path = Path(npz)
    if not path.is_file():
        raise FileNotFoundError(f"Expected the original model's weights (.npz) at {path}, found no such file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            held = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile, AttributeError) as error:
        raise ValueError(f"Expected an archive of arrays (.npz) at {path}, found another file: {error}") from error
    numbers: dict[str, int] = {}
    found: list[tuple[Tensor, Tensor]] = []
    for half, module in (("enc", encoder), ("dec", decoder)):
        for layer in module.modules():
            base = _base(layer)
            if base is None:
                continue
            number = numbers.get(base, 0)
            numbers[base] = number + 1
            name = f"{half}__{base}_{number}" if number else f"{half}__{base}"
            found += [(target, _array(held, key, target, path)) for key, target in _targets(layer, name)]
    with torch.no_grad():
        for target, value in found:
            target.copy_(value)


def _base(layer: nn.Module) -> str | None:
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        return "batch_normalization"
    return next((name for kind, name in _BASES if isinstance(layer, kind)), None)


def _targets(layer: nn.Module, name: str) -> list[tuple[str, Tensor]]:
    roles = _NORM if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) else {"kernel": "weight", "bias": "bias"}
    return [(f"{name}__{role}", getattr(layer, attribute)) for role, attribute in roles.items()]


def _array(held: dict[str, np.ndarray], key: str, target: Tensor, path: Path) -> Tensor:
    if key not in held:
        raise ValueError(f"Expected the array {key} in {path}, found none; there are {sorted(held)[:3]}, ...")
    value = torch.from_numpy(np.asarray(held[key], dtype=np.float32))
    if key.endswith("__kernel"):
        value = value.t() if value.ndim == 2 else value.permute(3, 2, 0, 1) if value.ndim == 4 else value
    if value.shape != target.shape:
        raise ValueError(
            f"Expected {key} in {path} to be of shape {tuple(target.shape)} once its axes are turned, found "
            f"{tuple(value.shape)}"
        )
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"Expected finite weights, found NaN or infinity in {key} of {path}")
    return value
