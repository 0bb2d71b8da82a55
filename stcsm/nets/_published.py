"""The published model of gene images: convolutional encoder and decoder over 32 x 32 cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stcsm.nets._conv import Conv2dSame
from stcsm.nets._conv_transpose import ConvTranspose2dSame
from stcsm.nets._one_channel import Conv2dSameToOne

SIZE = 32
"""Cells of the published grid in either direction."""
CHANNELS = (16, 32, 64)
HIDDEN = 256
KERNEL = 4
_BN: dict[str, Any] = {"eps": 1e-3, "momentum": 0.01}  # TensorFlow's defaults; its momentum 0.99 is torch's 0.01


class PublishedEncoder(nn.Module):
    """Images (N, 1, 32, 32) to mean and log-variance in latent space (Brocki & Chung 2019, arXiv 1910.13140).

    Three strided convolutions and two dense network layers, each followed by ReLU and then batch normalisation.

    Parameters
    ----------
    n_latent
        Size L of the latent space.
    """

    def __init__(self, n_latent: int):
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for channels in CHANNELS:
            layers += [Conv2dSame(before, channels, KERNEL, stride=2), nn.ReLU(), nn.BatchNorm2d(channels, **_BN)]
            before = channels
        # TensorFlow flattens height, width, channel in this order, and published dense kernels expect it.
        layers += [ChannelsLast(), nn.Flatten()]
        width = (SIZE // 2 ** len(CHANNELS)) ** 2 * before
        for _ in range(2):
            layers += [nn.Linear(width, HIDDEN), nn.ReLU(), BatchNormOfAny(HIDDEN, **_BN)]
            width = HIDDEN
        self.trunk = nn.Sequential(*layers)
        self.mean = nn.Linear(width, n_latent)
        self.log_var = nn.Linear(width, n_latent)

    def filtered(self, images: Tensor) -> Tensor:
        """Images as they are: the published model has no filter."""
        return images

    def posterior_of_filtered(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, (N, L) each; the published model draws with standard deviation exp(log-variance)."""
        h = self.trunk(images)
        return self.mean(h), self.log_var(h)

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The same."""
        return self.posterior_of_filtered(images)

    def forward(self, images: Tensor) -> Tensor:
        """Posterior mean (N, L)."""
        return self.posterior(images)[0]


class PublishedDecoder(nn.Module):
    """Latents (N, L) to images before the sigmoid, (N, 1, 32, 32)."""

    def __init__(self, n_latent: int):
        super().__init__()
        cells, before = SIZE // 2 ** len(CHANNELS), CHANNELS[-1]
        layers: list[nn.Module] = [nn.Linear(n_latent, cells**2 * before), nn.ReLU(inplace=True)]
        layers += [nn.Unflatten(1, (cells, cells, before)), ChannelsFirst(), nn.BatchNorm2d(before, **_BN)]
        for channels in reversed(CHANNELS):
            layers += [
                ConvTranspose2dSame(before, channels, KERNEL, stride=2),
                nn.ReLU(inplace=True),
                nn.BatchNorm2d(channels, **_BN),
            ]
            before = channels
        self.layers = nn.Sequential(*layers, Conv2dSameToOne(before, KERNEL))

    def forward(self, z: Tensor) -> Tensor:
        """Decode latents to logits."""
        return self.layers(z)


class BatchNormOfAny(nn.BatchNorm1d):
    """Batch normalisation that takes a batch of one gene, as Keras does: the gene is the mean, the variance 0.

    torch refuses it, and the last batch of an epoch may hold a single gene.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C)."""
        if not self.training or len(input) > 1:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.running_mean.lerp_(input[0].to(self.running_mean.dtype), self.momentum)
            self.running_var.mul_(1 - self.momentum)
            self.num_batches_tracked.add_(1)
        return (input - input) * self.weight + self.bias


class ChannelsLast(nn.Module):
    """(N, C, H, W) to (N, H, W, C)."""

    def forward(self, maps: Tensor) -> Tensor:
        """Permute the axes."""
        return maps.permute(0, 2, 3, 1)


class ChannelsFirst(nn.Module):
    """(N, H, W, C) to (N, C, H, W)."""

    def forward(self, maps: Tensor) -> Tensor:
        """Permute the axes."""
        return maps.permute(0, 3, 1, 2)


def keras_initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw Keras's initial weights: uniform after Glorot, biases zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
