"""The small real set that comes with scikit-image."""

from __future__ import annotations

import socket

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from stcsm.images import lfw_subset

pytest.importorskip("skimage")


def test_first_hundred_are_faces_and_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refused)
    data = lfw_subset(32)
    assert len(data) == 200
    assert data.size == 32
    np.testing.assert_array_equal(data.attributes["Face"], np.arange(200) < 100)
    assert data.stack(np.arange(200)).shape == (200, 3, 32, 32)
    for part, n in (("train", 75), ("test", 25)):
        assert data.part(part).attributes["Face"].value_counts().to_dict() == {True: n, False: n}
    # faces look alike: the mean of those of one part is a template that finds those of the other
    pixels = data.stack(np.arange(200))[:, 0].float().numpy()
    pixels = pixels - pixels.mean(axis=(1, 2), keepdims=True)
    pixels /= np.sqrt((pixels**2).mean(axis=(1, 2), keepdims=True)) + 1e-6
    face, test = data.attributes["Face"].to_numpy(), (data.partition == "test").to_numpy()
    template = pixels[face & ~test].mean(axis=0)
    assert roc_auc_score(face[test], (pixels[test] * template).mean(axis=(1, 2))) > 0.9


def test_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="size of at least one pixel, found 0"):
        lfw_subset(0)
