"""Arrays in any form that numpy or torch has are read rightly or refused with a fix."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from torch import nn

from stcsm.attribution import ConceptScore, attribute, percentile_threshold
from stcsm.nets import Conv2dSame
from tests.attribution.networks import inputs, mlp, seeded

X, V = inputs(3, 10), inputs(4, seed=2)
FORMS = {
    "reversed": lambda a: a[..., ::-1].copy()[..., ::-1],
    "big-endian": lambda a: a.astype(">f8"),
    "long double": lambda a: a.astype(np.longdouble),
    "objects": lambda a: a.astype(object),
    "read-only": lambda a: np.broadcast_to(a, a.shape),
    "list": lambda a: a.tolist(),
    "rows in a list": lambda a: list(torch.from_numpy(a)),
    "parameter": lambda a: nn.Parameter(torch.from_numpy(a)),
}
BAD = {
    "None": None, "dict": {}, "strings": ["a", "b", "c", "d"], "sparse": sparse.csr_matrix(np.ones((1, 4))),
    "ragged": [[1.0, 2.0], [3.0]], "sparse tensor": torch.ones(4).to_sparse(), "complex": torch.ones(4) + 1j,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_concepts_baseline_and_noise(form):
    encoder, make = seeded(mlp), FORMS[form]
    expected = attribute(encoder, X, V, "saliency")
    torch.testing.assert_close(attribute(encoder, X, make(V.numpy()), "saliency"), expected)
    b = inputs(10, seed=3)
    for method in ("integrated_gradients", "deeplift", "occlusion"):
        expected = attribute(encoder, X, V, method, baseline=b)
        torch.testing.assert_close(attribute(encoder, X, V, method, baseline=make(b.numpy())), expected)
    noise = inputs(2, 3, 10, seed=4)
    if form != "rows in a list":
        expected = attribute(encoder, X, V, "smoothgrad", noise=noise)
        torch.testing.assert_close(attribute(encoder, X, V, "smoothgrad", noise=make(noise.numpy())), expected)


def test_tables_of_concepts():
    table = pd.DataFrame(inputs(2, 4).numpy(), index=["one", "two"])
    torch.testing.assert_close(attribute(seeded(mlp), X, table), attribute(seeded(mlp), X, inputs(2, 4)))


@pytest.mark.parametrize("what", BAD)
def test_what_holds_no_numbers_is_refused(what):
    with pytest.raises(TypeError, match="concepts"):
        attribute(seeded(mlp), X, BAD[what])
    if what != "None":
        with pytest.raises(TypeError, match="baseline"):
            attribute(seeded(mlp), X, V, baseline=BAD[what])
        with pytest.raises(TypeError, match="noise"):
            attribute(seeded(mlp), X, V, "smoothgrad", noise=BAD[what])


@pytest.mark.parametrize("value", [1e-50, 1e300])
def test_numbers_that_single_precision_cannot_hold(value):
    with pytest.raises(ValueError, match="float32 can hold"):
        attribute(seeded(mlp).float(), X.float(), np.array([value, 0, 0, 0]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: np.empty((3, 10), ">f8"), "byte order"),
        (lambda: torch.empty(3, 10, dtype=torch.float64, requires_grad=True), "requires gradients"),
        (lambda: np.empty((3, 10))[::-1], "reversed"),
        (lambda: torch.empty(1, 10, dtype=torch.float64).expand(3, 10), "expanded"),
        (lambda: torch.zeros(3, 10, dtype=torch.float64).to_sparse(), "sparse"),
        (lambda: torch.empty(3, 10, dtype=torch.float64, device="meta"), "meta"),
        (lambda: np.broadcast_to(np.empty(10), (3, 10)), "read-only"),
    ],
)
def test_out_that_cannot_be_written_is_refused_before_work(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        attribute(seeded(lambda: Bomb()), X, V, out=make())


class Bomb(nn.Module):
    """An encoder that must not run."""

    def forward(self, x):
        raise AssertionError("ran")


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("occlusion", {"window": 1.5}, "window"),
        ("occlusion", {"window": None}, "window"),
        ("occlusion", {"step": "2"}, "step"),
        ("rectgrad_mod", {"signed_layers": 3}, "signed_layers"),
        ("rectgrad_mod", {"signed_layers": [True]}, "signed_layers"),
        ("smoothgrad", {"noise": np.zeros((2, 3, 10)), "samples": 9}, "samples"),
        (["saliency"], {}, "method"),
        (None, {}, "method"),
    ],
)
def test_parameters_of_the_wrong_kind(method, params, message):
    with pytest.raises((TypeError, ValueError), match=f"Expected .*{message}"):
        attribute(seeded(mlp), X, V, method, **params)


@pytest.mark.parametrize("x", [X + 0j, X.numpy().astype(np.longdouble), X.numpy() + 0j])
def test_inputs_that_are_not_real_floats(x):
    with pytest.raises(TypeError, match=r"\.real|astype"):
        attribute(seeded(mlp), x, V)


class Cast(nn.Module):
    """Latents of another precision than the inputs."""

    def __init__(self, to):
        super().__init__()
        self.inner, self.to_dtype = mlp(), to

    def forward(self, x):
        return self.inner(x).to(self.to_dtype)


@pytest.mark.parametrize("method", ["saliency", "rectgrad_const", "occlusion"])
def test_latents_of_another_precision(method):
    found = attribute(seeded(lambda: Cast(torch.float32)), X, V, method)
    torch.testing.assert_close(found, attribute(seeded(mlp), X, V, method), rtol=1e-4, atol=1e-5)
    with pytest.raises(TypeError, match="real latents"):
        attribute(seeded(lambda: Cast(torch.complex128)), X, V, method)


def test_an_encoder_made_under_inference_mode_is_refused():
    with torch.inference_mode():
        encoder = mlp().double()
    with pytest.raises(ValueError, match="inference_mode"):
        attribute(encoder, X, V)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_epsilon_is_of_the_inputs_precision(dtype):
    """A single unit: x * a / (z + epsilon) * w in full precision."""
    encoder = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh()).to(dtype)
    nn.init.constant_(encoder[0].weight, 1.0)
    z, epsilon = torch.tensor([[0.3]], dtype=dtype), 0.1
    expected = z * torch.tanh(z) / (z + epsilon)
    found = attribute(encoder, z, torch.ones(1, dtype=dtype), "epsilon_lrp", epsilon=epsilon)
    torch.testing.assert_close(found, expected, rtol=4 * torch.finfo(dtype).eps, atol=0)


def test_concept_score_copies_and_checks():
    concepts = inputs(2, 4)
    kept = concepts.clone()
    scores = ConceptScore(seeded(mlp), concepts)
    with torch.no_grad():
        scores.head.weight.zero_()
    assert torch.equal(concepts, kept)
    assert ConceptScore(nn.Identity(), inputs(10))(X).dtype == torch.float64
    with pytest.raises(ValueError, match="5 components and latents"):
        ConceptScore(seeded(mlp), inputs(5))(X)
    with pytest.raises(TypeError, match="found list"):
        ConceptScore(nn.Sequential(seeded(mlp), Listed()), V)(X)


class Listed(nn.Module):
    """Latents in a list."""

    def forward(self, z):
        return [z]


def test_percentile_threshold_refuses_what_has_no_rank():
    for size in (100, 1000):
        values = inputs(2, size)
        values[0, 3] = float("nan")
        with pytest.raises(ValueError, match="NaN"):
            percentile_threshold(values, 95)
    with pytest.raises(TypeError, match="floating"):
        percentile_threshold(torch.arange(10)[None], 95)


@pytest.mark.parametrize("bad", [True, 1.5, None, 0, "3", (1, 2, 3)])
@pytest.mark.parametrize("name", ["stride", "kernel_size", "dilation"])
def test_conv2d_same_refuses(name, bad):
    with pytest.raises(ValueError, match=name):
        Conv2dSame(1, 1, **{"kernel_size": 3, name: bad})


@pytest.mark.parametrize(("size", "kernel", "stride"), [(5, 4, 2), (6, 5, 2), (7, 4, 1), (8, 3, 3), (9, 1, 2)])
def test_conv2d_same_is_tensorflows(size, kernel, stride):
    """Output cell i sees input cells i * stride - before + j, before = total // 2, total the SAME rule's."""
    layer = seeded(lambda: Conv2dSame(1, 1, kernel, stride=stride, bias=False))
    out = -(-size // stride)
    before = max((out - 1) * stride + kernel - size, 0) // 2
    x, w = inputs(1, 1, size, size), layer.weight[0, 0]
    expected = torch.zeros(out, out, dtype=x.dtype)
    for i in range(out):
        for j in range(out):
            for a in range(kernel):
                for b in range(kernel):
                    r, c = i * stride - before + a, j * stride - before + b
                    if 0 <= r < size and 0 <= c < size:
                        expected[i, j] += w[a, b] * x[0, 0, r, c]
    torch.testing.assert_close(layer(x)[0, 0], expected)
