"""The demo finds what it drew."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stcsm.images import ImageArray, ImageVAE
from stcsm.images._demo import BASELINE, RESULTS, map_agreement, run_demo


def test_everything_is_written_and_nothing_else(tmp_path):
    run_demo(tmp_path / "out", seed=0, workers=0, quiet=True, n=200, epochs=1, n_judged=10)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {name.rstrip("/") for name in RESULTS}
    for name in RESULTS:
        if name.endswith(".png"):
            with Image.open(tmp_path / "out" / name) as image:
                assert min(image.size) > 200
    assert ImageVAE.load(tmp_path / "out" / "training" / "model").architecture.size == 32


def test_a_pixel_that_alone_differs_is_found_by_the_mean_difference():
    class Masked(ImageArray):
        def masks(self, attribute, rows=None):
            seen = np.zeros((len(self), 32, 32), bool)
            seen[self.attributes[attribute].to_numpy(), 10:14, 10:14] = True
            return seen

    rng = np.random.default_rng(0)
    has = np.arange(40) % 2 == 0
    pixels = rng.integers(100, 110, (40, 32, 32, 3), dtype=np.uint8)
    pixels[has, 10:14, 10:14] = 250
    data = Masked(pixels, pd.DataFrame({"Spot": has}, index=[f"{i}.png" for i in range(40)]))
    model = ImageVAE.preset(32).eval()
    vectors = pd.DataFrame(rng.normal(size=(1, 64)), index=["Spot"])
    found, maps = map_agreement(
        model, data, data, vectors, np.zeros((40, 64), np.float32), methods=("saliency",), progress=False
    )
    assert found.set_index("method").loc[BASELINE, "auroc"] > 0.99
    assert set(found["n"]) == {20}
    assert maps["saliency"].maps.shape == (1, 40, 32, 32, 3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_scores_and_maps_find_the_attributes(tmp_path, seed):
    run_demo(tmp_path / "out", seed=seed, workers=0, quiet=True)
    told = pd.read_csv(tmp_path / "out" / "performance.csv").set_index(["estimator", "attribute"])
    maps = pd.read_csv(tmp_path / "out" / "maps.csv").set_index(["method", "attribute"])
    for name in ("Wearing_Hat", "Eyeglasses", "Beard"):
        assert told.loc[("cav", name), "auroc"] >= 0.95
        assert maps.loc[("saliency", name), "auroc"] >= 0.9
