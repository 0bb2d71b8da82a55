"""Small encoders whose answers are known."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def linear(*weights: list[float]) -> nn.Module:
    """Latents W x, one row of W a latent, float64."""
    layer = nn.Linear(len(weights[0]), len(weights), bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights, dtype=torch.float64))
    return layer


def deep(depth: int, *, activation=nn.ReLU, n_in: int = 60, width: int = 120, n_latent: int = 6) -> nn.Module:
    """Random network of that many hidden layers, weights as He et al. draw them, float64."""
    draw = torch.Generator().manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(n_in, width), activation()]
        n_in = width
    layers.append(nn.Linear(n_in, n_latent))
    with torch.no_grad():
        for layer in layers[::2]:
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=draw) * (2 / layer.in_features) ** 0.5)
            layer.bias.copy_(torch.randn(layer.bias.shape, generator=draw) * 0.1)
    return nn.Sequential(*layers).double().eval()


def samples(n: int, *shape: int, seed: int = 1) -> Tensor:
    """Uniform inputs, float64."""
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def vectors(k: int, n_latent: int, seed: int = 2) -> Tensor:
    """Normal concepts, float64."""
    return torch.randn(k, n_latent, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
