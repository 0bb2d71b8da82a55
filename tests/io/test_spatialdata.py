"""SpatialData stores: coordinates, tables, results back into the store, nothing lost."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import zarr
from scipy import sparse
from shapely.geometry import Point, box
from sklearn.metrics import roc_auc_score
from spatialdata.datasets import blobs
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel, ShapesModel, TableModel
from spatialdata.transformations import Scale, set_transformation

import stcsm
from stcsm import _keys, io, tl
from stcsm.models import GeneVAE

pytestmark = pytest.mark.filterwarnings(
    "ignore:SpatialData is not stored", "ignore:zarr v3 autosharding", "ignore:The index"
)
PAGE = Path(__file__).resolve().parents[2] / "docs" / "spatialdata.md"
SIDE = 8
MICRONS = "microns"


def counts(n_side: int = SIDE, n_genes: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Counts (spots, genes), a third of the genes on the left, a third on the right; and coordinates (x, y)."""
    xy = 10.0 * np.stack(np.meshgrid(np.arange(n_side), np.arange(n_side)), -1).reshape(-1, 2) + 5
    left = xy[:, 0] < 5 * n_side
    rate = np.ones((len(xy), n_genes))
    third = n_genes // 3
    rate[:, :third] = np.where(left[:, None], 4.0, 0.4)
    rate[:, third : 2 * third] = np.where(left[:, None], 0.4, 4.0)
    return np.random.default_rng(0).poisson(rate).astype(np.float32), xy


def table_of(x: np.ndarray, ids, region: str | list[str] = "bins", **columns) -> ad.AnnData:
    regions = columns.pop("region", region)
    table = ad.AnnData(sparse.csr_matrix(x))
    table.obs_names = [f"bin{i}" for i in range(len(x))]
    table.var_names = [f"Gene{i}" for i in range(x.shape[1])]
    table.obs["region"] = pd.Categorical(np.broadcast_to(regions, len(x)))
    table.obs["bin_id"] = ids
    for name, values in columns.items():
        table.obs[name] = values
    return TableModel.parse(table, region=sorted(set(table.obs["region"])), region_key="region", instance_key="bin_id")


def bins(xy: np.ndarray, index=None, kind: str = "circles"):
    if kind == "circles":
        frame = gpd.GeoDataFrame({"radius": np.full(len(xy), 4.0)}, geometry=[Point(p) for p in xy], index=index)
    else:
        frame = gpd.GeoDataFrame(geometry=[box(x - 5, y - 5, x + 5, y + 5) for x, y in xy], index=index)
    shapes = ShapesModel.parse(frame)
    set_transformation(shapes, Scale([0.5, 0.5], axes=("x", "y")), MICRONS)
    return shapes


def section(kind: str = "circles", spatial: bool = False) -> sd.SpatialData:
    """Bins in another order than the rows of their table, an image and points beside."""
    x, xy = counts()
    ids = np.arange(len(x)) + 100
    table = table_of(x, ids, note=np.arange(len(x)) % 3)
    if spatial:
        table.obsm["spatial"] = xy + 1000
    order = np.random.default_rng(1).permutation(len(x))
    return sd.SpatialData(
        images={"he": Image2DModel.parse(np.zeros((3, 80, 80), dtype=np.uint8))},
        points={"transcripts": PointsModel.parse(np.ones((5, 2)))},
        shapes={"bins": bins(xy[order], ids[order], kind)},
        tables={"counts": table},
    )


def files(folder: Path) -> dict[str, str]:
    """Every file of a folder and what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("written") / "section.zarr"
    section().write(path)
    return path


@pytest.fixture
def store(written, tmp_path) -> Path:
    return shutil.copytree(written, tmp_path / "section.zarr")


@pytest.fixture(scope="module")
def analysed() -> tuple[sd.SpatialData, ad.AnnData]:
    """Every step that writes keys, on a table of a SpatialData object."""
    sdata = section()
    adata = io.from_spatialdata(sdata)
    adata.obs["half"] = pd.Categorical(np.where(adata.obsm["spatial"][:, 0] < 40, "left/upper", "right: rest"))
    GeneVAE.setup_anndata(adata)
    model = GeneVAE(adata, n_latent=4, n_hidden=16, n_seeds=2, smoothing=0)
    model.train(max_epochs=3, progress=False)
    tl.embed_genes(adata, model)
    odd = {"a": ["Gene0", "Gene1", "Gene2"], "A b/c\\d (100%): #1?": ["Gene20", "Gene21"], "Müller": ["Gene3", "Gene4"]}
    tl.concepts(adata, model, genes=odd)
    tl.concepts(adata, model, groupby="half")
    tl.combine(adata, "both", plus=["a", "Müller"])
    tl.saliency(adata, model)
    tl.significance(adata, model, n_random=19)
    tl.decoded(adata, model)
    tl.concept_map(adata, model)
    tl.mean_expression(adata)
    tl.concept_similarity(adata)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a model of three epochs knows little
        tl.sanity(adata, model)
        tl.differential(adata, "half", "left/upper", "right: rest", model=model, n_random=9)
    return sdata, adata


def assert_same(found, expected, where: str = "") -> None:
    """Equal values under equal keys, whatever the containers."""
    if isinstance(expected, dict) or (hasattr(expected, "keys") and not isinstance(expected, pd.DataFrame)):
        assert set(found) == set(expected), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}/{key}")
    elif isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected, check_names=False, obj=where)
    elif sparse.issparse(expected):
        assert abs(sparse.csr_matrix(found) - sparse.csr_matrix(expected)).sum() == 0, where
    elif expected is None or isinstance(expected, str):
        assert found == expected, where
    else:
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected), err_msg=where)


@pytest.mark.parametrize("kind", ["circles", "squares"])
def test_coordinates_are_the_centroids_joined_by_instance(tmp_path, kind):
    section(kind).write(tmp_path / "s.zarr")
    x, xy = counts()
    adata = io.read(tmp_path / "s.zarr")
    assert sparse.issparse(adata.X)
    assert adata.X.format == "csr"
    np.testing.assert_array_equal(adata.X.toarray(), x)
    np.testing.assert_allclose(adata.obsm["spatial"], xy)
    adata = io.read(tmp_path / "s.zarr", table="counts", coordinate_system=MICRONS)
    np.testing.assert_allclose(adata.obsm["spatial"], xy / 2)


def test_coordinates_of_the_table_come_first(tmp_path):
    section(spatial=True).write(tmp_path / "s.zarr")
    shutil.rmtree(tmp_path / "s.zarr" / "shapes")  # not looked at
    np.testing.assert_allclose(io.read(tmp_path / "s.zarr").obsm["spatial"], counts()[1] + 1000)
    with pytest.raises(ValueError, match="without coordinates with coordinate_system='microns'"):
        io.read(tmp_path / "s.zarr", coordinate_system=MICRONS)


def test_labels_of_blobs(tmp_path):
    sdata = blobs()
    sdata.write(tmp_path / "blobs.zarr")
    adata = io.read(tmp_path / "blobs.zarr")
    labels = np.asarray(sdata["blobs_labels"])
    assert adata.shape == (26, 3)
    for row in (0, 7, 25):
        y, x = np.nonzero(labels == adata.obs["instance_id"].iloc[row])
        np.testing.assert_allclose(adata.obsm["spatial"][row], [x.mean() + 0.5, y.mean() + 0.5])


def test_labels_in_3d_have_three_coordinates():
    volume = np.zeros((4, 6, 6), dtype=np.int32)
    volume[0, :2, :2] = 1
    volume[2:, 3:, 3:] = 2
    from spatialdata.models import Labels3DModel

    table = table_of(np.ones((2, 3), np.float32), [2, 1], region="cells")
    sdata = sd.SpatialData(labels={"cells": Labels3DModel.parse(volume)}, tables={"t": table})
    np.testing.assert_allclose(io.from_spatialdata(sdata).obsm["spatial"], [[4.5, 4.5, 3], [1, 1, 0.5]])


def test_instances_are_joined_by_their_text():
    x, xy = counts()
    table = table_of(x, np.arange(len(x)).astype(str))
    sdata = sd.SpatialData(shapes={"bins": bins(xy, np.arange(len(x)))}, tables={"t": table})
    np.testing.assert_allclose(io.from_spatialdata(sdata).obsm["spatial"], xy)


def test_several_elements_keep_their_column_and_a_log_line_names_it(caplog):
    x, xy = counts()
    half = len(x) // 2
    labels = Labels2DModel.parse(np.repeat(np.repeat(np.arange(1, 5).reshape(2, 2), 10, 0), 10, 1))
    table = table_of(x[: half + 4], [*range(half), 4, 3, 2, 1], region=["bins"] * half + ["cells"] * 4)
    sdata = sd.SpatialData(shapes={"bins": bins(xy[:half])}, labels={"cells": labels}, tables={"t": table})
    with caplog.at_level(logging.WARNING, "stcsm"):
        adata = io.from_spatialdata(sdata)
    np.testing.assert_allclose(adata.obsm["spatial"][:half], xy[:half])
    np.testing.assert_allclose(adata.obsm["spatial"][half:], [[15, 15], [5, 15], [15, 5], [5, 5]])
    assert adata.obs["region"].tolist() == ["bins"] * half + ["cells"] * 4
    assert "batch_key='region'" in caplog.text


def test_the_table_itself_is_returned_and_kept_on_refusal():
    sdata = section()
    assert io.from_spatialdata(sdata) is sdata["counts"]
    assert io.from_spatialdata(sdata, "counts") is sdata["counts"]
    sdata = section()
    with pytest.raises(ValueError, match="coordinate system 'slide', found 'global', 'microns'"):
        io.from_spatialdata(sdata, coordinate_system="slide")
    assert not sdata["counts"].obsm


def test_what_cannot_be_read_is_refused_in_words(tmp_path):
    sdata = section()
    lone = ad.AnnData(np.ones((3, 2), np.float32))
    sdata["other"] = lone
    with pytest.raises(ValueError, match=r"found 'counts', 'other' in .*choose one with table="):
        io.from_spatialdata(sdata)
    with pytest.raises(ValueError, match="Expected a table 'count', found 'counts', 'other'"):
        io.from_spatialdata(sdata, "count")
    with pytest.raises(ValueError, match="found neither in table 'other'"):
        io.from_spatialdata(sdata, "other")
    sdata.write(tmp_path / "two.zarr")
    with pytest.raises(ValueError, match=r"found 'counts', 'other' in .*two.zarr"):
        io.read(tmp_path / "two.zarr")
    assert io.read(tmp_path / "two.zarr", table="counts").n_obs == 64

    sd.SpatialData(shapes={"bins": bins(counts()[1])}).write(tmp_path / "none.zarr")
    with pytest.raises(ValueError, match="Expected a table of counts, found none"):
        io.read(tmp_path / "none.zarr")

    x, xy = counts()
    sdata = sd.SpatialData(
        shapes={"bins": bins(xy[3:], np.arange(3, len(x)))}, tables={"t": table_of(x, range(len(x)))}
    )
    with pytest.raises(ValueError, match=r"none in 'bins' for 3 of 64 rows of table 't' \(such as bin_id 0\)"):
        io.from_spatialdata(sdata)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata = sd.SpatialData(tables={"t": table_of(x, range(len(x)))})
    with pytest.raises(ValueError, match="Expected the shapes or labels 'bins' that table 't' annotates, found none"):
        io.from_spatialdata(sdata)


def test_other_zarr_folders(tmp_path):
    adata = ad.AnnData(np.ones((3, 2), np.float32), obsm={"spatial": np.ones((3, 2))})
    adata.write_zarr(tmp_path / "adata.zarr")
    assert io.read(tmp_path / "adata.zarr").shape == (3, 2)
    assert not io.is_spatialdata(tmp_path / "adata.zarr")
    with pytest.raises(ValueError, match=r"found an AnnData in .*; leave table= out"):
        io.read(tmp_path / "adata.zarr", table="t")
    with pytest.raises(ValueError, match="Expected a SpatialData store, found something else"):
        io.write_table(adata, tmp_path / "adata.zarr", "t")
    zarr.create_group(tmp_path / "image.zarr").create_group("0")
    with pytest.raises(ValueError, match=r"found the groups \['0'\] in"):
        io.read(tmp_path / "image.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(ValueError, match=r"without zarr's zarr.json or .zgroup"):
        io.read(tmp_path / "empty.zarr")
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match="Expected a SpatialData store with table="):
        io.read(tmp_path / "a.h5ad", table="t")


def test_a_store_in_the_older_format_is_read_and_written_in_it(tmp_path, analysed):
    from spatialdata._io.format import SpatialDataContainerFormatV01

    store = tmp_path / "old.zarr"
    section().write(store, sdata_formats=[SpatialDataContainerFormatV01()])
    shutil.copy(store / ".zmetadata", store / "zmetadata")  # the name that spatialdata gave it before 0.5
    np.testing.assert_allclose(io.read(store).obsm["spatial"], counts()[1])
    io.write_table(analysed[1], store, "counts", overwrite=True)
    assert not list(store.rglob("zarr.json"))
    assert zarr.open_group(store / "tables" / "counts", mode="r").attrs["version"] == "0.1"
    assert "tables/counts/obsm/concept_map/.zattrs" in (store / ".zmetadata").read_text()
    assert (store / ".zmetadata").read_text() == (store / "zmetadata").read_text()
    assert_same(sd.read_zarr(store)["counts"].obsm, analysed[1].obsm)


def test_a_whole_analysis_survives_sdata_write(tmp_path, analysed):
    sdata, adata = analysed
    sdata.write(tmp_path / "s.zarr")
    back = sd.read_zarr(tmp_path / "s.zarr")["counts"]
    assert {*_keys.CONCEPT_TABLES} <= set(back.obsm)
    for part in ("obsm", "varm", "obsp", "uns"):
        assert_same(getattr(back, part), getattr(adata, part), part)
    assert_same(back.X, adata.X)
    np.testing.assert_array_equal(back.X.toarray(), counts()[0])
    # and what was read goes on: scores of concepts, maps drawn
    pd.testing.assert_frame_equal(tl.concept_table(back), tl.concept_table(adata), check_names=False)
    tl.combine(back, "more", plus="both", minus="a")
    stcsm.pl.concept_map(back)


def test_writing_a_table_leaves_the_rest_alone(store, analysed):
    before = files(store)
    with pytest.raises(FileExistsError, match=r"among the tables .*overwrite=True"):
        io.write_table(analysed[1], store, "counts")
    with pytest.raises(FileExistsError, match="found 'bins' among the shapes"):
        io.write_table(analysed[1], store, "bins", overwrite=True)
    with pytest.raises(FileExistsError, match="found 'counts' among the tables"):  # spatialdata could not read it
        io.write_table(analysed[1], store, "Counts", overwrite=True)
    with pytest.raises(FileNotFoundError, match="found nothing at"):
        io.write_table(analysed[1], store / "x.zarr", "counts")
    assert files(store) == before
    io.write_table(analysed[1], store, "counts", overwrite=True)
    after = files(store)
    rest = {name: digest for name, digest in before.items() if not name.startswith("tables/counts/")}
    rest.pop("zarr.json")  # the metadata of all
    assert {name: after[name] for name in rest} == rest
    assert {name for name in after if not name.startswith("tables/counts/")} == {*rest, "zarr.json"}
    back = sd.read_zarr(store)
    assert set(back.images) | set(back.shapes) | set(back.points) == {"he", "bins", "transcripts"}
    assert_same(back["counts"].obsm, analysed[1].obsm)
    # the consolidated metadata knows the new table: a key of the old one is gone, those of the new are there
    assert "concept_map" in zarr.open_group(store, mode="r")["tables/counts/obsm"]


def test_a_new_table_in_a_store_without_any(tmp_path):
    x, xy = counts()
    sd.SpatialData(shapes={"bins": bins(xy)}).write(tmp_path / "s.zarr")
    io.write_table(table_of(x, np.arange(len(x))), tmp_path / "s.zarr", "counts")
    np.testing.assert_allclose(io.read(tmp_path / "s.zarr").obsm["spatial"], xy)
    assert sd.read_zarr(tmp_path / "s.zarr")["counts"].shape == x.shape


@pytest.mark.parametrize("broken", ["spatialdata.SpatialData.write", "zarr.consolidate_metadata", "os.replace"])
def test_a_write_that_fails_leaves_the_store_as_it_was(store, analysed, monkeypatch, broken):
    import os

    before, calls = files(store), []

    def fail(*args, **kwargs):
        calls.append(args)
        if broken != "os.replace" or (str(args[0]).endswith("/counts") and "new.zarr" in str(args[0])):
            raise OSError("the disk is full")
        return replace(*args, **kwargs)

    replace = os.replace
    with monkeypatch.context() as patch:
        patch.setattr(broken, fail)
        with pytest.raises(OSError, match="the disk is full"):
            io.write_table(analysed[1], store, "counts", overwrite=True)
    assert calls
    assert files(store) == before
    assert sd.read_zarr(store)["counts"].shape == (64, 60)


def test_what_spatialdata_refuses_is_said_before_anything_is_written(store):
    before = files(store)
    adata = io.read(store)
    adata.obs["n genes"] = 1
    with pytest.raises(ValueError, match="Expected the table to be written as 'counts' to be one that spatialdata"):
        io.write_table(adata, store, "counts", overwrite=True)
    with pytest.raises(ValueError, match="obs/n genes: Name must contain only alphanumeric"):
        io.check_store(adata, store)
    assert files(store) == before


def test_results_join_the_stored_table_and_nothing_of_the_users_changes(store, analysed, caplog):
    first = sd.read_zarr(store)["counts"]
    adata = io.read(store)
    io.check_store(adata, store, "counts")
    done = analysed[1]
    for key in done.obsm:
        adata.obsm[key] = done.obsm[key]
    adata.uns["stcsm"] = done.uns["stcsm"]
    adata.X = adata.X * 2
    adata.obs["note"] = "mine"
    adata.obs["half"] = done.obs["half"]
    with caplog.at_level(logging.WARNING, "stcsm"):
        assert io.add_to_store(adata, store) == "counts"
    assert "the columns note of the table are kept" in caplog.text
    back = sd.read_zarr(store)["counts"]
    assert_same(back.X, first.X)
    pd.testing.assert_frame_equal(back.obs[list(first.obs)], first.obs)
    assert back.obs["half"].tolist() == done.obs["half"].tolist()
    assert_same(back.obsm, done.obsm)
    assert_same(back.uns["stcsm"], done.uns["stcsm"])


def test_spots_and_genes_that_the_analysis_left_out_are_missing(store, analysed):
    done = analysed[1]
    part = done[5:, :-2].copy()
    part.obs["flag"] = True
    io.add_to_store(part, store)
    back = sd.read_zarr(store)["counts"]
    assert back.shape == (64, 60)
    maps = back.obsm["concept_map"]
    assert maps.iloc[:5].isna().all(axis=None)
    pd.testing.assert_frame_equal(maps.iloc[5:], done.obsm["concept_map"].iloc[5:], check_names=False)
    assert np.isnan(back.varm["X_stcsm"][-2:]).all()
    np.testing.assert_array_equal(back.varm["X_stcsm"][:-2], done.varm["X_stcsm"][:-2])
    assert back.obsp["stcsm_spot_graph"][:5].nnz == 0
    assert_same(back.obsp["stcsm_spot_graph"][5:, 5:], done.obsp["stcsm_spot_graph"][5:, 5:])
    assert back.obs["flag"].isna().sum() == 5
    # results of another analysis do not stay beside the new ones
    later = io.read(store)
    del later.obsm["concept_saliency_pval"]
    io.add_to_store(later, store)
    assert "concept_saliency_pval" not in sd.read_zarr(store)["counts"].obsm

    strange = done.copy()
    strange.obs_names = [f"other{i}" for i in range(64)]
    with pytest.raises(ValueError, match="Expected spots of the stored table, found 64, of which 0 are among the 64"):
        io.add_to_store(strange, store)


def test_a_store_that_cannot_be_written_to_is_refused(store, monkeypatch):
    monkeypatch.setattr("stcsm.io._spatialdata.os.access", lambda *_: False)
    with pytest.raises(PermissionError, match="Expected a store that can be written to"):
        io.check_store(io.read(store), store)


def test_spatialdata_is_loaded_when_it_is_used_and_asked_for_when_missing(store):
    code = "import sys, stcsm.io; print('spatialdata' in sys.modules, 'geopandas' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False False"
    code = (
        "import sys; sys.modules['spatialdata'] = None\nimport stcsm.io\n"
        f"try: stcsm.io.read({str(store)!r})\nexcept ModuleNotFoundError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install spatialdata" in out.stdout


def store_of_bulb(path: Path, n_spots: int = 150, n_genes: int = 200) -> ad.AnnData:
    """A store as vendors' readers write it: bins, image, annotations, counts without coordinates of their own."""
    bulb = stcsm.datasets.simulated_bulb(n_spots, n_genes, n_markers=2, image=False)
    xy = bulb.obsm["spatial"] / 5  # 20 pixels from spot to spot
    names = bulb.var_names
    table = table_of(bulb.X.toarray(), np.arange(n_spots))
    table.var_names = names
    low, high = xy.min(axis=0) - 1, xy.max(axis=0) + 1
    middle = (low[0] + high[0]) / 2
    halves = [box(low[0], low[1], middle, high[1]), box(middle, low[1], high[0], high[1])]
    annotations = gpd.GeoDataFrame({"name": ["core", "rim"]}, geometry=halves)
    shade = np.random.default_rng(0).integers(180, 255, (3, int(high[1]) + 10, int(high[0]) + 10))
    sd.SpatialData(
        images={"he": Image2DModel.parse(shade.astype(np.uint8))},
        shapes={"bins": bins(xy), "annotations": ShapesModel.parse(annotations)},
        tables={"counts": table, "other": ad.AnnData(np.ones((2, 2), np.float32))},
    ).write(path)
    table.obsm["spatial"] = xy
    return table


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not part of this installation")
def test_every_example_of_the_page_runs(tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    pytest.importorskip("spatialdata_plot")
    bulb = store_of_bulb(tmp_path / "section.zarr")
    annotations = sd.read_zarr(tmp_path / "section.zarr")["annotations"]
    annotations.drop(columns="name").assign(classification=['{"name": "core"}', '{"name": "rim"}']).to_file(
        tmp_path / "slide.geojson", driver="GeoJSON"
    )
    small = annotations.set_geometry(annotations.scale(0.25, 0.25, origin=(0, 0)))
    small.to_file(tmp_path / "slide_hires.geojson", driver="GeoJSON")
    corners = [np.array(shape.exterior.coords)[:4, ::-1] for shape in annotations.geometry]
    rows = [(i, "polygon", v, *rc) for i, shape in enumerate(corners) for v, rc in enumerate(shape)]
    table = pd.DataFrame(rows, columns=["index", "shape-type", "vertex-index", "axis-0", "axis-1"])
    table.to_csv(tmp_path / "Shapes.csv", index=False)
    features = pd.DataFrame({"region": ["core", "rim"]})
    layer = SimpleNamespace(data=corners, shape_type=["polygon"] * 2, features=features)
    names: dict = {"viewer": SimpleNamespace(layers={"Shapes": layer})}
    monkeypatch.chdir(tmp_path)
    train = GeneVAE.train
    monkeypatch.setattr(GeneVAE, "train", lambda self: train(self, max_epochs=3, progress=False))

    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 10
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
        if "render_shapes" in block:
            axes = plt.gcf().axes[0]
            assert axes.images
            assert len({tuple(colour) for drawn in axes.collections for colour in drawn.get_facecolor()}) > 50
            plt.close("all")
    adata = names["adata"]
    np.testing.assert_allclose(adata.obsm["spatial"], bulb.obsm["spatial"])
    left = bulb.obsm["spatial"][:, 0] < annotations.geometry[0].bounds[2]
    for key in ("annotation", "annotation_hires", "drawn", "drawn_too", "pathologist"):
        np.testing.assert_array_equal(adata.obs[key] == "core", left, err_msg=key)
        np.testing.assert_array_equal(adata.obs[key] == "rim", ~left, err_msg=key)
    assert names["cells"].obsm["spatial"].shape == (26, 2)
    for path in ("analysed.zarr", "section.zarr"):
        back = sd.read_zarr(path)["counts"]
        np.testing.assert_array_equal(back.obsm["concept_map"], adata.obsm["concept_map"][["granule"]])


def run_store(monkeypatch, *args) -> int:
    from stcsm.cli import main

    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(sys, "argv", ["stcsm", "run", *map(str, args)])
    try:
        with warnings.catch_warnings():
            main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_stcsm_run_refuses_before_the_training(tmp_path, monkeypatch, capsys):
    store = tmp_path / "section.zarr"
    store_of_bulb(store)
    before = files(store)
    for args, expected in (
        ((store, "--genes", "a=Penk", "--out", tmp_path / "out"), "found 'counts', 'other' in .*with --table"),
        ((store, "--table", "count", "--genes", "a=Penk", "--out", tmp_path / "out"), "found 'counts', 'other'"),
        ((store, "--table", "counts", "--genes", "a=Penk", "--out", store / "out"), "a folder outside the store"),
        (
            (store, "--table", "counts", "--coordinate-system", "x", "--genes", "a=Penk", "--out", tmp_path / "out"),
            "found 'global', 'microns'; name one of these with --coordinate-system",
        ),
    ):
        assert run_store(monkeypatch, *args) == 2
        assert re.search(expected, capsys.readouterr().err)
    assert files(store) == before
    assert not (tmp_path / "out").exists()


def test_stcsm_run_puts_the_results_into_the_table(tmp_path, monkeypatch):
    store = tmp_path / "section.zarr"
    store_of_bulb(store)
    first = sd.read_zarr(store)["counts"]
    train = GeneVAE.train
    monkeypatch.setattr(GeneVAE, "train", lambda self, **_: train(self, max_epochs=3, progress=False))
    args = [store, "--table", "counts", "--genes", "g/1=Penk,Doc2g", "--n-seeds", "1", "--quiet"]
    before = files(store)
    assert run_store(monkeypatch, *args, "--keep-store", "--out", tmp_path / "out") == 0
    assert files(store) == before
    assert run_store(monkeypatch, *args, "--out", tmp_path / "out") == 0
    back = sd.read_zarr(store)
    table = back["counts"]
    result = ad.read_h5ad(tmp_path / "out" / "result.h5ad")
    for part in ("obsm", "varm", "obsp"):
        assert_same(getattr(table, part), getattr(result, part), part)
    assert_same(table.uns["stcsm"], result.uns["stcsm"])
    assert_same(table.X, first.X)
    pd.testing.assert_frame_equal(table.obs, first.obs)
    assert set(back.tables) == {"counts", "other"}
    written = pd.read_csv(tmp_path / "out" / "concept_map.csv", index_col=0)
    np.testing.assert_allclose(written["g/1"], table.obsm["concept_map"]["g_1"])


@pytest.mark.slow
def test_a_section_of_bins_through_stcsm_run(tmp_path):
    """As Visium HD: square bins of 16 micrometres, each a polygon; time and memory are printed.

    ``STCSM_TEST_BINS=20000`` takes as many bins as such a section has.
    """
    import resource
    import time

    n_bins = int(os.environ.get("STCSM_TEST_BINS", "3000"))
    store = tmp_path / "hd.zarr"
    bulb = stcsm.datasets.simulated_bulb(n_bins, 500, n_markers=10, image=False)
    xy = 0.16 * bulb.obsm["spatial"]
    table = table_of(np.zeros((n_bins, 1), np.float32), np.arange(n_bins), region="hd_square_016um")
    counts = ad.AnnData(bulb.X, obs=table.obs, var=pd.DataFrame(index=bulb.var_names), uns=table.uns)
    squares = [box(x - 8, y - 8, x + 8, y + 8) for x, y in xy]
    shapes = ShapesModel.parse(gpd.GeoDataFrame(geometry=squares))
    sd.SpatialData(shapes={"hd_square_016um": shapes}, tables={"square_016um": counts}).write(store)
    layers = bulb.obs["layer"].astype(str).to_numpy()
    markers = (
        bulb.var.query("kind == 'marker'")
        .sort_values("strength", ascending=False)
        .groupby("layer", observed=True)
        .head(3)
    )
    genes = {layer.split()[0]: list(found.index) for layer, found in markers.groupby("layer", observed=True)}
    options = [word for name, found in genes.items() for word in ("--genes", f"{name}={','.join(found)}")]
    started = time.perf_counter()
    command = [sys.executable, "-m", "stcsm", "run", store, *options, "--out", tmp_path / "out"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    assert done.returncode == 0, done.stderr[-3000:]
    sys.stdout.write(f"{done.stdout}\n{n_bins:,} bins x 500 genes: {seconds:.0f} s, at most {peak:.2f} GiB\n")
    back = sd.read_zarr(store)["square_016um"]
    assert (back.X != counts.X).nnz == 0
    maps = back.obsm["concept_map"]
    assert maps.shape == (n_bins, len(genes))
    for name in genes:
        layer = next(value for value in set(layers) if value.startswith(name))
        assert roc_auc_score(layers == layer, maps[name]) > 0.8, name
