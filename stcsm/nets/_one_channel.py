"""SAME convolution to a single channel, as one matrix product: how a decoder ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from stcsm.nets._affine import AffineFunction
from stcsm.nets._conv import Conv2dSame, same_padding


class Conv2dSameToOne(Conv2dSame):
    """:class:`Conv2dSame` with one output channel and step 1; in training on a CPU, several times as fast.

    Libraries of convolutions lay their work out over output channels, and one is the worst number of them. Taken the
    other way round, every cell's channels times every tap of the kernel are one matrix product, whose rows, shifted by
    their tap, add up to the output. The numbers are the same up to rounding.

    Parameters
    ----------
    in_channels
        Number of channels of the input.
    kernel_size
        One integer or one for each dimension.
    """

    def __init__(self, in_channels: int, kernel_size: int | tuple[int, int]) -> None:
        super().__init__(in_channels, 1, kernel_size)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        plain = torch.is_autocast_enabled("cpu") or input.device.type != "cpu" or bias is None or input.ndim != 4
        if plain or not self.training:
            return super()._conv_forward(input, weight, bias)
        return _ToOne.apply(input, weight) + bias


class _ToOne(AffineFunction):
    """Images (N, C, H, W) and a kernel (1, C, h, w) to (N, 1, H, W)."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        n, channels, height, width = images.shape
        kernel = weight.shape[2:]
        cells = images.permute(0, 2, 3, 1).reshape(-1, channels)
        taps = weight[0].flatten(1)
        ctx.save_for_backward(cells, taps)
        ctx.shapes = images.shape, weight.shape
        products = (taps.T @ cells.T).reshape(*kernel, n, height, width)
        (top, bottom), (left, right) = _around(images.shape, kernel)
        # A product at cell (y, x) belongs to the output at (y + top - i, x + left - j), which may lie outside.
        full = products.new_zeros(n, height + top + bottom, width + left + right)
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                y, x = kernel[0] - 1 - i, kernel[1] - 1 - j
                full[:, y : y + height, x : x + width] += products[i, j]
        return full[:, None, bottom : bottom + height, right : right + width]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        cells, taps = ctx.saved_tensors
        (n, channels, height, width), (_, _, *kernel) = ctx.shapes
        (top, bottom), (left, right) = _around((n, channels, height, width), kernel)
        around = pad(gradient[:, 0], (right, left, bottom, top))
        shifted = around.new_empty(*kernel, n, height, width)
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                y, x = kernel[0] - 1 - i, kernel[1] - 1 - j
                shifted[i, j] = around[:, y : y + height, x : x + width]
        shifted = shifted.flatten(2).flatten(0, 1)
        to_images = (shifted.T @ taps.T).reshape(n, height, width, channels).permute(0, 3, 1, 2)
        to_weight = (shifted @ cells).T.reshape(1, channels, *kernel)
        return to_images, to_weight


def _around(shape: Any, kernel: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Zeros above and below, left and right."""
    return same_padding(shape[2], kernel[0], 1), same_padding(shape[3], kernel[1], 1)
