"""Max pooling that hands its signal to every cell of a window in proportion to its value ("PRR")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

__all__ = ["Pool", "apply_redistribution", "read_pool"]

_AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
_POOLS = {
    **dict.fromkeys((functional.max_pool1d, functional.max_pool1d_with_indices, torch.max_pool1d), 1),
    **dict.fromkeys((functional.max_pool2d, functional.max_pool2d_with_indices, torch.max_pool2d), 2),
    **dict.fromkeys((functional.max_pool3d, functional.max_pool3d_with_indices, torch.max_pool3d), 3),
}
for _n in (1, 2, 3):
    for _tail in ("", "_with_indices"):
        if hasattr(torch.ops.aten, f"max_pool{_n}d{_tail}"):
            _POOLS[getattr(torch.ops.aten, f"max_pool{_n}d{_tail}")] = _n
_MAXIMA = (torch.amax, Tensor.amax, torch.max, Tensor.max, torch.ops.aten.amax, torch.ops.aten.max)
_ADAPTIVE = {torch.adaptive_max_pool1d}
for _n in (1, 2, 3):
    _ADAPTIVE |= {getattr(functional, f"adaptive_max_pool{_n}d{tail}") for tail in ("", "_with_indices")}
_ORDER = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")


@dataclass(frozen=True)
class Pool:
    """A call of a max pooling: its argument and its windows."""

    input: Tensor
    dimensions: int
    kernel_size: Any
    stride: Any
    padding: Any
    ceil_mode: bool

    def average(self, x: Tensor) -> Tensor:
        """Mean over the cells of every window, padding left out."""
        return _AVERAGE[self.dimensions](
            x, self.kernel_size, self.stride, self.padding, self.ceil_mode, count_include_pad=False
        )


def read_pool(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pool | None:
    """Read a call of a max pooling; None where the call is none.

    Raises
    ------
    ValueError
        The pooling is adaptive or dilated, or written as a maximum over dimensions: for those there is no
        redistribution.
    """
    if isinstance(func, torch._ops.OpOverload):
        func = func.overloadpacket
    if func in _MAXIMA and _over_dimensions(args, kwargs):
        raise ValueError(
            "Expected max pooling through torch.nn.functional for rectgrad_prr, found a maximum over dimensions "
            f"({getattr(func, '__name__', func)}), whose signal would not be redistributed; use rectgrad, or "
            "max_pool1d to max_pool3d with the size of the dimensions as kernel_size."
        )
    adaptive = func in _ADAPTIVE
    if not adaptive and func not in _POOLS:
        return None
    given = dict(zip(_ORDER, args, strict=False)) | kwargs
    dilation = given.get("dilation", 1)
    dilated = any(d != 1 for d in dilation) if isinstance(dilation, (tuple, list)) else dilation != 1
    if adaptive or dilated:
        raise ValueError(
            f"Expected max pooling with plain windows for rectgrad_prr, found {'adaptive' if adaptive else 'dilated'} "
            "windows; use rectgrad, or a pooling with kernel_size, stride and padding only."
        )
    return Pool(
        input=given["input"],
        dimensions=_POOLS[func],
        kernel_size=given["kernel_size"],
        stride=given.get("stride") or None,
        padding=given.get("padding", 0),
        ceil_mode=bool(given.get("ceil_mode", False)),
    )


def _over_dimensions(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    operand = args[0] if args else kwargs.get("input")
    pairwise = (len(args) > 1 and isinstance(args[1], Tensor)) or "other" in kwargs
    return isinstance(operand, Tensor) and operand.requires_grad and not pairwise


class _Redistributed(torch.autograd.Function):
    """The pooled values forwards; backwards ``R * x_i / (sum of the window + count * 1e-10)`` for every cell."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pooled: Tensor, pool: Pool) -> Tensor:
        # Cells of minus infinity are a caller's own padding: they hold nothing and count for nothing.
        filled = ~torch.isneginf(x)
        ctx.pool = pool
        ctx.save_for_backward(torch.where(filled, x, 0.0), filled.to(x.dtype))
        return pooled.detach().clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, R: Tensor) -> tuple[Tensor | None, ...]:
        x, filled = ctx.saved_tensors
        with torch.enable_grad():
            cells = x.detach().requires_grad_()
            mean = ctx.pool.average(cells)
            share = R / (mean.detach() + 1e-10 * ctx.pool.average(filled))
            (spread,) = torch.autograd.grad(mean, cells, share.nan_to_num(0.0, 0.0, 0.0))
        return spread * x, None, None


def apply_redistribution(pool: Pool, result: Any) -> Any:
    """Replace a max pooling's result (or that and its indices) by one whose signal is redistributed."""
    if isinstance(result, tuple):
        return _Redistributed.apply(pool.input, result[0], pool), *result[1:]
    return _Redistributed.apply(pool.input, result, pool)
