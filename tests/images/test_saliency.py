"""Saliency of images: what the engine gives, for the images that score highest."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from stcsm.attribution import METHODS, attribute
from stcsm.images import (
    Architecture,
    ImageArray,
    ImageVAE,
    as_pixels,
    concept_scores,
    encode,
    pixel_maps,
    saliency,
    traverse,
)

SMALL = Architecture(16, (6, 8), (4, 4), 3, 12, 5)


@pytest.fixture(scope="module")
def model():
    vae = ImageVAE(SMALL, seed=3)
    generator = torch.Generator().manual_seed(0)
    vae.train()
    with torch.no_grad():  # running means and variances of its own, as after training
        for _ in range(5):
            vae.posterior(torch.rand(8, 3, 16, 16, generator=generator))
    return vae.eval()


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    names = pd.Index([f"{i:06d}.jpg" for i in range(30)], name="image_id")
    has = pd.DataFrame(rng.random((30, 2)) < 0.5, index=names, columns=["Wearing_Hat", "Smiling"])
    return ImageArray(rng.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8), has)


@pytest.fixture(scope="module")
def vectors():
    return pd.DataFrame(np.random.default_rng(1).normal(size=(2, 5)), index=["Wearing_Hat", "Smiling"])


def test_top_scoring_images_are_explained(model, data, vectors):
    found = saliency(model, data, vectors, n=4, method="saliency", progress=False)
    scores = concept_scores(encode(model, data, progress=False), vectors, data.names)
    assert found.maps.shape == (2, 4, 16, 16, 3)
    for k, name in enumerate(vectors.index):
        best = scores[name].sort_values(ascending=False).index[:4]
        assert list(found.names[k]) == list(best)
        np.testing.assert_allclose(found.scores[k], scores.loc[best, name], rtol=1e-5)
        np.testing.assert_array_equal(found.pixels[k], data.stack(found.rows[k]).permute(0, 2, 3, 1))


def test_chosen_images_and_top_scoring_ones_get_the_same_maps(model, data, vectors):
    top = saliency(model, data, vectors, n=3, method="integrated_gradients", steps=5, progress=False)
    same = saliency(model, data, vectors, rows=top.rows[0], method="integrated_gradients", steps=5, progress=False)
    np.testing.assert_allclose(same.maps[0], top.maps[0], rtol=1e-4, atol=1e-6)
    assert list(same.rows[1]) == list(top.rows[0])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_engines_map(model, data, vectors, method):
    params = {
        "rectgrad": {"percentile": 50},
        "smoothgrad": {"samples": 3},
        "occlusion": {"window": (3, 4, 4), "step": (3, 4, 4)},
    }
    found = saliency(model, data, vectors, rows=[5, 2], method=method, progress=False, **params.get(method, {}))
    pixels = as_pixels(data.stack([5, 2]))
    wanted = attribute(model.encoder, pixels, vectors.to_numpy(np.float32), method, **params.get(method, {}))
    np.testing.assert_allclose(found.maps, wanted.permute(1, 0, 3, 4, 2), rtol=1e-4, atol=1e-6)
    assert found.method == method
    assert (np.abs(found.maps).sum(axis=(2, 3, 4)) > 0).all()


def test_integrated_gradients_sum_to_the_difference_of_scores(model, data, vectors):
    grey = np.full((3, 16, 16), 0.5, np.float32)
    found = saliency(
        model, data, vectors, rows=[0, 1], method="integrated_gradients", steps=400, baseline=grey, progress=False
    )
    with torch.no_grad():
        base = model.posterior(torch.from_numpy(grey)[None])[0].numpy()
    wanted = found.scores - concept_scores(base, vectors).to_numpy().T
    np.testing.assert_allclose(found.maps.sum(axis=(2, 3, 4)), wanted, rtol=0.02, atol=0.02)


def test_batches_do_not_matter(model, data, vectors):
    one = saliency(model, data, vectors, n=5, batch_size=1, progress=False)
    many = saliency(model, data, vectors, n=5, batch_size=64, progress=False)
    np.testing.assert_allclose(one.maps, many.maps, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(one.rows, many.rows)


def test_the_published_encoder_can_be_explained(model, data, vectors):
    one, two = (
        saliency(model, data, vectors, rows=[0], method="saliency", encoder=model.sampled_encoder(seed), progress=False)
        for seed in (0, 1)
    )
    assert np.abs(one.maps - two.maps).max() > 0


def test_pixel_maps_by_hand():
    maps = np.zeros((1, 9, 9, 3), np.float32)
    maps[0, 4, 4] = [3, -1, -1]
    assert pixel_maps(maps, smooth=0)[0, 4, 4] == 5
    assert pixel_maps(maps, "sum", smooth=0)[0, 4, 4] == 1
    smooth = pixel_maps(maps, smooth=0.6)[0]
    assert smooth.sum() == pytest.approx(5, rel=1e-3)  # smoothing moves, it makes nothing
    assert 0 < smooth[4, 5] < smooth[4, 4] < 5


def test_saved_maps_load_without_pickle(model, data, vectors, tmp_path):
    found = saliency(model, data, vectors, n=2, method="saliency", progress=False)
    found.save(tmp_path / "new" / "maps.npz")
    with np.load(tmp_path / "new" / "maps.npz", allow_pickle=False) as loaded:
        np.testing.assert_array_equal(loaded["maps"], found.maps)
        assert list(loaded["concepts"]) == ["Wearing_Hat", "Smiling"]
        assert str(loaded["method"]) == "saliency"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["maps.npz"]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"method": "nonsense"}, ValueError, "method to be one of"),
        ({"method": "saliency", "steps": 3}, TypeError, "parameters of saliency"),
        ({"rows": [0, 30]}, ValueError, "0 to 29"),
        ({"rows": [0.5]}, ValueError, "row numbers"),
        ({"rows": []}, ValueError, "row numbers"),
        ({"n": 0}, ValueError, "n of at least 1"),
        ({"latents": np.zeros((3, 5))}, ValueError, "30 images"),
    ],
)
def test_bad_input_is_refused(model, data, vectors, arguments, kind, message):
    with pytest.raises(kind, match=message):
        saliency(model, data, vectors, progress=False, **arguments)


def test_another_models_vectors_or_images_are_refused(model, data, vectors):
    with pytest.raises(ValueError, match=r"vectors \(concepts, 5\)"):
        saliency(model, data, vectors.iloc[:, :4], progress=False)
    other = ImageArray(np.zeros((2, 8, 8, 3), np.uint8), pd.DataFrame({"Smiling": [True, False]}))
    with pytest.raises(ValueError, match="size, 16, found 8"):
        saliency(model, other, vectors, progress=False)


def test_maps_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="size, size, 3"):
        pixel_maps(np.zeros((4, 4)))
    with pytest.raises(ValueError, match="abs, sum"):
        pixel_maps(np.zeros((4, 4, 3)), "max")
    with pytest.raises(ValueError, match="at least 0 pixels"):
        pixel_maps(np.zeros((4, 4, 3)), smooth=-1)


def test_traversal_decodes_z_plus_t_v(model, vectors):
    z = np.random.default_rng(2).normal(size=(3, 5)).astype(np.float32)
    faces = traverse(model, z, vectors, steps=(-1.5, 0.0, 2.0))
    assert faces.shape == (2, 3, 3, 16, 16, 3)
    moved = torch.from_numpy(z[1] + 2 * vectors.loc["Smiling"].to_numpy(np.float32))[None]
    with torch.no_grad():
        wanted = model.decode(moved)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(faces[1, 1, 2], wanted, atol=1e-5)
    np.testing.assert_allclose(faces[0, :, 1], faces[1, :, 1], atol=1e-6)  # a step of zero knows no concept
    assert np.abs(faces[:, :, 2] - faces[:, :, 1]).max() > 1e-3


def test_traversal_refuses_other_latents(model, vectors):
    with pytest.raises(ValueError, match="5 coordinates"):
        traverse(model, np.zeros((1, 4)), vectors)
    with pytest.raises(ValueError, match="finite steps"):
        traverse(model, np.zeros(5), vectors, steps=(0, np.nan))
