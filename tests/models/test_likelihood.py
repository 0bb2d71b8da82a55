"""Log-probabilities against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from stcsm.models import _likelihood as lik
from stcsm.models._likelihood import FEW, negative_binomial


@pytest.mark.parametrize("rate", [0.3, 3, FEW, 200])
def test_negative_binomial_is_scipys(rate):
    rng = np.random.default_rng(0)
    counts = rng.poisson(rate, size=(4, 6)).astype(float)
    counts[0, 0] = 0
    counts[1, 1:4] = FEW, FEW + 1, 1
    share = rng.dirichlet(np.ones(6), size=4)
    totals = counts.sum(axis=1, keepdims=True)
    theta = rng.gamma(2, 2, size=6)
    mean = totals * share
    expected = stats.nbinom.logpmf(counts, theta, theta / (theta + mean)).sum(axis=1)
    f, depth = np.log(share), np.zeros(6)
    for values in (1, 13, 10**6):
        found = negative_binomial(*(torch.tensor(v) for v in (counts, totals, f, depth, np.log(theta))), values=values)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("rate", [3, 50])
@pytest.mark.parametrize("log_theta", [-14, 0, 14])
def test_single_precision_has_the_digits_of_double(rate, log_theta):
    g = torch.Generator().manual_seed(3)
    counts = torch.poisson(torch.full((5, 6), float(rate)), generator=g)
    totals = counts.sum(dim=1, keepdim=True)
    depth = torch.full((6,), 1 / 6).log()
    found = {}
    for kind in (torch.float32, torch.float64):
        f = torch.randn(5, 6, generator=torch.Generator().manual_seed(4)).to(kind).requires_grad_()
        theta = torch.full((6,), float(log_theta), dtype=kind, requires_grad=True)
        out = negative_binomial(counts, totals, f, depth, theta)
        assert out.dtype == kind
        out.sum().backward()
        found[kind] = (out.detach(), f.grad, theta.grad)
    scales = (1.0, float(rate), 1.0)
    for single, double, scale in zip(found[torch.float32], found[torch.float64], scales, strict=True):
        np.testing.assert_allclose(single.numpy(), double.numpy(), rtol=1e-4, atol=2e-3 * scale)


@pytest.mark.parametrize("values", [1, 13, 10**6])
@pytest.mark.parametrize("by_gene", [False, True])
@pytest.mark.parametrize("rate", [0.8, FEW])
def test_negative_binomial_has_the_gradient_of_its_values(values, by_gene, rate):
    g = torch.Generator().manual_seed(2)
    counts = torch.poisson(torch.full((5, 6), rate, dtype=torch.double), generator=g)
    counts[3] = 0
    totals = counts.sum(dim=1, keepdim=True).clamp(min=1)
    depth = torch.rand((5, 6) if by_gene else 6, generator=g, dtype=torch.double).log()
    f = torch.randn(5, 6, generator=g, dtype=torch.double, requires_grad=True)
    log_theta = torch.randn(6, generator=g, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda f, t: negative_binomial(counts, totals, f, depth, t, values=values), (f, log_theta)
    )


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
