"""The published network: its parameters, loss, posterior and files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from stcsm.images import PRESETS, Architecture, ImageVAE

SMALL = Architecture(8, (4, 6), (3, 4), 3, 8, 5)


def test_published_parameter_count() -> None:
    model = ImageVAE()
    assert model.n_parameters() == 43_405_347
    assert model.n_parameters(trainable=True) == 43_394_339
    decoder = sum(p.numel() for p in model.decoder.parameters())
    decoder += sum(b.numel() for n, b in model.decoder.named_buffers() if not n.endswith("num_batches_tracked"))
    assert decoder == 28_191_107
    assert PRESETS[128] == Architecture()
    # batch normalisation as in TensorFlow: epsilon 1e-3, momentum 0.99 (torch's 0.01)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)]
    assert len(norms) == 12
    assert all((m.eps, m.momentum) == (1e-3, 0.01) for m in norms)


@pytest.mark.parametrize("size", [32, 64])
def test_presets_make_images_of_their_size(size: int) -> None:
    model = ImageVAE.preset(size).eval()
    pixels = torch.rand(2, 3, size, size)
    with torch.no_grad():
        mean, log_var = model.posterior(pixels)
        assert mean.shape == log_var.shape == (2, model.architecture.latent)
        assert torch.all(log_var == -2.0)
        drawn = model.decode(mean)
    assert drawn.shape == pixels.shape
    assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1


def test_loss_is_the_published_formula() -> None:
    model = ImageVAE(SMALL, seed=2).eval()
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.random((3, 3, 8, 8), dtype=np.float32))
    noise = torch.from_numpy(rng.standard_normal((3, 5), dtype=np.float32))
    with torch.no_grad():
        mean, log_var = (t.double().numpy() for t in model.posterior(pixels))
        drawn = model.decode(torch.from_numpy(mean + np.exp(log_var) * noise.numpy()).float()).double().numpy()
        loss = model.loss(pixels, noise)
    x = pixels.double().numpy()
    entropy = -(x * np.log(drawn) + (1 - x) * np.log(1 - drawn)).mean()
    kl = -(1 + log_var - mean**2 - np.exp(log_var)).mean()
    assert float(loss.reconstruction) == pytest.approx(entropy, rel=1e-5)
    assert float(loss.divergence) == pytest.approx(kl, rel=1e-5)
    assert float(loss.total) == pytest.approx(entropy + 5e-4 * kl, rel=1e-5)


def test_encoders_for_the_engine() -> None:
    model = ImageVAE(SMALL).eval()
    pixels = torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        mean, log_var = model.posterior(pixels)
        assert torch.equal(model.encoder(pixels), mean)
        draw = (model.sampled_encoder(7)(pixels) - mean) / log_var.exp()
    # one noise vector for all images
    assert torch.allclose(draw, draw[:1].expand_as(draw), atol=1e-3)


def test_initial_weights_are_keras_and_seeded() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, same, other = ImageVAE(SMALL), ImageVAE(SMALL), ImageVAE(SMALL, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    w = one.trunk[0].weight.detach()
    assert torch.equal(w, same.trunk[0].weight)
    assert not torch.equal(w, other.trunk[0].weight)
    limit = np.sqrt(6 / (9 * 3 + 9 * 4))  # Glorot: fan in 3 x 3 x 3, fan out 3 x 3 x 4
    assert 0.9 * limit < float(w.abs().max()) <= limit
    assert not one.trunk[0].bias.any()


def test_saved_and_loaded_model_is_the_same(tmp_path: Path) -> None:
    model = ImageVAE(SMALL, seed=3).eval()
    model.save(tmp_path / "m")
    again = ImageVAE.load(tmp_path / "m")
    assert again.architecture == model.architecture
    pixels = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(again.decode(again.encoder(pixels)), model.decode(model.encoder(pixels)))
    with pytest.raises(FileExistsError, match="overwrite=True"):
        model.save(tmp_path / "m")
    (tmp_path / "m" / "mine.txt").write_text("x")
    with pytest.raises(FileExistsError, match=r"found 'mine.txt'"):
        model.save(tmp_path / "m", overwrite=True)
    settings = json.loads((tmp_path / "m" / "model.json").read_text())
    settings["architecture"]["latent"] = 6
    (tmp_path / "m" / "model.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="do not fit each other"):
        ImageVAE.load(tmp_path / "m")
    with pytest.raises(FileNotFoundError, match=r"Expected model.safetensors in"):
        ImageVAE.load(tmp_path / "absent")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 100}, "a multiple of 32"),
        ({"kernels": (5, 5)}, "one kernel for each"),
        ({"kernels": (5, 5, 5, 5, 1)}, "at least 2"),
        ({"latent": 0}, "positive integers"),
        ({"activation": "swish"}, "activation to be one of"),
        ({"kl_weight": float("nan")}, "kl_weight"),
        ({"log_var_start": 100.0}, "log_var_start"),
    ],
)
def test_impossible_architectures_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"Expected.*{message}.*found"):
        Architecture(**wrong)


def test_images_and_presets_of_other_sizes_are_refused() -> None:
    model = ImageVAE(SMALL)
    with pytest.raises(ValueError, match=r"shape \(n, 3, 8, 8\), found \(2, 3, 16, 16\)"):
        model.posterior(torch.rand(2, 3, 16, 16))
    with pytest.raises(ValueError, match="size out of 128, 64, 32, found 100"):
        ImageVAE.preset(100)


@pytest.mark.slow
def test_the_published_network_trains_a_step() -> None:
    model = ImageVAE().train()
    pixels = torch.rand(20, 3, 128, 128)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    before = model.z_mean.weight.detach().clone()
    loss = model.loss(pixels, torch.zeros(20, 400))
    loss.total.backward()
    optimiser.step()
    assert torch.isfinite(loss.total)
    assert not torch.equal(before, model.z_mean.weight)
