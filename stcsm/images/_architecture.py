"""Sizes of the face model: the published one and smaller ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from torch import nn

__all__ = ["ACTIVATIONS", "PRESETS", "Architecture"]

ACTIVATIONS: Mapping[str, type[nn.Module]] = MappingProxyType(
    {"relu": nn.ReLU, "elu": nn.ELU, "softplus": nn.Softplus, "tanh": nn.Tanh}
)


@dataclass(frozen=True)
class Architecture:
    """Everything that fixes an `ImageVAE`'s shape and loss.

    Attributes
    ----------
    size
        Height and width of the pictures; 2 to the number of channels must divide it.
    channels, kernels
        Of the encoder's convolutions, which halve the picture one after another; the decoder mirrors them.
    output_kernel
        Kernel of the decoder's last convolution, which keeps the size.
    hidden
        Units of the encoder's dense layer.
    latent
        Latents.
    activation
        A key of `ACTIVATIONS`.
    kl_weight
        Weight of the divergence's mean over latents beside the reconstruction's mean over pixels.
    log_var_start
        Log variance of every picture before training. None draws the head's weights as Keras does, as published: noise
        then drowns most latents at first, and single steps blow up.
    """

    size: int = 128
    channels: tuple[int, ...] = (64, 128, 256, 512, 1024)
    kernels: tuple[int, ...] = (5, 5, 5, 5, 2)
    output_kernel: int = 5
    hidden: int = 512
    latent: int = 400
    activation: str = "relu"
    kl_weight: float = 5e-4
    log_var_start: float | None = None

    def __post_init__(self) -> None:
        """Check that the numbers fit each other."""
        for name in ("channels", "kernels"):
            object.__setattr__(self, name, _whole(getattr(self, name), name))
        _whole((self.size, self.output_kernel, self.hidden, self.latent), "size, output_kernel, hidden and latent")
        if len(self.channels) != len(self.kernels) or not self.channels:
            raise ValueError(
                f"Expected one kernel for each of the convolutions, found {len(self.channels)} channels and "
                f"{len(self.kernels)} kernels."
            )
        if min(self.kernels) < 2:
            raise ValueError(
                f"Expected kernels of at least 2, since each convolution halves the picture, found {self.kernels}."
            )
        if self.size % 2 ** len(self.channels):
            raise ValueError(
                f"Expected a size that {2 ** len(self.channels)} divides, as {len(self.channels)} "
                f"convolutions halve it, "
                f"found {self.size}."
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"Expected activation to be one of {', '.join(ACTIVATIONS)}, found {self.activation!r}.")
        if not self.kl_weight >= 0:
            raise ValueError(f"Expected a kl_weight of at least 0, found {self.kl_weight}.")
        if self.log_var_start is not None and not -20 <= self.log_var_start <= 5:
            raise ValueError(f"Expected a log_var_start between -20 and 5, or None, found {self.log_var_start}.")

    @property
    def cells(self) -> int:
        """Height and width of the innermost feature map."""
        return self.size // 2 ** len(self.channels)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Architecture:
        """Read what `to_json` returned."""
        names = {f.name for f in fields(cls)}
        if set(values) != names:
            raise ValueError(f"Expected the entries {', '.join(sorted(names))}, found {', '.join(sorted(values))}.")
        return cls(**values)


def _whole(values: Sequence[int], name: str) -> tuple[int, ...]:
    if any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
        raise ValueError(f"Expected {name} to be positive whole numbers, found {list(values)}.")
    return tuple(values)


#: Picture size -> architecture. 128 is the published one (Brocki & Chung 2019); the others train in minutes.
PRESETS: Mapping[int, Architecture] = MappingProxyType(
    {
        128: Architecture(),
        64: Architecture(64, (16, 32, 64, 128), (4, 4, 4, 4), 3, 256, 128, log_var_start=-2.0),
        32: Architecture(32, (32, 64, 128), (4, 4, 4), 3, 256, 64, log_var_start=-2.0),
    }
)
