"""Figures show what they were given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from stcsm.images import SaliencyMaps, clip_map, plot_histograms, plot_saliency, plot_traversal


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 3, 8, 8, 3), dtype=np.uint8)
    values = rng.normal(size=(2, 3, 8, 8, 3)).astype(np.float32)
    names = np.array([["a.jpg", "b.jpg", "c.jpg"]] * 2)
    return SaliencyMaps(
        ["Wearing_Hat", "Smiling"], names, np.zeros((2, 3), int), pixels, values, np.zeros((2, 3)), "saliency"
    )


def shown(axis):
    return np.asarray(axis.get_images()[0].get_array())


def test_face_and_map_stand_side_by_side(maps):
    figure = plot_saliency(maps, smooth=0)
    axes = np.array(figure.axes).reshape(2, 6)
    for k in range(2):
        for i in range(3):
            np.testing.assert_array_equal(shown(axes[k, 2 * i]), maps.pixels[k, i])
            np.testing.assert_allclose(shown(axes[k, 2 * i + 1]), clip_map(np.abs(maps.maps[k, i]).sum(-1)))
    assert [a.texts[0].get_text() for a in axes[:, 0]] == ["Wearing\nHat", "Smiling"]


def test_one_concept_and_fewer_images(maps):
    figure = plot_saliency(maps, ["Smiling"], n=2)
    assert len(figure.axes) == 4
    np.testing.assert_array_equal(shown(figure.axes[0]), maps.pixels[1, 0])


def test_overlay_is_the_grey_face_where_the_map_is_weakest(maps):
    figure = plot_saliency(maps, overlay=True, smooth=0)
    assert len(figure.axes) == 6
    weight = clip_map(np.abs(maps.maps[0, 0]).sum(-1))
    drawn = shown(figure.axes[0])
    weak = weight == 0
    assert weak.any()
    grey = maps.pixels[0, 0] @ [0.299, 0.587, 0.114] / 255
    np.testing.assert_allclose(drawn[weak], grey[weak][:, None].repeat(3, axis=1), atol=1e-6)
    assert (np.ptp(drawn[weight > 0.3], axis=-1) > 0).all()  # elsewhere there is colour


def test_clip_map_by_hand():
    values = np.arange(101.0)
    clipped = clip_map(values, (10, 90))
    assert clipped[10] == 0
    assert clipped[50] == pytest.approx(0.5)
    assert (clipped[90:] == 1).all()
    signed = clip_map(np.array([-4.0, 0.0, 1.0, 2.0]), (0, 100), signed=True)
    np.testing.assert_allclose(signed, [-1, 0, 0.25, 0.5])
    assert not clip_map(np.full((3, 3), 7.0)).any()


def test_one_pixel_does_not_decide_the_colours():
    values = np.random.default_rng(0).random((64, 64))
    before = clip_map(values)
    values[3, 3] = 1e6
    assert np.abs(clip_map(values) - before)[values < 1].max() < 0.01


def test_histograms_hold_every_image_and_tell_the_auroc():
    rng = np.random.default_rng(0)
    has = pd.DataFrame(rng.random((500, 40)) < 0.4, columns=[f"Attribute_{k}" for k in range(40)])
    scores = pd.DataFrame(rng.normal(size=(500, 40)) + has.to_numpy() * 10, columns=has.columns)
    figure = plot_histograms(scores, has)
    panels = [a for a in figure.axes if a.get_title()]
    assert len(panels) == 40
    assert all(p.get_title().endswith("1.00") for p in panels)
    area = [sum(b.get_height() * b.get_width() for b in c) for c in panels[0].containers[:1]]
    assert area == pytest.approx([1.0])


def test_histogram_without_a_second_class_has_no_auroc():
    figure = plot_histograms(pd.DataFrame({"Bald": [0.0, 1.0]}), pd.DataFrame({"Bald": [False, False]}))
    assert figure.axes[0].get_title() == "Bald  –"


def test_traversal_has_a_column_a_step():
    faces = np.random.default_rng(0).random((2, 1, 3, 8, 8, 3))
    figure = plot_traversal(faces, ["Wearing_Hat", "Smiling"], (-1, 0, 1))
    np.testing.assert_allclose(shown(figure.axes[5]), faces[1, 0, 2])
    assert [a.get_title() for a in figure.axes[:3]] == ["-1 v", "z", "+1 v"]


def test_bad_input_is_refused(maps):
    with pytest.raises(ValueError, match="Wearing_Hat, Smiling"):
        plot_saliency(maps, ["Bald"])
    with pytest.raises(ValueError, match="in order"):
        plot_saliency(maps, percentiles=(99, 1))
    with pytest.raises(ValueError, match="opacity"):
        plot_saliency(maps, opacity=2)
    with pytest.raises(ValueError, match="found 'Bald'"):
        plot_histograms(pd.DataFrame({"Smiling": [1.0]}), pd.DataFrame({"Smiling": [True]}), ["Bald"])
    with pytest.raises(ValueError, match="attributes of 1 images"):
        plot_histograms(pd.DataFrame({"Smiling": [1.0]}), pd.DataFrame({"Smiling": [True, False]}))
    with pytest.raises(ValueError, match="2 steps"):
        plot_traversal(np.zeros((1, 1, 3, 8, 8, 3)), ["Smiling"], (0, 1))
