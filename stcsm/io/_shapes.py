"""Polygons and their names, in whatever form regions come: GeoJSON, GeoDataFrames, shapely, napari, SpatialData."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stcsm._files import existing_file, opened_text, text_lines
from stcsm._text import as_text, is_missing

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

logger = logging.getLogger(__name__)

NAMES = (
    "classification",
    "classification.name",  # a table that was made of nested properties
    "classification_name",
    "name",
    "label",
    "annotation",
    "region",
)
"""Properties or columns that may hold the name of a region, the first that has one wins; two of them are QuPath's."""
OBJECTS = ("detection", "cell", "tile", "PathDetectionObject", "PathCellObject", "PathTileObject")
"""Kinds of small objects within QuPath's annotations, as versions since 0.3 and before call them."""
QUARTER = 64
"""Corners of a quarter of a circle that stands for a circle: its area is right to 1e-4."""


@dataclass(frozen=True)
class Regions:
    """Polygons and their names; ``None`` for one without."""

    polygons: np.ndarray
    names: list[str | None]
    source: str

    def scaled(self, factor: float) -> Regions:
        """The same regions on an image that is larger by `factor`."""
        import shapely

        return Regions(shapely.transform(self.polygons, lambda xy: xy * factor), self.names, self.source)


def read_regions(shapes: Any, names: str | Sequence[str] | None, coordinate_system: str) -> Regions:
    """Polygons with names of what `add_regions` takes.

    Raises
    ------
    ValueError
        Something that has no shapes, a file of other content, or names that do not fit.
    TypeError
        Points, labels or images, which have no outlines.
    FileNotFoundError
        The file is missing.
    """
    if isinstance(getattr(shapes, "geom_type", None), str):  # one shape of shapely
        shapes = [shapes]
    if isinstance(shapes, str | Path):
        path = existing_file(shapes, "a file of regions (.geojson of QuPath, .csv of napari)")
        found = _of_napari_file(path, names) if path.suffix.lower() == ".csv" else _of_geojson_file(path, names)
    elif isinstance(shapes, Mapping) or _all(shapes, Mapping):
        found = _of_geojson(shapes, names, "the GeoJSON given")
    elif isinstance(shapes, pd.DataFrame | pd.Series):
        shapes = shapes.to_frame("geometry") if isinstance(shapes, pd.Series) else shapes
        found = _of_frame(shapes, names, coordinate_system)
    elif hasattr(shapes, "shape_type") and hasattr(shapes, "data"):
        found = _of_napari(shapes.data, shapes.shape_type, names, getattr(shapes, "features", None), "the layer")
    else:
        _refuse_elements(shapes)
        found = _of_list(shapes, names)
    if len(found.polygons) == 0:
        raise ValueError(f"Expected regions, found none in {found.source}.")
    return found


def _all(shapes: Any, kind: Any) -> bool:
    return isinstance(shapes, list | tuple) and len(shapes) > 0 and all(isinstance(one, kind) for one in shapes)


def _refuse_elements(shapes: Any) -> None:
    kind, advice = type(shapes).__name__, ""
    if hasattr(shapes, "tables") and hasattr(shapes, "shapes"):
        there = ", ".join(f"sdata[{name!r}]" for name in shapes.shapes) or "there are none"
        advice = f"give one of its shapes ({there})"
    elif hasattr(shapes, "compute") and hasattr(shapes, "columns"):
        kind, advice = "points", "points have no area, so no spot lies in them; give shapes (polygons or circles)"
    elif hasattr(shapes, "dims") or hasattr(shapes, "children"):
        kind, advice = "an image or labels", "make polygons of labels first: spatialdata.to_polygons(sdata['labels'])"
    elif not isinstance(shapes, Iterable):
        advice = "give a file, a GeoDataFrame, a list of polygons, or a napari layer of shapes"
    if advice:
        raise TypeError(f"Expected shapes, found {kind}; {advice}.")


def _of_list(shapes: Any, names: str | Sequence[str] | None) -> Regions:
    """Shapes of shapely, or corners as napari keeps them; a single array of corners is one shape."""
    if isinstance(shapes, np.ndarray) and shapes.ndim == 2 and shapes.dtype.kind in "iuf":
        shapes = [shapes]
    shapes = list(shapes)
    if not any(hasattr(one, "geom_type") for one in shapes):
        return _of_napari(shapes, "polygon", names, None, "the shapes given")
    strange = next((one for one in shapes if one is not None and not hasattr(one, "geom_type")), None)
    if strange is not None:
        raise ValueError(f"Expected shapes of one kind, found {type(strange).__name__} beside those of shapely.")
    named = _named(pd.DataFrame(index=range(len(shapes))), names, "the shapes given", _numbers(len(shapes)))
    return Regions(_array([_area(one) for one in shapes]), named, "the shapes given")


def _numbers(n: int) -> list[str | None]:
    return [str(i + 1) for i in range(n)]


def _of_geojson_file(path: Path, names: str | Sequence[str] | None) -> Regions:
    try:
        content = json.loads("\n".join(line for _, line in text_lines(path)))
    except ValueError as error:
        raise _no_geojson(str(path), error) from error
    return _of_geojson(content, names, str(path))


def _no_geojson(source: str, error: Exception | str) -> ValueError:
    return ValueError(
        f"Expected GeoJSON, as QuPath exports it, found other content in {source} ({error}); export it again, as a "
        "FeatureCollection."
    )


def _of_geojson(content: Any, names: str | Sequence[str] | None, source: str) -> Regions:
    """A FeatureCollection, features, or geometries alone (which have no names and are numbered)."""
    from shapely.errors import ShapelyError
    from shapely.geometry import shape

    try:
        features = [feature for one in (content if isinstance(content, list) else [content]) for feature in _flat(one)]
        features = [feature for feature in features if feature.get("geometry") is not None]
        geometries = [shape(feature["geometry"]) for feature in features]
    except (ValueError, KeyError, AttributeError, TypeError, IndexError, ShapelyError) as error:
        raise _no_geojson(source, error) from error
    properties = [feature.get("properties") or {} for feature in features]
    kinds = [p.get("objectType", feature.get("id")) for p, feature in zip(properties, features, strict=True)]
    bare = all("properties" not in feature for feature in features)
    nameless: list[str | None] = [None] * len(features)
    fallback = _numbers(len(features)) if bare else nameless
    named = _named(pd.DataFrame(properties, index=range(len(features))), names, source, fallback)
    return _annotations(Regions(_array([_area(g) for g in geometries]), named, source), kinds)


def _flat(content: Any) -> list[Any]:
    """Features of any GeoJSON object."""
    if "features" in content:
        return list(content["features"])
    if "geometries" in content:
        return [feature for one in content["geometries"] for feature in _flat(one)]
    return [{"geometry": content}] if "coordinates" in content else [content]


def _annotations(regions: Regions, kinds: Sequence[Any]) -> Regions:
    """Without QuPath's cells, detections and tiles, which are smaller than the annotations around them."""
    kept = np.flatnonzero([kind not in OBJECTS for kind in kinds])
    if len(kept) in (0, len(kinds)):  # where there is nothing else, they are what is meant
        return regions
    logger.warning(
        f"{len(kinds) - len(kept)} detections, cells or tiles of {regions.source} are left out beside the annotations"
    )
    return Regions(regions.polygons[kept], [regions.names[i] for i in kept], regions.source)


def _of_frame(frame: GeoDataFrame, names: str | Sequence[str] | None, coordinate_system: str) -> Regions:
    if "transform" in frame.attrs:  # a shapes element of SpatialData
        from spatialdata import transform

        systems = frame.attrs["transform"]
        if coordinate_system not in systems:
            raise ValueError(
                f"Expected shapes in the coordinate system {coordinate_system!r}, found "
                f"{', '.join(map(repr, systems))}; name one of these with coordinate_system=."
            )
        index = frame.index
        frame = transform(frame, to_coordinate_system=coordinate_system).set_axis(index)
        fallback = [_text(name) for name in index]
    else:  # numbers that pandas gave the rows are no names
        fallback = [_text(name) if isinstance(name, str) else None for name in frame.index]
    if frame.index.name is not None and frame.index.name not in frame:
        frame = frame.assign(**{str(frame.index.name): frame.index})
    if not hasattr(frame, "geometry"):
        there = ", ".join(map(str, frame.columns)) or "none"
        raise ValueError(
            f"Expected a GeoDataFrame with an active geometry, found the columns {there}; say which one holds the "
            "shapes: frame.set_geometry(column)."
        )
    geometry = np.asarray(frame.geometry.array)
    points = np.array([g is not None and g.geom_type in ("Point", "MultiPoint") for g in geometry], dtype=bool)
    if len(points) and points.all() and "radius" not in frame:
        raise TypeError("Expected shapes, found points without a radius, which have no area; give polygons or circles.")
    radius = pd.to_numeric(frame["radius"]).to_numpy() if points.any() and "radius" in frame else np.zeros(len(points))
    polygons = [
        g.buffer(r, quad_segs=QUARTER) if point and r > 0 else _area(g)
        for g, r, point in zip(geometry, radius, points, strict=True)
    ]
    found = Regions(_array(polygons), _named(frame, names, "the shapes given", fallback), "the shapes given")
    return _annotations(found, list(frame["objectType"])) if "objectType" in frame else found


def _of_napari(
    data: Iterable[Any], kinds: str | Sequence[str], names: str | Sequence[str] | None, features: Any, source: str
) -> Regions:
    """Corners (row, column), the last two of a row where there are more axes."""
    from shapely.geometry import Polygon

    corners = [np.asarray(vertices, dtype=np.float64) for vertices in data]
    kinds = [kinds] * len(corners) if isinstance(kinds, str) else list(kinds)
    polygons = []
    for i, (rc, kind) in enumerate(zip(corners, kinds, strict=True)):
        if rc.ndim != 2 or rc.shape[1] < 2:
            raise ValueError(
                f"Expected shapes as arrays (n, 2) of (row, column), found shape {rc.shape} for number {i + 1} of "
                f"{source}; give layer.data of a napari layer of shapes, a GeoDataFrame or a file."
            )
        xy = rc[:, [-1, -2]]
        if kind in ("path", "line") or len(xy) < 3:
            polygons.append(Polygon())
        elif kind == "ellipse":  # kept as the four corners of the rectangle around it
            angle = np.linspace(0, 2 * np.pi, 4 * QUARTER, endpoint=False)[:, None]
            half = (xy[1] - xy[0]) / 2, (xy[3] - xy[0]) / 2
            polygons.append(Polygon(xy.mean(axis=0) + np.cos(angle) * half[0] + np.sin(angle) * half[1]))
        else:
            polygons.append(_area(Polygon(xy)))
    table = pd.DataFrame(index=range(len(polygons))) if features is None else pd.DataFrame(features)
    return Regions(_array(polygons), _named(table, names, source, _numbers(len(polygons))), source)


def _of_napari_file(path: Path, names: str | Sequence[str] | None) -> Regions:
    """The table that napari saves of a layer of shapes: a row a corner."""
    with opened_text(path) as file:
        table = pd.read_csv(file)
    axes = [column for column in table if str(column).startswith("axis-")]
    if not {"index", "shape-type"} <= set(table) or len(axes) < 2:
        raise ValueError(
            f"Expected a layer of shapes as napari saves it (index, shape-type, vertex-index, axis-0, axis-1), found "
            f"the columns {', '.join(map(str, table))} in {path}; labels by spot name are read by stcsm.io.add_labels."
        )
    shapes = [rows for _, rows in table.groupby("index", sort=True)]
    kinds = [str(rows["shape-type"].iloc[0]) for rows in shapes]
    return _of_napari([rows[axes].to_numpy() for rows in shapes], kinds, names, None, str(path))


def _area(geometry: Any) -> Any:
    """What of a geometry has an area; outlines that cross themselves, as hands draw them, are mended."""
    import shapely
    from shapely.geometry import MultiPolygon, Polygon

    if geometry is None:
        return Polygon()
    flat = shapely.force_2d(geometry)
    mended = flat if shapely.is_valid(flat) else shapely.make_valid(flat)
    if isinstance(mended, Polygon | MultiPolygon):
        return mended
    parts = [part for part in shapely.get_parts(mended) if part.geom_type in ("Polygon", "MultiPolygon")]
    return shapely.union_all(parts) if parts else Polygon()


def _array(polygons: list[Any]) -> np.ndarray:
    out = np.empty(len(polygons), dtype=object)
    out[:] = polygons
    return out


def _named(
    table: pd.DataFrame, names: str | Sequence[str] | None, source: str, fallback: list[str | None]
) -> list[str | None]:
    """Name of each shape: those given, a column, or the first of the usual columns that has one."""
    if names is not None and not isinstance(names, str):
        if len(names) != len(fallback):
            raise ValueError(f"Expected a name for each of the {len(fallback)} shapes of {source}, found {len(names)}.")
        return [_text(name) for name in names]
    if names is not None and names not in table:
        there = ", ".join(str(column) for column in table if column != "geometry") or "none"
        raise ValueError(f"Expected names of regions in {names!r}, found {there} in {source}; check names=.")
    usual = [names] if names is not None else [name for name in NAMES if name in table]
    found: list[str | None] = [None] * len(fallback)
    for key in usual:
        found = [name or _text(value) for name, value in zip(found, table[key].tolist(), strict=True)]
    return found if any(found) else fallback


def _text(value: Any) -> str | None:
    """A name as text; QuPath's classifications are dictionaries, or JSON where another program wrote them on."""
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, Mapping):
        value = value.get("name") or value.get("names")
    if isinstance(value, list | tuple | np.ndarray):  # the classes of an object that has several
        value = ": ".join(map(str, value))
    text = as_text(value).strip()
    return None if is_missing(text) else text
