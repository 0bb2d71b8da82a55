"""A new method is one class and one entry of the table: everything serves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stcsm.attribution import TABLE, RuleMethod, Site, attribute, mean_attribution, method_class, methods_table
from stcsm.evaluation import infidelity, multiplies_by_input, perturbation_curves, sensitivity_max
from tests.attribution.networks import Spelled, inputs, mlp, seeded


@dataclass(frozen=True, kw_only=True)
class Damped(RuleMethod):
    """Every activation passes a share of the signal, where it is positive.

    Parameters
    ----------
    share
        Of the signal.
    """

    share: float = 0.5
    linear: ClassVar[bool] = True
    times_input: ClassVar[bool] = True

    def keep(self, x: Tensor, a: Tensor, site: Site) -> Tensor:
        """The activation."""
        return a

    def passed_back(self, R: Tensor, kept: Tensor | None, site: Site) -> Tensor:
        """The share of the signal."""
        return torch.where(kept > 0, self.share * R, 0.0)

    def check_sites(self, sites: Sequence[Site]) -> None:
        """Two activations."""
        if len(sites) < 2:
            raise ValueError(f"Expected at least two activations, found {sites[0].where}.")


@pytest.fixture(autouse=True)
def entry(monkeypatch):
    monkeypatch.setitem(TABLE, "damped", Damped)


X, V = inputs(12, 10), inputs(9, 4, seed=2)


def by_hand(encoder, share=0.5):
    """The signal is halved at two ReLUs, and multiplied by the input."""
    return share**2 * attribute(encoder, X, V, "input_x_gradient")


def test_the_engine_serves_it():
    encoder = seeded(mlp)
    torch.testing.assert_close(attribute(encoder, X, V, "damped"), by_hand(encoder))
    torch.testing.assert_close(attribute(encoder, X, V, "damped", share=0.1, batch_size=5), by_hand(encoder, 0.1))
    np.testing.assert_allclose(mean_attribution(encoder, X.split(5), V, "damped"), by_hand(encoder).mean(0))
    assert method_class("damped").linear


@pytest.mark.parametrize("spelling", Spelled.SPELLINGS)
def test_in_every_spelling_of_an_activation(spelling):
    x, v = inputs(4, 6), inputs(3, seed=2)
    expected = attribute(seeded(lambda: Spelled("module")), x, v, "damped")
    torch.testing.assert_close(attribute(seeded(lambda: Spelled(spelling)), x, v, "damped"), expected)


def test_its_parameters_and_what_it_asks_of_the_encoder_are_checked():
    with pytest.raises(TypeError, match=r"published, allow, share.*found 'part'"):
        attribute(seeded(mlp), X, V, "damped", part=1)
    with pytest.raises(ValueError, match="at least two activations, found relu in module '1'"):
        attribute(seeded(lambda: nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 4))), X, V, "damped")
    with pytest.raises(ValueError, match="occlusion, damped, found 'dumped'"):
        attribute(seeded(mlp), X, V, "dumped")


def test_evaluation_serves_it():
    encoder, x, v = seeded(mlp), X[:3], V[:2]
    maps = attribute(encoder, x, v, "damped")
    assert multiplies_by_input("damped")
    assert perturbation_curves(encoder, x, v, maps, steps=4).area.shape == (3, 2)
    assert infidelity(encoder, x, v, maps, multiply_by_input=True, n_perturbations=4).shape == (3, 2)
    assert sensitivity_max(encoder, x, v, "damped", n_perturbations=2).shape == (3, 2)


def test_the_documentations_table_has_it():
    last = methods_table().splitlines()[-1]
    assert last.startswith("| `damped` | Every activation passes a share of the signal, where it is positive |")
    assert "`share`" in last
