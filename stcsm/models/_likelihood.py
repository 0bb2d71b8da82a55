"""Log-likelihoods of one gene's counts over spots, given the decoder's output."""

from __future__ import annotations

import torch
from torch import Tensor


def log_rate(f: Tensor, log_depth: Tensor) -> Tensor:
    """Log of the share of a gene's counts that each spot gets: log softmax_s(f + log d_s), (N, S)."""
    return torch.log_softmax(f + log_depth, dim=-1)


def negative_binomial(counts: Tensor, totals: Tensor, log_share: Tensor, log_theta: Tensor) -> Tensor:
    """Log-probability of counts under NB(mean n_g * share_gs, inverse dispersion theta_s), summed over spots.

    Parameters
    ----------
    counts
        (N, S).
    totals
        Counts n_g of each gene, (N, 1).
    log_share
        :func:`log_rate`, (N, S).
    log_theta
        Log inverse dispersion of each spot, (S,).

    Returns
    -------
    (N,)
    """
    log_mean = torch.log(totals) + log_share
    theta = log_theta.exp()
    log_sum = torch.logaddexp(log_theta.expand_as(log_mean), log_mean)
    at_spots = (theta * log_theta - torch.lgamma(theta)).sum()
    sizes = counts + theta
    at_counts = counts * log_mean - sizes * log_sum + torch.lgamma(sizes) - torch.lgamma(counts + 1)
    return at_counts.sum(dim=-1) + at_spots


def multinomial(counts: Tensor, log_share: Tensor) -> Tensor:
    """Log-probability of counts given their sum, (N,), multinomial coefficient included."""
    total = counts.sum(dim=-1)
    coefficient = torch.lgamma(total + 1) - torch.lgamma(counts + 1).sum(dim=-1)
    return coefficient + (counts * log_share).sum(dim=-1)
