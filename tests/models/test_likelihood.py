"""Log-probabilities against scipy's."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from stcsm.models import _likelihood as lik


def test_negative_binomial_is_scipys():
    rng = np.random.default_rng(0)
    counts = rng.poisson(3, size=(4, 6)).astype(float)
    counts[0, 0] = 0
    share = rng.dirichlet(np.ones(6), size=4)
    totals = counts.sum(axis=1, keepdims=True)
    theta = rng.gamma(2, 2, size=6)
    mean = totals * share
    expected = stats.nbinom.logpmf(counts, theta, theta / (theta + mean)).sum(axis=1)
    found = lik.negative_binomial(*(torch.tensor(v) for v in (counts, totals, np.log(share), np.log(theta))))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_multinomial_is_scipys():
    rng = np.random.default_rng(1)
    counts = rng.poisson(3, size=(4, 6))
    share = rng.dirichlet(np.ones(6), size=4)
    expected = [stats.multinomial.logpmf(c, c.sum(), p) for c, p in zip(counts, share, strict=True)]
    found = lik.multinomial(torch.tensor(counts, dtype=torch.float64), torch.tensor(np.log(share)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_shares_sum_to_one_and_follow_depth():
    depth = torch.tensor([0.1, 0.2, 0.7])
    share = lik.log_rate(torch.zeros(2, 3), depth.log()).exp()
    torch.testing.assert_close(share, depth.expand(2, 3))
