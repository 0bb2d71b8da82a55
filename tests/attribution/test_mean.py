"""The mean over samples: the mean of the maps, in bounded memory, whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn

from stcsm.attribution import METHODS, TABLE, attribute, mean_attribution, method_class
from stcsm.nets import SpatialFilter, SpotEncoder
from tests.attribution.networks import inputs, mlp, seeded

X = inputs(23, 10)


@pytest.mark.parametrize("n_concepts", [None, 2, 9])
@pytest.mark.parametrize("method", METHODS)
def test_it_is_the_mean_of_the_maps(method, n_concepts):
    encoder, v = seeded(mlp), inputs(4, seed=2) if n_concepts is None else inputs(n_concepts, 4, seed=2)
    expected = attribute(encoder, X, v, method).mean(dim=0)
    scale = float(expected.abs().max())
    for batches in (X, X.numpy(), X.split(7), iter(X.split([1, 20, 2]))):
        found = mean_attribution(encoder, batches, v, method)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, atol=1e-9 * scale)
    np.testing.assert_allclose(
        mean_attribution(encoder, X, v, method, batch_size=4), expected, rtol=1e-7, atol=1e-9 * scale
    )


@pytest.mark.parametrize("method", [name for name, cls in TABLE.items() if cls.linear])
def test_the_latents_maps_make_those_of_every_concept(method):
    encoder, v = seeded(mlp), inputs(9, 4, seed=2)
    basis = mean_attribution(encoder, X, torch.eye(4), method)
    np.testing.assert_allclose(v.numpy() @ basis, mean_attribution(encoder, X, v, method), atol=1e-12)


def test_noise_belongs_to_the_sample():
    encoder, v = seeded(mlp), inputs(4, seed=2)
    whole = mean_attribution(encoder, X, v, "smoothgrad", first=5)
    parts = [mean_attribution(encoder, X[a:b], v, "smoothgrad", first=5 + a) * (b - a) for a, b in ((0, 9), (9, 23))]
    np.testing.assert_allclose(sum(parts) / 23, whole, rtol=1e-9)


def test_published_noise_follows_64_samples_however_they_come(monkeypatch):
    encoder, v = seeded(mlp), inputs(2, 4, seed=2)
    x = inputs(150, 10) * torch.linspace(1, 9, 150)[:, None]  # the range grows from group to group
    settings = {"published": True, "samples": 3}
    parts = [attribute(encoder, x[a : a + 64], v, "smoothgrad", first=a, **settings).sum(0) for a in (0, 64, 128)]
    expected = sum(parts) / 150
    assert not np.allclose(attribute(encoder, x, v, "smoothgrad", **settings).mean(dim=0), expected, rtol=1e-3)
    for batches, batch_size in ((x, 256), (x.numpy(), 256), (x.split(23), 256), (x, 7)):
        found = mean_attribution(encoder, batches, v, "smoothgrad", batch_size=batch_size, **settings)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    monkeypatch.setattr("stcsm.attribution._mean.CHUNK_VALUES", 1)
    np.testing.assert_allclose(mean_attribution(encoder, x, v, "smoothgrad", **settings), expected, rtol=1e-9)


def test_the_attributions_held_at_once_are_bounded():
    """Forty maps of 2**18 cells: three samples a pass stay below 2**25 values."""
    encoder = torch.nn.Sequential(torch.nn.AvgPool1d(2**16), torch.nn.Linear(4, 40))
    rows = []
    encoder[0].register_forward_hook(lambda module, args, out: rows.append(len(out)))
    maps = mean_attribution(encoder, torch.ones(7, 2**18), torch.eye(40), "saliency")
    assert max(rows) == 3
    np.testing.assert_allclose(maps[:, :: 2**16], encoder[1].weight.detach() / 2**16, rtol=1e-5)


def test_nothing_to_average_is_refused():
    with pytest.raises(TypeError, match="found list"):
        mean_attribution(seeded(mlp), [[1.0] * 10], inputs(4))
    with pytest.raises(ValueError, match="at least one sample"):
        mean_attribution(seeded(mlp), [], inputs(4))
    with pytest.raises(ValueError, match="one of"):
        mean_attribution(seeded(mlp), X, inputs(4), "gradcam")
    with pytest.raises(ValueError, match="to be zero"):
        mean_attribution(seeded(mlp), X, torch.zeros(4))


def test_classes_say_what_their_methods_are():
    assert tuple(TABLE) == METHODS
    assert method_class("smoothgrad").stochastic
    assert not method_class("rectgrad").linear
    assert method_class("rectgrad").times_input


class Narrow(nn.Module):
    """A layer of fewer units than there are inputs, reached in one of several ways."""

    def __init__(self, way: str):
        super().__init__()
        units = 4 if way == "columns of four units" else 6
        self.way, self.hidden, self.latents = way, nn.Linear(10, units), nn.Linear(units, 4)
        self.around = nn.Linear(10, 4)

    def forward(self, x):
        if self.way == "activation first":
            return self.latents(nn.functional.softplus(self.hidden(x.tanh())))
        if self.way.startswith("columns"):
            return self.latents((self.hidden.weight @ x.T).T.tanh())
        if self.way == "activation in place":
            return self.latents(self.hidden(x).tanh_())
        h = self.latents(self.hidden(x + 1).tanh())
        return h + self.around(x).tanh() if self.way == "a way around" else h


@pytest.mark.parametrize(
    ("way", "rows", "passes"),
    [
        ("dense layer first", 6, 1 + 1),  # one to see that rows are samples, one for all directions
        ("columns", 5, 1 + 1),
        ("columns", 6, 1 + 4 * 4 + 1),  # of six samples, which could be the units, the plain gradients are taken
        ("columns of four units", 5, 1 + 4 + 4),  # likewise of the last four; the directions go back one by one
        ("activation first", 6, 5 * 4),
        ("activation in place", 6, 5 * 4),
        ("a way around", 6, 5 * 4),
    ],
)
def test_gradients_go_back_through_an_affine_layer_once(way, rows, passes, monkeypatch):
    encoder, x = seeded(lambda: Narrow(way)), inputs(4 * rows + 4, 10)
    expected = attribute(encoder, x, torch.eye(4), "saliency").mean(dim=0)
    to_inputs, grad = [], torch.autograd.grad

    def counted(outputs, wrt, *args, **kwargs):
        to_inputs.append(wrt.ndim == 2 and wrt.shape[1] == 10)
        return grad(outputs, wrt, *args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    found = mean_attribution(encoder, x.split(rows), torch.eye(4), "saliency")
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert sum(to_inputs) == passes


@pytest.mark.parametrize("is_affine", [True, False])
def test_gradients_go_back_through_the_filter_once(is_affine, monkeypatch):
    """One pass back to the inputs sees that rows are samples, one takes all four latents; without: four a batch."""
    weights = sparse.random_array((10, 10), density=0.3, rng=np.random.default_rng(0)) + sparse.eye_array(10)
    encoder = seeded(lambda: SpotEncoder(10, 6, 4, SpatialFilter(weights)))
    if not is_affine:
        monkeypatch.setattr("stcsm.attribution._mean.AffineFunction", str)
    x = inputs(17, 10)
    expected = attribute(encoder, x, torch.eye(4), "saliency").mean(dim=0)
    filtered, product = [], SpatialFilter.product
    monkeypatch.setattr(SpatialFilter, "product", lambda *args: filtered.append(args[2]) or product(*args))
    found = mean_attribution(encoder, x.split(6), torch.eye(4), "saliency")
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert sum(filtered) == (1 + 1 if is_affine else 3 * 4)
