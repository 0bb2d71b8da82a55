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


class _Rates(NamedTuple):
    """What both directions need of some genes: log shares, means, and where there are counts, and how many."""

    log_share: Tensor
    mean: Tensor
    at: Tensor
    spot: Tensor
    held: Tensor


class _NegativeBinomial(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, f: Tensor, log_depth: Tensor, log_theta: Tensor, counts: Tensor, totals: Tensor, values: int
    ) -> Tensor:
        ctx.save_for_backward(f, log_depth, log_theta, counts, totals)
        ctx.values = values
        ctx.kept = None
        theta = log_theta.exp()
        lgamma_theta = torch.lgamma(theta)
        out = f.new_empty(len(f))
        for rows in _row_chunks(f, values):
            rates = _rates(f, log_depth, counts, totals, rows)
            terms = (rates.mean / theta).log1p_().mul_(-theta)
            k, t = rates.held, theta[rates.spot]
            log_odds = rates.mean.view(-1)[rates.at].add_(t).log_().neg_()
            log_odds += rates.log_share.view(-1)[rates.at] + totals[rows].log()[rates.at // f.shape[1], 0]
            terms.view(-1)[rates.at] += (
                k * log_odds + torch.lgamma(k + t) - lgamma_theta[rates.spot] - torch.lgamma(k + 1)
            )
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
            rates = ctx.kept or _rates(f, log_depth, counts, totals, rows)
            g = grad[rows, None]
            # Of the log-probability: with respect to log mean, then, through the soft-max, to f.
            slope = (counts[rows] - rates.mean).mul_(theta).div_(rates.mean + theta)
            share = rates.log_share.exp().mul_(slope.sum(dim=-1, keepdim=True))
            torch.sub(slope, share, out=share)
            grad_f[rows] = share.mul_(g)
            # With respect to log theta.
            slope = (rates.mean / theta).log1p_().mul_(-theta).sub_(slope)
            t = theta[rates.spot]
            slope.view(-1)[rates.at] += t * (torch.digamma(rates.held + t) - digamma_theta[rates.spot])
            grad_theta += (g.T @ slope)[0]
        return grad_f, None, grad_theta, None, None, None


def _row_chunks(f: Tensor, values: int) -> Iterator[slice]:
    step = max(1, values // max(f.shape[1], 1))
    for start in range(0, len(f), step):
        yield slice(start, min(start + step, len(f)))


def _rates(f: Tensor, log_depth: Tensor, counts: Tensor, totals: Tensor, rows: slice) -> _Rates:
    at_depth = log_depth if log_depth.ndim == 1 else log_depth[rows]
    log_share = torch.log_softmax(f[rows] + at_depth, dim=-1)
    flat = counts[rows].reshape(-1)
    at = flat.nonzero()[:, 0]
    return _Rates(log_share, log_share.exp().mul_(totals[rows]), at, at % f.shape[1], flat[at])


def negative_binomial(
    counts: Tensor, totals: Tensor, f: Tensor, log_depth: Tensor, log_theta: Tensor, values: int | None = None
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

    Returns
    -------
    (N,); it has gradients with respect to ``f`` and ``log_theta``.
    """
    if values is None:
        values = VALUES.get(f.device.type, VALUES_ELSEWHERE)
    precise = torch.promote_types(f.dtype, torch.float32)  # a decoder under autocast may give bfloat16
    return _NegativeBinomial.apply(f.to(precise), log_depth, log_theta, counts, totals, values)
