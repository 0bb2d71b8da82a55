"""The network of the image model: its sizes, network layers, passes and loss. The published network is the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stcsm.nets import Conv2dSame, ConvTranspose2dSame

__all__ = ["ACTIVATIONS", "PRESETS", "Architecture", "Loss", "Network"]

ACTIVATIONS: Mapping[str, type[nn.Module]] = MappingProxyType(
    {"relu": nn.ReLU, "elu": nn.ELU, "softplus": nn.Softplus, "tanh": nn.Tanh}
)
_BN: dict[str, Any] = {"eps": 1e-3, "momentum": 0.01}  # TensorFlow's defaults; its momentum 0.99 is torch's 0.01


@dataclass(frozen=True)
class Architecture:
    """Everything that determines the shape and the loss of an `ImageVAE`.

    Attributes
    ----------
    size
        Height and width of the images in pixels, a multiple of 2 to the power of the number of convolutions.
    channels, kernels
        Of the encoder's convolutions, each of which halves height and width; the decoder mirrors them.
    output_kernel
        Kernel of the decoder's last convolution, which keeps the size.
    hidden
        Units of the encoder's dense layer.
    latent
        Number of latents.
    activation
        A key of `ACTIVATIONS`: relu, elu, softplus, tanh.
    kl_weight
        Weight of the divergence (mean over latents) relative to the reconstruction loss (mean over pixels).
    log_var_start
        Log variance of every image before training. None initialises the head's weights as Keras does, as published:
        the noise is then larger than most latents at first, and the loss of single steps can become very large.
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
            object.__setattr__(self, name, _positive(getattr(self, name), name))
        _positive((self.size, self.output_kernel, self.hidden, self.latent), "size, output_kernel, hidden and latent")
        if len(self.channels) != len(self.kernels) or not self.channels:
            raise ValueError(
                f"Expected one kernel for each of the convolutions, found {len(self.channels)} channels and "
                f"{len(self.kernels)} kernels."
            )
        if min(self.kernels) < 2:
            raise ValueError(
                f"Expected kernels of at least 2, since each convolution halves the image, found {self.kernels}."
            )
        if self.size % 2 ** len(self.channels):
            raise ValueError(
                f"Expected a size that is a multiple of {2 ** len(self.channels)}, since {len(self.channels)} "
                f"convolutions halve it, found {self.size}."
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


def _positive(values: Sequence[int], name: str) -> tuple[int, ...]:
    if any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
        raise ValueError(f"Expected {name} to be positive integers, found {list(values)}.")
    return tuple(values)


#: Image size -> architecture. 128 is the published one (Brocki & Chung 2019); the others train in minutes.
PRESETS: Mapping[int, Architecture] = MappingProxyType(
    {
        128: Architecture(),
        64: Architecture(64, (16, 32, 64, 128), (4, 4, 4, 4), 3, 256, 128, log_var_start=-2.0),
        32: Architecture(32, (32, 64, 128), (4, 4, 4), 3, 256, 64, log_var_start=-2.0),
    }
)


class Loss(NamedTuple):
    """Of a batch: ``total`` = ``reconstruction`` + kl_weight * ``divergence``."""

    total: Tensor
    reconstruction: Tensor
    divergence: Tensor


class Network(nn.Module):
    """Encoder, decoder and loss of an `ImageVAE`.

    Parameters
    ----------
    architecture
        Sizes.
    seed
        Of the initial weights; torch's global generator is not used.
    """

    def __init__(self, architecture: Architecture, seed: int) -> None:
        super().__init__()
        self.architecture = architecture
        # torch initialises every network layer from its global generator, which must not change
        with torch.random.fork_rng(devices=[]):
            self.trunk = _trunk(architecture)
            self.z_mean = nn.Linear(architecture.hidden, architecture.latent)
            self.z_log_var = nn.Linear(architecture.hidden, architecture.latent)
            self.decoder = _decoder(architecture)
        _initialise(self, seed)
        if architecture.log_var_start is not None:
            nn.init.zeros_(self.z_log_var.weight)
            nn.init.constant_(self.z_log_var.bias, architecture.log_var_start)
        # several times faster on CPU
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.z_mean.weight.device

    @property
    def encoder(self) -> nn.Module:
        """Images (n, 3, size, size) between 0 and 1 -> latent means (n, latent).

        The module that the attribution engine takes.
        """
        return nn.Sequential(self.trunk, self.z_mean)

    def sampled_encoder(self, seed: int = 0) -> nn.Module:
        """Return the published encoder: a sample of the posterior, with one fixed noise vector for all images.

        The published code's output is z_mean + exp(z_log_var) * eps, also when it computes saliency, so that gradients
        pass through both heads.
        """
        return _SampledEncoder(self, seed)

    def n_parameters(self, trainable: bool = False) -> int:
        """Count parameters like Keras: with running means and variances, or only the ``trainable`` ones."""
        total = sum(p.numel() for p in self.parameters())
        if not trainable:
            total += sum(b.numel() for name, b in self.named_buffers() if not name.endswith("num_batches_tracked"))
        return total

    # ---------------------------------------------------------------- passes

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (n, latent) of images between 0 and 1.

        "Log variance" is the published name; samples have standard deviation exp(log variance), not
        exp(log variance / 2), as in the published code.
        """
        size = self.architecture.size
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != (3, size, size):
            raise ValueError(
                f"Expected images of shape (n, 3, {size}, {size}), found {tuple(pixels.shape)}; read "
                f"them with size={size}."
            )
        hidden = self.trunk(pixels.contiguous(memory_format=torch.channels_last))
        return self.z_mean(hidden).float(), self.z_log_var(hidden).float()

    def logits(self, latents: Tensor) -> Tensor:
        """Decode latents (n, latent) to images before the sigmoid, (n, 3, size, size)."""
        return self.decoder(latents)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents (n, latent) to images between 0 and 1, (n, 3, size, size)."""
        return torch.sigmoid(self.logits(latents).float())

    def forward(self, pixels: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Encode, sample, decode: logits, mean, log variance.

        Without ``noise`` (n, latent) the mean itself is decoded.
        """
        mean, log_var = self.posterior(pixels)
        latents = mean if noise is None else mean + torch.exp(log_var) * noise
        return self.logits(latents), mean, log_var

    def loss(self, pixels: Tensor, noise: Tensor | None = None) -> Loss:
        """Return the published loss, in nats.

        Mean binary cross-entropy over pixels and channels, minus kl_weight times the mean over latents of
        1 + log_var - mean^2 - exp(log_var). Both are means, without the usual factor 1/2.
        """
        logits, mean, log_var = self(pixels, noise)
        reconstruction = F.binary_cross_entropy_with_logits(logits.float(), pixels)
        divergence = -(1 + log_var - mean.square() - log_var.exp()).mean()
        return Loss(reconstruction + self.architecture.kl_weight * divergence, reconstruction, divergence)


class _SampledEncoder(nn.Module):
    noise: Tensor

    def __init__(self, network: Network, seed: int) -> None:
        super().__init__()
        self.trunk, self.z_mean, self.z_log_var = network.trunk, network.z_mean, network.z_log_var
        draw = np.random.default_rng(seed).standard_normal(network.architecture.latent, dtype=np.float32)
        self.register_buffer("noise", torch.from_numpy(draw).to(network.device))

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.trunk(pixels)
        return self.z_mean(hidden) + torch.exp(self.z_log_var(hidden)) * self.noise


# ---------------------------------------------------------------- network layers


def _trunk(arch: Architecture) -> nn.Sequential:
    """Images -> the dense layer that both heads read."""
    act, layers, before = ACTIVATIONS[arch.activation], list[nn.Module](), 3
    for channels, kernel in zip(arch.channels, arch.kernels, strict=True):
        layers += [Conv2dSame(before, channels, kernel, stride=2), act(), nn.BatchNorm2d(channels, **_BN)]
        before = channels
    # TensorFlow flattens in the order height, width, channel, which published dense kernels assume
    layers += [_ChannelsLast(), nn.Flatten(), nn.Linear(arch.cells**2 * before, arch.hidden)]
    return nn.Sequential(*layers, act(), nn.BatchNorm1d(arch.hidden, **_BN))


def _decoder(arch: Architecture) -> nn.Sequential:
    """Latents -> images before the sigmoid."""
    act, cells, before = ACTIVATIONS[arch.activation], arch.cells, arch.channels[-1]
    layers: list[nn.Module] = [nn.Linear(arch.latent, cells * cells * before), act()]
    layers += [nn.Unflatten(1, (cells, cells, before)), _ChannelsFirst(), nn.BatchNorm2d(before, **_BN)]
    for channels, kernel in zip(reversed(arch.channels), reversed(arch.kernels), strict=True):
        layers += [ConvTranspose2dSame(before, channels, kernel, stride=2), act(), nn.BatchNorm2d(channels, **_BN)]
        before = channels
    return nn.Sequential(*layers, Conv2dSame(before, 3, arch.output_kernel))


class _ChannelsLast(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1)


class _ChannelsFirst(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 3, 1, 2)


def _initialise(network: nn.Module, seed: int) -> None:
    """Set Keras's initial weights: Glorot uniform, biases zero."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
