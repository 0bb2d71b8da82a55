"""Pixels of drawn tissues: spots touch or have their true size, zero is seen, outlines lie between labels."""

from __future__ import annotations

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.collections import LineCollection
from matplotlib.text import Text

from stcsm import _keys, pl
from stcsm.pl._outline import outlines, spacing
from stcsm.pl._spots import TissueOptions, tissue_of

PITCH = 10.0


def tissue(values, xy=None) -> AnnData:
    if xy is None:
        xy = PITCH * (1 + np.stack(np.meshgrid(np.arange(10.0), np.arange(10.0)), -1).reshape(-1, 2))
    a = AnnData(np.ones((len(xy), 2), dtype=np.float32), obs=pd.DataFrame(index=[f"s{i}" for i in range(len(xy))]))
    a.obsm["spatial"] = xy
    a.obsm[_keys.CONCEPT_MAP] = pd.DataFrame({"c": np.broadcast_to(values, len(xy)).astype(float)}, index=a.obs_names)
    return a


def with_image(a: AnnData, colour=(200, 160, 200), diameter=0.5 * PITCH) -> AnnData:
    a.uns["spatial"] = {
        "lib": {
            "images": {"hires": np.full((110, 110, 3), colour, np.uint8)},
            "scalefactors": {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": diameter},
        }
    }
    return a


def pixels(a: AnnData, **look) -> np.ndarray:
    """RGB of the panel alone, 0 to 1, inside of its frame: the 8 x 8 spots in the middle."""
    figure, ax = plt.subplots(figsize=(4, 4), dpi=100)
    ax.set_position((0, 0, 1, 1))
    pl.concept_map(a, ax=ax, colorbar=False, title="", **look)
    ax.set_xlim(1.5 * PITCH, 9.5 * PITCH)
    ax.set_ylim(9.5 * PITCH, 1.5 * PITCH)
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=100)
    plt.close(figure)
    held.seek(0)
    return plt.imread(held)[..., :3]


def share(image: np.ndarray, background) -> float:
    """Share of the panel that the spots cover; they must differ from the background as much as one can see."""
    away = np.abs(image - np.asarray(background)).max(axis=2)
    assert away.max() > 0.06
    return float(away.mean() / away.max())


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.mark.parametrize(
    ("look", "expected"), [({}, np.pi / 4), ({"size": 0.5}, np.pi / 16), ({"shape": "square"}, 1.0)]
)
@pytest.mark.parametrize("value", [0.0, 2.0])
def test_spots_touch_and_zero_is_seen_on_white(value, look, expected):
    a = tissue(value)
    assert share(pixels(a, vmin=-2, vmax=2, vcenter=0, **look), (1, 1, 1)) == pytest.approx(expected, abs=0.02)


def test_spots_touch_on_a_hexagonal_array_in_pixels_too():
    xy = np.array([(2 * c + r % 2, r * np.sqrt(3)) for r in range(14) for c in range(12)]) * PITCH / 2
    image = pixels(tissue(1.0, xy), vmin=-1, vmax=1, vcenter=0)
    assert share(image, (1, 1, 1)) == pytest.approx(np.pi / (2 * np.sqrt(3)), abs=0.03)


@pytest.mark.parametrize("sequential", [False, True])
def test_over_an_image_spots_have_their_true_size_and_zero_is_seen(sequential):
    a = with_image(tissue(0.0))
    limits = {"vmin": 0, "vmax": 2} if sequential else {"vmin": -2, "vmax": 2, "vcenter": 0}
    image = pixels(a, **limits)
    background = image[0, 0]  # between spots
    assert share(image, background) == pytest.approx(np.pi / 16, abs=0.02)


@pytest.mark.parametrize(
    "image",
    [
        np.full((110, 110), 128, np.uint8),
        np.full((110, 110, 1), 128 / 255, np.float32),
        np.full((110, 110, 2), 128.0),
        np.full((110, 110, 3), 128 * 200, np.uint16),
        np.full((110, 110, 3), 128, np.int64),
        np.full((110, 110, 4), np.array([128 / 255] * 3 + [1])),
        np.full((110, 110, 5), np.float16(128 / 255)),
    ],
    ids=lambda image: f"{image.dtype}{image.shape[2:]}",
)
def test_images_of_any_numbers_and_channels_are_drawn_alike(image):
    a = with_image(tissue(0.0))
    image[0, 0, ...] = 255 * 200 if image.dtype == np.uint16 else image[0, 0]  # the brightest pixel
    a.uns["spatial"]["lib"]["images"]["hires"] = image
    background = 1 - 0.7 * (1 - 128 / 255)
    np.testing.assert_allclose(pixels(a)[0, 0], background, atol=0.01)
    assert tissue_of(a, TissueOptions()).behind == pytest.approx((background,) * 3, abs=1e-3)


def test_many_spots_touch_over_an_image_too():
    xy = PITCH * (1 + np.stack(np.meshgrid(np.arange(100.0), np.arange(51.0)), -1).reshape(-1, 2))
    for n, expected in ((5000, np.pi / 16), (5100, np.pi / 4)):
        image = pixels(with_image(tissue(1.0, xy[:n])), library_id="lib", vmin=-1, vmax=1, vcenter=0)
        assert share(image, image[0, 0]) == pytest.approx(expected, abs=0.03)


def test_the_bar_shows_the_colours_of_the_tissue():
    a = with_image(tissue(np.linspace(-1, 1, 100)))
    figure = pl.concept_map(a, vmin=-1, vmax=1, vcenter=0, return_fig=True, dpi=100)
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=100)
    held.seek(0)
    shown = plt.imread(held)[..., :3]
    tissue_ax, bar = figure.axes
    height = len(shown)

    def at(ax, x, y):
        column, row = ax.transData.transform((x, y))
        return shown[int(height - 1 - row), int(column)]

    for value, spot in ((-1.0, 0), (-0.111, 44), (0.5, 74), (1.0, 99)):
        value = np.linspace(-1, 1, 100)[spot]
        x, y = a.obsm["spatial"][spot]
        np.testing.assert_allclose(at(tissue_ax, x, y), at(bar, 0.5, np.clip(value, -0.98, 0.98)), atol=0.05)


@pytest.mark.parametrize(("n", "rasterised"), [(100, False), (10_000, True)])
def test_large_sections_are_pixels_in_a_vector_file(n, rasterised, tmp_path):
    side = int(np.sqrt(n))
    xy = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2).astype(float)
    ax = pl.concept_map(tissue(np.linspace(-1, 1, n), xy), save=tmp_path / "a.svg", show=False, colorbar=False)
    assert bool(ax.collections[0].get_rasterized()) == rasterised
    assert (tmp_path / "a.svg").stat().st_size < 300_000


def test_spots_without_a_value_are_not_drawn():
    values = np.zeros(100)
    values[::2] = np.nan
    assert share(pixels(tissue(values), vmin=-1, vmax=1, vcenter=0), (1, 1, 1)) == pytest.approx(np.pi / 8, abs=0.02)


def test_outlines_lie_between_labels_and_around_the_tissue():
    a = tissue(0.0)
    xy = a.obsm["spatial"]
    lines = outlines(xy, np.where(xy[:, 0] > 5.5 * PITCH, 1, 0))
    between = lines[np.ptp(lines[..., 0], axis=1) < 1e-6]
    between = between[np.abs(between[:, 0, 0] - 5.5 * PITCH) < 1e-6]
    assert np.abs(np.diff(between[..., 1], axis=1)).sum() == pytest.approx(10 * PITCH, rel=0.02)
    whole = outlines(xy, np.zeros(100, dtype=int))
    assert np.linalg.norm(np.diff(whole, axis=1)[:, 0], axis=1).sum() == pytest.approx(40 * PITCH, rel=0.1)
    assert spacing(xy) == PITCH


def test_labels_are_outlined_and_named():
    a = tissue(0.0)
    a.obs["layer"] = np.where(a.obsm["spatial"][:, 0] > 5.5 * PITCH, "1: right", "2: left")
    ax = pl.concept_map(a, groupby="layer", groups="1: right", show=False)
    (name,) = [text for text in ax.texts if text.get_text() == "1: right"]
    assert name.get_position()[0] > 6 * PITCH
    (lines,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    assert min(part[:, 0].min() for part in lines.get_segments()) == pytest.approx(5.5 * PITCH)
    with pytest.raises(ValueError, match="Expected groups among"):
        pl.concept_map(a, groupby="layer", groups="3")
    with pytest.raises(ValueError, match="Expected groupby to be a column"):
        pl.concept_map(a, groupby="layers")


def test_significance_as_a_line_and_as_opacity():
    a = tissue(1.0)
    right = a.obsm["spatial"][:, 0] > 5.5 * PITCH
    with pytest.raises(ValueError, match=r"run stcsm\.tl\.significance"):
        pl.concept_map(a, significance="contour")
    a.obsm["concept_saliency_qval"] = pd.DataFrame({"c": np.where(right, 0.01, 0.5)}, index=a.obs_names)
    ax = pl.concept_map(a, significance="contour", show=False)
    (lines,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    assert min(part[:, 0].min() for part in lines.get_segments()) == pytest.approx(5.5 * PITCH)
    image = pixels(a, significance="alpha", vmin=-1, vmax=1, vcenter=0)
    half = image.shape[1] // 2
    faint, strong = (1 - part.mean() for part in (image[:, :half], image[:, half:]))
    assert faint == pytest.approx(0.2 * strong, rel=0.1)
    with pytest.raises(ValueError, match="'contour' or 'alpha'"):
        pl.concept_map(a, significance="yes")


def test_a_panel_of_counts_and_maps_of_two_settings():
    a = tissue(1.0)
    a.X = np.arange(200, dtype=np.float32).reshape(100, 2)
    a.var_names = ["Penk", "Th"]
    a.obsm["mine"] = 2 * a.obsm["concept_map"]
    record = {"label": "c", "genes": ["Th"], "weights": [1.0]}
    scales = {"concept_map": {"scale": "region"}, "concept_map_mine": {"scale": "spot"}}
    a.uns["stcsm"] = {"concepts": {"c": record}, **scales}
    axes = pl.concept_panel(a, show=False)
    assert [ax.get_title() for ax in axes] == ["c: Th counts", "c: map"]
    np.testing.assert_array_equal(axes[0].collections[0].get_array(), a.X[:, 1])
    axes = pl.concept_panel(a, keys=["concept_map", "mine"], show=False)
    assert [ax.get_title() for ax in axes] == ["c: map, region scale", "c: map, spot scale"]
    np.testing.assert_array_equal(axes[1].collections[0].get_array(), 2.0)
    with pytest.raises(ValueError, match=r"adata\.obsm\['other'\]|found 'other'"):
        pl.concept_panel(a, keys=["other"])


def test_names_of_genes_do_not_overprint():
    rng = np.random.default_rng(0)
    a = AnnData(np.ones((3, 500), dtype=np.float32), var=pd.DataFrame(index=[f"Gene{i}" for i in range(500)]))
    a.varm[_keys.EMBEDDING] = rng.normal(size=(500, 3))
    a.varm[_keys.EMBEDDING][:15] = [3.0, 3.0, 3.0] + 0.01 * rng.normal(size=(15, 3))
    ax = pl.embedding(a, genes=[f"Gene{i}" for i in range(15)], show=False)
    figure = ax.figure
    figure.canvas.draw()
    boxes = [Text.get_window_extent(text) for text in ax.texts]  # without the lines to the points
    assert len(boxes) == 15
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    inside = ax.get_window_extent()
    assert all(inside.x0 - 1 <= box.x0 and box.x1 <= inside.x1 + 1 for box in boxes)
