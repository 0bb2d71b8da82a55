"""Regions drawn in QuPath and napari, or kept as shapes, as a column of .obs."""

from __future__ import annotations

import gzip
import json
import logging
import warnings
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from shapely import affinity
from shapely.geometry import MultiPolygon, Point, Polygon, box, mapping
from spatialdata import SpatialData
from spatialdata.models import Labels2DModel, PointsModel, ShapesModel
from spatialdata.transformations import Scale, Sequence, Translation

from stcsm.io import add_regions

XY = np.array([(x, y) for y in range(5) for x in range(10)], dtype=float)
"""10 columns and 5 rows of spots, so that x and y cannot be taken for each other."""


@pytest.fixture
def tissue() -> AnnData:
    return AnnData(np.ones((50, 2), np.float32), obsm={"spatial": XY.copy()})


def inside(adata: AnnData, name: str, key: str = "annotation") -> set[tuple[float, float]]:
    chosen = (adata.obs[key] == name).to_numpy()
    return {tuple(p) for p in adata.obsm["spatial"][chosen]}


def grid(x0, y0, x1, y1) -> set[tuple[float, float]]:
    return {(x, y) for x, y in map(tuple, XY) if x0 <= x <= x1 and y0 <= y <= y1}


def feature(geometry, name=None, classification=None, kind="annotation", **properties) -> dict:
    """As QuPath 0.3 and later write it."""
    given = {"objectType": kind, **properties}
    if name is not None:
        given["name"] = name
    if classification is not None:
        given["classification"] = classification
    return {"type": "Feature", "id": "1b2c", "geometry": mapping(geometry), "properties": given}


TUMOR = {"name": "Tumor", "color": [200, 0, 0]}
LEFT, RIGHT = box(-0.5, -0.5, 2.5, 4.5), box(6.5, -0.5, 9.5, 1.5)


def write(path, content) -> str:
    data = json.dumps(content).encode()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return str(path)


@pytest.mark.parametrize("form", ["collection", "list", "gz", "frame"])
def test_qupath_export(tissue, tmp_path, form):
    features = [feature(LEFT, classification=TUMOR), feature(RIGHT, name="edge")]
    collection = {"type": "FeatureCollection", "features": features}
    path = tmp_path / ("slide.geojson.gz" if form == "gz" else "slide.geojson")
    shapes = write(path, features if form == "list" else collection)
    if form == "frame":
        shapes = gpd.read_file(shapes)
    add_regions(tissue, shapes)
    assert tissue.obs["annotation"].dtype == "category"
    assert list(tissue.obs["annotation"].cat.categories) == ["edge", "Tumor"]
    assert inside(tissue, "Tumor") == grid(0, 0, 2, 4)
    assert inside(tissue, "edge") == grid(7, 0, 9, 1)
    assert tissue.obs["annotation"].isna().sum() == 50 - 15 - 6


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"classification": TUMOR, "name": "core 1"}, "Tumor"),
        ({"classification": {"names": ["Tumor", "Positive"]}}, "Tumor: Positive"),
        ({"classification": "Tumor"}, "Tumor"),
        ({"classification": json.dumps(TUMOR)}, "Tumor"),
        ({"classification": {"name": "NA"}, "name": "core 1"}, "core 1"),
        ({"name": "core 1", "label": "x"}, "core 1"),
        ({"label": 3}, "3"),
    ],
)
def test_names_in_every_shape_that_exports_give_them(tissue, tmp_path, properties, expected):
    one = {"type": "Feature", "geometry": mapping(LEFT), "properties": properties}
    add_regions(tissue, write(tmp_path / "a.geojson", one))
    assert inside(tissue, expected) == grid(0, 0, 2, 4)


def test_names_may_be_chosen_or_given(tissue, tmp_path):
    path = write(tmp_path / "a.geojson", [feature(LEFT, "core 1", TUMOR), feature(RIGHT, "core 10", TUMOR)])
    add_regions(tissue, path, names="name")
    assert list(tissue.obs["annotation"].cat.categories) == ["core 1", "core 10"]
    add_regions(tissue, path, "other", names=["A", "B"])
    assert inside(tissue, "B", "other") == grid(7, 0, 9, 1)
    with pytest.raises(ValueError, match=r"found objectType, name, classification in .*check names="):
        add_regions(tissue, path, "x", names="class")
    with pytest.raises(ValueError, match=r"a name for each of the 2 shapes of .*, found 1"):
        add_regions(tissue, path, "x", names=["A"])
    assert list(tissue.obs) == ["annotation", "other"]


@pytest.mark.parametrize("swap", [False, True])
def test_the_smallest_region_around_a_spot_wins_and_the_log_says_so(tissue, tmp_path, caplog, swap):
    features = [
        feature(box(-1, -1, 8.5, 9), classification={"name": "Tissue"}),
        feature(LEFT, classification=TUMOR),
        feature(box(0.5, 0.5, 1.5, 1.5), classification={"name": "Necrosis"}),
    ]
    with caplog.at_level(logging.INFO, "stcsm"):
        add_regions(tissue, write(tmp_path / "a.geojson", features[::-1] if swap else features))
    assert inside(tissue, "Necrosis") == {(1, 1)}
    assert inside(tissue, "Tumor") == grid(0, 0, 2, 4) - {(1, 1)}
    assert inside(tissue, "Tissue") == grid(3, 0, 8, 4)
    assert "45 of 50 spots lie in 3 of 3 regions" in caplog.text
    assert "15 lie in more than one and get the smallest" in caplog.text


def test_holes_parts_and_outlines_that_cross_themselves(tissue, tmp_path):
    ring = Polygon(box(-0.5, -0.5, 2.5, 4.5).exterior, [box(0.5, 0.5, 1.5, 3.5).exterior])
    parts = MultiPolygon([box(3.5, -0.5, 4.5, 0.5), box(3.5, 3.5, 4.5, 4.5)])
    bow = Polygon([(6.5, -0.5), (9.5, 4.5), (9.5, -0.5), (6.5, 4.5)])
    features = [feature(ring, "ring"), feature(parts, "parts"), feature(bow, "bow")]
    add_regions(tissue, write(tmp_path / "a.geojson", features))
    assert inside(tissue, "ring") == grid(0, 0, 2, 4) - grid(1, 1, 1, 3)
    assert inside(tissue, "parts") == {(4, 0), (4, 4)}
    # two triangles, left and right, that meet in (8, 2)
    assert inside(tissue, "bow") == {(x, y) for x, y in grid(7, 0, 9, 4) if abs(x - 8) / 1.5 >= abs(y - 2) / 2.5}


def test_cells_beside_annotations_are_left_out(tissue, tmp_path, caplog):
    cell = feature(box(0.5, 0.5, 1.5, 1.5), classification={"name": "Immune"}, kind="cell")
    old = {**feature(box(1.5, 1.5, 2.2, 2.2), name="d", kind=None), "id": "PathDetectionObject"}
    del old["properties"]["objectType"]
    features = [feature(LEFT, classification=TUMOR), cell, old]
    path = write(tmp_path / "a.geojson", features)
    add_regions(tissue, path)
    assert inside(tissue, "Tumor") == grid(0, 0, 2, 4)
    assert "2 detections, cells or tiles of" in caplog.text
    add_regions(
        tissue,
        gpd.read_file(write(tmp_path / "b.geojson", {"type": "FeatureCollection", "features": features[:2]})),
        "b",
    )
    assert inside(tissue, "Tumor", "b") == grid(0, 0, 2, 4)
    add_regions(tissue, write(tmp_path / "c.geojson", [cell]), "c")  # alone they are what is meant
    assert inside(tissue, "Immune", "c") == {(1, 1)}


def test_shapes_without_name_or_area_are_left_out_and_counted(tissue, tmp_path, caplog):
    line = {
        "type": "Feature",
        "geometry": {"type": "LineString", "coordinates": [[0, 0], [4, 4]]},
        "properties": {"name": "l"},
    }
    nothing = {"type": "Feature", "geometry": None, "properties": {"name": "n"}}
    features = [feature(LEFT, classification=TUMOR), feature(RIGHT), line, nothing, feature(box(90, 90, 91, 91), "far")]
    add_regions(tissue, write(tmp_path / "a.geojson", features))
    assert set(tissue.obs["annotation"].dropna()) == {"Tumor"}
    assert "2 of 4 shapes of" in caplog.text
    assert "1 have no name, 1 no area" in caplog.text
    assert "no spot lies in the regions far of" in caplog.text
    with pytest.raises(ValueError, match=r"found none among the 1 shapes of .* \(1 with an area, 0 with a name\)"):
        add_regions(tissue, write(tmp_path / "b.geojson", [feature(RIGHT)]), "b")
    assert "b" not in tissue.obs


@pytest.mark.parametrize(
    "content", [b"{", b"[1, 2]", b'{"a": 1}', b'{"features": [{"geometry": {"type": "Cube"}}]}', b"3"]
)
def test_other_content_is_refused(tissue, tmp_path, content):
    (tmp_path / "a.geojson").write_bytes(content)
    with pytest.raises(ValueError, match=r"Expected GeoJSON|Expected regions, found none"):
        add_regions(tissue, tmp_path / "a.geojson")
    with pytest.raises(FileNotFoundError, match="a file of regions"):
        add_regions(tissue, tmp_path / "b.geojson")


def test_a_scaled_image(tissue, tmp_path):
    tissue.obsm["spatial"] = 20 * XY + 3
    small = [feature(Polygon([(x * 20 * 0.15, y * 20 * 0.15) for x, y in LEFT.exterior.coords]), classification=TUMOR)]
    add_regions(tissue, write(tmp_path / "a.geojson", small), scale=0.15)
    assert {tuple(p) for p in (np.array(list(inside(tissue, "Tumor"))) - 3) / 20} == grid(0, 0, 2, 4)


def test_nothing_inside_says_which_ranges_were_found_and_why(tissue):
    with pytest.raises(
        ValueError, match=r"spots x 0 to 9, y 0 to 4; regions x 900 to 1200, y 0 to 50\); .*give scale="
    ):
        add_regions(tissue, gpd.GeoDataFrame({"name": ["a"]}, geometry=[box(900, 0, 1200, 50)]))
    with pytest.raises(ValueError, match="x and y are swapped"):
        add_regions(tissue, gpd.GeoDataFrame({"name": ["a"]}, geometry=[box(0.5, 6.5, 3.5, 9.5)]))
    with pytest.raises(ValueError, match="Expected a positive scale"):
        add_regions(tissue, [], scale=0)
    with pytest.raises(ValueError, match="Expected regions, found none"):
        add_regions(tissue, [])
    with pytest.raises(ValueError, match="found the keys \\['spatial'\\]"):
        add_regions(tissue, [], spatial_key="X_spatial")
    assert not len(tissue.obs.columns)


def test_napari_draws_row_and_column(tissue):
    left = np.array([(-0.5, -0.5), (-0.5, 2.5), (4.5, 2.5), (4.5, -0.5)])
    right = np.array([(-0.5, 6.5), (-0.5, 9.5), (1.5, 9.5), (1.5, 6.5)])
    add_regions(tissue, [left, right], names=["Tumor", "edge"])
    assert inside(tissue, "Tumor") == grid(0, 0, 2, 4)
    assert inside(tissue, "edge") == grid(7, 0, 9, 1)
    add_regions(tissue, [np.c_[np.zeros(4), left]], "stack")  # an axis before row and column
    assert inside(tissue, "1", "stack") == grid(0, 0, 2, 4)
    with pytest.raises(ValueError, match=r"arrays \(n, 2\) of \(row, column\), found shape \(3,\) for number 1"):
        add_regions(tissue, [np.zeros(3)], "x")


def test_a_napari_layer_with_an_ellipse_and_a_line(tissue, caplog):
    corners = np.array([(0, 2), (0, 8), (4, 8), (4, 2)])  # (row, column): centre x 5, y 2; half axes 3 and 2
    layer = SimpleNamespace(
        data=[corners, np.array([(0, 0), (4, 9)])],
        shape_type=["ellipse", "line"],
        features=pd.DataFrame({"region": ["core", "l"]}),
    )
    add_regions(tissue, layer, "drawn")
    expected = {(x, y) for x, y in map(tuple, XY) if ((x - 5) / 3) ** 2 + ((y - 2) / 2) ** 2 < 0.999}
    edge = {(2, 2), (8, 2), (5, 0), (5, 4)}
    assert inside(tissue, "core", "drawn") - edge == expected
    assert "1 of 2 shapes of the layer are left out" in caplog.text


def test_the_table_that_napari_saves(tissue, tmp_path):
    rows = [(i, "rectangle", v, *corner) for i, shape in enumerate((LEFT, RIGHT)) for v, corner in enumerate(
        [(y, x) for x, y in shape.exterior.coords[:4]])]  # fmt: skip
    table = pd.DataFrame(rows, columns=["index", "shape-type", "vertex-index", "axis-0", "axis-1"])
    table.to_csv(tmp_path / "Shapes.csv", index=False)
    add_regions(tissue, tmp_path / "Shapes.csv", names=["Tumor", "edge"])
    assert inside(tissue, "Tumor") == grid(0, 0, 2, 4)
    assert inside(tissue, "edge") == grid(7, 0, 9, 1)
    pd.DataFrame({"spot": [1], "label": [2]}).to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(ValueError, match=r"found the columns spot, label in .*stcsm.io.add_labels"):
        add_regions(tissue, tmp_path / "labels.csv", "x")


def test_shapes_of_spatialdata_in_a_coordinate_system(tissue):
    to = {
        "global": Sequence([Scale([2.0, 2.0], ("x", "y")), Translation([1.0, 0.0], ("x", "y"))]),
        "own": Scale([1, 1], ("x", "y")),
    }
    half = [Polygon([((x - 1) / 2, y / 2) for x, y in shape.exterior.coords]) for shape in (LEFT, RIGHT)]
    shapes = ShapesModel.parse(gpd.GeoDataFrame({"label": ["Tumor", "edge"]}, geometry=half), transformations=to)
    add_regions(tissue, shapes)
    assert inside(tissue, "Tumor") == grid(0, 0, 2, 4)
    assert inside(tissue, "edge") == grid(7, 0, 9, 1)
    add_regions(tissue, shapes, "own", coordinate_system="own")
    assert inside(tissue, "Tumor", "own") == {(0, 0), (0, 1), (0, 2)}
    with pytest.raises(ValueError, match="system 'slide', found 'global', 'own'"):
        add_regions(tissue, shapes, "x", coordinate_system="slide")

    index = ["first", "second"]
    circles = ShapesModel.parse(
        np.array([(1.0, 1.0), (3.5, 1.0)]), geometry=0, radius=np.array([0.75, 1.0]), index=index, transformations=to
    )
    add_regions(tissue, circles, "circles")  # centres (3, 2) and (8, 2), radii 1.5 and 2
    for name, x, r in (("first", 3, 1.5), ("second", 8, 2.0)):
        expected = {tuple(p) for p in XY if np.hypot(p[0] - x, p[1] - 2) <= r}
        assert inside(tissue, name, "circles") | {(8, 0), (8, 4), (6, 2)} == expected | {(8, 0), (8, 4), (6, 2)}


def test_columns_of_the_user_stay(tissue):
    tissue.obs["annotation"] = "mine"
    shapes = gpd.GeoDataFrame({"name": ["a"]}, geometry=[LEFT])
    with pytest.raises(ValueError, match=r"found 'annotation' in adata.obs; choose another key= or say overwrite=True"):
        add_regions(tissue, shapes)
    add_regions(tissue, shapes, overwrite=True)
    assert inside(tissue, "a") == grid(0, 0, 2, 4)
    tissue.uns["spatialdata_attrs"] = {"region": "bins", "region_key": "region", "instance_key": "bin_id"}
    with pytest.raises(ValueError, match=r"what the rows of this SpatialData table annotate; .*'annotation'"):
        add_regions(tissue, shapes, "region", overwrite=True)


def test_sections_have_regions_of_their_own(tissue):
    """Spots of another section at the same coordinates do not lie in this section's regions."""
    tissue.obs["section"] = pd.Categorical(np.where(np.arange(50) % 2, "s1", "s0"))
    tissue.uns["spatial"] = {"s0": {}, "s1": {}}
    left, right = ([np.array(shape.exterior.coords)[:, ::-1]] for shape in (LEFT, RIGHT))
    with pytest.raises(ValueError, match=r"found several \(the images 's0', 's1'\); .*batch_key="):
        add_regions(tissue, left)
    add_regions(tissue, {"s0": left, "s1": right}, names=["a"], batch_key="section")
    even = {tuple(p) for p in XY[::2]}
    assert inside(tissue, "a") == (grid(0, 0, 2, 4) & even) | (grid(7, 0, 9, 1) - even)
    with pytest.raises(ValueError, match=r"Expected sections of obs\['section'\], found 's2'"):
        add_regions(tissue, {"s2": left}, "x", batch_key="section")
    with pytest.raises(ValueError, match=r"as a column of adata.obs, with a dictionary .*, found list"):
        add_regions(tissue, left, "x", batch_key="section")


def test_spots_without_coordinates_are_missing(tissue):
    tissue.obsm["spatial"] = np.c_[XY, np.zeros(50)]
    tissue.obsm["spatial"][0] = np.nan
    add_regions(tissue, gpd.GeoDataFrame({"name": ["a"]}, geometry=[LEFT]))
    assert tissue.obs["annotation"].isna()[0]
    assert (tissue.obs["annotation"] == "a").sum() == 14


def test_one_section_that_has_a_name_is_one_section(tissue):
    tissue.obs["sample"] = "one"
    tissue.uns["stcsm"] = {"setup": {"batch_key": "sample"}}
    add_regions(tissue, gpd.GeoDataFrame({"name": ["left"]}, geometry=[LEFT]))
    assert inside(tissue, "left") == grid(0, 0, 2, 4)


POLYGONS = {
    "polygon": (mapping(LEFT), {"1": LEFT}),
    "multipolygon": (mapping(MultiPolygon([LEFT, RIGHT])), {"1": LEFT.union(RIGHT)}),
    "collection": (
        {"type": "GeometryCollection", "geometries": [mapping(LEFT), mapping(RIGHT)]},
        {"1": LEFT, "2": RIGHT},
    ),
    "feature of a collection": (
        {
            "type": "Feature",
            "geometry": {"type": "GeometryCollection", "geometries": [mapping(LEFT), mapping(RIGHT)]},
            "properties": {"name": "both"},
        },
        {"both": LEFT.union(RIGHT)},
    ),
    "list of geometries": ([mapping(LEFT), mapping(RIGHT)], {"1": LEFT, "2": RIGHT}),
    "numbers beside null": (
        [feature(LEFT, name=1.0), feature(RIGHT, name=None, kind="annotation"), feature(box(3.5, 3.5, 4.5, 4.5), 12.0)],
        {"1": LEFT, "12": box(3.5, 3.5, 4.5, 4.5)},
    ),
    "old classification": (
        [feature(LEFT, classification={"name": "Tumor", "colorRGB": -3670016}), feature(RIGHT, name="edge")],
        {"Tumor": LEFT, "edge": RIGHT},
    ),
    "classes as a list": ([feature(LEFT, classification=["Tumor", "Ki67"])], {"Tumor: Ki67": LEFT}),
    "flattened": (
        [{"type": "Feature", "geometry": mapping(LEFT), "properties": {"classification.name": "Tumor"}}],
        {"Tumor": LEFT},
    ),
}


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize(("content", "expected"), POLYGONS.values(), ids=POLYGONS.keys())
def test_geojson_of_every_kind(tissue, tmp_path, content, expected, in_memory):
    add_regions(tissue, content if in_memory else write(tmp_path / "a.geojson", content))
    assert set(tissue.obs["annotation"].cat.categories) == set(expected)
    for name, shape in expected.items():
        assert inside(tissue, name) == {p for p in map(tuple, XY) if shape.intersects(Point(p))}


GEO = gpd.GeoDataFrame({"name": ["Tumor", "edge"]}, geometry=[LEFT, RIGHT])
FRAMES = {
    "geometry first": GEO[["geometry", "name"]],
    "geometry of another name": GEO.rename_geometry("outline"),
    "two geometries": GEO.assign(middle=GEO.centroid)[["middle", "geometry", "name"]],
    "names in the index": GEO.set_index("name"),
    "index without a name": GEO.set_index("name").rename_axis(None),
    "index of any order": GEO.set_index(pd.Index([7, 3])),
    "series": GEO.set_index("name").geometry,
    "categories": GEO.astype({"name": "category"}),
    "names of QuPath, flattened": GEO.rename(columns={"name": "classification_name"}),
    "a column radius": GEO.assign(radius=["", None]),
    "numbers beside names": GEO.assign(classification=[np.nan, None]),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_geodataframes_in_any_arrangement(tissue, frame):
    add_regions(tissue, frame)
    assert list(tissue.obs["annotation"].cat.categories) == ["edge", "Tumor"]
    assert inside(tissue, "Tumor") == grid(0, 0, 2, 4)
    assert inside(tissue, "edge") == grid(7, 0, 9, 1)


def test_a_frame_whose_geometry_is_not_set(tissue):
    with pytest.raises(ValueError, match=r"found the columns outline; .*set_geometry"):
        add_regions(tissue, gpd.GeoDataFrame({"outline": [LEFT]}))


def test_identifiers_beside_missing_ones_keep_their_text(tissue):
    frame = gpd.GeoDataFrame({"id": [1.0, np.nan, 12.0]}, geometry=[LEFT, RIGHT, box(3.5, 3.5, 4.5, 4.5)])
    add_regions(tissue, frame, names="id")
    assert list(tissue.obs["annotation"].cat.categories) == ["1", "12"]


def test_polygons_of_shapely(tissue):
    add_regions(tissue, [LEFT, RIGHT], names=["Tumor", "edge"])
    assert inside(tissue, "Tumor") == grid(0, 0, 2, 4)
    assert inside(tissue, "edge") == grid(7, 0, 9, 1)
    add_regions(tissue, LEFT, "one")
    assert inside(tissue, "1", "one") == grid(0, 0, 2, 4)
    with pytest.raises(ValueError, match="one kind, found ndarray beside"):
        add_regions(tissue, [LEFT, np.zeros((4, 2))], "x")


def test_what_has_no_outline_is_refused_in_words(tissue):
    points = PointsModel.parse(np.array([[1.0, 2.0], [3.0, 4.0]]))
    with pytest.raises(TypeError, match="found points; points have no area"):
        add_regions(tissue, points)
    with pytest.raises(TypeError, match="found points without a radius"):
        add_regions(tissue, gpd.GeoDataFrame({"name": ["a"]}, geometry=[Point(1, 1)]))
    with pytest.raises(TypeError, match=r"found an image or labels; .*spatialdata.to_polygons"):
        add_regions(tissue, Labels2DModel.parse(np.ones((4, 4), int)))
    whole = SpatialData(shapes={"drawn": ShapesModel.parse(GEO)}, points={"p": points})
    with pytest.raises(TypeError, match=r"found SpatialData; give one of its shapes \(sdata\['drawn'\]\)"):
        add_regions(tissue, whole)
    assert not len(tissue.obs.columns)


def test_spots_on_borders_and_in_holes(tissue):
    """A spot on an edge is in the region; of two that touch there, in the smaller; in a hole, in what lies around."""
    ring = Polygon(box(0, 0, 4, 4).exterior, [box(1, 1, 3, 3).exterior])
    frame = gpd.GeoDataFrame({"name": ["tissue", "ring", "beside"]}, geometry=[box(0, 0, 9, 4), ring, box(4, 0, 5, 4)])
    add_regions(tissue, frame)
    assert inside(tissue, "beside") == grid(4, 0, 5, 4)
    assert inside(tissue, "ring") == grid(0, 0, 3, 4) - {(2, 2)}
    assert inside(tissue, "tissue") == grid(6, 0, 9, 4) | {(2, 2)}


@pytest.fixture
def library(tissue) -> AnnData:
    """Spots over an image of 2000 x 1000 pixels, kept at 200 x 100 and at 50 x 25."""
    tissue.obsm["spatial"] = 200 * XY + 50
    tissue.uns["spatial"] = {
        "s": {
            "images": {"hires": np.zeros((100, 200, 3), np.uint8), "lowres": np.zeros((25, 50, 3), np.uint8)},
            "scalefactors": {"tissue_hires_scalef": 0.1, "tissue_lowres_scalef": 0.025, "spot_diameter_fullres": 50.0},
        }
    }
    return tissue


def drawn(scale: float, *shapes) -> gpd.GeoDataFrame:
    """Shapes of `XY`'s coordinates on the library's image, reduced."""
    at = [
        affinity.affine_transform(shape, [200 * scale, 0, 0, 200 * scale, 50 * scale, 50 * scale]) for shape in shapes
    ]
    return gpd.GeoDataFrame({"name": [f"r{i}" for i in range(len(at))]}, geometry=at)


WHOLE = (box(-0.2, -0.2, 5.5, 4.4), box(5.6, -0.2, 9.4, 4.4))


@pytest.mark.parametrize(("made", "said"), [(0.1, 1.0), (0.025, 0.1), (1.0, 0.1), (1.0, 0.025), (0.1, 0.025)])
def test_a_scale_that_is_not_that_of_the_image_is_told(library, made, said):
    """Regions over all of the tissue, drawn on one image, with the scale of another: a few spots lie inside."""
    with pytest.warns(
        UserWarning, match=rf"size of another image than scale={said:g} says: .* 50 with scale={made:g} \("
    ):
        add_regions(library, drawn(made, *WHOLE), scale=said)
    assert library.obs["annotation"].notna().any()


def test_a_scale_under_which_no_spot_lies_inside(library):
    with pytest.raises(
        ValueError, match=r"found none .*; there would be .*50 with scale=0.025 \(tissue_lowres_scalef\)"
    ):
        add_regions(library, drawn(0.025, *WHOLE))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1.0, 0.1, 0.025])
def test_the_right_scale_is_not_doubted(library, scale):
    add_regions(library, drawn(scale, *WHOLE), scale=scale)
    assert library.obs["annotation"].notna().all()


@pytest.mark.filterwarnings("error")
def test_a_scale_is_not_doubted_without_reason(library):
    """A region in a corner is one of full resolution where it is larger than the whole reduced image."""
    add_regions(library, drawn(1.0, box(-0.2, -0.2, 1.4, 1.4)))
    assert inside(library, "r0") == {(50, 50), (250, 50), (50, 250), (250, 250)}
    del library.uns["spatial"]  # nothing is known of images
    add_regions(library, drawn(1.0, *WHOLE), "whole")
    add_regions(library, drawn(1.0, box(6.8, 2.8, 8.2, 4.2)), "part")


@pytest.mark.parametrize(
    ("made", "shapes", "doubt"),
    [
        (1 / 0.2125, (box(-0.2, -0.2, 4.2, 4.2), box(5.8, 2.8, 9.2, 4.2)), "4.9 times as large as the tissue"),
        (0.1, WHOLE, "in the corner next to the origin"),
        (2.0, (box(-0.2, -0.2, 5.5, 4.4), box(5.6, -0.2, 9.4, 4.4)), "One region holds all spots"),
    ],
)
def test_regions_in_other_units_than_the_cells_are_doubted(tissue, made, shapes, doubt):
    """Cells in micrometres, regions in pixels: no image says how large the tissue is."""
    tissue.obsm["spatial"] = 200 * XY + 50
    with pytest.warns(
        UserWarning, match=rf"{doubt}.* \(spots x 50 to 1850, .* pass scale=.*\(Xenium: scale=1 / 0\.2125\)"
    ):
        add_regions(tissue, drawn(made, *shapes))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        add_regions(tissue, drawn(made, *shapes), "right", scale=made)
        add_regions(tissue, drawn(1.0, *shapes), "truth")
    assert tissue.obs["right"].astype(str).tolist() == tissue.obs["truth"].astype(str).tolist()
    assert inside(tissue, "r0", "right") == {(200 * x + 50, 200 * y + 50) for x, y in XY if x <= shapes[0].bounds[2]}
