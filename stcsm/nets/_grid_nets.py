"""Convolutional encoder and decoder over a grid of any size."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from stcsm.nets._grid import SpotGrid
from stcsm.nets._mlp import SpatialFilter

CHANNELS = (16, 32, 64)
"""Of the first levels; deeper ones have as many as the last."""
INNERMOST = 4
"""A side is halved while it stays at least so long."""


def halvings(side: int) -> int:
    """How often a side of the grid is halved: until 4 to 7 cells are left."""
    n = 0
    while side >= 2 * INNERMOST:
        side, n = -(-side // 2), n + 1
    return n


def padded_side(side: int) -> int:
    """Next number of cells that can be halved so often, ``2 ** halvings(side)`` dividing it."""
    step = 2 ** halvings(side)
    return -(-side // step) * step


class _Levels:
    """Sizes of the pyramid between a grid and its innermost map."""

    def __init__(self, shape: tuple[int, int]):
        times = [halvings(side) for side in shape]
        self.depth = max(1, *times)
        self.steps = [(1 + (level < times[0]), 1 + (level < times[1])) for level in range(self.depth)]
        self.channels = [CHANNELS[min(level, len(CHANNELS) - 1)] for level in range(self.depth)]
        self.inner = tuple(side // 2**n for side, n in zip(shape, times, strict=True))
        self.n_inner = self.inner[0] * self.inner[1] * self.channels[-1]


class GridEncoder(nn.Module):
    """Images over a grid to the mean and log-variance of a Gaussian in latent space.

    Each level is a 3 x 3 convolution, layer norm, softplus, and an average over 2 x 2 cells, until 4 to 7 cells a side
    are left; then one hidden network layer. Averages instead of strides avoid checkered gradients. A second
    input channel, which the encoder adds, is one where there is tissue.

    Parameters
    ----------
    grid
        Sides that :func:`padded_side` leaves as they are.
    n_hidden, n_latent
        Sizes H and L.
    cell_filter
        Filter over cells (H * W, H * W), applied to the input first, where given.
    """

    tissue: Tensor

    def __init__(self, grid: SpotGrid, n_hidden: int, n_latent: int, cell_filter: SpatialFilter | None = None):
        super().__init__()
        self.cell_filter = cell_filter
        self.register_buffer("tissue", grid.tissue(), persistent=False)
        levels = _Levels(grid.shape)
        blocks = []
        for (before, after), step in zip(pairwise([2, *levels.channels]), levels.steps, strict=True):
            blocks.append(_Block(before, after, nn.AvgPool2d(step)))
        self.blocks = nn.Sequential(*blocks)
        self.hidden = nn.Linear(levels.n_inner, n_hidden)
        self.norm = nn.LayerNorm(n_hidden)
        self.mean = nn.Linear(n_hidden, n_latent)
        self.log_var = nn.Linear(n_hidden, n_latent)

    def filtered(self, images: Tensor) -> Tensor:
        """Images (N, 1, H, W) after the filter."""
        return images if self.cell_filter is None else self.cell_filter(images.flatten(1)).reshape(images.shape)

    def posterior_of_filtered(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, (N, L) each, of filtered images (N, 1, H, W)."""
        x = torch.cat([images, self.tissue.expand_as(images)], dim=1)
        h = softplus(self.norm(self.hidden(self.blocks(x).flatten(1))))
        return self.mean(h), self.log_var(h)

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, (N, L) each, of images (N, 1, H, W)."""
        return self.posterior_of_filtered(self.filtered(images))

    def forward(self, images: Tensor) -> Tensor:
        """Posterior mean (N, L)."""
        return self.posterior(images)[0]


class GridDecoder(nn.Module):
    """Latent (N, L) to one real number a spot (N, S), through images that mirror the encoder's.

    Every spot has an offset of its own beside what its cell gets.
    """

    def __init__(self, n_latent: int, n_hidden: int, grid: SpotGrid, spatial_filter: SpatialFilter | None = None):
        super().__init__()
        levels = _Levels(grid.shape)
        self.grid = grid
        self.spatial_filter = spatial_filter
        self.hidden = nn.Linear(n_latent, n_hidden)
        self.norm = nn.LayerNorm(n_hidden)
        self.inner = nn.Linear(n_hidden, levels.n_inner)
        self.inner_shape = (levels.channels[-1], *levels.inner)
        blocks: list[nn.Module] = []
        channels = [*levels.channels[::-1], levels.channels[0]]
        for (before, after), step in zip(pairwise(channels), levels.steps[::-1], strict=True):
            up = nn.Upsample(scale_factor=step, mode="bilinear", align_corners=False)
            blocks += [up, _Block(before, after, nn.Identity())]
        self.blocks = nn.Sequential(*blocks)
        self.out = nn.Conv2d(channels[-1], 1, 3, padding=1)
        self.offset = nn.Parameter(torch.zeros(len(grid.cells)))

    def forward(self, z: Tensor) -> Tensor:
        """Decode latents."""
        h = softplus(self.norm(self.hidden(z)))
        images = self.out(self.blocks(self.inner(h).reshape(len(z), *self.inner_shape)))
        f = self.grid.spots(images[:, 0]) + self.offset
        return f if self.spatial_filter is None else self.spatial_filter(f).contiguous()


class _Block(nn.Module):
    """Convolution, layer norm over channels and cells, softplus, and a change of size."""

    def __init__(self, before: int, after: int, resize: nn.Module):
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1)
        self.norm = nn.GroupNorm(1, after)
        self.resize = resize

    def forward(self, x: Tensor) -> Tensor:
        return self.resize(softplus(self.norm(self.conv(x))))
