"""Convolution with TensorFlow's SAME padding."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function

__all__ = ["Conv2dSame", "conv2d_same"]

Pair = int | tuple[int, int]


def _pair(value: Pair, name: str) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in pair):
        raise ValueError(f"Expected {name} to be a positive integer or two of them, found {value!r}.")
    return pair


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Zeros before and after one dimension under TensorFlow's SAME rule.

    The output has ``ceil(size / stride)`` cells; an odd zero goes after, so the padding is asymmetric whenever
    the total is odd.

    Parameters
    ----------
    size, kernel, stride, dilation
        Cells of the input, cells of the kernel, step, and spacing of the kernel's cells.

    Returns
    -------
    tuple of int
        Zeros before and after.
    """
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def conv2d_same(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1, dilation: Pair = 1, groups: int = 1
) -> Tensor:
    """Convolve in two dimensions with TensorFlow's SAME padding.

    One function, and not a pad followed by a convolution, so that the attribution engine can tell a padded
    convolution from an unpadded one (``torch.overrides`` sees this call as a whole).

    Parameters
    ----------
    input
        Images, (N, C, H, W) or (C, H, W).
    weight
        Kernel, (out, C / groups, kernel height, kernel width).
    bias
        (out,) or None.
    stride, dilation
        One integer or one for each dimension.
    groups
        As in :func:`torch.nn.functional.conv2d`.

    Returns
    -------
    torch.Tensor
        (N, out, ceil(H / stride), ceil(W / stride)).

    Raises
    ------
    ValueError
        ``stride`` or ``dilation`` is neither a positive integer nor two of them.
    """
    operands = (input, weight) if bias is None else (input, weight, bias)
    if has_torch_function(operands):
        return handle_torch_function(
            conv2d_same, operands, input, weight, bias, stride=stride, dilation=dilation, groups=groups
        )
    stride, dilation = _pair(stride, "stride"), _pair(dilation, "dilation")
    (top, bottom), (left, right) = (
        same_padding(input.shape[d], weight.shape[d], stride[d], dilation[d]) for d in (-2, -1)
    )
    symmetric = top == bottom and left == right
    if not symmetric:
        input = functional.pad(input, (left, right, top, bottom))
    return functional.conv2d(input, weight, bias, stride, (top, left) if symmetric else 0, dilation, groups)


class Conv2dSame(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding, asymmetric where needed.

    ``torch.nn.Conv2d(padding="same")`` refuses strides; this class does not. Weights are laid out as in
    :class:`torch.nn.Conv2d`: a TensorFlow kernel (height, width, in, out) goes in as ``kernel.permute(3, 2, 0, 1)``.

    Parameters
    ----------
    in_channels, out_channels
        Number of channels of input and output.
    kernel_size, stride, dilation
        One integer or one for each dimension.
    groups, bias
        As in :class:`torch.nn.Conv2d`.
    **factory
        ``device`` and ``dtype`` of the parameters.

    Raises
    ------
    ValueError
        ``kernel_size``, ``stride`` or ``dilation`` is neither a positive integer nor two of them.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        **factory: Any,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            _pair(kernel_size, "kernel_size"),
            stride=_pair(stride, "stride"),
            dilation=_pair(dilation, "dilation"),
            groups=groups,
            bias=bias,
            **factory,
        )

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # The hook that torch.nn.Conv2d.forward calls; tools that swap weights (zennit) call it too.
        stride, dilation = _pair(self.stride, "stride"), _pair(self.dilation, "dilation")  # type: ignore[arg-type]
        return conv2d_same(input, weight, bias, stride=stride, dilation=dilation, groups=self.groups)

    def extra_repr(self) -> str:
        """One line, as torch prints it, that says which padding this is."""
        return super().extra_repr() + ", padding=SAME"
