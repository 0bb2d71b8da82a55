"""From drawn faces to latents, through every public step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stcsm.images import CelebA, ImageVAE, encode


@pytest.mark.parametrize(("size", "epochs"), [(32, 2), (64, 1)])
def test_faces_to_latents(faces: Path, size: int, epochs: int, tmp_path: Path) -> None:
    data = CelebA(faces, size=size)
    train, valid = data.part("train").load(progress=False), data.part("valid").load(progress=False)
    model = ImageVAE.preset(size)
    before = encode(model, train, progress=False)
    history = model.fit(train, tmp_path / "run", validation=valid, max_epochs=epochs, accelerator="cpu", progress=False)
    assert list(history["step"]) == [8 * epoch for epoch in history.index]
    assert history["reconstruction"].iloc[-1] < 0.8  # 0.87 before the first step; ln 2 = 0.69 is constant grey
    latents = encode(model, train, progress=False)
    assert latents.shape == (160, model.architecture.latent)
    assert not np.allclose(latents, before)
    again = ImageVAE.load(tmp_path / "run" / "model")
    np.testing.assert_array_equal(encode(again, train, progress=False), latents)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "run" / "history.csv", index_col="epoch"), history)
    for name in ("reconstructions", "samples"):
        assert (tmp_path / "run" / "grids" / f"epoch_{epochs:04d}_{name}.png").is_file()
