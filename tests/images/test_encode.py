"""Latents of all images."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from stcsm.images import Architecture, ImageArray, ImageVAE, as_pixels, encode

SMALL = Architecture(8, (4, 6), (3, 4), 3, 8, 5)


def images(n: int, size: int = 8) -> ImageArray:
    pixels = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    return ImageArray(pixels, pd.DataFrame({"a": np.arange(n) % 2}, index=[f"{k}" for k in range(n)]))


@pytest.fixture(scope="module")
def model() -> ImageVAE:
    model = ImageVAE(SMALL)
    for norm in [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]:
        norm.running_mean.uniform_(0, 0.2)  # or a model in training mode would give the same
    return model


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (7, 0), (7, 2), (100, 0)])
def test_answer_depends_neither_on_batches_nor_on_workers(model: ImageVAE, batch_size: int, workers: int) -> None:
    data = images(23)
    with torch.no_grad():
        wanted = model.eval().encoder(as_pixels(data.stack(np.arange(23)))).numpy()
    model.train()
    got = encode(model, data, batch_size=batch_size, workers=workers, progress=False)
    assert model.training  # as it was
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert got.dtype == np.float32


def test_sampled_latents_depend_on_the_seed_and_the_place_alone(model: ImageVAE) -> None:
    data = images(23)
    one = encode(model, data, sampled=True, batch_size=3, progress=False)
    np.testing.assert_allclose(encode(model, data, sampled=True, batch_size=23, progress=False), one, atol=1e-5)
    assert not np.allclose(encode(model, data, sampled=True, seed=1, progress=False), one, atol=1e-3)
    # z = mean + exp(log variance) * eps, as published
    many = np.stack([encode(model, data, sampled=True, seed=s, progress=False)[4] for s in range(400)])
    with torch.no_grad():
        mean, log_var = model.eval().posterior(as_pixels(data.stack([4])))
    spread = torch.exp(log_var[0]).numpy()
    np.testing.assert_allclose(many.std(axis=0), spread, rtol=0.15)
    np.testing.assert_allclose(many.mean(axis=0), mean[0], atol=5 * spread.max() / 20)


def test_latents_may_go_into_a_file(model: ImageVAE, tmp_path) -> None:
    data = images(10)
    out = np.lib.format.open_memmap(tmp_path / "z.npy", mode="w+", dtype=np.float32, shape=(10, 5))
    assert encode(model, data, out=out, progress=False) is out
    out.flush()
    np.testing.assert_array_equal(np.load(tmp_path / "z.npy"), encode(model, data, progress=False))


def test_bad_calls_are_refused(model: ImageVAE) -> None:
    with pytest.raises(ValueError, match=r"model's size, 8, found 16; read them with size=8"):
        encode(model, images(3, 16))
    with pytest.raises(ValueError, match="batch size of at least 1, found 0"):
        encode(model, images(3), batch_size=0)
    with pytest.raises(ValueError, match=r"out to have the shape \(3, 5\), found \(2, 5\)"):
        encode(model, images(3), out=np.empty((2, 5), np.float32))
