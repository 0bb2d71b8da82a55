"""Figures of concepts: histograms of scores, saliency beside or over the faces, faces along a concept vector."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_auc_score

from stcsm.images._concepts import STEPS
from stcsm.images._saliency import SaliencyMaps

__all__ = ["clip_map", "plot_histograms", "plot_saliency", "plot_traversal"]

WITH, WITHOUT = "#b2182b", "#878787"


def plot_histograms(
    scores: pd.DataFrame,
    attributes: pd.DataFrame,
    names: Sequence[str] | None = None,
    *,
    bins: int = 30,
    ncols: int | None = None,
) -> Figure:
    """Draw histograms of concept scores of images with and without each attribute, one panel per attribute.

    Parameters
    ----------
    scores
        One row per image, one column per concept; see `concept_scores`.
    attributes
        Booleans, one row per image in the same order.
    names
        Concepts to draw; None is all.
    bins
        Bins of each histogram, over the central 99.8% of the scores. Areas are one.
    ncols
        Panels per row; None chooses.

    Returns
    -------
    The figure. A panel's title contains the attribute and the AUROC of its score.

    Raises
    ------
    ValueError
        If rows do not match or a name is unknown.
    """
    shown = list(scores) if names is None else list(names)
    for name in shown:
        if name not in scores or name not in attributes:
            raise ValueError(f"Expected concepts among {', '.join(map(str, scores))}, found {name!r}.")
    if len(scores) != len(attributes):
        raise ValueError(f"Expected attributes of {len(scores)} images, found {len(attributes)}.")
    if bins < 1 or (ncols is not None and ncols < 1):
        raise ValueError(f"Expected at least 1 bin and 1 panel per row, found {bins} and {ncols}.")
    if not shown:
        raise ValueError("Expected at least one concept, found none.")
    across = ncols or (len(shown) if len(shown) <= 5 else 5 if len(shown) <= 20 else 8)
    across = min(across, len(shown))
    down = -(-len(shown) // across)
    figure, axes = plt.subplots(down, across, figsize=(1.75 * across, 1.4 * down + 0.6), squeeze=False)
    figure.set_layout_engine("constrained", h_pad=0.05, w_pad=0.05)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, shown, strict=False):
        values, has = scores[name].to_numpy(dtype=float), attributes[name].to_numpy(dtype=bool)
        low, high = np.percentile(values, [0.1, 99.9])
        edges = np.linspace(low, high if high > low else low + 1, bins + 1)
        for side, colour in ((~has, WITHOUT), (has, WITH)):
            if side.any():
                axis.hist(np.clip(values[side], edges[0], edges[-1]), edges, density=True, color=colour, alpha=0.35)
                axis.hist(
                    np.clip(values[side], edges[0], edges[-1]),
                    edges,
                    density=True,
                    color=colour,
                    histtype="step",
                    lw=0.9,
                )
        auroc = f"{roc_auc_score(has, values):.2f}" if 0 < has.sum() < len(has) else "–"
        axis.set_title(f"{_words(name)}  {auroc}", fontsize=7, pad=3)
        axis.set_yticks([])
        axis.tick_params(labelsize=6, length=2, pad=1)
        axis.xaxis.set_major_locator(plt.MaxNLocator(3))
        axis.spines[["top", "right", "left"]].set_visible(False)
    handles = [
        Patch(facecolor=WITH, alpha=0.5, label="with the attribute"),
        Patch(facecolor=WITHOUT, alpha=0.5, label="without"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize=7, frameon=False)
    figure.supxlabel("concept score (title: AUROC)", fontsize=7)
    return figure


def plot_saliency(
    maps: SaliencyMaps,
    concepts: Sequence[str] | None = None,
    *,
    n: int | None = None,
    overlay: bool = False,
    channels: str = "abs",
    smooth: float | None = None,
    percentiles: tuple[float, float] = (0.5, 99.5),
    cmap: str | None = None,
    opacity: float = 0.75,
) -> Figure:
    """Draw faces and, beside or over each, its concept saliency map; one row per concept.

    Parameters
    ----------
    maps
        Result of `saliency`.
    concepts
        Concepts to draw; None is all.
    n
        Images per concept; None is all.
    overlay
        Draw the map over the face in grey instead of beside it.
    channels, smooth
        See `pixel_maps`. The published figures use ``channels="sum", smooth=0``.
    percentiles
        Each map is clipped at these percentiles of its own values (by default the published ones), then scaled to the
        range of the colour map.
    cmap
        Matplotlib colour map; by default sequential, and for ``channels="sum"`` diverging around zero.
    opacity
        Of the strongest pixels of an overlay.

    Returns
    -------
    The figure.

    Raises
    ------
    ValueError
        If a concept is unknown, or percentiles are not between 0 and 100 in increasing order.
    """
    shown = maps.concepts if concepts is None else list(concepts)
    unknown = [name for name in shown if name not in maps.concepts]
    if unknown or not shown:
        raise ValueError(
            f"Expected concepts among {', '.join(maps.concepts)}, found {unknown[0] if unknown else 'none'!r}."
        )
    if n is not None and n < 1:
        raise ValueError(f"Expected n of at least 1, found {n}.")
    if not 0 <= opacity <= 1:
        raise ValueError(f"Expected an opacity between 0 and 1, found {opacity}.")
    values = maps.by_pixel(channels, smooth)
    each = values.shape[1] if n is None else min(n, values.shape[1])
    signed = channels == "sum"
    colours = plt.get_cmap(cmap or ("RdBu_r" if signed else "inferno"))
    wide = each if overlay else 2 * each
    figure, axes = plt.subplots(
        len(shown), wide, figsize=(0.95 * wide + 0.9, 0.95 * len(shown)), squeeze=False,
        gridspec_kw={"wspace": 0.03, "hspace": 0.06, "left": 0.9 / (0.95 * wide + 0.9), "right": 0.995, "top": 0.995,
                     "bottom": 0.005},
    )  # fmt: skip
    for row, name in zip(axes, shown, strict=True):
        k = maps.concepts.index(name)
        row[0].text(
            -0.08, 0.5, _words(name, line=True), transform=row[0].transAxes, ha="right", va="center", fontsize=8
        )
        for i in range(each):
            face, weight = maps.pixels[k, i], clip_map(values[k, i], percentiles, signed)
            if overlay:
                row[i].imshow(_overlaid(face, weight, colours, opacity, signed), interpolation="nearest")
            else:
                row[2 * i].imshow(face, interpolation="nearest")
                row[2 * i + 1].imshow(weight, cmap=colours, vmin=-1 if signed else 0, vmax=1, interpolation="nearest")
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
    return figure


def plot_traversal(faces: ArrayLike, concepts: Sequence[str], steps: Sequence[float] = STEPS) -> Figure:
    """Draw a traversal: one row per concept and starting point, one column per step.

    Parameters
    ----------
    faces
        (K, n, T, size, size, 3), as `traverse` returns them.
    concepts
        K names.
    steps
        T values.

    Returns
    -------
    The figure.

    Raises
    ------
    ValueError
        If the numbers of concepts or steps do not match the faces.
    """
    drawn = np.asarray(faces)
    if drawn.ndim != 6 or drawn.shape[0] != len(concepts) or drawn.shape[2] != len(steps):
        raise ValueError(
            f"Expected faces of shape ({len(concepts)} concepts, n, {len(steps)} steps, size, size, 3), found "
            f"{drawn.shape}."
        )
    k, n, t = drawn.shape[:3]
    figure, axes = plt.subplots(
        k * n, t, figsize=(0.95 * t + 0.9, 0.95 * k * n + 0.25), squeeze=False,
        gridspec_kw={"wspace": 0.03, "hspace": 0.06, "left": 0.9 / (0.95 * t + 0.9), "right": 0.995,
                     "top": 1 - 0.25 / (0.95 * k * n + 0.25), "bottom": 0.005},
    )  # fmt: skip
    for row, (c, i) in zip(axes, np.ndindex(k, n), strict=True):
        if i == 0:
            text = str(concepts[c]).replace("_", "\n")
            row[0].text(-0.08, 0.5, text, transform=row[0].transAxes, ha="right", va="center", fontsize=8)
        for j, axis in enumerate(row):
            axis.imshow(drawn[c, i, j], interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
    for axis, step in zip(axes[0], steps, strict=True):
        axis.set_title(f"{step:+g} v" if step else "z", fontsize=8, pad=3)
    return figure


def clip_map(
    values: ArrayLike, percentiles: tuple[float, float] = (0.5, 99.5), signed: bool = False
) -> NDArray[np.float64]:
    """Clip a map at percentiles of its values, so that a few pixels do not determine the colours, and scale it.

    Parameters
    ----------
    values
        (size, size).
    percentiles
        Lower and upper percentile.
    signed
        Keep zero at zero, and divide by the larger absolute limit.

    Returns
    -------
    (size, size): 0 to 1, or with ``signed`` -1 to 1.

    Raises
    ------
    ValueError
        If percentiles are not two numbers between 0 and 100 in increasing order.
    """
    low, high = percentiles
    if not 0 <= low < high <= 100:
        raise ValueError(f"Expected two percentiles between 0 and 100, in order, found {percentiles}.")
    array = np.asarray(values, dtype=np.float64)
    a, b = np.percentile(array, [low, high])
    clipped = np.clip(array, a, b)
    if signed:
        top = max(abs(a), abs(b))
        return clipped / top if top > 0 else clipped
    return (clipped - a) / (b - a) if b > a else np.zeros_like(clipped)


def _overlaid(
    face: NDArray[np.uint8], weight: NDArray[np.float64], colours: plt.Colormap, opacity: float, signed: bool
) -> NDArray[np.float64]:
    """Colours over the grey face; the opacity is proportional to the map."""
    grey = (face @ np.array([0.299, 0.587, 0.114]) / 255)[..., None].repeat(3, axis=-1)
    paint = colours((weight + 1) / 2 if signed else weight)[..., :3]
    alpha = opacity * np.abs(weight)[..., None]
    return grey * (1 - alpha) + paint * alpha


def _words(name: object, line: bool = False) -> str:
    """Replace the underscores of CelebA's attribute names."""
    return str(name).replace("_", "\n" if line else " ")
