"""Random networks that the tests of the engine share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stcsm.nets import Conv2dSame


def seeded(build, seed: int = 0) -> nn.Module:
    """Build a module with weights from a seed, in float64 and evaluation mode; the global generator stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().double().eval()


def inputs(*shape: int, seed: int = 1) -> Tensor:
    """Normal inputs, float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mlp(activation=nn.ReLU, n_in=10, n_hidden=(48, 40), n_latent=4) -> nn.Module:
    """Fully connected network."""
    layers: list[nn.Module] = []
    for width in n_hidden:
        layers += [nn.Linear(n_in, width), activation()]
        n_in = width
    return nn.Sequential(*layers, nn.Linear(n_in, n_latent))


def conv_net(activation=nn.ReLU) -> nn.Module:
    """Convolutions with SAME padding, batch norm after the activation, max pooling."""
    return nn.Sequential(
        Conv2dSame(1, 4, 3, stride=2), activation(), nn.BatchNorm2d(4),
        nn.Conv2d(4, 6, 3, padding=1), activation(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 2 * 2, 3),
    )  # fmt: skip


class Spelled(nn.Module):
    """Two linear layers with a ReLU, spelled in one of many ways."""

    SPELLINGS = (
        "module", "module_inplace", "shared", "functional", "functional_inplace", "torch", "method", "method_inplace",
        "clamp", "clamp_min", "maximum",
    )  # fmt: skip

    def __init__(self, spelling: str):
        super().__init__()
        self.spelling = spelling
        self.a, self.b, self.c = nn.Linear(6, 40), nn.Linear(40, 44), nn.Linear(44, 3)
        self.relu, self.relu_in = nn.ReLU(), nn.ReLU(inplace=True)
        self.relu2 = nn.ReLU()

    def act(self, x: Tensor, second: bool) -> Tensor:
        """The activation."""
        match self.spelling:
            case "module":
                return self.relu2(x) if second else self.relu(x)
            case "module_inplace":
                return self.relu_in(x)
            case "shared":
                return self.relu(x)
            case "functional":
                return F.relu(x)
            case "functional_inplace":
                return F.relu(x, inplace=True)
            case "torch":
                return torch.relu(x)
            case "method":
                return x.relu()
            case "method_inplace":
                return x.relu_()
            case "clamp":
                return x.clamp(min=0)
            case "clamp_min":
                return torch.clamp_min(x, 0)
            case _:
                return torch.maximum(x, torch.zeros_like(x))

    def forward(self, x: Tensor) -> Tensor:
        """Latents."""
        return self.c(self.act(self.b(self.act(self.a(x), False)), True))


class Residual(nn.Module):
    """Residual connection, layer norm, dropout and attention."""

    def __init__(self):
        super().__init__()
        self.inner, self.norm = nn.Linear(8, 48), nn.LayerNorm(48)
        self.attention = nn.MultiheadAttention(24, 2, dropout=0.3, batch_first=True)
        self.mix, self.out, self.drop = nn.Linear(24, 48), nn.Linear(48, 3), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Latents."""
        x = x.repeat(1, 6) + self.drop(F.relu(self.norm(self.inner(x))))
        tokens = x.unflatten(1, (2, 24))
        mixed, _ = self.attention(tokens, tokens, tokens)
        return self.out(F.relu(x + self.mix(mixed.mean(dim=1))))
