"""Regions drawn on a tissue (QuPath, napari, shapes of SpatialData) as a column of ``.obs``."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from stcsm import _keys
from stcsm._lazy import column
from stcsm._text import listed
from stcsm.io._label_table import natural_order
from stcsm.io._shapes import Regions, read_regions

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

logger = logging.getLogger(__name__)

EDGE = 0.02
"""Share of an image by which a hand may draw over its edge."""
CLEARLY = 3.0
"""Ratio of the sizes of regions and tissue from which on their units are doubted."""


def add_regions(
    adata: ad.AnnData,
    shapes: str | Path | GeoDataFrame | Sequence[Any] | Any,
    key: str = "annotation",
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
        - polygons of shapely, one or a list;
        - a shapes layer of napari, the `.csv` that it saves, or its ``layer.data``: arrays (n, 2) of (row, column);
        - with `batch_key`: a dictionary from section to one of these.
    key
        Column of ``adata.obs`` to write, categorical.
    names
        Names of the regions, one a shape; or the property (GeoJSON) or column (GeoDataFrame, features of a napari
        layer) that holds them. By default the first that is there of: QuPath's classification, `name`, `label`,
        `annotation`, `region`; for shapes without names their index (SpatialData, or a GeoDataFrame whose index is
        text), or 1, 2, ... (napari, shapely, geometries of GeoJSON alone).
    coordinate_system
        Of SpatialData: where shapes and spots meet.
    scale
        Pixels of the image that was drawn on, over pixels of the full-resolution image: the
        ``tissue_hires_scalef`` of Space Ranger for its ``hires`` image. Where coordinates are in another unit: pixels
        of the drawing in one unit, such as ``1 / 0.2125`` for regions drawn on the image of Xenium, whose pixels have
        0.2125 micrometres and whose coordinates are micrometres. Shapes are divided by `scale`.
    batch_key
        Column of ``adata.obs`` with the sections, where there are several: each has an image, and regions, of its own.
    spatial_key
        Key of the coordinates in ``adata.obsm``.
    overwrite
        Replace an existing ``adata.obs[key]``.

    Warns
    -----
    UserWarning
        The regions fit the size of another image in ``adata.uns["spatial"]`` better than the one that `scale` says; or,
        without such images, they look as if they were drawn in another unit than that of the coordinates.

    Raises
    ------
    ValueError
        No spot lies in any region, no shape has an area or a name, the column exists, or there are several sections
        and no `batch_key`; `adata` is unchanged.
    TypeError
        Points, labels or images, which have no outlines.
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
    images = adata.uns.get(_keys.SPATIAL) or {}
    for section, rows, drawn in _by_section(adata, shapes, batch_key):
        regions = read_regions(drawn, names, coordinate_system).scaled(1 / scale)
        image = images.get(section) if section in images else next(iter(images.values())) if len(images) == 1 else None
        found[rows] = _names_of(spots[rows], regions, scale, image or {})
    categories = sorted({name for name in found if name is not None}, key=natural_order)
    adata.obs[key] = pd.Categorical(found, categories=categories)


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


def _by_section(adata: ad.AnnData, shapes: Any, batch_key: str | None) -> list[tuple[str | None, np.ndarray, Any]]:
    """Section (None of a single one) and rows of the spots that each collection of shapes is for."""
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
        return [(None, np.arange(adata.n_obs), shapes)]
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
    return [(str(name), np.flatnonzero(section == str(name)), drawn) for name, drawn in shapes.items()]


def _names_of(spots: np.ndarray, regions: Regions, scale: float, image: Mapping[str, Any]) -> np.ndarray:
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
    others = _better_scales(spots[placed], polygons, scale, image, len(set(inside)))
    if not len(inside):
        raise ValueError(_nothing_inside(spots[placed], polygons, regions.source, scale, others))
    if others:
        warnings.warn(
            f"The regions of {regions.source} have the size of another image than scale={scale:g} says: "
            f"{len(set(inside))} spots lie in them now, {' or '.join(others)}; pass the scale of the image that was "
            "drawn on.",
            stacklevel=3,
        )
    elif doubt := _other_units(spots[placed], polygons, len(set(inside)), set(region), image):
        warnings.warn(
            f"{doubt} ({_ranges(spots[placed], polygons)}) in {regions.source}; if they were drawn in pixels and the "
            "spots are in micrometres or another unit, pass scale=, the pixels of the drawing in one unit of the "
            f"coordinates (Xenium: scale=1 / 0.2125), instead of {scale:g}.",
            stacklevel=3,
        )
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
        logger.warning(f"no spot lies in the regions {listed(empty, 5)} of {regions.source}")
    found = np.full(len(spots), None, dtype=object)
    found[inside] = names[smallest[inside]]
    return found


def _better_scales(
    spots: np.ndarray, polygons: np.ndarray, scale: float, image: Mapping[str, Any], now: int
) -> list[str]:
    """Scales of a library's images that regions (at full resolution under `scale`) fit and this one does not.

    Of two that regions fit, the smaller is meant: all annotations of a tissue hardly lie within the same corner of the
    full-resolution image.
    """
    import shapely

    factors = {"full resolution": 1.0}
    held = image.get("scalefactors", {}).items()
    factors |= {name: float(value) for name, value in held if re.fullmatch(r"tissue_.+_scalef", name)}
    if len(factors) == 1 or not len(spots):
        return []
    sizes = [
        (pixels.shape[1] / factor, pixels.shape[0] / factor)
        for name, pixels in image.get("images", {}).items()
        if (factor := factors.get(f"tissue_{name}_scalef")) is not None
    ]
    full = np.array(sizes[0]) if sizes else spots.max(axis=0)
    high = shapely.total_bounds(polygons)[2:]

    def beyond(factor: float) -> float:
        """How far the regions reach beyond the image if they were drawn at this scale; up to 1 they do not."""
        return float((high * scale / factor / full).max())

    found = {}
    for name, factor in factors.items():
        smaller = factor <= scale / 2
        if beyond(factor) > 1 + EDGE or not (smaller or beyond(scale) > 1 + 10 * EDGE):
            continue
        there = shapely.transform(polygons, lambda xy, by=scale / factor: xy * by)
        n = len(np.unique(shapely.STRtree(there).query(shapely.points(spots), predicate="intersects")[0]))
        if n > (now if smaller else 0):
            found[factor] = f"{n} with scale={factor:g} ({name})"
    return [found[factor] for factor in sorted(found, reverse=True)]


def _nothing_inside(spots: np.ndarray, polygons: np.ndarray, source: str, scale: float, others: list[str]) -> str:
    import shapely

    if others:
        advice = f"there would be {' or '.join(others)}: pass the scale of the image that was drawn on"
    elif shapely.STRtree(polygons).query(shapely.points(spots[:, ::-1]), predicate="intersects").size:
        advice = "x and y are swapped in one of them: napari draws (row, column), which is (y, x)"
    else:
        advice = (
            "where they differ by a factor, give scale=, the pixels of the image drawn on over full-resolution pixels, "
            f"or the pixels in one unit of the coordinates (here {scale:g})"
        )
    return f"Expected spots inside the regions of {source}, found none ({_ranges(spots, polygons)}); {advice}."


def _ranges(spots: np.ndarray, polygons: np.ndarray) -> str:
    import shapely

    low_x, low_y, high_x, high_y = shapely.total_bounds(polygons)
    (least, most) = (spots.min(axis=0), spots.max(axis=0)) if len(spots) else np.full((2, 2), np.nan)
    return (
        f"spots x {least[0]:.6g} to {most[0]:.6g}, y {least[1]:.6g} to {most[1]:.6g}; "
        f"regions x {low_x:.6g} to {high_x:.6g}, y {low_y:.6g} to {high_y:.6g}"
    )


def _other_units(
    spots: np.ndarray, polygons: np.ndarray, n_inside: int, reached: set[int], image: Mapping[str, Any]
) -> str | None:
    """Why regions look as if they were drawn in another unit than that of the spots; None where they do not.

    Only where no image says how large the tissue is. Small regions are nothing unusual, unless all of them lie near the
    origin, where a factor puts them.
    """
    import shapely

    if any(name.startswith("tissue_") for name in image.get("scalefactors", {})):
        return None
    low, high = np.reshape(shapely.total_bounds(polygons), (2, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        larger = ((high - low) / np.ptp(spots, axis=0)).min()
        nearer = (high / spots.max(axis=0)).max()
    if larger > CLEARLY:
        return f"The regions are {larger:.2g} times as large as the tissue"
    if 0 < nearer < 1 / CLEARLY:
        return "All regions lie in the corner next to the origin"
    if n_inside == len(spots) and len(reached) == 1 and len(polygons) > 1:
        return "One region holds all spots, the others hold none"
    return None
