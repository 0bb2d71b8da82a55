"""Spots on a grid of cells: profiles to images and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpotGrid(nn.Module):
    """Where each spot lies on a grid of cells.

    Parameters
    ----------
    cells
        Cell ``row * W + column`` of each spot, (S,); spots may share a cell.
    shape
        Rows H and columns W.

    Raises
    ------
    ValueError
        If a cell lies outside the grid.
    """

    cells: Tensor

    def __init__(self, cells: Tensor, shape: tuple[int, int]):
        super().__init__()
        self.shape = (int(shape[0]), int(shape[1]))
        if len(cells) and not (int(cells.min()) >= 0 and int(cells.max()) < self.n_cells):
            raise ValueError(
                f"Expected cells from 0 to {self.n_cells - 1} on a grid of {self.shape[0]} x {self.shape[1]}, found "
                f"{int(cells.min())} to {int(cells.max())}"
            )
        self.register_buffer("cells", cells.long(), persistent=False)

    @property
    def n_cells(self) -> int:
        """Cells of the grid, H * W."""
        return self.shape[0] * self.shape[1]

    def sums(self, values: Tensor) -> Tensor:
        """Add up the values (..., S) of the spots of each cell, (..., H * W); zero where there is no spot."""
        out = values.new_zeros((*values.shape[:-1], self.n_cells))
        return out.index_add_(-1, self.cells, values)

    def tissue(self) -> Tensor:
        """One where a cell has a spot, zero elsewhere, (1, 1, H, W)."""
        mask = torch.zeros(self.n_cells, dtype=torch.float32, device=self.cells.device)
        mask[self.cells] = 1
        return mask.reshape(1, 1, *self.shape)

    def images(self, values: Tensor) -> Tensor:
        """Cell values (N, H * W) as images (N, 1, H, W)."""
        return values.reshape(len(values), 1, *self.shape)

    def spots(self, images: Tensor) -> Tensor:
        """Read images (..., H, W) at the spots, (..., S); spots of one cell get one value."""
        return images.flatten(-2)[..., self.cells]
