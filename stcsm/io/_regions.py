"""Regions drawn on a tissue (QuPath, napari, shapes of SpatialData) as a column of ``.obs``."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from stcsm import _keys
from stcsm._files import existing_file, text_lines
from stcsm._lazy import column
from stcsm._text import is_missing
from stcsm.io._labels import natural_order

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

logger = logging.getLogger(__name__)

NAMES = ("classification", "name", "label", "annotation", "region")
"""Properties or columns that may hold the name of a region, the first that has one wins; two of them are QuPath's."""
OBJECTS = ("detection", "cell", "tile", "PathDetectionObject", "PathCellObject", "PathTileObject")
"""Kinds of small objects within QuPath's annotations, as versions since 0.3 and before call them."""
QUARTER = 64
"""Corners of a quarter of a circle that stands for a circle: its area is right to 1e-4."""


def add_regions(
    adata: ad.AnnData,
    shapes: str | Path | GeoDataFrame | Sequence[Any] | Any,
    key: str = "region",
    *,
    names: str | Sequence[str] | None = None,
    coordinate_system: str = "global",
    scale: float = 1.0,
    batch_key: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    overwrite: bool = False,
) -> None:
    """Write the name of the region that each spot lies in to ``adata.obs[key]``.

    Spots in no region get NaN. A spot in several regions (annotations within annotations) gets the smallest of them.
    A spot on the edge of a region is in it.

    Parameters
    ----------
    adata
        Spots x genes, with coordinates (x, y) in ``.obsm[spatial_key]``: pixels of the full-resolution image, or the
        coordinate system of the shapes.
    shapes
        One of

        - a file that QuPath exports (`.geojson`, plain or gzipped), or any other GeoJSON of polygons;
        - a shapes element of SpatialData (``sdata["annotations"]``; polygons, or circles as points with a radius), or
          another GeoDataFrame;
        - a shapes layer of napari, the `.csv` that it saves, or its ``layer.data``: arrays (n, 2) of (row, column);
        - with `batch_key`: a dictionary from section to one of these.
    key
        Column of ``adata.obs`` to write, categorical.
    names
        Names of the regions, one a shape; or the property (GeoJSON) or column (GeoDataFrame, features of a napari
        layer) that holds them. By default the first that is there of: QuPath's classification, `name`, `label`,
        `annotation`, `region`; for shapes without names their index (SpatialData), or 1, 2, ... (napari).
    coordinate_system
        Of SpatialData: where shapes and spots meet.
    scale
        Pixels of the image that was drawn on, over pixels of the full-resolution image: the
        ``tissue_hires_scalef`` of Space Ranger for its ``hires`` image.
    batch_key
        Column of ``adata.obs`` with the sections, where there are several: each has an image, and regions, of its own.
    spatial_key
        Key of the coordinates in ``adata.obsm``.
    overwrite
        Replace an existing ``adata.obs[key]``.

    Raises
    ------
    ValueError
        No spot lies in any region, no shape has an area or a name, the column exists, or there are several sections
        and no `batch_key`; `adata` is unchanged.
    FileNotFoundError
        The file is missing.

    Examples
    --------
    >>> stcsm.io.add_regions(adata, "slide.geojson", key="annotation")  # doctest: +SKIP
    """
    _check_column(adata, key, overwrite)
    if not scale > 0:
        raise ValueError(f"Expected a positive scale, found {scale!r}; give pixels drawn on over full-resolution ones.")
    if spatial_key not in adata.obsm:
        raise ValueError(
            f"Expected the coordinates of the spots in adata.obsm[{spatial_key!r}], found the keys "
            f"{sorted(map(str, adata.obsm))}; put an array (n_spots, 2) there or pass spatial_key=."
        )
    spots = np.asarray(adata.obsm[spatial_key], dtype=np.float64)[:, :2]
    found = np.full(adata.n_obs, None, dtype=object)
    for rows, drawn in _by_section(adata, shapes, batch_key):
        regions = _regions(drawn, names, coordinate_system).scaled(1 / scale)
        found[rows] = _names_of(spots[rows], regions, scale)
    categories = sorted({name for name in found if name is not None}, key=natural_order)
    adata.obs[key] = pd.Categorical(found, categories=categories)


@dataclass(frozen=True)
class _Regions:
    """Polygons and their names; ``None`` for one without."""

    polygons: np.ndarray
    names: list[str | None]
    source: str

    def scaled(self, factor: float) -> _Regions:
        import shapely

        return _Regions(shapely.transform(self.polygons, lambda xy: xy * factor), self.names, self.source)


def _check_column(adata: ad.AnnData, key: str, overwrite: bool) -> None:
    annotates = adata.uns.get(_keys.SPATIALDATA) or {}
    if key in (annotates.get("region_key"), annotates.get("instance_key")):
        raise ValueError(
            f"Expected a new column, found {key!r} in adata.obs, which says what the rows of this SpatialData table "
            "annotate; choose another key=, such as 'annotation'."
        )
    if key in adata.obs and not overwrite:
        raise ValueError(
            f"Expected a new column, found {key!r} in adata.obs; choose another key= or say overwrite=True."
        )


def _by_section(adata: ad.AnnData, shapes: Any, batch_key: str | None) -> list[tuple[np.ndarray, Any]]:
    """Rows of the spots that each collection of shapes is for."""
    if batch_key is None:
        known = _keys.sections_key(adata)
        images = list(adata.uns.get(_keys.SPATIAL, {}))
        several = known is not None and column(adata.obs, known).nunique() > 1
        if several or (known is None and len(images) > 1):
            what = f"obs[{known!r}]" if several else f"the images {', '.join(map(repr, images))}"
            raise ValueError(
                f"Expected one section, found several ({what}); give the shapes of each, as a dictionary with "
                "batch_key=, the column that names the sections."
            )
        return [(np.arange(adata.n_obs), shapes)]
    if batch_key not in adata.obs or not isinstance(shapes, Mapping):
        found = type(shapes).__name__ if batch_key in adata.obs else f"the columns {', '.join(adata.obs)}"
        raise ValueError(
            f"Expected batch_key={batch_key!r} as a column of adata.obs, with a dictionary from section to shapes, "
            f"found {found}."
        )
    section = adata.obs[batch_key].astype(str).to_numpy()
    strange = [str(name) for name in shapes if str(name) not in set(section)]
    if strange:
        raise ValueError(f"Expected sections of obs[{batch_key!r}], found {strange[0]!r}; check the dictionary.")
    return [(np.flatnonzero(section == str(name)), drawn) for name, drawn in shapes.items()]


def _names_of(spots: np.ndarray, regions: _Regions, scale: float) -> np.ndarray:
    """Name of the smallest region around each spot, None where there is none; (n,)."""
    import shapely

    areas = shapely.area(regions.polygons)
    named = np.array([name is not None for name in regions.names])
    usable = named & (areas > 0)
    if not usable.any():
        raise ValueError(
            f"Expected regions with a name and an area, found none among the {len(areas)} shapes of {regions.source} "
            f"({(areas > 0).sum()} with an area, {named.sum()} with a name); name them, or say which property or "
            "column does with names=."
        )
    if not usable.all():
        logger.warning(
            f"{(~usable).sum()} of {len(areas)} shapes of {regions.source} are left out: {(~named).sum()} have no "
            f"name, {(areas <= 0).sum()} no area"
        )
    # the largest first, so that the last of the regions around a spot is the smallest
    order = np.flatnonzero(usable)[np.argsort(-areas[usable], kind="stable")]
    polygons = regions.polygons[order]
    placed = np.flatnonzero(np.isfinite(spots).all(axis=1))
    inside, region = shapely.STRtree(polygons).query(shapely.points(spots[placed]), predicate="intersects")
    if not len(inside):
        raise ValueError(_nothing_inside(spots[placed], polygons, regions.source, scale))
    inside = placed[inside]
    smallest = np.full(len(spots), -1)
    np.maximum.at(smallest, inside, region)
    names = np.array([regions.names[i] for i in order], dtype=object)
    several = int((np.bincount(inside) > 1).sum())
    logger.info(
        f"{len(set(inside))} of {len(spots)} spots lie in {len(set(smallest) - {-1})} of {len(order)} regions of "
        f"{regions.source}" + (f"; {several} lie in more than one and get the smallest" if several else "")
    )
    empty = sorted(set(names) - set(names[region]), key=natural_order)
    if empty:
        logger.warning(f"no spot lies in the regions {', '.join(empty[:5])} of {regions.source}")
    found = np.full(len(spots), None, dtype=object)
    found[inside] = names[smallest[inside]]
    return found


def _nothing_inside(spots: np.ndarray, polygons: np.ndarray, source: str, scale: float) -> str:
    import shapely

    low_x, low_y, high_x, high_y = shapely.total_bounds(polygons)
    (least, most) = (spots.min(axis=0), spots.max(axis=0)) if len(spots) else np.full((2, 2), np.nan)
    ranges = (
        f"spots x {least[0]:.6g} to {most[0]:.6g}, y {least[1]:.6g} to {most[1]:.6g}; "
        f"regions x {low_x:.6g} to {high_x:.6g}, y {low_y:.6g} to {high_y:.6g}"
    )
    if shapely.STRtree(polygons).query(shapely.points(spots[:, ::-1]), predicate="intersects").size:
        advice = "x and y are swapped in one of them: napari draws (row, column), which is (y, x)"
    else:
        advice = (
            "where they differ by a factor, the image drawn on was a reduced one: give scale=, its pixels over "
            f"full-resolution pixels (here {scale:g})"
        )
    return f"Expected spots inside the regions of {source}, found none ({ranges}); {advice}."


def _regions(shapes: Any, names: str | Sequence[str] | None, coordinate_system: str) -> _Regions:
    """Whatever form the shapes come in."""
    if isinstance(shapes, str | Path):
        path = existing_file(shapes, "a file of regions (.geojson of QuPath, .csv of napari)")
        found = _of_napari_file(path, names) if path.suffix.lower() == ".csv" else _of_geojson(path, names)
    elif hasattr(shapes, "geometry") and hasattr(shapes, "columns"):
        found = _of_frame(shapes, names, coordinate_system)
    elif hasattr(shapes, "shape_type") and hasattr(shapes, "data"):
        found = _of_napari(shapes.data, shapes.shape_type, names, getattr(shapes, "features", None), "the layer")
    else:
        found = _of_napari(shapes, "polygon", names, None, "the shapes given")
    if len(found.polygons) == 0:
        raise ValueError(f"Expected regions, found none in {found.source}.")
    return found


def _of_geojson(path: Path, names: str | Sequence[str] | None) -> _Regions:
    from shapely.errors import ShapelyError
    from shapely.geometry import shape

    try:
        content = json.loads("\n".join(line for _, line in text_lines(path)))
        features = content.get("features", [content]) if isinstance(content, dict) else content
        features = [feature for feature in features if feature.get("geometry") is not None]
        geometries = [shape(feature["geometry"]) for feature in features]
    except (ValueError, KeyError, AttributeError, TypeError, ShapelyError) as error:
        raise ValueError(
            f"Expected GeoJSON, as QuPath exports it, found other content in {path} ({error}); export it again, as "
            "a FeatureCollection."
        ) from error
    properties = [feature.get("properties") or {} for feature in features]
    kinds = [p.get("objectType", feature.get("id")) for p, feature in zip(properties, features, strict=True)]
    nameless: list[str | None] = [None] * len(features)
    named = _named(pd.DataFrame(properties), names, str(path), nameless)
    return _annotations(_Regions(_array([_area(g) for g in geometries]), named, str(path)), kinds)


def _annotations(regions: _Regions, kinds: Sequence[Any]) -> _Regions:
    """Without QuPath's cells, detections and tiles, which are smaller than the annotations around them."""
    kept = np.flatnonzero([kind not in OBJECTS for kind in kinds])
    if len(kept) in (0, len(kinds)):  # where there is nothing else, they are what is meant
        return regions
    logger.warning(
        f"{len(kinds) - len(kept)} detections, cells or tiles of {regions.source} are left out beside the annotations"
    )
    return _Regions(regions.polygons[kept], [regions.names[i] for i in kept], regions.source)


def _of_frame(frame: GeoDataFrame, names: str | Sequence[str] | None, coordinate_system: str) -> _Regions:
    if "transform" in frame.attrs:  # a shapes element of SpatialData
        from spatialdata import transform

        systems = frame.attrs["transform"]
        if coordinate_system not in systems:
            raise ValueError(
                f"Expected shapes in the coordinate system {coordinate_system!r}, found "
                f"{', '.join(map(repr, systems))}; name one of these with coordinate_system=."
            )
        index = frame.index
        frame = transform(frame, to_coordinate_system=coordinate_system)
        fallback: list[str | None] = [str(name) for name in index]
    else:
        fallback = [None] * len(frame)
    geometry = np.asarray(frame.geometry.array)
    if "radius" in frame:
        radius = frame["radius"].to_numpy(dtype=np.float64)
        polygons = [
            g.buffer(r, quad_segs=QUARTER) if g is not None and g.geom_type == "Point" else _area(g)
            for g, r in zip(geometry, radius, strict=True)
        ]
    else:
        polygons = [_area(g) for g in geometry]
    found = _Regions(_array(polygons), _named(frame, names, "the shapes given", fallback), "the shapes given")
    return _annotations(found, list(frame["objectType"])) if "objectType" in frame else found


def _of_napari(
    data: Iterable[Any], kinds: str | Sequence[str], names: str | Sequence[str] | None, features: Any, source: str
) -> _Regions:
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
    numbers: list[str | None] = [str(i + 1) for i in range(len(polygons))]
    table = pd.DataFrame(index=range(len(polygons))) if features is None else pd.DataFrame(features)
    return _Regions(_array(polygons), _named(table, names, source, numbers), source)


def _of_napari_file(path: Path, names: str | Sequence[str] | None) -> _Regions:
    """The table that napari saves of a layer of shapes: a row a corner."""
    table = pd.read_csv(path)
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
        found = [name or _text(value) for name, value in zip(found, table[key], strict=True)]
    return found if any(found) else fallback


def _text(value: Any) -> str | None:
    """A name as text; QuPath's classifications are dictionaries, or JSON where another program wrote them on."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if isinstance(value, Mapping):
        several = value.get("names")
        value = value.get("name", ": ".join(map(str, several)) if several else None)
    if value is None or value is pd.NA or value != value:
        return None
    text = str(value).strip()
    return None if is_missing(text) else text
