"""Transposed convolution with TensorFlow's SAME padding."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from stcsm.nets._conv import Pair, _pair, same_padding

__all__ = ["ConvTranspose2dSame", "conv_transpose2d_same"]


def conv_transpose2d_same(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1) -> Tensor:
    """Transpose a SAME convolution: its gradient with respect to its input, as TensorFlow defines it.

    Parameters
    ----------
    input
        (N, in, H, W) or (in, H, W).
    weight
        Kernel, (in, out, kernel height, kernel width).
    bias
        (out,) or None.
    stride
        One integer or one for each dimension, at most the kernel's size in that dimension.

    Returns
    -------
    torch.Tensor
        (N, out, H * stride, W * stride).

    Raises
    ------
    ValueError
        ``stride`` is neither a positive integer nor two of them, or exceeds the kernel: the convolution that this
        transposes would then skip cells, and torch cannot make up the rows that are missing.
    """
    steps = _pair(stride, "stride")
    kernel = (weight.shape[-2], weight.shape[-1])
    if any(s > k for s, k in zip(steps, kernel, strict=True)):
        raise ValueError(f"Expected a stride of at most the kernel's size {kernel}, found {steps}.")
    # The forward convolution would read stride * size cells; it is their padding that the transposition cuts off.
    (top, bottom), (left, right) = (
        same_padding(input.shape[d] * s, k, s) for d, s, k in zip((-2, -1), steps, kernel, strict=True)
    )
    full = F.conv_transpose2d(input, weight, bias, steps, padding=(top, left))
    if top == bottom and left == right:
        return full  # a slice that cuts nothing off would still be a copy in the backward pass, and lose channels-last
    # torch takes the same padding on both sides, so what SAME cuts off more at the end is cut here.
    return full[..., : full.shape[-2] - (bottom - top), : full.shape[-1] - (right - left)]


class ConvTranspose2dSame(nn.ConvTranspose2d):
    """Transposed convolution with TensorFlow's SAME padding: the output is ``stride`` times the input's size.

    Weights are laid out as in :class:`torch.nn.ConvTranspose2d`: a TensorFlow kernel (height, width, out, in) goes in
    as ``kernel.permute(3, 2, 0, 1)``.

    Parameters
    ----------
    in_channels, out_channels
        Number of channels of input and output.
    kernel_size, stride
        One integer or one for each dimension.
    bias
        Whether to add a learned bias.
    **factory
        ``device`` and ``dtype`` of the parameters.

    Raises
    ------
    ValueError
        ``kernel_size`` or ``stride`` is neither a positive integer nor two of them.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        bias: bool = True,
        **factory: Any,
    ) -> None:
        kernel, steps = _pair(kernel_size, "kernel_size"), _pair(stride, "stride")
        super().__init__(in_channels, out_channels, kernel, stride=steps, bias=bias, **factory)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve; ``output_size`` is fixed by SAME and must be left out."""
        if output_size is not None:
            raise ValueError("Expected no output_size, SAME padding fixes it; leave it out.")
        return conv_transpose2d_same(input, self.weight, self.bias, self.stride)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        """One line, as torch prints it, that says which padding this is."""
        return super().extra_repr() + ", padding=SAME"
