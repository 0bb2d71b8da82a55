"""Bad input is refused with what was expected, what was found and what to do."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from stcsm.attribution import METHODS, attribute
from tests.attribution.networks import inputs, mlp, seeded

X, V = inputs(3, 10), inputs(4, seed=2)


class Returns(nn.Module):
    """An encoder that returns something else than a tensor."""

    def __init__(self, wrap):
        super().__init__()
        self.inner, self.wrap = mlp(), wrap

    def forward(self, x):
        return self.wrap(self.inner(x))


class Sealed(nn.Module):
    """An encoder that runs without autograd."""

    def __init__(self, how):
        super().__init__()
        self.inner, self.how = mlp(), how

    def forward(self, x):
        if self.how == "no_grad":
            with torch.no_grad():
                return self.inner(x)
        return self.inner(x.detach())


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: Returns(lambda z: (z, z)), TypeError, r"tuple"),
        (lambda: Returns(lambda z: torch.distributions.Normal(z, 1.0)), TypeError, r"Normal"),
        (lambda: Returns(lambda z: z[:, 0]), ValueError, r"shape \(3, 4\)"),
        (lambda: Returns(lambda z: z * float("nan")), ValueError, "finite latents"),
        (lambda: Returns(lambda z: z + torch.randn_like(z)), ValueError, "random numbers"),
        (lambda: Sealed("no_grad"), ValueError, "autograd"),
        (lambda: Sealed("detach"), ValueError, "autograd"),
        (lambda: nn.Sequential(nn.Linear(10, 4)), ValueError, "at least one activation"),
        (lambda: mlp(nn.Hardswish), ValueError, "hardswish in module '1'"),
    ],
)
def test_encoders(build, error, message):
    with pytest.raises(error, match=message):
        attribute(seeded(build), X, V, "rectgrad")


def test_compiled_and_scripted_encoders():
    with pytest.raises(ValueError, match="scripted or traced"):
        attribute(torch.jit.trace(seeded(mlp), X), X, V)
    with pytest.raises(ValueError, match="compiled"):
        attribute(torch.compile(seeded(mlp)), X, V)
    with pytest.raises(TypeError, match="Module"):
        attribute(lambda x: x, X, V)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (X[0], ValueError, "batch dimension"),
        (X[:0], ValueError, "at least one sample"),
        (X.long(), TypeError, r"\.float\(\)"),
        (X.float(), TypeError, "precision"),
        (X * float("inf"), ValueError, "finite inputs"),
        ([[1.0]], TypeError, "list"),
    ],
)
def test_inputs(x, error, message):
    with pytest.raises(error, match=message):
        attribute(seeded(mlp), x, V)


@pytest.mark.parametrize(
    ("v", "message"),
    [
        (inputs(5), r"5 components and latents of shape \(3, 4\)"),
        (torch.zeros(4), "zero"),
        (torch.stack([V, V * 0]), "number 1 to be zero"),
        (V * float("nan"), "NaN"),
        (V[None, None], r"\(L,\) or \(K, L\)"),
    ],
)
def test_concepts(v, message):
    with pytest.raises(ValueError, match=message):
        attribute(seeded(mlp), X, v)


def test_methods_and_parameters_are_listed():
    with pytest.raises(ValueError, match=r"saliency.*occlusion.*found 'gradcam'"):
        attribute(seeded(mlp), X, V, "gradcam")
    with pytest.raises(TypeError, match=r"percentile.*found 'quantile'"):
        attribute(seeded(mlp), X, V, "rectgrad", quantile=95)
    for percentile in (-1, 100, 101):
        with pytest.raises(ValueError, match="percentile"):
            attribute(seeded(mlp), X, V, "rectgrad", percentile=percentile)
    with pytest.raises(ValueError, match="batch_size"):
        attribute(seeded(mlp), X, V, batch_size=0)
    with pytest.raises(ValueError, match=r"signed_layers.*'nope'"):
        attribute(seeded(mlp), X, V, "rectgrad_mod", signed_layers=["nope"])


def test_narrow_layer_is_named_once_with_a_percentile_that_works():
    encoder = seeded(lambda: mlp(n_hidden=(16, 8)))
    with pytest.warns(UserWarning, match=r"module '3'.*8 cells") as caught:
        maps = attribute(encoder, X, V, "rectgrad", batch_size=1)
    assert len(caught) == 1
    assert not maps.any()
    useful = float(str(caught[0].message).split("percentile=")[1].split()[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attribute(encoder, X, V, "rectgrad", percentile=useful)


@pytest.mark.parametrize("method", METHODS)
def test_bad_baseline_or_out_changes_nothing(method):
    with pytest.raises((ValueError, TypeError)):
        attribute(seeded(mlp), X, V, method, out=torch.empty(2, 2, dtype=torch.float64))
