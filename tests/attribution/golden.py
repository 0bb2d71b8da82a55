"""Builds the encoders of the golden cases from their ``.json`` alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stcsm.attribution import TABLE, RuleMethod
from stcsm.nets import Conv2dSame

#: Published name of a method -> ours, from the table of methods.
OURS = {cls.published_name: name for name, cls in TABLE.items()}
#: Published name of a parameter -> ours; those that are missing keep their name.
PARAMETERS = {"window_shape": "window"}

ACTIVATIONS = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),  # TensorFlow's slope
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
}


class BatchNorm(nn.Module):
    """Inference-mode batch normalisation of channels last or first."""

    def __init__(self, weights: dict[str, Tensor], eps: float) -> None:
        super().__init__()
        self.eps = eps
        for key, value in weights.items():
            self.register_buffer(key, value)

    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(x, self.mean, self.var, self.gamma, self.beta, training=False, eps=self.eps)


class FlattenChannelsLast(nn.Module):
    """Flatten in (h, w, c) order."""

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1).flatten(1)


class MaxPoolSame(nn.Module):
    """Max pooling whose padding never wins."""

    def __init__(self, kernel: list[int], stride: list[int], pads: list[int]) -> None:
        super().__init__()
        self.kernel, self.stride, self.pads = kernel, stride, pads

    def forward(self, x: Tensor) -> Tensor:
        top, bottom, left, right = self.pads
        if any(self.pads):
            x = functional.pad(x, (left, right, top, bottom), value=-torch.inf)
        return functional.max_pool2d(x, self.kernel, self.stride)


class Sampled(nn.Module):
    """``mean + exp(log_var) * eps`` with a fixed draw for each sample."""

    def __init__(self, mean: nn.Module, log_var: nn.Module, eps: Tensor) -> None:
        super().__init__()
        self.mean, self.log_var = mean, log_var
        self.register_buffer("eps", eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.mean(x) + self.log_var(x).exp() * self.eps


def _dense(arrays: dict[str, Tensor], name: str) -> nn.Linear:
    kernel = arrays[f"w__{name}__kernel"]
    layer = nn.Linear(*kernel.shape, bias=f"w__{name}__bias" in arrays)
    _load(layer, kernel.T, arrays.get(f"w__{name}__bias"))
    return layer


def _conv(arrays: dict[str, Tensor], spec: dict[str, Any]) -> nn.Conv2d:
    name = spec["name"]
    kernel = arrays[f"w__{name}__kernel"].permute(3, 2, 0, 1)
    bias = arrays.get(f"w__{name}__bias")
    cls = {"SAME": Conv2dSame, "VALID": nn.Conv2d}[spec["padding"]]
    layer = cls(
        kernel.shape[1], kernel.shape[0], tuple(spec["kernel"]), stride=tuple(spec["stride"]), bias=bias is not None
    )
    _load(layer, kernel, bias)
    return layer


def _load(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)


def _layer(spec: dict[str, Any], arrays: dict[str, Tensor]) -> nn.Module:
    match spec["op"]:
        case "conv":
            return _conv(arrays, spec)
        case "dense":
            return _dense(arrays, spec["name"])
        case "act":
            return ACTIVATIONS[spec["fn"]]()
        case "bn":
            parts = ("gamma", "beta", "mean", "var")
            return BatchNorm({p: arrays[f"w__{spec['name']}__{p}"] for p in parts}, spec["eps"])
        case "maxpool":
            pads = spec.get("pad_top_bottom_left_right", [0, 0, 0, 0])
            return MaxPoolSame(spec["kernel"], spec["stride"], pads)
        case "flatten":
            return FlattenChannelsLast()
        case "sample":
            mean, log_var = (_dense(arrays, spec[key]) for key in ("mean", "log_var"))
            return Sampled(mean, log_var, arrays["sample_eps"])
    raise NotImplementedError(f"golden case uses the operation {spec['op']!r}, which this runner does not know")


@dataclass
class Case:
    """One golden case, channels first."""

    name: str
    facts: dict[str, Any]
    arrays: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> Case:
        facts = json.loads(path.read_text())
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as held:
            arrays = {key: torch.from_numpy(held[key]) for key in held.files}
        return cls(path.stem, facts, arrays)

    def encoder(self) -> nn.Module:
        encoder = nn.Sequential()
        for spec in self.facts["layers"]:
            encoder.add_module(spec["name"], _layer(spec, self.arrays))
        return encoder

    def channels_first(self, value: Tensor) -> Tensor:
        """(..., H, W, C) -> (..., C, H, W); rows of features stay."""
        return value.movedim(-1, -3) if len(self.facts["input_shape"]) == 3 else value

    @property
    def x(self) -> Tensor:
        return self.channels_first(self.arrays["x"]).contiguous()

    def call(self, key: str) -> tuple[str, dict[str, Any]]:
        """Our method and parameters for a golden key."""
        facts = dict(self.facts["attr"][key])
        method = OURS[facts.pop("method")]
        params: dict[str, Any] = {}
        for name, value in facts.items():
            ours = PARAMETERS.get(name, name)
            if name == "noise":
                value = self.channels_first(self.arrays["smoothgrad_noise"])
            elif name == "baseline":
                value = self.channels_first(self.arrays["baseline"])
            elif name == "window_shape" and len(value) == 3:
                value = [value[2], *value[:2]]
            elif method == "smoothgrad" and name == "steps":
                ours = "samples"
            params[ours] = value
        sampled = any(layer["op"] == "sample" for layer in self.facts["layers"])
        if sampled and issubclass(TABLE[method], RuleMethod):
            params["allow"] = ("exp",)  # exp(log_var) is a scale, no activation
        return method, params


def case_files(folder: Path) -> list[Path]:
    """Cases in a folder: every ``.json`` that has arrays beside it."""
    return sorted(path for path in folder.glob("*.json") if path.with_suffix(".npz").is_file())
