"""The negative binomial's log-probability with a gradient of its own, in memory that does not grow with the batch.

Autograd would keep some ten arrays of genes x spots between forward and backward. Here a few genes at a time go
through every formula, forward and again backward, and only the decoder's output is kept; and what differs between
a count and no count (the log-gamma functions, the costliest part) is computed where there are counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

VALUES = {"cpu": 2**19}
"""Genes x spots that go through the formulas together, by kind of device: what a processor's cache holds."""
VALUES_ELSEWHERE = 2**25


class Held(NamedTuple):
    """Where some genes have counts, and what of the log-probability depends on the counts alone, one entry a count.

    Attributes
    ----------
    at, spot
        Place among genes x spots, and spot.
    number
        How many counts there are.
    log_total, log_factorial
        Logarithm of the gene's total, and of the factorial of the number.
    """

    at: Tensor
    spot: Tensor
    number: Tensor
    log_total: Tensor
    log_factorial: Tensor


class _Rates(NamedTuple):
    """What both directions need of some genes: log shares, means and counts."""

    log_share: Tensor
    mean: Tensor
    held: Held


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
        held: Held | None,
    ) -> Tensor:
        ctx.save_for_backward(f, log_depth, log_theta, counts, totals)
        ctx.values = values
        ctx.kept = None
        theta = log_theta.exp()
        lgamma_theta = torch.lgamma(theta)
        out = f.new_empty(len(f))
        for rows in _row_chunks(f, values):
            rates = _rates(f, log_depth, counts, totals, rows, held)
            terms = (rates.mean / theta).log1p_().mul_(-theta)
            at, spot, k, log_total, log_factorial = rates.held
            t = theta[spot]
            log_odds = rates.mean.view(-1)[at].add_(t).log_().neg_()
            log_odds += rates.log_share.view(-1)[at] + log_total
            terms.view(-1)[at] += k * log_odds + torch.lgamma(k + t) - lgamma_theta[spot] - log_factorial
            out[rows] = terms.sum(dim=-1)
            if f.numel() <= values:
                ctx.kept = rates
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        f, log_depth, log_theta, counts, totals = ctx.saved_tensors
        theta = log_theta.exp()
        digamma_theta = torch.digamma(theta)
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
            at, spot, k = rates.held[:3]
            t = theta[spot]
            slope.view(-1)[at] += t * (torch.digamma(k + t) - digamma_theta[spot])
            grad_theta += (g.T @ slope)[0]
        return grad_f, None, grad_theta, None, None, None, None


def _row_chunks(f: Tensor, values: int) -> Iterator[slice]:
    step = max(1, values // max(f.shape[1], 1))
    for start in range(0, len(f), step):
        yield slice(start, min(start + step, len(f)))


def _rates(f: Tensor, log_depth: Tensor, counts: Tensor, totals: Tensor, rows: slice, held: Held | None) -> _Rates:
    at_depth = log_depth if log_depth.ndim == 1 else log_depth[rows]
    log_share = torch.log_softmax(f[rows] + at_depth, dim=-1)
    held = _held(counts[rows], totals[rows]) if held is None else held
    return _Rates(log_share, log_share.exp().mul_(totals[rows]), held)


def _held(counts: Tensor, totals: Tensor) -> Held:
    flat = counts.reshape(-1)
    at = flat.nonzero()[:, 0]
    number = flat[at]
    gene = at // counts.shape[1]
    return Held(at, at % counts.shape[1], number, totals.log()[gene, 0], torch.lgamma(number + 1))


def held_counts(counts: Tensor, totals: Tensor) -> Held | None:
    """What members that see the same batch, counts (N, S) and totals (N, 1), can share; None where it is too large."""
    return _held(counts, totals) if counts.numel() <= _most(counts) else None


def _most(like: Tensor) -> int:
    return VALUES.get(like.device.type, VALUES_ELSEWHERE)


def negative_binomial(
    counts: Tensor,
    totals: Tensor,
    f: Tensor,
    log_depth: Tensor,
    log_theta: Tensor,
    values: int | None = None,
    held: Held | None = None,
) -> Tensor:
    """Log-probability of counts under NB(mean n_g softmax_s(f + log d_s), inverse dispersion theta_s), over all spots.

    Parameters
    ----------
    counts
        (N, S).
    totals
        Counts n_g of each gene, (N, 1).
    f
        Decoder output (N, S).
    log_depth
        Log of each spot's share of all counts, (S,), or one for each gene (N, S).
    log_theta
        Log inverse dispersion of each spot, (S,).
    values
        Genes x spots that are held at once beside the arguments; the result depends on it by rounding alone.
    held
        :func:`held_counts` of the batch, where it is there already.

    Returns
    -------
    (N,); it has gradients with respect to ``f`` and ``log_theta``.
    """
    values = _most(f) if values is None else values
    held = held if f.numel() <= values else None
    precise = torch.promote_types(f.dtype, torch.float32)  # a decoder under autocast may give bfloat16
    return _NegativeBinomial.apply(f.to(precise), log_depth, log_theta, counts, totals, values, held)
