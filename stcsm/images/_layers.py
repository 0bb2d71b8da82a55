"""Layers of the image model, and their initial weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stcsm.nets import Conv2dSame, ConvTranspose2dSame

from ._architecture import ACTIVATIONS, Architecture

__all__ = ["decoder", "initialise", "trunk"]

_BN: dict[str, Any] = {"eps": 1e-3, "momentum": 0.01}  # TensorFlow's defaults; its momentum 0.99 is torch's 0.01


def trunk(arch: Architecture) -> tuple[nn.Sequential, int]:
    """Pictures -> the dense layer that both heads read, and its width."""
    act, layers, before = ACTIVATIONS[arch.activation], list[nn.Module](), 3
    for channels, kernel in zip(arch.channels, arch.kernels, strict=True):
        layers += [Conv2dSame(before, channels, kernel, stride=2), act(), nn.BatchNorm2d(channels, **_BN)]
        before = channels
    # TensorFlow flattens height, width, channel in this order, and published dense kernels expect it
    layers += [_ChannelsLast(), nn.Flatten(), nn.Linear(arch.cells**2 * before, arch.hidden)]
    return nn.Sequential(*layers, act(), nn.BatchNorm1d(arch.hidden, **_BN)), arch.hidden


def decoder(arch: Architecture) -> nn.Sequential:
    """Latents -> pictures before the sigmoid."""
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


def initialise(model: nn.Module, seed: int) -> None:
    """Draw Keras's initial weights: uniform after Glorot, biases zero."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
