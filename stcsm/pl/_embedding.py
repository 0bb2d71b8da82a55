"""The gene embedding in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import Colormap

from stcsm import _keys
from stcsm._lazy import in_memory
from stcsm._text import did_you_mean
from stcsm.pl._colour import colour_bar, colours, limits
from stcsm.pl._figure import LABEL, TICK, TITLE, ColourOptions, Panels, figure_of, plot
from stcsm.pl._read import MAKERS, label, table

PLAIN = "#777777"
LETTER = 0.075
"""Width of a letter of a gene's name in inches."""


@dataclass(frozen=True, kw_only=True)
class GeneOptions(ColourOptions):
    """Of plots with a point a gene."""

    size: Annotated[float | None, "Area of a gene's point in square points."] = None


@plot
def embedding(
    adata: AnnData,
    color: str | None = None,
    *,
    genes: Sequence[str] = (),
    basis: str = "pca",
    look: GeneOptions,
) -> Panels:
    """Show the gene embedding in two dimensions, coloured by the genes' scores on a concept.

    Parameters
    ----------
    adata
        With a gene embedding (:func:`stcsm.tl.embed_genes`).
    color
        Concept whose scores colour the genes; None for one colour.
    genes
        Genes to name in the plot.
    basis
        ``"pca"``: the two principal axes of the embedding; ``"umap"``: :func:`stcsm.tl.gene_umap`; or a key of
        ``.varm`` with coordinates in two columns.

    Raises
    ------
    ValueError
        If there is no embedding, or a concept or gene is unknown.
    """
    unknown = [g for g in genes if g not in adata.var_names]
    if unknown:
        raise ValueError(
            f"Expected gene names of this AnnData, found {unknown[0]!r}{did_you_mean(unknown[0], adata.var_names)}"
        )
    xy, names = _principal_axes(adata) if basis == "pca" else _stored(adata, basis)
    known = np.isfinite(xy).all(axis=1)
    panels = Panels(1, look, (4.6, 3.8) if color and look.colorbar else (3.8, 3.8))
    (ax,) = panels.axes
    common: dict[str, Any] = {"s": look.size or 5, "linewidths": 0, "rasterized": True}
    title = ""
    if color is None:
        x, y = xy[known].T
        ax.scatter(x, y, color=PLAIN, alpha=0.5 if look.alpha is None else look.alpha, **common)
    else:
        scores = table(adata, _keys.CONCEPT_SCORE, color, where="varm").iloc[:, 0]
        values = scores.to_numpy(dtype=float)[known]
        order = np.argsort(np.abs(values))
        norm = limits(values, look)
        cmap: Colormap = colours(look, norm)
        x, y = xy[known][order].T
        ax.scatter(x, y, c=values[order], cmap=cmap, norm=norm, alpha=look.alpha, **common)
        if look.colorbar:
            colour_bar(ax, norm, cmap, "concept score", alpha=look.alpha)
        title = label(adata, str(scores.name))
    ax.set_title(panels.title(0, title), fontsize=TITLE)
    ax.set_xlabel(names[0], fontsize=LABEL)
    ax.set_ylabel(names[1], fontsize=LABEL)
    ax.tick_params(labelsize=TICK)
    ax.spines[["top", "right"]].set_visible(False)
    if basis != "pca":
        ax.set_xticks([])
        ax.set_yticks([])
    _name(ax, xy[adata.var_names.get_indexer(list(genes))], list(genes))
    return panels


def _name(ax: Axes, xy: np.ndarray, genes: list[str]) -> None:
    """Rings around genes, and their names in a column on the nearer side, so that none covers another."""
    there = np.isfinite(xy).all(axis=1)
    names, xy = [gene for gene, known in zip(genes, there, strict=True) if known], xy[there]
    if not names:
        return
    ax.plot(*xy.T, "o", ms=4, mfc="none", mec="black", mew=0.8)
    figure = figure_of(ax)
    figure.draw_without_rendering()  # the size of the panel is that of the final layout
    inches = np.asarray(ax.get_window_extent().size, dtype=float) / figure.dpi
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    # Half of the names on each side, the room for them beside the points.
    order = np.argsort(xy[:, 0], kind="stable")
    sides = order[: len(order) // 2], order[len(order) // 2 :]
    room = [LETTER * max((len(names[row]) for row in rows), default=0) for rows in sides]
    inch = (right - left) / max(inches[0] - sum(room), 1)
    ax.set_xlim(left - room[0] * inch, right + room[1] * inch)
    line = 1.3 * LABEL / 72 / inches[1] * (top - bottom)
    for side, rows in zip((left, right), sides, strict=True):
        rows = rows[np.argsort(xy[rows, 1], kind="stable")]
        for row, y in zip(rows, _apart(xy[rows, 1], line, bottom, top), strict=True):
            ax.annotate(
                names[row], xy[row], (side, y), fontsize=LABEL, va="center", ha="right" if side == left else "left",
                arrowprops={"arrowstyle": "-", "color": "black", "lw": 0.4, "shrinkA": 1, "shrinkB": 2},
            )  # fmt: skip


def _apart(heights: np.ndarray, least: float, low: float, high: float) -> np.ndarray:
    """Heights in order, moved until neighbours are at least so far apart, within limits as far as there is room."""
    n = len(heights)
    steps = least * np.arange(n)
    if n > 1 and steps[-1] > high - low:
        return np.linspace(low, high, n)
    up = np.maximum.accumulate(np.maximum(heights, low) - steps) + steps
    down = np.minimum.accumulate((np.minimum(up, high) - steps)[::-1])[::-1] + steps
    moved: np.ndarray = np.maximum(down, low + steps)
    return moved


def _principal_axes(adata: AnnData) -> tuple[np.ndarray, tuple[str, str]]:
    """Genes on the two principal axes of the embedding, and what the axes are called."""
    if _keys.EMBEDDING not in adata.varm:
        raise ValueError(f"Expected adata.varm[{_keys.EMBEDDING!r}], found none; run {MAKERS[_keys.EMBEDDING]} first")
    z = np.asarray(in_memory(adata.varm[_keys.EMBEDDING]), dtype=float)
    if z.shape[1] < 2:
        raise ValueError(f"Expected an embedding of two dimensions or more, found {z.shape[1]}")
    known = np.isfinite(z).all(axis=1)
    centred = z - z[known].mean(axis=0)
    _, spread, axes = np.linalg.svd(centred[known], full_matrices=False)
    share = spread**2 / np.sum(spread**2)
    return centred @ axes[:2].T, (f"axis 1 ({share[0]:.0%} of variance)", f"axis 2 ({share[1]:.0%})")


def _stored(adata: AnnData, basis: str) -> tuple[np.ndarray, tuple[str, str]]:
    """Coordinates of genes that were computed before."""
    key = _keys.GENE_UMAP if basis == "umap" else basis
    if key not in adata.varm:
        fix = "run stcsm.tl.gene_umap(adata)" if basis == "umap" else f"there are {sorted(map(str, adata.varm))}"
        raise ValueError(f"Expected adata.varm[{key!r}], found none; {fix}")
    xy = np.asarray(in_memory(adata.varm[key]), dtype=float)
    if xy.ndim != 2 or xy.shape[1] < 2:
        raise ValueError(f"Expected coordinates of genes in two columns of adata.varm[{key!r}], found {xy.shape}")
    name = "UMAP" if basis == "umap" else basis
    return xy[:, :2], (f"{name} 1", f"{name} 2")
