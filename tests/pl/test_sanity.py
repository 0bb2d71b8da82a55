"""The figure of the sanity checks reads what tl wrote, and says what is missing."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import stcsm


def checked(k: int, *, seeds: bool = True, matrix: bool = True) -> AnnData:
    rng = np.random.default_rng(0)
    keys = [f"c{i}" for i in range(k)]
    record = {
        "concepts": np.asarray(keys, dtype=object),
        "layers": np.asarray(["mean", ""], dtype=object),
        "random": rng.uniform(-1, 1, (k, 50)),
        "opposite": np.full(k, -1.0),
        "cascading": rng.uniform(-0.2, 0.2, (k, 2, 5)),
        "independent": rng.uniform(-0.2, 0.2, (k, 2, 5)),
        "inputs": np.ones((k, 5)),
        "summary": pd.DataFrame({"warning": ["bad"] + [""] * (k - 1)}, index=keys),
        "method": "saliency",
    }
    if seeds:
        record["seeds"] = np.full((k, 1), 0.9)
    if matrix:
        record["correlation"] = np.eye(k)
    adata = AnnData(np.ones((3, 2), dtype=np.float32))
    adata.uns["stcsm"] = {"concepts": {key: {"label": f"concept/{key}"} for key in keys}, "sanity": record}
    return adata


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.mark.parametrize(
    ("k", "seeds", "matrix", "panels"), [(1, False, True, 2), (3, True, True, 3), (30, True, False, 2)]
)
def test_panels_show_every_concept_by_its_name_and_warnings_in_red(k, seeds, matrix, panels):
    adata = checked(k, seeds=seeds, matrix=matrix)
    figure = stcsm.pl.sanity(adata, return_fig=True)
    axes = [ax for ax in figure.axes if ax.get_title(loc="left")]
    assert len(axes) == panels
    ticks = axes[0].get_yticklabels()
    assert [t.get_text() for t in ticks] == [f"concept/c{i}" for i in range(k)]
    assert ticks[0].get_color() == "#b2182b"
    assert all(t.get_color() != "#b2182b" for t in ticks[1:])
    figure.canvas.draw()


def test_some_concepts_by_key_or_name():
    figure = stcsm.pl.sanity(checked(4), ["c2", "concept/c0"], return_fig=True)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["concept/c2", "concept/c0"]


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match=r"stcsm\.tl\.sanity"):
        stcsm.pl.sanity(AnnData(np.ones((2, 2), dtype=np.float32)))
    with pytest.raises(ValueError, match="absent"):
        stcsm.pl.sanity(checked(2), "absent")
    with pytest.raises(ValueError, match="at most 30"):
        stcsm.pl.sanity(checked(31))
