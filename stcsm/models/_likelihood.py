"""Log-likelihoods of one gene's counts over spots, given the decoder's output f.

The negative binomial has a gradient of its own, in memory that does not grow with the batch: autograd would keep some
ten arrays of genes x spots between forward and backward. Here a few genes at a time go through every formula, forward
and again backward, and only the decoder's output is kept. What differs between a count and no count (the log-gamma
functions, the costliest part) is computed where there are counts; for the small numbers that most counts are it is a
sum of logarithms, looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

VALUES = {"cpu": 2**19}
"""Genes x spots that go through the formulas together, by kind of device: what a processor's cache holds."""
VALUES_ELSEWHERE = 2**25
FEW = 8
"""Largest number of counts whose log-gamma functions are looked up."""


def log_rate(f: Tensor, log_depth: Tensor) -> Tensor:
    """Log of the share of a gene's counts that each spot gets: log softmax_s(f + log d_s), (N, S)."""
    return torch.log_softmax(f + log_depth, dim=-1)


def multinomial(counts: Tensor, log_share: Tensor) -> Tensor:
    """Log-probability of counts given their sum, (N,), multinomial coefficient included."""
    total = counts.sum(dim=-1)
    coefficient = torch.lgamma(total + 1) - torch.lgamma(counts + 1).sum(dim=-1)
    return coefficient + (counts * log_share).sum(dim=-1)


def scaled_by_maximum(counts: Tensor) -> Tensor:
    """Counts (N, S) of each gene divided by their largest, between 0 and 1; a gene without counts stays zero."""
    return counts / counts.amax(dim=-1, keepdim=True).clamp(min=1)


def bernoulli(scaled: Tensor, logits: Tensor, there: Tensor | None = None) -> Tensor:
    """Minus the binary cross-entropy of max-scaled counts (N, S) under ``sigmoid(logits)``, summed over spots, (N,).

    Max-scaled counts are not binary, so this is a loss after Brocki & Chung (2019) rather than a probability.
    ``there`` (N, S) is one where the gene's section has a spot and zero elsewhere.
    """
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, scaled, weight=there, reduction="none")
    return -loss.sum(dim=-1)


def negative_binomial(
    counts: Tensor,
    totals: Tensor,
    f: Tensor,
    log_depth: Tensor,
    log_theta: Tensor,
    values: int | None = None,
    stored: StoredCounts | None = None,
) -> Tensor:
    """Log-probability of counts under NB(mean n_g softmax_s(f + log d_s), inverse dispersion theta_s), over all spots.

    Parameters
    ----------
    counts
        Whole numbers, (N, S).
    totals
        Counts n_g of each gene, (N, 1).
    f
        Decoder output (N, S).
    log_depth
        Log of each spot's share of all counts, (S,), or one for each gene (N, S).
    log_theta
        Log inverse dispersion of each spot, (S,).
    values
        Genes x spots that go through the formulas together; the result depends on it by rounding alone.
    stored
        :func:`stored_counts` of the batch, where they are known already.

    Returns
    -------
    (N,); it has gradients with respect to ``f`` and ``log_theta``.
    """
    values = _most(f) if values is None else values
    precise = torch.promote_types(f.dtype, torch.float32)  # a decoder under autocast may give bfloat16
    stored = stored if f.numel() <= values and counts.dtype == precise else None
    f, log_depth, log_theta, counts, totals = (t.to(precise) for t in (f, log_depth, log_theta, counts, totals))
    return _NegativeBinomial.apply(f, log_depth, log_theta, counts, totals, values, stored)


class StoredCounts(NamedTuple):
    """Where some genes have counts, and what of the log-probability depends on the counts alone, one entry a count.

    Attributes
    ----------
    at, spot
        Flat index among genes x spots, and spot.
    number
        How many counts there are.
    log_total, log_factorial
        Logarithm of the gene's total, and of the factorial of the number.
    looked_up
        Index in a table over numbers up to ``FEW`` and spots; larger numbers are looked up as ``FEW``.
    many
        Which of the entries have larger numbers.
    """

    at: Tensor
    spot: Tensor
    number: Tensor
    log_total: Tensor
    log_factorial: Tensor
    looked_up: Tensor
    many: Tensor


class _Rates(NamedTuple):
    """What both directions need of some genes: log shares, means and counts."""

    log_share: Tensor
    mean: Tensor
    stored: StoredCounts


class _NegativeBinomial(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        f: Tensor,
        log_depth: Tensor,
        log_theta: Tensor,
        counts: Tensor,
        totals: Tensor,
        values: int,
        stored: StoredCounts | None,
    ) -> Tensor:
        ctx.save_for_backward(f, log_depth, log_theta, counts, totals)
        ctx.values = values
        ctx.kept = None
        theta = log_theta.exp()
        table = _running_sums(theta, torch.log)
        out = f.new_empty(len(f))
        for rows in _row_chunks(f, values):
            rates = _rates(f, log_depth, counts, totals, rows, stored)
            terms = (rates.mean / theta).log1p_().mul_(-theta)
            at, spot, k, log_total, log_factorial = rates.stored[:5]
            log_odds = rates.mean.view(-1).index_select(0, at).add_(theta.index_select(0, spot)).log_().neg_()
            log_odds += rates.log_share.view(-1).index_select(0, at).add_(log_total)
            gamma = _beyond_theta(table, torch.lgamma, theta, rates.stored)
            terms.view(-1).scatter_add_(0, at, log_odds.mul_(k).add_(gamma).sub_(log_factorial))
            out[rows] = terms.sum(dim=-1)
            if f.numel() <= values:
                ctx.kept = rates
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        f, log_depth, log_theta, counts, totals = ctx.saved_tensors
        theta = log_theta.exp()
        table = _running_sums(theta, torch.reciprocal)
        grad_f = torch.empty_like(f)
        grad_theta = torch.zeros_like(log_theta)
        for rows in _row_chunks(f, ctx.values):
            rates = ctx.kept or _rates(f, log_depth, counts, totals, rows, None)
            g = grad[rows, None]
            # Of the log-probability: with respect to log mean, then, through the soft-max, to f.
            slope = (counts[rows] - rates.mean).mul_(theta).div_(rates.mean + theta)
            share = rates.log_share.exp().mul_(slope.sum(dim=-1, keepdim=True))
            torch.sub(slope, share, out=share)
            grad_f[rows] = share.mul_(g)
            # With respect to log theta.
            slope = (rates.mean / theta).log1p_().mul_(-theta).sub_(slope)
            gamma = _beyond_theta(table, torch.digamma, theta, rates.stored)
            slope.view(-1).scatter_add_(0, rates.stored.at, gamma.mul_(theta.index_select(0, rates.stored.spot)))
            grad_theta += (g.T @ slope)[0]
        return grad_f, None, grad_theta, None, None, None, None


def _row_chunks(f: Tensor, values: int) -> Iterator[slice]:
    step = max(1, values // max(f.shape[1], 1))
    for start in range(0, len(f), step):
        yield slice(start, min(start + step, len(f)))


def _rates(
    f: Tensor, log_depth: Tensor, counts: Tensor, totals: Tensor, rows: slice, stored: StoredCounts | None
) -> _Rates:
    at_depth = log_depth if log_depth.ndim == 1 else log_depth[rows]
    log_share = torch.log_softmax(f[rows] + at_depth, dim=-1)
    stored = _stored(counts[rows], totals[rows]) if stored is None else stored
    return _Rates(log_share, log_share.exp().mul_(totals[rows]), stored)


def _running_sums(theta: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """For k up to ``FEW`` the sums over i < k of ``of(theta + i)``, (FEW + 1, S).

    lgamma(k + theta) - lgamma(theta) is that of the logarithm, digamma's difference that of the reciprocal.
    """
    steps = of(theta + torch.arange(FEW, device=theta.device, dtype=theta.dtype)[:, None])
    return torch.cat([torch.zeros_like(theta)[None], steps.cumsum(dim=0)])


def _beyond_theta(table: Tensor, function: Callable[[Tensor], Tensor], theta: Tensor, stored: StoredCounts) -> Tensor:
    """``function(k + theta) - function(theta)`` at the counts, from the running sums of its steps."""
    out = table.view(-1).index_select(0, stored.looked_up)
    if len(stored.many):
        # Where theta is large, little is left of the difference in single precision, all that Apple's GPUs have.
        t, k = theta[stored.spot[stored.many]], stored.number[stored.many]
        if theta.device.type != "mps":
            t, k = t.double(), k.double()
        out[stored.many] += (function(t + k) - function(t + FEW)).to(out.dtype)
    return out


def _stored(counts: Tensor, totals: Tensor) -> StoredCounts:
    n_spots = counts.shape[1]
    flat = counts.reshape(-1)
    at = _nonzero(flat)
    gene = at // n_spots if at.device.type != "cpu" else torch.from_numpy(at.numpy() // n_spots)
    spot = at - gene * n_spots
    number = flat.index_select(0, at)
    log_total = totals[:, 0].log().index_select(0, gene)
    looked_up = number.clamp(max=FEW).long().mul_(n_spots).add_(spot)
    return StoredCounts(at, spot, number, log_total, torch.lgamma(number + 1), looked_up, _nonzero(number > FEW))


def _nonzero(flat: Tensor) -> Tensor:
    """Where (n,) is not zero; on the CPU numpy's way, which takes a fifth of the time of torch's."""
    return torch.from_numpy(np.flatnonzero(flat.numpy() != 0)) if flat.device.type == "cpu" else flat.nonzero()[:, 0]


def stored_counts(counts: Tensor, totals: Tensor) -> StoredCounts | None:
    """What members that see the same batch, counts (N, S) and totals (N, 1), can share; None where it is too large."""
    return _stored(counts, totals) if counts.numel() <= _most(counts) else None


def _most(like: Tensor) -> int:
    return VALUES.get(like.device.type, VALUES_ELSEWHERE)
