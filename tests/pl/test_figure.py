"""What all plots take: every option of a figure, the user's Axes, and one figure shown, saved or handed out."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from stcsm import _keys, pl

PLOTS = [
    pl.concept_map, pl.concept_panel, pl.concept_scores, pl.concept_similarity, pl.embedding, pl.gene_saliency,
    pl.history, pl.saliency, pl.sanity, pl.section,
]  # fmt: skip
EVERY = {"ax", "figsize", "title", "dpi", "show", "save", "return_fig"}
COLOURED = {"cmap", "vmin", "vmax", "colorbar"}
TISSUE = {"vcenter", "size", "alpha", "ncols", "library_id", "groupby", "significance"}


@pytest.fixture
def written() -> AnnData:
    """A square array of spots whose two maps are right and left."""
    a = AnnData(np.ones((100, 6), dtype=np.float32), obs=pd.DataFrame(index=[f"s{i}" for i in range(100)]))
    a.obsm["spatial"] = np.stack(np.meshgrid(np.arange(10.0), np.arange(10.0)), -1).reshape(-1, 2)
    side = np.where(a.obsm["spatial"][:, 0] > 4.5, 1.0, -1.0)
    a.obsm[_keys.CONCEPT_MAP] = pd.DataFrame({"right": side, "left": -side}, index=a.obs_names)
    a.obs["layer"] = pd.Categorical(np.where(side > 0, "R", "L"))
    a.uns["stcsm"] = {"concepts": {k: {"label": k, "genes": ["0"], "weights": [1.0]} for k in ("right", "left")}}
    return a


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.mark.parametrize("plot", PLOTS, ids=lambda f: f.__name__)
def test_every_plot_takes_the_options_and_tells_of_each(plot):
    names = set(inspect.signature(plot).parameters)
    assert names >= EVERY
    if plot in (pl.concept_map, pl.saliency, pl.gene_saliency, pl.concept_panel):
        assert names >= COLOURED | TISSUE
    if plot in (pl.embedding, pl.concept_similarity):
        assert names >= COLOURED
    told = {line.strip() for line in inspect.getdoc(plot).splitlines()}
    assert {name for name in names if not any(name in line.split(", ") for line in told)} == set()


def test_the_figure_appears_once(written, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.get_fignums()))
    monkeypatch.setattr(plt, "get_backend", lambda: "inline")
    assert pl.concept_map(written) is None
    assert len(shown) == 1
    assert len(shown[0]) == 1
    plt.close("all")
    figure = pl.concept_map(written, return_fig=True)
    assert plt.get_fignums() == []  # what is returned is not shown a second time at the end of the cell
    assert len(figure.axes) == 4
    axes = pl.concept_map(written, show=False)
    assert [ax.get_title() for ax in axes] == ["right", "left"]
    assert len(shown) == 1


def test_maps_are_drawn_into_the_users_axes(written):
    figure, axes = plt.subplots(1, 3)
    drawn = pl.concept_map(written, ax=axes[:2], colorbar=False, title=["A", "B"])
    assert drawn == list(axes[:2])
    assert pl.concept_map(written, "left", ax=axes[2], colorbar=False) is axes[2]
    assert [ax.get_title() for ax in figure.axes] == ["A", "B", "left"]
    assert plt.get_fignums() == [figure.number]
    with pytest.raises(ValueError, match="Expected ax to be 2 Axes, one for each panel, found 1"):
        pl.concept_map(written, ax=axes[0])
    with pytest.raises(ValueError, match="Expected 2 titles, one for each panel, found 1"):
        pl.concept_map(written, title="A")


def test_a_figure_is_saved_whole_at_its_size(written, tmp_path):
    assert pl.concept_map(written, "left", save=tmp_path / "a.png", figsize=(4, 3), dpi=50).get_title() == "left"
    pixels = plt.imread(tmp_path / "a.png")
    assert 120 < pixels.shape[0] <= 160
    assert 160 < pixels.shape[1] <= 210
    assert plt.get_fignums() == []
    with pytest.raises(ValueError, match="Expected save to be a file that ends in one of"):
        pl.concept_map(written, save=tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match="Expected a folder"):
        pl.concept_map(written, save=tmp_path / "absent" / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_panel_is_a_third_of_a_slide_and_an_error_leaves_no_figure(written):
    width, _ = pl.concept_map(written, ncols=2, return_fig=True).get_size_inches()
    assert width / 2 == 3.5
    with pytest.raises(TypeError, match="percentile"):
        pl.concept_map(written, percentile=90)
    with pytest.raises(ValueError, match="vmin below vcenter"):
        pl.concept_map(written, vmin=0.5, vmax=1, vcenter=0)
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("values", "look", "expected"),
    [
        (np.linspace(-1, 3, 101), {}, (-2.96, 0, 2.96)),  # the larger side sets both
        (np.linspace(-1, 3, 101), {"vmax": 2}, (-2, 0, 2)),
        (np.linspace(-1, 3, 101), {"vmin": -1, "vmax": 2}, (-1, None, 2)),
        (np.linspace(-1, 3, 101), {"vmin": -1, "vmax": 2, "vcenter": 1}, (-1, 1, 2)),
        (np.linspace(0, 100, 101), {}, (1, None, 99)),
        (np.linspace(0, 100, 101), {"vmin": "p0", "vmax": ["p50"]}, (0, None, 50)),
        (np.r_[np.zeros(999), 7.0], {}, (0, None, 7)),
    ],
)
def test_colour_limits(values, look, expected):
    a = AnnData(
        np.ones((len(values), 1), dtype=np.float32), obs=pd.DataFrame(index=[f"s{i}" for i in range(len(values))])
    )
    a.obsm["spatial"] = np.c_[np.arange(len(values)), np.arange(len(values)) % 7]
    a.obsm[_keys.CONCEPT_MAP] = pd.DataFrame({"c": values}, index=a.obs_names)
    norm = pl.concept_map(a, show=False, **look).collections[0].norm
    low, centre, high = expected
    np.testing.assert_allclose([norm.vmin, norm.vmax], [low, high], rtol=1e-6)
    assert getattr(norm, "vcenter", None) == centre


def test_each_colour_bar_says_what_it_measures(written):
    figure = pl.concept_map(written, return_fig=True)
    assert [ax.get_ylabel() for ax in figure.axes[2:]] == ["s.d.", "s.d."]
    assert len(pl.concept_map(written, colorbar=False, return_fig=True).axes) == 2


def test_history_has_a_panel_for_each_term_of_the_loss():
    history = {
        "reconstruction_loss_train": pd.DataFrame({"a": [3.0, 2.0]}),
        "reconstruction_loss_validation": pd.DataFrame({"a": [4.0, 3.0]}),
        "kl_local_train": pd.DataFrame({"a": [0.1, 0.2]}),
        "train_loss": pd.DataFrame({"a": [3.1, 2.2]}),
    }
    left, right = pl.history(SimpleNamespace(history=history), show=False)
    assert [line.get_label() for line in left.get_lines()] == ["train", "validation"]
    assert list(right.get_lines()[0].get_ydata()) == [0.1, 0.2]
    one = SimpleNamespace(history={"train_loss": history["train_loss"]})
    assert pl.history(one, show=False).get_title() == "loss"
    with pytest.raises(ValueError, match="trained in this session"):
        pl.history(SimpleNamespace(history=None))
