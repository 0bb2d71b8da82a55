"""The one drawing function below all plots of values on the tissue, and the image of the section. Through squidpy."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

from stcsm import _keys
from stcsm._lazy import column, in_memory
from stcsm._text import as_text

logger = logging.getLogger(__name__)

DIVERGING = "RdBu_r"
POINTS_PER_INCH = 72
PANEL, BAR = 3.4, 0.7
"""Width of a panel, and what its colour bar takes of it, in inches."""
ON_IMAGE = 0.95
"""Share of the spots that lie on the image of their section, at least; a few may lie beside its edge."""
OF_LIBRARIES = re.compile(
    r"(library|section|sample|batch|slide|slice)([._ -]?(id|key|name|no|nr|number|label))?", re.IGNORECASE
)
"""Names of columns of ``.obs`` that name the section of a spot, as squidpy, scanpy, users and ours call it."""
BARCODE = r"[ACGTN]{10,}(?:-1(?!\d))?"
"""10x's name of a spot; a number other than 1 at its end is that of a section (``spaceranger aggr``)."""


def draw_panels(
    adata: AnnData,
    values: pd.DataFrame,
    titles: list[str],
    *,
    spatial_key: str,
    library_id: str | None,
    img: bool,
    size: float | None,
    cmap: str | None,
    percentile: float,
    symmetric: bool,
    ncols: int,
    colorbar_label: str,
) -> Figure:
    """One panel a column of ``values`` (S, K), on the tissue, with colour limits of its own."""
    if spatial_key not in adata.obsm:
        raise ValueError(f"Expected coordinates in adata.obsm[{spatial_key!r}], found {sorted(map(str, adata.obsm))}")
    if ncols < 1:
        raise ValueError(f"Expected ncols of 1 or more, found {ncols}")
    _check_one_section(adata, spatial_key)
    n = values.shape[1]
    nrows = -(-n // ncols)
    ncols = -(-n // nrows)  # rows of even length: five panels are three and two, not four and one
    xy = np.asarray(adata.obsm[spatial_key], dtype=float)[:, :2]
    spread = np.ptp(xy, axis=0)
    aspect = float(np.clip(spread[1] / spread[0], 0.4, 2.5)) if (spread > 0).all() else 1.0
    fig, axes = plt.subplots(
        nrows, ncols, figsize=(PANEL * ncols, (PANEL - BAR) * aspect * nrows + 0.4 * nrows), squeeze=False
    )
    fig.set_layout_engine("constrained")
    image, why = _image_of(adata, spatial_key, library_id)
    if why and img:
        logger.warning(f"no image is drawn: {why}")
    shell = AnnData(
        obs=values.reset_index(drop=True)
        .set_axis([f"panel_{k}" for k in range(n)], axis=1)
        .set_axis(adata.obs_names, axis=0),
        obsm={spatial_key: xy},
        uns={"spatial": {image[0]: in_memory(adata.uns["spatial"][image[0]])}} if image else {},
    )
    for k, ax in enumerate(axes.flat):
        if k >= n:
            ax.set_axis_off()
            continue
        norm = _limits(values.iloc[:, k].to_numpy(dtype=float), percentile, symmetric)
        colours = cmap or (_see_through(DIVERGING) if image and img and symmetric else DIVERGING)
        _panel(shell, f"panel_{k}", ax, norm, colours, spatial_key, image, img, size)
        ax.set_title(titles[k], fontsize=10)
        ax.set_xlabel("")
        ax.set_ylabel("")
        ax.set_axis_off()
        bar = fig.colorbar(
            plt.cm.ScalarMappable(norm=norm, cmap=cmap or DIVERGING), ax=ax, shrink=0.6, pad=0.02, aspect=18
        )
        bar.ax.tick_params(labelsize=7)
        bar.locator = plt.MaxNLocator(3)
        bar.update_ticks()
        if (k + 1) % ncols == 0 or k == n - 1:
            bar.set_label(colorbar_label, fontsize=8)
    return fig


def _panel(
    shell: AnnData,
    column: str,
    ax: Axes,
    norm: Normalize,
    cmap: str | Colormap,
    spatial_key: str,
    image: tuple[str, str] | None,
    img: bool,
    size: float | None,
) -> None:
    import squidpy as sq

    common: dict[str, Any] = {
        "color": column, "ax": ax, "norm": norm, "cmap": cmap, "spatial_key": spatial_key, "colorbar": False,
        "alpha": None, "legend_na": False,
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if image:
            library, res = image
            sq.pl.spatial_scatter(
                shell, library_id=library, img=img, img_res_key=res, size=1.0 if size is None else size, **common
            )
            _crop(ax, shell.obsm[spatial_key] * shell.uns["spatial"][library]["scalefactors"][f"tissue_{res}_scalef"])
        else:
            points = _point_size(shell.obsm[spatial_key]) if size is None else size
            sq.pl.spatial_scatter(shell, shape=None, size=points, linewidths=0, library_id="spots", **common)
            ax.set_aspect("equal")


def _see_through(name: str) -> ListedColormap:
    """A diverging colour map whose middle lets the tissue through: spots near zero have nothing to show."""
    colours = colormaps[name](np.linspace(0, 1, 256))
    colours[:, 3] = np.clip(0.1 + 1.6 * np.abs(np.linspace(-1, 1, 256)), 0, 1)
    return ListedColormap(colours)


def _crop(ax: Axes, xy: np.ndarray) -> None:
    """Show the spots and a margin around them, not the whole slide."""
    margin = 2.5 * _spacing(xy)
    (left, top), (right, bottom) = xy.min(axis=0) - margin, xy.max(axis=0) + margin
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)


def _spacing(xy: np.ndarray) -> float:
    """Median distance of a spot to its nearest neighbour."""
    if len(xy) < 2:
        return 1.0
    nearest = np.asarray(cKDTree(xy).query(xy, k=2)[0])
    return float(np.median(nearest[:, 1])) or 1.0


def _check_one_section(adata: AnnData, spatial_key: str) -> None:
    """Refuse to draw sections over one another.

    Raises
    ------
    ValueError
        If the AnnData was set up with a batch key and its sections overlap.
    """
    key = _keys.sections_key(adata)
    if key is None:
        return
    xy = np.asarray(adata.obsm[spatial_key], dtype=float)[:, :2]
    labels = column(adata.obs, key).astype(str).to_numpy()
    boxes = {str(name): (xy[labels == name].min(axis=0), xy[labels == name].max(axis=0)) for name in np.unique(labels)}
    for (one, (low, high)), (other, (below, above)) in combinations(boxes.items(), 2):
        if (low <= above).all() and (below <= high).all():
            raise ValueError(
                f"Expected one section to draw, found that {one!r} and {other!r} lie on one another; draw them one by "
                f"one: adata[adata.obs[{key!r}] == {one!r}]"
            )


def _limits(values: np.ndarray, percentile: float, symmetric: bool) -> Normalize:
    """Colour limits that a few extreme spots do not set."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Normalize(0, 1)
    if symmetric:
        top = float(np.percentile(np.abs(finite), percentile)) or float(np.abs(finite).max()) or 1.0
        return TwoSlopeNorm(0, -top, top)
    low, high = np.percentile(finite, [100 - percentile, percentile])
    return Normalize(float(low), float(high) if high > low else float(low) + 1)


def _point_size(xy: np.ndarray) -> float:
    """Marker area in points that lets neighbouring spots almost touch in a panel."""
    distance = _spacing(xy)
    across = max(float(np.ptp(xy[:, 0])), distance) + 2 * distance
    return float(np.clip((1.05 * distance / across * (PANEL - BAR) * POINTS_PER_INCH) ** 2, 0.5, 400))


def find_image(
    adata: AnnData, spatial_key: str = _keys.SPATIAL, library_id: str | None = None
) -> tuple[str, str] | None:
    """Library and resolution of the image of the section in ``.uns["spatial"]``; None where there is none.

    An image counts where the scale factors say how to put spots on it, as Space Ranger and :func:`stcsm.io.read_st`
    write them. The blank canvas that ``read_st`` stores in place of an image does not count. Of several images, as a
    join of sections leaves them, the one counts whose name the spots bear: in the column of sections, in any column of
    ``.obs`` whose values are names of images, or as a part of the spot names that ``anndata.concat`` adds. Where these
    name a section that has no image, there is none: a join may have kept the image of another section alone. Without a
    name, it is the only one that the spots lie on. Where that cannot be known, there is none.

    Parameters
    ----------
    adata
        A tissue.
    spatial_key
        Key of the coordinates in ``.obsm``; images fit those of ``"spatial"`` only.
    library_id
        Name of the image in ``.uns["spatial"]``, where there are several.

    Raises
    ------
    ValueError
        If ``.uns["spatial"]`` has no image of the name ``library_id``.
    """
    return _image_of(adata, spatial_key, library_id)[0]


def _image_of(adata: AnnData, spatial_key: str, library_id: str | None) -> tuple[tuple[str, str] | None, str]:
    """The image of the spots (library, resolution), or why none of those that are there is taken."""
    libraries = dict(adata.uns.get("spatial", {}))
    images = {str(name): res for name, entry in libraries.items() if (res := _resolution(entry))}
    if library_id is not None:
        if library_id not in images:
            raise ValueError(
                f"Expected library_id to be the name of an image in adata.uns['spatial'], found {library_id!r}; there "
                f"are {sorted(images)}"
            )
        return (library_id, images[library_id]), ""
    if spatial_key != _keys.SPATIAL or not images:
        return None, ""
    choose = "draw the image of these spots: " + " or ".join(f"library_id={name!r}" for name in sorted(images)[:3])
    named, where = _named_sections(adata, set(map(str, libraries)))
    if len(named) > 1:
        return None, f"the spots are of several sections, {_some(named)} in {where}; draw one of them, or {choose}"
    if named:
        name = next(iter(named))
        if name in images:
            return (name, images[name]), ""
        return None, f"the section of the spots is {name!r} in {where}, and no image is called so; {choose}"
    fitting = [name for name in images if _lies_on(adata, libraries[name], images[name])]
    if len(fitting) == 1:
        return (fitting[0], images[fitting[0]]), ""
    if fitting:
        return None, f"the spots lie on each of the images {_some(fitting)}, and nothing says which is theirs; {choose}"
    return None, f"the spots lie beside the image of {_some(images)}; if it is theirs, {choose}"


def _some(names: Iterable[str]) -> str:
    """A few names, for a message."""
    return ", ".join(map(repr, sorted(names)[:3]))


def _resolution(library: Any) -> str | None:
    """The best image of a library that spots can be put on; None where there is none."""
    if not isinstance(library, Mapping) or library.get("metadata", {}).get("image") == "blank":
        return None
    images, factors = library.get("images") or {}, library.get("scalefactors") or {}
    fit = (r for r in ("hires", "lowres") if {"spot_diameter_fullres", f"tissue_{r}_scalef"} <= set(factors))
    return next((r for r in fit if r in images), None)


def _named_sections(adata: AnnData, libraries: set[str]) -> tuple[set[str], str]:
    """Names of the sections of the spots, and where they stand; no name where nothing says it.

    A column counts if a value of it is the name of a library; a column of sections, and what is added to the names of
    all spots, whatever it is: a section may have no image.
    """
    key = _keys.sections_key(adata)
    sections = [c for c in adata.obs.columns if c == key or OF_LIBRARIES.fullmatch(str(c))]
    sections.sort(key=lambda c: (c != key, str(c) not in ("library_id", _keys.SECTION)))
    held = {c: column(adata.obs, c) for c in (*sections, *(c for c in adata.obs.columns if c not in sections))}
    values = {  # a spot without a name may be of any section
        f"adata.obs[{name!r}]": (name in sections, set(labels[~labels.isna()].map(as_text)) | _missing(labels))
        for name, labels in held.items()
        if name in sections or _is_text(labels)
    }
    values["the names of the spots"] = (True, _added_to_names(adata.obs_names.astype(str), libraries))
    for fits in (
        lambda _, found: found <= libraries,
        lambda _, found: found & libraries,
        lambda of_sections, found: of_sections and found - {MISSING_NAME},
    ):
        for where, (of_sections, found) in values.items():
            if found and fits(of_sections, found):
                return found, where
    return set(), ""


MISSING_NAME = "no name"
"""Stands for the section of spots that have none."""


def _missing(labels: pd.Series) -> set[str]:
    return {MISSING_NAME} if labels.isna().any() else set()


def _added_to_names(names: pd.Index, libraries: set[str]) -> set[str]:
    """What a join added to the names of the spots: the name of a library, or all that there is beside barcodes."""
    added = {
        name: names.str.endswith((f"-{name}", f"_{name}")) | names.str.startswith((f"{name}-", f"{name}_"))
        for name in libraries
        if not name.isdigit()  # the number at the end of a 10x barcode is no section
    }
    of_none = ~np.logical_or.reduce([np.zeros(len(names), dtype=bool), *added.values()])
    found = {name for name, there in added.items() if there.any()}
    if not of_none.any():
        return found
    text = pd.Series(names[of_none])
    beside = text.str.extract(rf"^(?P<first>.*?)[-_]?{BARCODE}[-_]?(?P<last>.*)$")
    if beside.isna().any(axis=None):
        ends = text.str.extract(r"[-_]([^-_]+)$")[0]  # one ending of all, if any; Xenium and Visium HD end in 1
        return found | set(ends) - {"1"} if ends.notna().all() and ends.nunique() == 1 else set()
    return found | set(beside["first"] + beside["last"]) - {""}


def _is_text(labels: pd.Series) -> bool:
    return isinstance(labels.dtype, pd.CategoricalDtype) or not pd.api.types.is_numeric_dtype(labels)


def _lies_on(adata: AnnData, library: Any, resolution: str) -> bool:
    """Whether the spots, but for a few, lie on the image."""
    factors = library["scalefactors"]
    scale, margin = float(factors[f"tissue_{resolution}_scalef"]), float(factors["spot_diameter_fullres"])
    height, width = np.shape(library["images"][resolution])[:2]
    xy = np.asarray(adata.obsm[_keys.SPATIAL], dtype=float)[:, :2]
    on = (xy >= -margin) & (xy <= np.array([width, height]) / scale + margin)
    return bool(on.all(axis=1).mean() >= ON_IMAGE)


def section(adata: AnnData, library_id: str | None = None) -> Figure:
    """Show the image of the section with the outlines of its spots.

    Parameters
    ----------
    adata
        With an image in ``.uns["spatial"]`` (:func:`find_image`).
    library_id
        Name of the image in ``.uns["spatial"]``, where there are several.

    Returns
    -------
    The figure; ``adata`` is not changed.

    Raises
    ------
    ValueError
        If there is no image.
    """
    found, why = _image_of(adata, _keys.SPATIAL, library_id)
    if found is None:
        raise ValueError(
            "Expected an image of the section in adata.uns['spatial'], found none"
            + (f" to draw: {why}" if why else "; read it with stcsm.io.read_st(..., image=, transformation=)")
        )
    library, resolution = found
    entry = adata.uns["spatial"][library]
    scale = entry["scalefactors"][f"tissue_{resolution}_scalef"]
    xy = np.asarray(adata.obsm[_keys.SPATIAL], dtype=float)[:, :2] * scale
    fig, ax = plt.subplots(figsize=(4.6, 4.6))
    ax.imshow(np.asarray(entry["images"][resolution]))
    ax.scatter(xy[:, 0], xy[:, 1], s=6, facecolors="none", edgecolors="black", linewidths=0.3)
    margin = 0.06 * np.ptp(xy, axis=0).max()
    ax.set_xlim(xy[:, 0].min() - margin, xy[:, 0].max() + margin)
    ax.set_ylim(xy[:, 1].max() + margin, xy[:, 1].min() - margin)
    ax.set_axis_off()
    return fig
