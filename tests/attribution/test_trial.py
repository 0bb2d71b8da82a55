"""Latents must be a function of their own sample: chance, the rest of the batch and the row, in any spelling."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stcsm.attribution import METHODS, attribute
from tests.attribution.networks import inputs, seeded

X, V = inputs(6, 8), inputs(3, seed=2)


class With(nn.Module):
    """Two linear layers and a function between or after them."""

    def __init__(self, forward, n_in=8, n_hidden=40, n_flat=40):
        super().__init__()
        self.a, self.b, self.how = nn.Linear(n_in, n_hidden), nn.Linear(n_flat, 3), forward

    def forward(self, x):
        return self.how(self, x)


def between(f):
    return lambda: With(lambda m, x: m.b(torch.relu(f(m.a(x)))))


def after(f):
    return lambda: With(lambda m, x: f(m.b(torch.relu(m.a(x)))))


def attend(tokens):
    return F.scaled_dot_product_attention(tokens, tokens, tokens, dropout_p=0.5)


RANDOM = {
    "gumbel": between(F.gumbel_softmax),
    "attention": between(
        lambda h: F.scaled_dot_product_attention(*[h.unflatten(1, (8, 5))] * 3, dropout_p=0.5).flatten(1)
    ),
    "numpy": between(lambda h: h * torch.from_numpy(np.random.default_rng().random(h.shape[1]))),
    "dropout": between(lambda h: F.dropout(h, 0.5, True)),
    "positional dropout": between(lambda h: torch.dropout(h, 0.5, True)),
    "native dropout": between(lambda h: torch.native_dropout(h, 0.5, True)[0]),
    "rrelu": after(lambda z: F.rrelu(z - 5, training=True)),
    "sample": after(lambda z: torch.distributions.Normal(z, 1.0).rsample()),
    "tiny latents": after(lambda z: 1e-6 * (z + torch.randn_like(z))),
}
OF_THE_BATCH = {
    "functional norm": between(lambda h: F.batch_norm(h, None, None, training=True)),
    "positional norm": between(lambda h: torch.batch_norm(h, None, None, None, None, True, 0.1, 1e-5, False)),
    "layer": lambda: nn.Sequential(nn.Linear(8, 9), nn.BatchNorm1d(9, track_running_stats=False), nn.Linear(9, 3)),
    "centred inputs": lambda: With(lambda m, x: m.b(torch.relu(m.a(x - x.mean(0))))),
    "centred latents": after(lambda z: z - z.mean(0)),
    "tiny latents": after(lambda z: 1e-6 * (z + z.mean(0))),
}


@pytest.mark.parametrize("method", ["saliency", "rectgrad", "occlusion"])
@pytest.mark.parametrize("n", [1, 2, 6])
@pytest.mark.parametrize("spelling", RANDOM)
def test_random_latents_are_refused(spelling, n, method):
    with pytest.raises(ValueError, match=r"draws random numbers|found rrelu"):
        attribute(seeded(RANDOM[spelling]), X[:n], V, method)


@pytest.mark.parametrize("n", [2, 6])
@pytest.mark.parametrize("spelling", OF_THE_BATCH)
def test_latents_that_depend_on_the_batch_are_refused(spelling, n):
    with pytest.raises(ValueError, match="rest of its batch"):
        attribute(seeded(OF_THE_BATCH[spelling]), X[:n], V, "saliency")


def test_the_layer_with_batch_statistics_is_named():
    with pytest.raises(ValueError, match=r"module '1' \(BatchNorm1d\)"):
        attribute(seeded(OF_THE_BATCH["layer"]), X, V, "saliency")


def test_draws_without_effect_do_no_harm_and_leave_the_generator_alone():
    encoder = seeded(after(lambda z: z + 0 * torch.randn(3)))
    before = torch.get_rng_state()
    maps = attribute(encoder, X, V, "integrated_gradients")
    assert torch.equal(before, torch.get_rng_state())
    torch.testing.assert_close(maps, attribute(seeded(after(lambda z: z)), X, V, "integrated_gradients"))


@pytest.mark.parametrize("method", ["integrated_gradients", "smoothgrad", "occlusion"])
@pytest.mark.parametrize("exact", [False, True])
def test_a_draw_held_for_each_row_is_one_of_its_row(method, exact):
    """Variants of a batch must not meet other rows' draws when several of them go through at once."""
    noise = inputs(4 if exact else 400, 3, seed=5)
    encoder = seeded(after(lambda z: z + (noise if exact else noise[: len(z)]) * z.exp()))
    whole = attribute(encoder, X[:4], V, method, batch_size=256)
    torch.testing.assert_close(whole, attribute(encoder, X[:4], V, method, batch_size=4))
    if not exact:
        with pytest.raises(ValueError, match="every row of a batch alike"):
            attribute(encoder, X[:4], V, method, batch_size=2)


def test_an_error_in_the_encoder_comes_at_once():
    calls = []

    def broken(m, x):
        calls.append(len(x))
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        attribute(seeded(lambda: With(broken)), X, V, "integrated_gradients")
    assert calls == [6]


def tokens(m, x, fold):
    """A network over four tokens of two features, the batch in another place than the first."""
    n = len(x)
    h = x.reshape(n, 4, 2).transpose(0, 1)
    match fold:
        case "second":
            return m.b(torch.relu(m.a(h)).transpose(0, 1).flatten(1))
        case "second, folded":
            h = h.reshape(4, 2 * n, 1)
            return m.b(torch.relu(m.a(h)).reshape(4, n, -1).transpose(0, 1).flatten(1))
        case _:  # first, with the tokens: no sample's cells stand together
            h = torch.relu(m.a(h.reshape(4 * n, 2)))
            return m.b(h.reshape(4, n, -1).transpose(0, 1).flatten(1))


@pytest.mark.parametrize("n", [1, 2, 4, 6])
@pytest.mark.parametrize(("fold", "n_in", "n_flat"), [("second", 2, 64), ("second, folded", 1, 128), ("first", 2, 64)])
def test_a_percentile_needs_the_batch_in_the_first_dimension_alone(fold, n_in, n_flat, n):
    """Also where another dimension happens to be as long as the batch."""
    encoder = seeded(lambda: With(lambda m, x: tokens(m, x, fold), n_in, 16, n_flat))
    with pytest.raises(ValueError, match=r"relu in the encoder's own.*batch_first=True.*rectgrad_const"):
        attribute(encoder, inputs(n, 8, seed=n), V, "rectgrad", percentile=80)


@pytest.mark.parametrize("method", ["rectgrad_const", "guided_backprop", "epsilon_lrp", "deeplift"])
@pytest.mark.parametrize(("fold", "n_in", "n_flat"), [("second", 2, 64), ("second, folded", 1, 128), ("first", 2, 64)])
def test_rules_for_single_cells_take_the_batch_anywhere(fold, n_in, n_flat, method):
    encoder = seeded(lambda: With(lambda m, x: tokens(m, x, fold), n_in, 16, n_flat))
    x = inputs(6, 8, seed=6)
    one = attribute(encoder, x, V, method, batch_size=1)
    assert one.any()
    for batch_size in (2, 4, 6):
        torch.testing.assert_close(attribute(encoder, x, V, method, batch_size=batch_size), one)


@pytest.mark.parametrize("method", ["rectgrad", "rectgrad_mod"])
def test_percentiles_are_of_one_sample(method):
    """Tokens in a dimension of their own, whatever the batch size."""
    encoder = seeded(lambda: With(lambda m, x: m.b(torch.relu(m.a(x.unflatten(1, (4, 2)))).flatten(1)), 2, 16, 64))
    x = inputs(6, 8, seed=6)
    one = attribute(encoder, x, V, method, percentile=80, batch_size=1)
    assert one.any()
    for batch_size in (2, 3, 4, 6):
        torch.testing.assert_close(attribute(encoder, x, V, method, percentile=80, batch_size=batch_size), one)


def test_threads_share_an_encoder():
    """Dropout is off for every call, and on again after the last."""
    encoder = seeded(lambda: nn.Sequential(nn.Linear(8, 40), nn.ReLU(), nn.Dropout(0.5), nn.Linear(40, 3))).train()
    expected = {method: attribute(encoder, X, V, method, steps=20) for method in ["integrated_gradients"]}
    expected |= {method: attribute(encoder, X, V, method) for method in METHODS if method != "integrated_gradients"}
    wrong = []

    def work(method):
        for _ in range(5):
            params = {"steps": 20} if method == "integrated_gradients" else {}
            try:
                torch.testing.assert_close(attribute(encoder, X, V, method, **params), expected[method])
            except Exception as error:
                wrong.append((method, error))

    threads = [threading.Thread(target=work, args=(method,)) for method in METHODS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(module.training for module in encoder.modules())
