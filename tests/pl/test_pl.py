"""Plots show what was written, and say what is missing."""

from __future__ import annotations

import inspect
import io

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from stcsm import _keys, pl

mpl.use("agg")


@pytest.fixture
def written() -> AnnData:
    """What tl leaves behind, made by hand."""
    rng = np.random.default_rng(0)
    a = AnnData(np.ones((20, 6), dtype=np.float32))
    a.obs_names = [f"s{i}" for i in range(20)]
    a.var_names = [f"g{i}" for i in range(6)]
    a.obsm["spatial"] = np.stack(np.meshgrid(np.arange(5.0), np.arange(4.0)), -1).reshape(-1, 2)
    maps = rng.normal(size=(20, 2))
    maps[3] = np.nan
    a.obsm[_keys.CONCEPT_SALIENCY] = pd.DataFrame(maps, index=a.obs_names, columns=["L2_3", "b"])
    a.varm[_keys.CONCEPT_SCORE] = pd.DataFrame(rng.normal(size=(6, 2)), index=a.var_names, columns=["L2_3", "b"])
    a.varm[_keys.EMBEDDING] = rng.normal(size=(6, 3))
    a.varm[_keys.EMBEDDING][5] = np.nan
    a.uns["stcsm"] = {"concepts": {"L2_3": {"label": "L2/3", "genes": ["g1"]}, "b": {"label": "b", "genes": []}}}
    return a


def test_one_panel_a_concept_under_its_label(written):
    fig = pl.saliency(written, return_fig=True)
    titles = [ax.get_title() for ax in fig.axes if ax.get_title()]
    assert titles == ["L2/3", "b"]


def test_limits_are_symmetric_and_not_set_by_one_spot():
    a = AnnData(np.ones((1001, 1), dtype=np.float32))
    a.obsm["spatial"] = np.stack(np.meshgrid(np.arange(91.0), np.arange(11.0)), -1).reshape(-1, 2)
    values = np.r_[np.linspace(-1, 1, 999), 1000.0, np.nan]
    a.obsm[_keys.CONCEPT_MAP] = pd.DataFrame({"c": values}, index=a.obs_names)
    spots = pl.concept_map(a, show=False).collections[0]
    assert spots.norm.vmin == -spots.norm.vmax
    assert 0.9 < spots.norm.vmax < 2


def test_saliency_is_the_concept_map_plot_of_another_table(written):
    """One plot, two defaults: what one draws and takes, the other does."""
    ours, theirs = (inspect.signature(f).parameters for f in (pl.saliency, pl.concept_map))
    assert list(ours) == list(theirs)
    assert {k for k in ours if ours[k].default != theirs[k].default} == {"key"}
    written.obsm["concept_map"] = written.obsm["concept_saliency"]
    look = {"vmin": "p10", "vmax": "p90", "ncols": 1, "size": 0.7, "cmap": "magma", "img": False, "return_fig": True}
    drawn = []
    for figure in (pl.saliency(written, "b", **look), pl.concept_map(written, "b", "concept_saliency", **look)):
        held = io.BytesIO()
        figure.savefig(held, format="raw")
        drawn.append(held.getvalue())
    assert drawn[0] == drawn[1]


def test_image_is_used_when_there_is_one(written):
    written.obsm["spatial"] = written.obsm["spatial"] * 10 + 10
    written.uns["spatial"] = {
        "lib": {
            "images": {"hires": np.full((60, 70, 3), 200, np.uint8)},
            "scalefactors": {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 6.0},
        }
    }
    assert pl.saliency(written, "L2/3", show=False).images
    assert pl.find_image(written) == ("lib", "hires")
    assert pl.section(written, show=False).images
    written.uns["spatial"]["lib"]["metadata"] = {"image": "blank"}  # a canvas that stands for no image
    assert pl.find_image(written) is None
    assert not pl.saliency(written, "L2/3", show=False).images
    with pytest.raises(ValueError, match="image of the section"):
        pl.section(written)


def test_scores_and_embedding(written):
    ax, _ = pl.concept_scores(written, n_genes=3, show=False)
    assert [t.get_text() for t in ax.get_yticklabels()] == list(
        written.varm["concept_score"]["L2_3"].nlargest(3).index[::-1]
    )
    pl.embedding(written, "b", genes=["g0"])


@pytest.mark.parametrize(("place", "last"), [(0, None), (2, None), (3, "g1 (rank 4)"), (5, "g1 (rank 6)")])
def test_a_concepts_own_gene_is_shown_with_its_rank_where_it_is_not_among_the_highest(written, place, last):
    order = ["g0", "g2", "g3", "g4", "g5"]
    order.insert(place, "g1")
    written.varm["concept_score"]["L2_3"] = pd.Series(np.arange(6.0, 0, -1), index=order)
    ax = pl.concept_scores(written, "L2/3", n_genes=3, show=False)
    names = [t.get_text() for t in ax.get_yticklabels()][::-1]
    assert names == order[:3] + ([last] if last else [])
    found = pl.highest_genes(written, "L2/3", 3)
    assert list(found.index) == order[:3] + (["g1"] if last else [])
    assert list(found.index[found["in_set"]]) == ["g1"]
    assert found["rank"].iloc[-1] == (place + 1 if last else 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: pl.concept_map(a), "run stcsm.tl.concept_map"),
        (lambda a: pl.saliency(a, "nope"), "nope"),
        (lambda a: pl.concept_scores(a, n_genes=0), "n_genes"),
        (lambda a: pl.embedding(a, genes=["zz"]), "zz"),
    ],
)
def test_missing_results_are_named(written, call, message):
    with pytest.raises(ValueError, match=message):
        call(written)


@pytest.fixture(autouse=True)
def _close():
    yield
    mpl.pyplot.close("all")


def test_sections_are_not_drawn_over_one_another(written):
    written.obs["section"] = np.repeat(["one", "two"], 10)
    written.uns["stcsm"]["setup"] = {"spatial_key": "spatial", "batch_key": "section"}
    pl.saliency(written)  # the rows of one lie above those of the other
    written.obs["section"] = np.tile(["one", "two"], 10)
    with pytest.raises(ValueError, match=r"'one' and 'two' lie on one another.*== 'one'"):
        pl.saliency(written)
    part = written[written.obs["section"] == "two"].copy()
    part.obsm["spatial"] = part.obsm["spatial"] * 10 + 10
    image = {
        "images": {"hires": np.full((60, 70, 3), 200, np.uint8)},
        "scalefactors": {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 6.0},
    }
    part.uns["spatial"] = {"one": image}
    assert not pl.saliency(part, "b", show=False).images
    part.uns["spatial"] = {"one": image, "two": image}
    assert pl.saliency(part, "b", show=False).images


def _picture(colour: tuple[int, int, int], across: int = 100) -> dict:
    return {
        "images": {"hires": np.full((across, across, 3), colour, np.uint8)},
        "scalefactors": {"tissue_hires_scalef": 0.5, "spot_diameter_fullres": 6.0},
    }


GREEN, RED = (0, 255, 0), (255, 0, 0)


@pytest.fixture
def of_b(written) -> AnnData:
    """Section B of a join with A: both images are there, and its spots lie on both."""
    written.obsm["spatial"] = written.obsm["spatial"] * 20 + 20
    written.uns["spatial"] = {"A": _picture(GREEN), "B": _picture(RED)}
    return written


def _drawn(adata, **arguments) -> tuple[int, ...] | None:
    images = pl.saliency(adata, "b", show=False, **arguments).images
    return tuple(np.asarray(images[0].get_array())[5, 5][:3].tolist()) if images else None


def _said_in(adata, column, values):
    adata.obs[column] = values


@pytest.mark.parametrize(
    "say",
    [
        lambda a: _said_in(a, "library_id", "B"),
        lambda a: _said_in(a, "my sample", pd.Categorical(["B"] * 20, ["A", "B"])),
        lambda a: setattr(a, "obs_names", [f"s{i}-B" for i in range(20)]),
        lambda a: setattr(a, "obs_names", [f"B_s{i}" for i in range(20)]),
        lambda a: (_said_in(a, "batch", "B"), a.uns["stcsm"].update(setup={"batch_key": "batch"})),
    ],
    ids=["library_id", "any column", "end of names", "beginning of names", "batch_key"],
)
def test_the_image_is_that_of_the_spots(of_b, say, caplog):
    say(of_b)
    assert _drawn(of_b) == RED
    assert pl.find_image(of_b) == ("B", "hires")
    assert not [r for r in caplog.records if r.name.startswith("stcsm")]


def test_no_image_is_drawn_where_none_is_known_to_be_theirs(of_b, caplog):
    assert _drawn(of_b) is None
    assert "the spots lie on each of the images 'A', 'B'" in caplog.text
    assert "draw the image of these spots: library_id='A' or library_id='B'" in caplog.text
    caplog.clear()
    assert _drawn(of_b, img=False) is None
    assert not caplog.text
    assert _drawn(of_b, library_id="A") == GREEN
    assert pl.section(of_b, library_id="B", show=False).images
    with pytest.raises(ValueError, match="found none to draw: the spots lie on each"):
        pl.section(of_b)
    with pytest.raises(ValueError, match=r"found 'C'; there are \['A', 'B'\]"):
        _drawn(of_b, library_id="C")


def test_an_image_that_the_spots_do_not_lie_on_is_another_sections(of_b, caplog):
    of_b.uns["spatial"]["A"] = _picture(GREEN, across=20)
    assert _drawn(of_b) == RED
    of_b.uns["spatial"] = {"A": _picture(GREEN, across=20)}  # uns_merge="first" keeps the other section's alone
    assert _drawn(of_b) is None
    assert "the spots lie beside the image of 'A'" in caplog.text


def test_the_image_of_a_section_that_has_none_is_not_replaced(of_b, caplog):
    of_b.uns["spatial"] = {"A": _picture(GREEN)}
    of_b.obs["library_id"] = "B"
    assert _drawn(of_b) is None
    assert "the section of the spots is 'B' in adata.obs['library_id'], and no image is called so" in caplog.text
    of_b.obs["library_id"] = ["A"] * 10 + ["B"] * 10
    assert _drawn(of_b) is None
    assert "the spots are of several sections, 'A', 'B'" in caplog.text


@pytest.mark.parametrize(
    "say",
    [
        lambda a: setattr(a, "obs_names", [f"s{i}-B" for i in range(20)]),
        lambda a: setattr(a, "obs_names", [f"s{i}-{'AB'[i // 10]}" for i in range(20)]),
        lambda a: setattr(a, "obs_names", [f"{'ACGT' * 4}{'ACGT'[i % 4] * (i + 1)}-1-1" for i in range(20)]),
        lambda a: setattr(a, "obs_names", [f"{'ACGT' * 4}{'ACGT'[i % 4] * (i + 1)}-2" for i in range(20)]),
        lambda a: setattr(a, "obs_names", [f"B_{'ACGT' * 4}{'ACGT'[i % 4] * (i + 1)}-1" for i in range(20)]),
        lambda a: _said_in(a, "Schnitt", ["A"] * 10 + ["B"] * 10),
        lambda a: _said_in(a, "sample", "B"),
        lambda a: _said_in(a, "section", "B"),
        lambda a: _said_in(a, "library_id", ["A"] * 19 + [None]),
    ],
    ids=[
        "ending",
        "mixed endings",
        "of a join",
        "of aggr",
        "beginning",
        "mixed column",
        "sample",
        "section",
        "missing",
    ],
)
def test_an_image_is_not_drawn_where_spots_may_be_of_a_section_without_one(of_b, say, caplog):
    """The image of A alone is there, which all spots lie on; its own spots still get it."""
    of_b.uns["spatial"] = {"A": _picture(GREEN)}
    assert _drawn(of_b) == GREEN
    say(of_b)
    assert _drawn(of_b) is None
    assert "no image is drawn" in caplog.text


def test_the_section_of_a_join_is_not_drawn_on_the_only_image_that_the_join_kept(of_b, caplog):
    """B has no image and lies where A does: uns_merge="first" leaves it with that of A."""
    of_a = of_b.copy()
    of_a.uns["spatial"] = {"V1_A": _picture(GREEN)}
    del of_b.uns["spatial"]
    joined = ad.concat({"A": of_a, "B": of_b}, label="sample", index_unique="-", uns_merge="first")
    b = joined[joined.obs["sample"] == "B"].copy()
    b.obs_names = of_b.obs_names
    assert _drawn(b) is None
    assert "the section of the spots is 'B' in adata.obs['sample']" in caplog.text
    assert "draw the image of these spots: library_id='V1_A'" in caplog.text
    assert _drawn(b, library_id="V1_A") == GREEN


def test_an_image_that_the_spots_were_moved_off_is_not_drawn(of_b, caplog):
    """Sections set side by side: the second lies where its image, which bears its name, is not."""
    of_b.obs["section"] = "B"
    assert _drawn(of_b) == RED
    of_b.obsm["spatial"] = of_b.obsm["spatial"] + [6000, 0]
    assert _drawn(of_b) is None
    assert "no image is drawn: 0% of the spots lie on the image of 'B'" in caplog.text
    assert _drawn(of_b, library_id="B") is None


@pytest.mark.parametrize("name", ["{barcode}-1", "s_016um_00{i}_00{i}-1", "aaaa{i}-1", "spot_{i}", "{i}.5x{i}"])
def test_names_of_one_section_say_nothing_of_its_image(of_b, name):
    of_b.uns["spatial"] = {"V1_Brain": _picture(GREEN)}
    of_b.obs_names = [name.format(i=i, barcode="ACGT" * 4 + "ACGT"[i % 4] * (i + 1)) for i in range(20)]
    of_b.obs["patient"] = "P1"
    assert _drawn(of_b) == GREEN
