"""RectGrad and its variants: a unit passes its signal only if activation times signal is large."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from stcsm.attribution._arguments import check_number, short
from stcsm.attribution._calls import argument, call_name
from stcsm.attribution._checks import warn_user
from stcsm.attribution._forward import Site
from stcsm.attribution._rules import RuleMethod
from stcsm.nets import conv2d_same

__all__ = ["RectGrad", "RectGradConstant", "RectGradModified", "RectGradRedistributing", "percentile_threshold"]


@dataclass(frozen=True, kw_only=True)
class _Rectified(RuleMethod):
    """What the variants share: input times the signal, and the published code's border mask."""

    times_input: ClassVar[bool] = True

    def keep(self, x: Tensor, a: Tensor, site: Site) -> Tensor:
        """Return the activation."""
        return a

    def around(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Mask the signal that arrives at a padded convolution, as the published code's ``PaddingTrick`` does."""
        result = run()
        return _BorderMask.apply(result) if self.published and _is_padded(func, args, kwargs) else result


@dataclass(frozen=True, kw_only=True)
class RectGrad(_Rectified):
    """RectGrad: at each activation only signals of high importance ``a * R`` pass (Kim et al. 2019, eq. 3).

    A signal passes, unchanged, where its importance exceeds a percentile of the sample's cells in that activation; what
    arrives at the input is multiplied by the input.

    Parameters
    ----------
    percentile
        In [0, 100), over the cells of one sample in one activation.
    """

    percentile: float = 95
    per_sample: ClassVar[bool] = True
    published_name: ClassVar[str] = "rectgrad"

    def __post_init__(self) -> None:
        """Check the percentile."""
        super().__post_init__()
        q = self.percentile
        if isinstance(q, bool) or not isinstance(q, (int, float, np.integer, np.floating)):
            raise TypeError(f"Expected percentile to be a number in [0, 100), found {q!r}.")
        if not 0 <= q < 100:
            raise ValueError(f"Expected percentile to lie in [0, 100), found {q}; at 100 nothing would pass.")

    def passed_back(self, R: Tensor, kept: Tensor | None, site: Site) -> Tensor:
        """``R`` where its importance exceeds the percentile of the sample's cells, else 0."""
        assert kept is not None
        importance = self.importance(R, kept, site).reshape(len(R), -1)
        if percentile_rank(importance.shape[1], self.percentile) == 0:  # the threshold is the largest value
            return torch.zeros_like(R)
        passing = importance > _threshold(importance, self.percentile)[:, None]
        return torch.where(passing.view_as(R), R, 0.0)

    def importance(self, R: Tensor, a: Tensor, site: Site) -> Tensor:
        """Return what is compared with the threshold, ``a * R``."""
        return a * R

    def check_sites(self, sites: list[Site]) -> None:
        """Warn of activations so narrow that nothing exceeds the percentile, and name one that something would."""
        narrow = [site for site in sites if percentile_rank(site.cells, self.percentile) == 0]
        if not narrow:
            return
        useful = _highest_useful_percentile(min(site.cells for site in narrow))
        found = "; ".join(f"{site.where} ({site.cells} cell{'s' * (site.cells != 1)})" for site in narrow)
        advice = (
            "of one cell nothing ever does: use rectgrad_const, which has no percentile"
            if useful is None
            else f"percentile={useful} would let something pass"
        )
        warn_user(
            f"Nothing passes through these network layers, too narrow for the {self.percentile:g}th percentile: "
            f"{found}; {advice}. Where they are the only way from inputs to latents, every map is zero."
        )


@dataclass(frozen=True, kw_only=True)
class RectGradModified(RectGrad):
    """RectGrad by magnitude: what exceeds a percentile of absolute values passes.

    Parameters
    ----------
    signed_layers
        Network layers where the sign counts: indices among the activations, or names of modules.
    """

    signed_layers: Sequence[str | int] = ()
    published_name: ClassVar[str] = "rectgradmod"

    def __post_init__(self) -> None:
        """Check the kind of the names."""
        super().__post_init__()
        layers = self.signed_layers
        if not isinstance(layers, (list, tuple)) or any(
            isinstance(name, (bool, np.bool_)) or not isinstance(name, (str, int, np.integer)) for name in layers
        ):
            raise TypeError(f"Expected signed_layers to be a list of names or indices, found {layers!r}.")

    def importance(self, R: Tensor, a: Tensor, site: Site) -> Tensor:
        """Magnitude of ``a * R``, signed in the network layers that were named."""
        product = a * R
        return product if any(site.answers_to(name) for name in self.signed_layers) else product.abs()

    def check_sites(self, sites: list[Site]) -> None:
        """Refuse names that no activation answers to."""
        super().check_sites(sites)
        for name in self.signed_layers:
            if not any(site.answers_to(name) for site in sites):
                raise ValueError(
                    f"Expected signed_layers to name activations of the encoder, found {name!r}; there are: "
                    + "; ".join(f"{site.index} or {site.path!r} ({site.where})" for site in sites)
                    + "."
                )


@dataclass(frozen=True, kw_only=True)
class RectGradRedistributing(RectGrad):
    """RectGrad with proportional redistribution: max pooling passes its signal to all cells of a window ("PRR")."""

    published_name: ClassVar[str] = "rectgradprr"

    def around(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Redistribute the signal that arrives at a max pooling."""
        pool = _Pool.read(func, args, kwargs)
        if pool is None or not pool.input.requires_grad:
            return super().around(func, args, kwargs, run)
        result = run()
        if isinstance(result, tuple):  # values and their indices
            return _Redistributed.apply(pool.input, result[0], pool), *result[1:]
        return _Redistributed.apply(pool.input, result, pool)


@dataclass(frozen=True, kw_only=True)
class RectGradConstant(_Rectified):
    """RectGrad with one constant threshold for all activations.

    Parameters
    ----------
    tau
        Threshold; minus infinity lets everything pass.
    """

    tau: float = 0.0
    published_name: ClassVar[str] = "rectgradconst"

    def __post_init__(self) -> None:
        """Check the threshold."""
        super().__post_init__()
        check_number(self.tau, "tau")

    def passed_back(self, R: Tensor, kept: Tensor | None, site: Site) -> Tensor:
        """``R`` where ``a * R > tau``, else 0."""
        assert kept is not None
        return torch.where(kept * R > self.tau, R, 0.0)


# ---------------------------------------------------------------------------------------------------------------------
# The published percentile: nearest rank, counted from the top


def percentile_rank(size: int, q: float) -> int:
    """Rank of the threshold among ``size`` values in descending order, 0 being the largest.

    ``rint((size - 1) * (1 - q / 100))``, ties to even, in float64: the rule of ``tf.contrib``'s "nearest"
    percentile, which differs from numpy's (ascending) at some sizes. Exactly this many values lie above the
    threshold when no two are equal.
    """
    return int(np.rint((size - 1) * (1.0 - q / 100.0)))


def _highest_useful_percentile(size: int) -> int | None:
    """Largest whole percentile at which something of ``size`` values lies above the threshold; None if nothing can."""
    if size < 2:
        return None
    q = min(99, math.ceil(100 * (1 - 0.5 / (size - 1))))
    while q > 0 and percentile_rank(size, q) == 0:
        q -= 1
    return q


def percentile_threshold(values: Tensor, q: float) -> Tensor:
    """Percentile of every row, by the published code's rule.

    Parameters
    ----------
    values
        (n, d), floating point, without NaN.
    q
        Percentile in [0, 100]; at 100 the threshold is the largest value.

    Returns
    -------
    torch.Tensor
        (n,), each a member of its row: the value at rank :func:`percentile_rank` in descending order.

    Raises
    ------
    TypeError
        ``values`` is not floating point.
    ValueError
        ``values`` is not a matrix with at least one column or holds NaN, or ``q`` is outside [0, 100].

    References
    ----------
    Kim et al. (2019), *Why are saliency maps noisy? Cause of and solution to noisy saliency maps*.
    """
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"Expected values of shape (rows, at least one column), found {tuple(values.shape)}.")
    if not 0 <= q <= 100:
        raise ValueError(f"Expected a percentile in [0, 100], found {q}.")
    if not values.is_floating_point():
        raise TypeError(f"Expected floating-point values, found {short(values.dtype)}; pass values.double().")
    if bool(values.isnan().any()):
        raise ValueError("Expected values without NaN, found some: they have no rank.")
    return _threshold(values, q)


def _threshold(values: Tensor, q: float) -> Tensor:
    rank = percentile_rank(values.shape[1], q)
    # Few values lie above the threshold, so that selecting them is faster than kthvalue, and far faster than a sort.
    return values.topk(rank + 1, dim=1, sorted=False).values.amin(dim=1)


# ---------------------------------------------------------------------------------------------------------------------
# The published border mask


def _is_padded(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call is a convolution that pads its input: ``conv2d_same``, or torch's with a padding that is not 0."""
    if func is conv2d_same:
        return True
    if func not in (torch.conv1d, torch.conv2d, torch.conv3d):
        return False
    padding = argument(args, kwargs, 4, "padding") or 0
    if isinstance(padding, str):
        return padding == "same"
    return any(padding) if isinstance(padding, (tuple, list)) else padding != 0


class _BorderMask(torch.autograd.Function):
    """The identity forwards; backwards the outermost cells of every spatial dimension of (N, C, ...) get nothing."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        if min(y.shape[2:]) < 2:
            raise ValueError(
                f"Expected padded convolutions whose output has at least 2 cells in every direction, as the published "
                f"code's border mask needs, found {tuple(y.shape[2:])}; use published=False."
            )
        return y.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, R: Tensor) -> Tensor:
        masked = torch.zeros_like(R)
        inner = (slice(None), slice(None), *[slice(1, -1)] * (R.ndim - 2))
        masked[inner] = R[inner]
        return masked


# ---------------------------------------------------------------------------------------------------------------------
# Max pooling whose signal is redistributed


_AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


@dataclass(frozen=True)
class _Pool:
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

    @classmethod
    def read(cls, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Pool | None:
        """Read a call of a max pooling; None where the call is none.

        Raises
        ------
        ValueError
            The pooling is adaptive or dilated, or written as a maximum over dimensions: for those there is no
            redistribution.
        """
        name = call_name(func)
        operand, other = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "other")
        if name in ("max", "amax"):
            if isinstance(operand, Tensor) and operand.requires_grad and not isinstance(other, Tensor):
                raise ValueError(
                    "Expected max pooling through torch.nn.functional for rectgrad_prr, found a maximum over "
                    f"dimensions ({name}), whose signal would not be redistributed; use rectgrad, or max_pool1d to "
                    "max_pool3d with the size of the dimensions as kernel_size."
                )
            return None
        kind = re.fullmatch(r"(adaptive_)?max_pool([123])d(_with_indices)?", name)
        if kind is None:
            return None
        given = dict(zip(("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode"), args, strict=False))
        given |= kwargs
        dilation = given.get("dilation", 1)
        dilated = any(d != 1 for d in dilation) if isinstance(dilation, (tuple, list)) else dilation != 1
        if kind[1] or dilated:
            raise ValueError(
                f"Expected max pooling with plain windows for rectgrad_prr, found "
                f"{'adaptive' if kind[1] else 'dilated'} windows; use rectgrad, or a pooling with kernel_size, stride "
                "and padding only."
            )
        return cls(
            input=given["input"],
            dimensions=int(kind[2]),
            kernel_size=given["kernel_size"],
            stride=given.get("stride") or None,
            padding=given.get("padding", 0),
            ceil_mode=bool(given.get("ceil_mode", False)),
        )


class _Redistributed(torch.autograd.Function):
    """The pooled values forwards; backwards ``R * x_i / (sum of the window + count * 1e-10)`` for every cell."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pooled: Tensor, pool: _Pool) -> Tensor:
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
