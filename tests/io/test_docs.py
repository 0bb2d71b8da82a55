"""The examples of docs/data.md and docs/platforms.md run as they stand."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from PIL import Image

import stcsm

from .spaceranger import write_spaceranger
from .test_spaceranger import segmented
from .test_spatialdata import store_of_bulb
from .test_vendors import curio, gef_cells, gef_squares, gem, seqfish

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, PLATFORMS = DOCS / "data.md", DOCS / "platforms.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not part of this installation")
def test_every_example_of_the_data_page_runs(tmp_path, monkeypatch, data_dir):
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    bulb = stcsm.datasets.simulated_bulb(150, 200, n_markers=2, image=False)
    bulb.layers["counts"] = bulb.X.copy()
    bulb.write_h5ad(tmp_path / "sample.h5ad")
    table = pd.DataFrame(bulb.X.toarray().astype(int), index=bulb.obs_names, columns=bulb.var_names)
    table.to_csv(tmp_path / "counts.tsv.gz", sep="\t")
    bulb.obs["layer"].to_csv(tmp_path / "layers.csv")
    pd.DataFrame({"spot": bulb.obs_names, "donor": "a", "region": "core"}).to_csv(
        tmp_path / "annotation.tsv", sep="\t", index=False
    )
    (tmp_path / "transformation.txt").write_text("100 0 0 0 100 0 0 0 1\n")
    Image.new("RGB", (3400, 2600), "pink").save(tmp_path / "he.jpg")
    Image.new("RGB", (850, 650), "pink").save(tmp_path / "he_small.jpg")
    shutil.copytree(data_dir / "visium" / "outs_spaceranger_1", tmp_path / "sample" / "outs")
    monkeypatch.chdir(tmp_path)

    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 7
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # an example that warns is no example
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
            if "add_labels" in block:
                labelled = names["adata"]
                assert labelled.obs["layer"].tolist() == bulb.obs["layer"].tolist()
                np.testing.assert_allclose(labelled.obsm["spatial"], 100 * labelled.obsm["spatial_array"])
    assert names["adata"].shape == (600, 2000)
    plt.close("all")


@pytest.mark.skipif(not PLATFORMS.is_file(), reason="the documentation is not part of this installation")
@pytest.mark.filterwarnings("ignore:.*are left out")
def test_every_example_of_the_platforms_page_runs(tmp_path, monkeypatch, data_dir):
    for name in ("visium", "visium_2"):
        write_spaceranger(tmp_path / name / "outs")
    for sample in ("GSM1_A_", "GSM2_B_"):
        write_spaceranger(
            tmp_path / "geo", prefix=sample, flat=True, gzipped=True, positions="tissue_positions_list.csv"
        )
    write_spaceranger(tmp_path / "visium_hd" / "outs" / "binned_outputs" / "square_016um")
    real = {"xenium": "Xenium", "cosmx": "CosMx", "merscope": "MERSCOPE", "starmap_plus": "STARmapPLUS"}
    for name, vendor in real.items():
        shutil.copytree(data_dir / "vendor" / f"{vendor}_small", tmp_path / name)
    seqfish(tmp_path / "seqfish")
    curio(tmp_path / "curio")
    gef_squares(tmp_path / "stereoseq" / "04.tissuecut" / "A1.tissue.gef", named=True)
    gef_cells(tmp_path / "stereoseq" / "041.cellcut" / "A1.cellbin.gef")
    segmented(tmp_path / "visium_hd" / "outs")
    gem(tmp_path / "A1.tissue.gem.gz")
    bulb = stcsm.datasets.simulated_bulb(60, 200, n_markers=2, image=False)
    table = pd.DataFrame(bulb.X.toarray().astype(int), index=bulb.obs_names, columns=bulb.var_names)
    table.to_csv(tmp_path / "counts.tsv.gz", sep="\t")
    (tmp_path / "replicates").mkdir()
    for i in (1, 2):
        table.to_csv(tmp_path / "replicates" / f"Rep{i}_counts.tsv", sep="\t")
    for name in ("visium", "visium_2"):
        barcodes = stcsm.io.read(tmp_path / name / "outs").obs_names
        (tmp_path / f"{name}_labels.csv").write_text("Barcode,layer\n" + "".join(f"{b},{name}\n" for b in barcodes))
    places = {name: stcsm.io.read(tmp_path / name).obsm["spatial"] for name in ("xenium", "merscope")}
    drawn_on_half(tmp_path / "morphology.geojson", places["xenium"] / 0.2125)
    (tmp_path / "merscope" / "images").mkdir()
    to_pixels = np.array([[9.2, 0, 300], [0, 9.2, -700], [0, 0, 1]])
    np.savetxt(tmp_path / "merscope" / "images" / "micron_to_mosaic_pixel_transform.csv", to_pixels)
    drawn_on_half(tmp_path / "mosaic.geojson", places["merscope"] * 9.2 + [300, -700])
    store_of_bulb(tmp_path / "other.zarr", 60, 200)
    store = sd.read_zarr(tmp_path / "other.zarr")
    sd.SpatialData(shapes=dict(store.shapes), tables={"counts": store["counts"]}).write(tmp_path / "section.zarr")
    halves = store["annotations"]
    halves.to_file(tmp_path / "slide.geojson", driver="GeoJSON")
    corners = [np.array(half.exterior.coords)[:4, ::-1] for half in halves.geometry]
    rows = [(i, "polygon", v, *rc) for i, shape in enumerate(corners) for v, rc in enumerate(shape)]
    names_of_rows = ["index", "shape-type", "vertex-index", "axis-0", "axis-1"]
    pd.DataFrame(rows, columns=names_of_rows).to_csv(tmp_path / "Shapes.csv", index=False)
    monkeypatch.chdir(tmp_path)

    shapes: dict[str, tuple[int, int]] = {}
    names: dict = {}
    for section in re.split(r"^##+ ", PLATFORMS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        for block in re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL):
            exec(compile(textwrap.dedent(block), str(PLATFORMS), "exec"), names)
            shapes[section.split("\n")[0]] = names["adata"].shape
            if "add_labels" in block:
                assert names["adata"].obs["layer"].tolist() == names["adata"].obs["section"].tolist()
            if "Shapes.csv" in block:
                assert names["adata"].obs["annotation"].tolist() == names["adata"].obs["drawn"].tolist()
                assert set(names["adata"].obs["annotation"]) == {"core", "rim"}
            if "morphology.geojson" in block or "mosaic.geojson" in block:
                x = names["adata"].obsm["spatial"][:, 0]
                assert (names["adata"].obs["annotation"] == "half").tolist() == (x < np.median(x)).tolist()
    expected = {
        "Visium": (3, 3),
        "From GEO and other repositories": (6, 3),
        "Visium HD": (3, 3),
        "Segmented cells": (3, 3),
        "Several sections": (6, 3),
        "Several sections of cells": (6, 2),
        "Replicates of ST": (120, 200),
        "Xenium": (6, 4),
        "CosMx": (9, 8),
        "MERSCOPE": (8, 9),
        "STARmap PLUS": (9, 8),
        "seqFISH": (6, 2),
        "Stereo-seq": (3, 2),
        "Curio": (3, 2),
        "Spatial Transcriptomics (ST)": (60, 200),
        "SpatialData": (60, 200),
        "Regions from QuPath and napari": (60, 200),
        "Coordinates that are no pixels": (8, 9),
    }
    assert {heading: shapes.get(heading) for heading in expected} == expected
    assert names["bins"].obs["section"].value_counts().to_dict() == {"Roi1": 2, "Roi2": 2}
    assert names["bins"].X.sum() == 2 * (1 + 2 + 4)


def drawn_on_half(path, places: np.ndarray) -> None:
    """A region around the places on the left, as QuPath writes it."""
    low, high = places.min(axis=0) - 1, places.max(axis=0) + 1
    right = np.median(places[:, 0]) - 1e-6
    ring = [[low[0], low[1]], [right, low[1]], [right, high[1]], [low[0], high[1]], [low[0], low[1]]]
    properties = {"objectType": "annotation", "classification": {"name": "half"}}
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[list(map(float, xy)) for xy in ring]]},
        "properties": properties,
    }
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
