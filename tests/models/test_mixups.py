"""What AnnData in memory may hold beside one section's genes and spots, and settings of torch that users have."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import torch
from anndata import AnnData
from scipy import sparse

import stcsm
from stcsm.models import GeneVAE, counts_of

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def section(n_rows: int = 12, n_cols: int = 20, seed: int = 0, array: bool = True) -> AnnData:
    """Spots of a hexagonal array with labels that lie in domains and labels at random; genes 0 to 9 mark one half."""
    rng = np.random.default_rng(seed)
    at = np.array([(r, c) for r in range(n_rows) for c in range(r % 2, n_cols, 2)])
    right = at[:, 1] > np.median(at[:, 1])
    mean = np.ones((len(at), 30))
    mean[right, :10] = 5
    obs = pd.DataFrame(index=[f"s{i}" for i in range(len(at))])
    obs["layer"] = pd.Categorical(np.where(right, "right", "left"))
    obs["cell_type"] = rng.choice(["a", "b", "c"], len(at))
    obs["damaged"] = rng.random(len(at)) < 0.4
    obs["depth"] = rng.random(len(at))
    if array:
        obs["array_row"], obs["array_col"] = at.T
    a = AnnData(
        sparse.csr_matrix(3 * rng.poisson(mean).astype(np.float32)),
        obs,
        pd.DataFrame(index=[f"g{i}" for i in range(30)]),
    )
    a.obsm["spatial"] = np.c_[at[:, 1] * 50.0, at[:, 0] * 86.6]
    return a


def model_of(a: AnnData, epochs: int = 2, **setup: object) -> GeneVAE:
    GeneVAE.setup_anndata(a, **setup)
    model = GeneVAE(a, smoothing=0, n_latent=4, n_hidden=8)
    model.train(max_epochs=epochs, progress=False)
    return model


# ---- Several sections in one frame


def _turned(xy: np.ndarray, by: float = 0.4) -> np.ndarray:
    turn = np.array([[np.cos(by), -np.sin(by)], [np.sin(by), np.cos(by)]])
    return (xy - xy.mean(axis=0)) @ turn.T + xy.mean(axis=0)


MOVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "equal": lambda xy: xy,
    "mirrored": lambda xy: np.c_[xy[:, 0].max() - xy[:, 0], xy[:, 1]],
    "rotated by 180 degrees": lambda xy: xy.max(axis=0) - xy,
    "shifted by half a spot": lambda xy: xy + np.array([50.0, 0.0]),
    "shifted anyhow": lambda xy: xy + np.array([13.0, 31.0]),
    "turned": _turned,
}


def stacked(move: Callable[[np.ndarray], np.ndarray], array: bool, label: str | None, rows: int = 12) -> AnnData:
    a, b = section(seed=1, array=array), section(n_rows=rows, seed=2, array=array)
    b.obsm["spatial"] = move(b.obsm["spatial"])
    return ad.concat({"one": a, "two": b}, label=label, index_unique="-")


@pytest.mark.parametrize("array", [True, False], ids=["rows and columns", "coordinates"])
@pytest.mark.parametrize("rows", [12, 7], ids=["equal", "unequal"])
@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("label", ["sample", "whatever"])
def test_sections_over_one_another_are_refused_and_their_column_is_named(move, rows, array, label):
    both = stacked(MOVES[move], array, label, rows)
    before = both.copy()
    both.obs_names = [f"spot{i}" for i in range(both.n_obs)]
    with pytest.raises(ValueError, match="several sections that lie over one another") as error:
        GeneVAE.setup_anndata(both)
    # Without rows and columns, a mirrored section of two halves is told apart by them as well as by its own name.
    if label == "sample" or array:
        assert f"batch_key={label!r}" in str(error.value)
    assert "one_section=True" in str(error.value)
    assert not both.uns
    pd.testing.assert_frame_equal(both.obs.reset_index(drop=True), before.obs.reset_index(drop=True))


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("shuffled", [False, True])
def test_without_a_column_the_message_says_so(move, shuffled):
    both = stacked(MOVES[move], True, None)
    both.obs = both.obs[["array_row", "array_col"]]
    both.obs_names = [f"spot{i}" for i in range(both.n_obs)]
    if shuffled:
        both = both[np.random.default_rng(0).permutation(both.n_obs)].copy()
    with pytest.raises(ValueError, match=r"no column of adata.obs tells them apart.*label='section'"):
        GeneVAE.setup_anndata(both)


@pytest.mark.parametrize("array", [True, False])
@pytest.mark.parametrize("named", [lambda n: n.replace("-", "_"), lambda n: "_".join(n.split("-")[::-1])])
def test_names_that_tell_sections_apart_are_pointed_to_by_a_line_that_runs(array, named):
    adata = stacked(MOVES["shifted anyhow"], array, None)
    adata.obs = adata.obs[["array_row", "array_col"] if array else []]
    adata.obs_names = [named(name) for name in adata.obs_names]
    with pytest.raises(ValueError, match=r"no column of adata.obs tells them apart, but the (ending|begin)") as error:
        GeneVAE.setup_anndata(adata)
    said = re.search(r"does: (.*), and pass batch_key='section'(?:, after (stcsm.*\)))?, or take", str(error.value))
    assert (said[2] is None) == array
    for line in filter(None, said.groups()):
        exec(line, {"stcsm": stcsm, "adata": adata})
    assert (adata.obs["section"] == np.repeat(["one", "two"], 120)).all()
    GeneVAE.setup_anndata(adata, batch_key="section")


def test_sections_joined_as_they_are_are_joined_again():
    """The first message holds all that is to be done: names that are only made unique lead to a second refusal."""
    a, b = section(seed=1), section(seed=2)
    adata = ad.concat([a, b])
    with pytest.raises(ValueError, match="found 120 used more than once") as error:
        GeneVAE.setup_anndata(adata)
    held = {"a": a, "b": b, "anndata": ad}
    exec(re.search(r"join them as (.*), and pass batch_key='section'", str(error.value))[1], held)
    GeneVAE.setup_anndata(held["adata"], batch_key="section")
    adata.obs_names_make_unique()
    with pytest.raises(
        ValueError, match=r"found several sections.*join them as adata = anndata.concat\(\[a, b\], label"
    ):
        GeneVAE.setup_anndata(adata)
    with pytest.raises(ValueError, match=r"obs_names_make_unique\(\), and name the column .*batch_key='day'"):
        GeneVAE.setup_anndata(ad.concat({"x": a, "y": b}, label="day"))
    twice = section()
    twice.obs_names = ["s", "s", *twice.obs_names[2:]]
    with pytest.raises(ValueError, match=r"found 1 used .*make them unique: adata.obs_names_make_unique\(\)$"):
        GeneVAE.setup_anndata(twice)


@pytest.mark.parametrize("label", ["Sektion", "Bild"])
def test_a_column_of_any_name_comes_before_the_endings_of_names(label):
    """The usual join, whose column tells the sections apart under a name that is not known to us."""
    parts = {"one": section(seed=0), "two": section(seed=1)}
    parts["two"].obsm["spatial"] = MOVES["mirrored"](parts["two"].obsm["spatial"])
    with pytest.raises(ValueError, match=f"batch_key='{label}'"):
        GeneVAE.setup_anndata(ad.concat(parts, label=label, index_unique="_"))


def test_control_probes_are_known_by_their_symbols_too():
    a = section()
    a.var["symbol"] = [*a.var_names[:-2], "NegControlProbe_00042", "BLANK_0001"]
    a.var_names = [f"ENSG{i:011d}" for i in range(a.n_vars)]
    with pytest.warns(UserWarning, match="2 of 30"):
        GeneVAE.setup_anndata(a)


def test_three_sections_and_their_images():
    parts = {name: section(seed=i) for i, name in enumerate("abc")}
    parts["b"].obsm["spatial"] = MOVES["mirrored"](parts["b"].obsm["spatial"])
    parts["c"].obsm["spatial"] = MOVES["turned"](parts["c"].obsm["spatial"])
    all_three = ad.concat(parts, label="brain", index_unique="-")
    all_three.uns["spatial"] = {name: {} for name in parts}
    with pytest.raises(ValueError, match=r"holds 3 of them.*batch_key='brain'"):
        GeneVAE.setup_anndata(all_three)
    GeneVAE.setup_anndata(all_three, batch_key="brain")


def test_cells_of_two_sections_over_one_another():
    """Irregular cells keep their distance within a section; labels of one section do not tell them apart."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(30), np.arange(30)), -1).reshape(-1, 2)
    xy = np.r_[grid + rng.uniform(-0.3, 0.3, grid.shape), grid + rng.uniform(-0.3, 0.3, grid.shape) + 0.37]
    a = AnnData(np.ones((len(xy), 3), dtype=np.float32))
    a.obs["run"] = np.repeat(["x", "y"], len(grid))
    a.obs["cell_type"] = rng.choice(list("uvw"), len(xy))
    a.obsm["spatial"] = xy
    with pytest.raises(ValueError, match="batch_key='run'"):
        GeneVAE.setup_anndata(a)
    GeneVAE.setup_anndata(a[: len(grid)].copy())


def cells(n: int = 900, seed: int = 0) -> AnnData:
    """Cells that keep their distance, no array; two types that lie in domains, two at random."""
    rng = np.random.default_rng(seed)
    taken: list[np.ndarray] = []
    while len(taken) < n:
        at = rng.random(2) * 100
        if not taken or np.linalg.norm(np.array(taken) - at, axis=1).min() > 1.6:
            taken.append(at)
    a = AnnData(sparse.csr_matrix(3 * rng.poisson(2.0, (n, 8)).astype(np.float32)))
    a.obsm["spatial"] = np.array(taken)
    a.obs["domain"] = pd.Categorical(np.where(a.obsm["spatial"][:, 0] > 50 + rng.normal(0, 5, n), "right", "left"))
    a.obs["cell_type"] = rng.choice(["a", "b"], n)
    a.obs_names = [f"cell{i}" for i in range(n)]
    return a


@pytest.fixture(scope="module")
def two_of_cells() -> tuple[AnnData, AnnData]:
    return cells(seed=0), cells(seed=1)


def joined(two: tuple[AnnData, AnnData], overlap: float = 1.0) -> AnnData:
    """Two sections of cells in one frame, of which a share lies over one another."""
    a, b = (part.copy() for part in two)
    b.obsm["spatial"][:, 0] += 100 * (1 - overlap)
    both = ad.concat([a, b])
    both.obs_names = [f"c{i}" for i in range(both.n_obs)]
    return both


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Schnitt", ["one", "two"]),
        ("condition", pd.Categorical(["one", "two"])),
        ("Bregma", [-0.14, 0.26]),
        ("experiment", [3, 4]),
        ("fov", pd.array([1, 2], dtype="Int64")),
    ],
)
def test_cells_without_an_array_are_told_apart_by_a_column_of_any_name(two_of_cells, name, values):
    both = joined(two_of_cells)
    both.obs[name] = pd.Series(values).repeat(900).array
    both.obs["type"] = np.random.default_rng(0).integers(0, 4, both.n_obs)
    with pytest.raises(ValueError, match=f"batch_key='{name}'"):
        GeneVAE.setup_anndata(both)
    for part in two_of_cells:
        part.obs["type"] = np.random.default_rng(0).integers(0, 4, part.n_obs)
        GeneVAE.setup_anndata(part.copy())


def test_cells_without_a_column_are_told_apart_by_names_or_order(two_of_cells):
    both = joined(two_of_cells)
    with pytest.raises(ValueError, match="but their order does"):
        GeneVAE.setup_anndata(both)
    both.obs_names = [f"c{i}-{'ab'[i // 900]}" for i in range(both.n_obs)]
    with pytest.raises(ValueError, match="but the ending of their names does"):
        GeneVAE.setup_anndata(both)


def test_the_advice_for_cells_works_as_it_is_written(two_of_cells):
    adata = joined(two_of_cells)
    adata.obs["run"] = np.repeat(["x", "y"], 900)
    with pytest.raises(ValueError, match="batch_key='run', after") as error:
        GeneVAE.setup_anndata(adata)
    code = re.search(r"after (.*), then (adata = .*), or take", str(error.value))
    held = {"stcsm": stcsm, "adata": adata}
    exec("\n".join(code.groups()), held)
    GeneVAE.setup_anndata(held["adata"], batch_key="run")
    assert GeneVAE(held["adata"], smoothing=0, n_latent=4, n_hidden=8).section_names == ("x", "y")


def _around_large_cells(distance: float, n: int, spread: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Large cells that keep their distance, and small ones about them, at a fixed or a nearly fixed distance."""
    rng = np.random.default_rng(0)
    large: list[np.ndarray] = []
    while len(large) < 400:
        at = rng.random(2) * 90
        if not large or np.linalg.norm(np.array(large) - at, axis=1).min() > 2.6:
            large.append(at)
    turn = rng.random(n) * 2 * np.pi
    small = np.array(large)[:n] + (distance + rng.normal(0, spread, (n, 1))) * np.c_[np.cos(turn), np.sin(turn)]
    return np.r_[np.array(large), small], np.repeat(["large", "small"], [400, n])


def _alternating(jitter: float) -> tuple[np.ndarray, np.ndarray]:
    at = np.stack(np.meshgrid(np.arange(25), np.arange(25)), -1).reshape(-1, 2)
    return at + np.random.default_rng(0).normal(0, jitter, at.shape), np.where(at.sum(axis=1) % 2, "a", "b")


def _tiles(overlap: float) -> tuple[np.ndarray, np.ndarray]:
    """Fields of view that tile the plane, stitched with borders that overlap."""
    at = np.random.default_rng(0).random((12, 120, 2)) * (1 + overlap)
    return np.concatenate([at[f] + [f % 4, f // 4] for f in range(12)]), np.repeat(np.arange(12), 120)


@pytest.mark.parametrize(
    ("places", "labels"),
    [
        _around_large_cells(1.3, 400),
        _around_large_cells(1.3, 120, 0.05),
        _around_large_cells(1.3, 240, 0.2),
        _alternating(0.0),
        _alternating(0.1),
        _tiles(0.02),
        _tiles(0.1),
    ],
    ids=["small by large", "few small", "irregular", "alternating", "alternating cells", "fields", "wide borders"],
)
def test_labels_and_fields_of_one_section_are_not_refused(places, labels):
    a = AnnData(np.ones((len(places), 2), dtype=np.float32))
    a.obsm["spatial"] = places
    a.obs["label"] = labels
    GeneVAE.setup_anndata(a)
    GeneVAE.setup_anndata(a[np.random.default_rng(0).permutation(a.n_obs)].copy())


@pytest.mark.parametrize("overlap", [0.15, 0.3])
def test_sections_that_overlap_in_part_need_a_column_named_like_theirs(two_of_cells, overlap):
    both = joined(two_of_cells, overlap)
    for name in ("sample", "mouse_id"):
        both.obs[name] = np.repeat([1, 2], 900)
        with pytest.raises(ValueError, match=f"batch_key='{name}'"):
            GeneVAE.setup_anndata(both)
        both.obs = both.obs.drop(columns=name)
    side_by_side = joined(two_of_cells, 0.0)
    side_by_side.obs["sample"] = np.repeat([1, 2], 900)
    GeneVAE.setup_anndata(side_by_side)


@pytest.mark.parametrize("text", ["nan", "NA", "None", "", np.nan, None])
def test_text_that_stands_for_no_section_is_none(text):
    a = section()
    a.obs["sample"] = ["x"] * 60 + ["y"] * 57 + [text] * 3
    with pytest.raises(ValueError, match=r"found 3 of 120 spots without one in adata.obs\['sample'\] \(first: 's117'"):
        GeneVAE.setup_anndata(a, batch_key="sample")
    with pytest.raises(ValueError, match="found 3 of 120 spots without one"):
        stcsm.pp.to_grid(a, batch_key="sample")


def test_a_table_of_a_spatialdata_object_is_pointed_to_the_reader():
    a = section()
    del a.obsm["spatial"]
    a.uns["spatialdata_attrs"] = {"region": "cells", "region_key": "region", "instance_key": "id"}
    with pytest.raises(ValueError, match=r"adata = stcsm.io.from_spatialdata\(sdata\)"):
        GeneVAE.setup_anndata(a)


def test_against_the_refusal_there_is_an_argument_that_stays():
    both = stacked(MOVES["mirrored"], True, "sample")
    GeneVAE.setup_anndata(both, one_section=True)
    assert both.uns["stcsm"]["setup"]["one_section"]
    GeneVAE(both, smoothing=0, n_latent=4, n_hidden=8)


APART = [[1000.0, 0.0], [3000.0, 500.0], [0.0, 1039.2]]


@pytest.mark.parametrize("apart", APART)
def test_sections_side_by_side_without_an_array_are_one_frame(apart):
    a, b = section(seed=1, array=False), section(seed=2, array=False)
    b.obsm["spatial"] += apart
    GeneVAE.setup_anndata(ad.concat({"a": a, "b": b}, label="sample", index_unique="-"))
    without = ad.concat([a, b])
    without.obs_names_make_unique()
    GeneVAE.setup_anndata(without)


@pytest.mark.parametrize("apart", APART)
@pytest.mark.parametrize("label", ["sample", "whatever", None])
def test_sections_side_by_side_are_known_by_their_array_positions(apart, label):
    """No spot lies near one of the other section, and each array position is there twice."""
    a, b = section(seed=1), section(n_rows=9, seed=2)
    b.obsm["spatial"] += apart
    both = ad.concat({"a": a, "b": b}, label=label, index_unique="-")
    fix = f"batch_key='{label}'" if label else r"adata.obs_names.str.rsplit\('-', n=1\).str\[-1\], and pass"
    with pytest.raises(ValueError, match=rf"180 of 210 spots have the array position .* side by side\).*{fix}"):
        GeneVAE.setup_anndata(both)
    GeneVAE.setup_anndata(both, one_section=True)


def test_several_slides_are_several_sections_and_fields_of_view_are_one():
    a, b = section(seed=1, array=False), section(seed=2, array=False)
    b.obsm["spatial"] += [5000.0, 0.0]
    both = ad.concat({"a": a, "b": b}, label="brain", index_unique="-")
    both.uns["spatial"] = {"a": {}, "b": {}}
    with pytest.raises(ValueError, match=r"on several slides by adata.obs\['brain'\].*batch_key='brain', after"):
        GeneVAE.setup_anndata(both)
    both.obs = both.obs.rename(columns={"brain": "fov"})
    GeneVAE.setup_anndata(both)


def test_cells_in_bins_of_a_grid_are_one_section():
    rng = np.random.default_rng(0)
    a = AnnData(rng.poisson(2.0, (800, 5)).astype(np.float32))
    a.obsm["spatial"] = rng.uniform(0, 20, (800, 2))
    a.obs["cell_type"] = rng.choice(list("uvwxyz"), 800)
    stcsm.pp.to_grid(a, bin_size=1.0)
    GeneVAE.setup_anndata(a)
    a.uns.clear()
    GeneVAE.setup_anndata(a)


def test_sections_at_heights_of_their_own_are_sound():
    both = stacked(MOVES["equal"], False, "sample")
    both.obsm["spatial"] = np.c_[both.obsm["spatial"], np.where(both.obs["sample"] == "one", 0.0, 40.0)]
    GeneVAE.setup_anndata(both)


@pytest.mark.parametrize(
    "file",
    [
        *(
            f"panel/{name}.h5ad"
            for name in ("embryo_1", "embryo_2", "heart_5", "heart_8", "her2_B1", "her2_D1", "pdac")
        ),
        *("panel/mpfc_BZ5.h5ad", "panel/mpfc_BZ9.h5ad"),
        *("visium/dlpfc151510.h5ad", "visium/mouse_brain_dentate_gyrus.h5ad", "visium/visium_49_spots.h5ad"),
        *(f"mob/Rep{n}_MOB_count_matrix-1.tsv.gz" for n in (1, 2, 11, 12)),
    ],
)
def test_real_sections_are_not_refused(data_dir: Path, file: str):
    if not (data_dir / file).is_file():
        pytest.skip(f"{file} is absent")
    adata = stcsm.io.read(data_dir / file)
    adata.X = np.ones((adata.n_obs, 1), dtype=np.float32) @ np.ones((1, adata.n_vars), dtype=np.float32)
    adata.obs["half"] = np.random.default_rng(0).random(adata.n_obs) < 0.5
    GeneVAE.setup_anndata(adata)
    # Two of them over one another are.
    other = adata.copy()
    xy = np.asarray(other.obsm["spatial"], dtype=float)
    other.obsm["spatial"] = np.c_[xy[:, 0].max() + xy[:, 0].min() - xy[:, 0], xy[:, 1]]
    if adata.n_obs > 100:
        with pytest.raises(ValueError, match="batch_key='sample'"):
            GeneVAE.setup_anndata(ad.concat({"a": adata, "b": other}, label="sample", index_unique="-"))


# ---- Spots beside the tissue, features that are no genes


@pytest.mark.parametrize(
    "of",
    [
        lambda on: on,
        lambda on: on.astype(int),
        lambda on: on.astype(float),
        lambda on: on.astype(int).astype(str),
        lambda on: pd.Categorical(on.astype(int)),
        lambda on: pd.Categorical(on.astype(str)),
        lambda on: pd.array(on.astype(int), dtype="Int64"),
        lambda on: pd.array(on, dtype="boolean"),
    ],
    ids=["bool", "int", "float", "text", "category", "category of text", "Int64", "boolean"],
)
def test_spots_beside_the_tissue_are_left_out_with_a_word(of):
    a = section()
    on = np.arange(a.n_obs) >= 40
    a.obs["in_tissue"] = of(on)
    with pytest.warns(UserWarning, match=r"40 of 120 spots lie beside the tissue.*keep_background=True"):
        GeneVAE.setup_anndata(a)
    assert np.array_equal(GeneVAE(a).spots, np.flatnonzero(on))
    GeneVAE.setup_anndata(a, keep_background=True)
    assert len(GeneVAE(a).spots) == a.n_obs


def test_every_step_leaves_out_what_the_model_leaves_out(recwarn):
    """The maps of the spots on tissue are those of an AnnData that holds nothing else."""
    a = section()
    a.var["feature_types"] = ["Gene Expression"] * 28 + ["Antibody Capture", "Gene Expression"]
    a.var_names = [*a.var_names[:29], "NegPrb1"]
    a.obs["in_tissue"] = (np.arange(a.n_obs) >= 40).astype(int)
    alone = a[40:, :28].copy()
    maps = []
    for adata in (a, alone):
        model = model_of(adata)
        stcsm.tl.concepts(adata, model, groupby="layer")
        stcsm.tl.saliency(adata, model, genes="all")
        stcsm.tl.concept_map(adata, model)
        stcsm.tl.mean_expression(adata)
        stcsm.tl.significance(adata, model, n_random=20)
        maps.append([adata.obsm[k].to_numpy() for k in ("concept_saliency", "concept_map", "concept_expression")])
    assert sum("beside the tissue" in str(w.message) for w in recwarn) == 1
    for ours, theirs in zip(*maps, strict=True):
        assert np.isnan(ours[:40]).all()
        np.testing.assert_allclose(ours[40:], theirs, rtol=1e-4, atol=1e-6)
    assert np.isnan(a.varm["X_stcsm"][28:]).all()
    assert np.isfinite(a.varm["X_stcsm"][:28]).all()
    assert a.X[:40].sum() > 0


def test_a_saved_model_knows_what_it_left_out(tmp_path):
    a = section()
    a.obs["in_tissue"] = np.arange(a.n_obs) >= 40
    a.var_names = [*a.var_names[:29], "Blank-1"]
    with pytest.warns(UserWarning, match=r"1 of 30 features are no genes, such as 'Blank-1'"):
        model = model_of(a)
    model.save(tmp_path / "m")
    again = GeneVAE.load(tmp_path / "m", a)
    assert np.array_equal(again.get_latent_representation(), model.get_latent_representation(), equal_nan=True)
    said = again.describe()
    assert (said["n_spots_beside"], said["n_features_left_out"]) == (40, 1)
    GeneVAE.setup_anndata(a, keep_background=True, keep_controls=True)
    assert GeneVAE(a).reader.gene_totals[29] > 0


def test_an_anndata_of_background_or_of_controls_alone_is_refused():
    a = section()
    a.obs["in_tissue"] = 0
    with pytest.raises(ValueError, match=r"found in_tissue 0 .* for all 120.*keep_background=True"):
        GeneVAE.setup_anndata(a)
    b = section()
    b.var_names = [f"Blank-{i}" for i in range(b.n_vars)]
    with pytest.raises(ValueError, match=r"features of which none is.*keep_controls=True"):
        GeneVAE.setup_anndata(b)


# ---- Counts in .raw


def test_counts_in_raw_are_pointed_to_and_taken():
    a = section()
    counts = a.X.toarray()
    a.raw = a.copy()
    sc.pp.normalize_total(a)
    sc.pp.log1p(a)
    a = a[:, [5, 3, *range(10, 30)]].copy()
    with pytest.raises(ValueError, match=r"adata.raw holds counts: take them with layer='raw'$"):
        GeneVAE.setup_anndata(a)
    with pytest.warns(UserWarning, match="8 genes are in adata.raw only and are left out; adata = adata.raw.to_adata"):
        model = model_of(a, layer="raw")
    with pytest.raises(ValueError, match=r"found 'g4'.* In adata.raw only: g4; adata = adata.raw.to_adata\(\) has"):
        stcsm.tl.match_gene_sets(a, model, genes={"x": ["g4", "g5"]})
    np.testing.assert_array_equal(counts_of(a, "raw").toarray(), counts[:, [5, 3, *range(10, 30)]])
    np.testing.assert_array_equal(model.reader.profiles(np.array([0])), counts[:, [5]].T)
    stcsm.tl.concepts(a, model, groupby="layer")
    stcsm.tl.concept_map(a, model)
    assert np.isfinite(a.obsm["concept_map"].to_numpy()).all()


@pytest.mark.parametrize(
    "names",
    [
        lambda n: pd.RangeIndex(n),
        lambda n: pd.Index(np.arange(n), dtype="Int64"),
        lambda n: pd.CategoricalIndex(range(n)),
        lambda n: pd.Index([f"n{i}" for i in range(n)], dtype="string"),
        lambda n: pd.Index([f"n{i}" for i in range(n)], dtype="string[pyarrow]"),
    ],
    ids=["range", "Int64", "category", "string", "arrow"],
)
def test_names_of_any_type_are_copied_and_written_after_an_analysis(tmp_path, names):
    a = section()
    a.obs_names, a.var_names = names(a.n_obs), names(a.n_vars)
    a.raw = a.copy()
    text = [*map(str, names(a.n_obs))]
    model = model_of(a, epochs=1, layer="raw")
    stcsm.tl.concepts(a, model, genes={"x": list(names(a.n_vars)[:3])})
    stcsm.tl.saliency(a, model)
    a.raw = None
    a.copy().write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    assert list(again.obs_names) == list(again.obsm["concept_saliency"].index) == text
    np.testing.assert_array_equal(again.obsm["concept_saliency"], a.obsm["concept_saliency"])
    np.testing.assert_array_equal(again.varm["concept_score"], a.varm["concept_score"])


def test_a_layer_called_raw_wins():
    a = section()
    a.raw = a.copy()
    a.layers["raw"] = a.X * 2
    assert counts_of(a, "raw") is a.layers["raw"]


def test_raw_that_lacks_genes_is_refused():
    a = section()
    a.raw = a[:, :20].copy()
    with pytest.raises(ValueError, match=r"Expected every gene of the AnnData once in adata.raw, found that 10 of 30"):
        GeneVAE.setup_anndata(a, layer="raw")


# ---- Settings of torch


class _Float64:
    def __enter__(self) -> None:
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *_: object) -> None:
        assert torch.get_default_dtype() == torch.float64
        torch.set_default_dtype(torch.float32)


class _Device:
    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        torch.set_default_device(self.name)

    def __exit__(self, *_: object) -> None:
        assert torch.get_default_device().type == self.name
        torch.set_default_device(None)


def analysed(encoder: str, folder: Path) -> list[np.ndarray]:
    a = section(n_rows=8, n_cols=16)
    GeneVAE.setup_anndata(a)
    model = GeneVAE(a, encoder=encoder, n_latent=4, n_hidden=8, n_seeds=2, smoothing=1 if encoder == "mlp" else 0)
    model.train(max_epochs=1, progress=False)
    stcsm.tl.concepts(a, model, genes={"right": ["g1", "g2"]})
    stcsm.tl.saliency(a, model, method="integrated_gradients")
    stcsm.tl.decoded(a, model)
    model.save(folder / "m", overwrite=True)
    again = GeneVAE.load(folder / "m", a)
    assert again.fingerprint() == model.fingerprint()
    maps = [a.obsm[key].to_numpy() for key in ("concept_saliency", "concept_decoded")]
    return [np.asarray(a.varm["X_stcsm"]), again.decode(np.ones((1, 4))), np.array(model.get_elbo()), *maps]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Callable[[str], list[np.ndarray]]:
    """The numbers of each encoder under torch's own settings, computed once."""
    return cache(lambda encoder: analysed(encoder, tmp_path_factory.mktemp(encoder)))


@pytest.mark.parametrize(
    "setting",
    [_Float64, torch.inference_mode, torch.no_grad, lambda: _Device("meta"), lambda: _Device("cpu")],
    ids=["float64", "inference mode", "no_grad", "meta", "cpu"],
)
@pytest.mark.parametrize("encoder", ["mlp", "conv"])
def test_settings_of_torch_change_nothing(
    tmp_path, undisturbed, setting: Callable[[], AbstractContextManager], encoder: str
):
    expected = undisturbed(encoder)
    with setting():
        found = analysed(encoder, tmp_path)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
