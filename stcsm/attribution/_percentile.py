"""The percentile of the published RectGrad code: nearest rank, counted from the top."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from stcsm.attribution._arrays import short
from stcsm.attribution._selection import value_at_rank

__all__ = ["highest_useful_percentile", "keep_above_percentile", "percentile_rank", "percentile_threshold"]


def percentile_rank(size: int, q: float) -> int:
    """Place of the threshold among ``size`` values in descending order, 0 being the largest.

    ``rint((size - 1) * (1 - q / 100))``, ties to even, in float64: the rule of ``tf.contrib``'s "nearest"
    percentile, which differs from numpy's (ascending) at some sizes. Exactly this many values lie above the
    threshold when no two are equal.
    """
    return int(np.rint((size - 1) * (1.0 - q / 100.0)))


def highest_useful_percentile(size: int) -> int | None:
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
    size = values.shape[1]
    rank = percentile_rank(size, q)
    if rank == 0:
        return values.amax(dim=1)
    if values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(value_at_rank(values.detach().contiguous().numpy(), rank))
    return torch.kthvalue(values, size - rank, dim=1).values


def keep_above_percentile(importance: Tensor, signal: Tensor, q: float) -> Tensor:
    """Signal where the importance exceeds its row's percentile, zero elsewhere.

    Parameters
    ----------
    importance, signal
        (n, d).
    q
        Percentile in [0, 100).

    Returns
    -------
    torch.Tensor
        (n, d).
    """
    rank = percentile_rank(importance.shape[1], q)
    if rank == 0:
        return torch.zeros_like(signal)
    return torch.where(importance > _threshold(importance, q)[:, None], signal, 0.0)


def check_percentile(q: float) -> None:
    """Refuse what is no percentile in [0, 100)."""
    if isinstance(q, bool) or not isinstance(q, (int, float, np.integer, np.floating)):
        raise TypeError(f"Expected percentile to be a number in [0, 100), found {q!r}.")
    if not 0 <= q < 100:
        raise ValueError(f"Expected percentile to lie in [0, 100), found {q}; at 100 nothing would pass.")
