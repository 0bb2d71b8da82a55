"""Log-likelihoods of one gene's counts over spots, given the decoder's output."""

from __future__ import annotations

import torch
from torch import Tensor


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

    Max-scaled counts are no coin tosses, so this is a loss after Brocki & Chung (2019) rather than a probability.
    ``there`` (N, S) is one where the gene's section has a spot and zero elsewhere.
    """
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, scaled, weight=there, reduction="none")
    return -loss.sum(dim=-1)
