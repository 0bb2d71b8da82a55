"""The one drawing function below all plots of values on the tissue: spots at their size, on the image or on white."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.collections import Collection, EllipseCollection, LineCollection, PolyCollection

from stcsm import _keys
from stcsm._lazy import column, in_memory
from stcsm._text import by_its_text, did_you_mean
from stcsm._verdict import LEVEL
from stcsm.pl._colour import colour_bar, colours, limits
from stcsm.pl._figure import PANEL, TICK, TITLE, ColourOptions, PanelOptions, Panels
from stcsm.pl._outline import inmost, outlines, spacing
from stcsm.pl._read import tested_key
from stcsm.pl._tissue import image_of

logger = logging.getLogger(__name__)

BAR = 0.75
"""What a colour bar takes of a panel's width, in inches."""
VECTORS = 5000
"""Spots up to which a saved figure holds each as a shape, at its true size over an image; more become pixels."""
LINE = 50
"""Letters of the small line under a title that are as wide as a panel."""
FADED = 0.7
"""Opacity of the image under values: colours are seen on it, and so is the tissue."""
FAINT = 0.2
"""Opacity of spots whose q is not below the level."""


@dataclass(frozen=True, kw_only=True)
class TissueOptions(ColourOptions, PanelOptions):
    """Of plots on the tissue."""

    img: Annotated[bool, "Show the image of the section under the spots, where there is one."] = True
    size: Annotated[
        float | None,
        "Diameter of the spots as a multiple of the usual one: over an image that of the scale factors, otherwise (and "
        "of more than 5000 spots) so large that neighbours touch.",
    ] = None
    shape: Annotated[Literal["circle", "square"], 'Shape of the spots: ``"circle"``, or ``"square"`` for bins.'] = (
        "circle"
    )
    groupby: Annotated[str | None, "Column of ``.obs`` with tissue labels, which are outlined and named."] = None
    groups: Annotated[str | Sequence[str] | None, "Labels to outline; None is all of them."] = None
    significance: Annotated[
        Literal["contour", "alpha"] | None,
        "Show where q of the saliency map is below 0.05 (:func:`stcsm.tl.significance`): by a line around these spots, "
        "or by making the others faint.",
    ] = None
    spatial_key: Annotated[str, "Key of the coordinates in ``.obsm``."] = _keys.SPATIAL
    library_id: Annotated[
        str | None,
        'Name of the image in ``.uns["spatial"]``; by default the one that belongs to these spots, and none, with a '
        "message in the log, where that cannot be known (:func:`find_image`).",
    ] = None


@dataclass(frozen=True)
class Tissue:
    """Where the spots lie and what lies under them."""

    xy: np.ndarray
    diameter: float
    pixels: np.ndarray | None
    behind: tuple[float, float, float] | None
    """Typical colour of the image under the spots."""

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of a panel in inches."""
        spread = np.ptp(self.xy, axis=0)
        aspect = float(np.clip(spread[1] / spread[0], 0.4, 2.0)) if (spread > 0).all() else 1.0
        return PANEL, (PANEL - BAR) * aspect + 0.45


def tissue_of(adata: AnnData, look: TissueOptions, *, required: bool = False) -> Tissue:
    """Coordinates, size and image of the spots.

    Raises
    ------
    ValueError
        If there are no coordinates, sections lie on one another, or the image is unknown, or is required and absent.
    """
    key = look.spatial_key
    if key not in adata.obsm:
        raise ValueError(f"Expected coordinates in adata.obsm[{key!r}], found {sorted(map(str, adata.obsm))}")
    check_one_section(adata, key)
    xy = np.asarray(adata.obsm[key], dtype=float)[:, :2]
    image, why = image_of(adata, key, look.library_id)
    if required and not image:
        raise ValueError(
            "Expected an image of the section in adata.uns['spatial'], found none"
            + (f" to draw: {why}" if why else "; read it with stcsm.io.read_st(..., image=, transformation=)")
        )
    if why and look.img:
        logger.warning(f"no image is drawn: {why}")
    factor = 1.0 if look.size is None else look.size
    if not image or not look.img:
        return Tissue(xy, factor * spacing(xy), None, None)
    library, resolution = image
    entry = in_memory(adata.uns["spatial"][library])
    scale = float(entry["scalefactors"][f"tissue_{resolution}_scalef"])
    pixels = _as_rgb(np.asarray(entry["images"][resolution]))
    xy = xy * scale
    at = np.clip(np.rint(xy).astype(int), 0, np.array(pixels.shape[1::-1]) - 1)
    under = pixels[at[:, 1], at[:, 0]][:, :3] / 255
    # In a panel, many spots are too small for the tissue to be seen between them, and only dim their own colours.
    true = float(entry["scalefactors"]["spot_diameter_fullres"]) * scale
    diameter = factor * (true if len(xy) <= VECTORS else max(true, spacing(xy)))
    red, green, blue = map(float, 1 - FADED * (1 - np.median(under, axis=0)))
    return Tissue(xy, diameter, pixels, (red, green, blue))


def _as_rgb(image: np.ndarray) -> np.ndarray:
    """RGB or RGBA (H, W, 3 or 4), uint8, of an image (H, W) or (H, W, channels) of any numbers.

    Those of a microscope fill only some of 16 bits, so there white is the brightest value, though no darker than 255.
    """
    bands = image[..., None] if image.ndim == 2 else image
    whole = bands.dtype.kind in "iu"
    brightest = 255.0 if bands.dtype == np.uint8 else float(bands.max())
    white = max(brightest, 255.0) if whole or brightest > 1 else 1.0
    kept = bands[..., :4] if bands.shape[2] == 4 else bands[..., :3] if bands.shape[2] > 2 else bands[..., [0, 0, 0]]
    if kept.dtype == np.uint8:
        return kept
    return np.rint(np.clip(np.asarray(kept, dtype=np.float32) / np.float32(white), 0, 1) * 255).astype(np.uint8)


def draw_panels(adata: AnnData, values: pd.DataFrame, titles: list[tuple[str, str]], units: str, look: TissueOptions,
                key: str) -> Panels:  # fmt: skip
    """One panel a column of ``values`` (S, K), on the tissue; titles in a large and a small line."""
    tissue = tissue_of(adata, look)
    marks = Marks(adata, tissue, look, key)
    panels = Panels(values.shape[1], look, tissue.size, ncols=look.ncols)
    for k, ax in enumerate(panels.axes):
        draw_tissue(
            ax, tissue, values.iloc[:, k].to_numpy(dtype=float), units, look, k, marks.alpha(str(values.columns[k]))
        )
        marks.draw(ax, str(values.columns[k]))
        write_title(ax, *(titles[k] if panels.titles is None else (panels.titles[k], "")))
    return panels


def draw_tissue(
    ax: Axes,
    tissue: Tissue,
    values: np.ndarray,
    units: str,
    look: TissueOptions,
    k: int = 0,
    alpha: np.ndarray | None = None,
) -> None:
    """Values (S,) as spots in one panel, with their colour bar."""
    norm = limits(values, look, k)
    cmap = colours(look, norm, on_image=tissue.pixels is not None and look.alpha is None)
    draw_image(ax, tissue, FADED)
    known = np.isfinite(values)
    spots = _spots(tissue.xy[known], tissue.diameter, look.shape, ax)
    spots.set(array=values[known], norm=norm, cmap=cmap, zorder=2)
    spots.set_alpha(look.alpha if alpha is None else alpha[known] * (1.0 if look.alpha is None else look.alpha))
    spots.set_rasterized(len(values) > VECTORS)
    ax.add_collection(spots, autolim=False)
    frame(ax, tissue.xy, spacing(tissue.xy))
    if look.colorbar:
        colour_bar(ax, norm, cmap, units, alpha=look.alpha, behind=tissue.behind)


def draw_image(ax: Axes, tissue: Tissue, opacity: float = 1.0) -> None:
    """The image of the section, if there is one."""
    if tissue.pixels is not None:
        ax.imshow(tissue.pixels, interpolation="bilinear", alpha=opacity, zorder=0)


def frame(ax: Axes, xy: np.ndarray, pitch: float) -> None:
    """Show the spots and a margin around them, rows downwards as in an image."""
    (left, top), (right, bottom) = xy.min(axis=0) - 1.2 * pitch, xy.max(axis=0) + 1.2 * pitch
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)
    ax.set_aspect("equal")
    ax.set_axis_off()


def write_title(ax: Axes, title: str, below: str = "") -> None:
    """A title, and a small line under it."""
    below = textwrap.fill(below.replace(" = ", "\xa0=\xa0"), LINE).replace("\xa0", " ")  # q stays with its value
    ax.set_title(title, fontsize=TITLE, pad=(1.2 * TICK * (1 + below.count("\n")) + 6) if below else 4)
    if below:
        ax.annotate(below, (0.5, 1), (0, 4), "axes fraction", "offset points", ha="center", va="bottom", fontsize=TICK)


def _spots(xy: np.ndarray, diameter: float, shape: str, ax: Axes) -> Collection:
    if shape == "circle":
        across = np.full(len(xy), diameter)
        return EllipseCollection(
            across, across, np.zeros(len(xy)), units="xy", offsets=xy, offset_transform=ax.transData, linewidths=0
        )
    if shape != "square":
        raise ValueError(f"Expected shape to be 'circle' or 'square', found {shape!r}")
    corners = diameter / 2 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    return PolyCollection(list(xy[:, None] + corners), linewidths=0)


class Marks:
    """Outlines of labels, and where a map is significant."""

    def __init__(self, adata: AnnData, tissue: Tissue, look: TissueOptions, shown: str) -> None:
        self.xy, self.pitch, self.look = tissue.xy, spacing(tissue.xy), look
        self.q: pd.DataFrame = _q_values(adata, look, shown)
        self.names, self.labels = _labels(adata, look)
        self.lines = list(outlines(self.xy, self.labels)) if self.names else []

    def alpha(self, concept: str) -> np.ndarray | None:
        if self.look.significance != "alpha":
            return None
        return np.where(self._significant(concept), 1.0, FAINT)

    def _significant(self, concept: str) -> np.ndarray:
        if concept not in self.q:
            return np.ones(len(self.xy), dtype=bool)
        return self.q[concept].to_numpy(dtype=float) < LEVEL

    def draw(self, ax: Axes, concept: str, *, significant: bool = True) -> None:
        white = [patheffects.withStroke(linewidth=1.8, foreground="white")]
        if self.lines:
            ax.add_collection(LineCollection(self.lines, colors="black", linewidths=0.7, capstyle="round", zorder=3))
            for k, name in enumerate(self.names):
                x, y = inmost(self.xy, self.labels, k)
                ax.text(
                    x,
                    y,
                    textwrap.fill(name, 11),
                    fontsize=5.5,
                    linespacing=1.05,
                    ha="center",
                    va="center",
                    zorder=5,
                    path_effects=white,
                )
        if significant and self.look.significance == "contour" and concept in self.q:
            lines = list(outlines(self.xy, np.where(self._significant(concept), 0, -1)))
            ax.add_collection(
                LineCollection(lines, colors="black", linewidths=1.1, capstyle="round", zorder=4, path_effects=white)
            )


def _q_values(adata: AnnData, look: TissueOptions, shown: str) -> pd.DataFrame:
    if look.significance is None:
        return pd.DataFrame()
    if look.significance not in ("contour", "alpha"):
        raise ValueError(f"Expected significance to be 'contour' or 'alpha', found {look.significance!r}")
    key = _keys.qval(tested_key(adata, shown))
    if key not in adata.obsm:
        raise ValueError(f"Expected adata.obsm[{key!r}], found none; run stcsm.tl.significance(adata, model) first")
    return pd.DataFrame(in_memory(adata.obsm[key]))


def _labels(adata: AnnData, look: TissueOptions) -> tuple[list[str], np.ndarray]:
    """Names of the labels to outline, and the number of each spot's (-1: none of them)."""
    if look.groupby is None:
        return [], np.empty(0)
    if look.groupby not in adata.obs:
        raise ValueError(f"Expected groupby to be a column of adata.obs, found {look.groupby!r}; there are "
                         f"{list(map(str, adata.obs.columns))}")  # fmt: skip
    held = column(adata.obs, look.groupby)
    text = held.astype(str).where(held.notna())
    there = sorted(text.dropna().unique())
    asked = [look.groups] if isinstance(look.groups, str) else look.groups
    wanted = there if asked is None else [by_its_text(name, there) for name in asked]
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise ValueError(f"Expected groups among {there}, found {unknown[0]!r}{did_you_mean(unknown[0], there)}")
    return wanted, pd.Categorical(text, wanted).codes.astype(int)


def check_one_section(adata: AnnData, spatial_key: str) -> None:
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
