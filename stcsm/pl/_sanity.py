"""How far maps can be trusted: what :func:`stcsm.tl.sanity` found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from stcsm.pl._figure import LABEL, FigureOptions, Panels, figure_of, plot
from stcsm.pl._read import label, sanity_record

MOST = 30
"""Concepts that a figure can show."""
ALIKE = 0.5
"""From this correlation on, two maps show much the same (see ``stcsm.evaluation.verdict``)."""
CELL = 0.34
"""Edge of a cell of the matrix in inches."""
GREY, BAD, NETWORK, SEED, OPPOSITE = "#9a9a9a", "#b2182b", "#2166ac", "#1b7837", "#d6604d"


@plot
def sanity(adata: AnnData, concepts: Sequence[str] | str | None = None, *, look: FigureOptions) -> Panels:
    """Show what :func:`stcsm.tl.sanity` found.

    Left, a row a concept: correlation of its map with maps that should differ from it, and with the map of another
    seed, which should not. Maps in the red field are much the same as the concept's; only the ring belongs there.
    Middle: correlation with the trained map as the encoder's network layers are re-initialised from the top (line and
    range over the draws, red where the map stays), or one alone (open circles; a layer that only normalises carries
    little). Right: correlations between the maps of the concepts. Concepts with a warning are red.

    Parameters
    ----------
    adata
        With ``adata.uns["stcsm"]["sanity"]``.
    concepts
        Names, at most 30; None is all of them.

    Raises
    ------
    ValueError
        If sanity was not checked, a concept is unknown or there are too many.
    """
    record, rows = sanity_record(adata, concepts)
    if len(rows) > MOST:
        raise ValueError(f"Expected at most {MOST} concepts in one figure, found {len(rows)}; name some of them")
    names = [label(adata, str(record["concepts"][k])) for k in rows]
    matrix = "correlation" in record and len(rows) > 1
    margin = 0.075 * max(len(name) for name in names)
    square = CELL * max(len(rows), 6)
    widths = [3.6 + margin, 3.0] + ([square + margin + 0.6] if matrix else [])
    height = max(2.9, 1.3 + 0.26 * len(rows), (square + 0.7 * margin + 0.4) if matrix else 0) + 0.5
    panels = Panels(len(widths), look, (sum(widths) / len(widths), height), width_ratios=widths)
    _rows(panels.axes[0], record, rows, names)
    _layers(panels.axes[1], record, rows)
    if matrix:
        _matrix(panels.axes[2], np.asarray(record["correlation"])[np.ix_(rows, rows)], names)
    for k, ax in enumerate(panels.axes):
        ax.set_title(panels.title(k, ax.get_title(loc="left")), fontsize=9, loc="left")
    if panels.own:
        panels.figure.legend(
            handles=_handles(record),
            fontsize=LABEL,
            frameon=False,
            ncols=6 if matrix else 3,
            loc="outside lower left",
            handletextpad=0.3,
        )
    return panels


def _handles(record: dict[str, Any]) -> list[Line2D]:
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("random gene", {"marker": "o", "ms": 3, "color": GREY}),
        ("their median", {"marker": "|", "ms": 9, "mew": 1.5, "color": "black"}),
        ("opposite concept", {"marker": "v", "ms": 5, "color": OPPOSITE}),
        ("random network", {"marker": "D", "ms": 4, "color": NETWORK}),
        ("one network layer alone", {"marker": "o", "ms": 4, "mfc": "white", "mec": GREY}),
    ]
    if "seeds" in record:
        kinds.append(("another seed (should agree)", {"marker": "o", "ms": 6, "mfc": "none", "mec": SEED, "mew": 1.6}))
    return [Line2D([], [], ls="", label=text, **style) for text, style in kinds]


def _rows(ax: Axes, record: dict[str, Any], rows: list[int], names: list[str]) -> None:
    y = np.arange(len(rows))
    ax.axvspan(ALIKE, 1.05, color=BAD, alpha=0.08, lw=0)
    ax.axvline(0, color="#cccccc", lw=0.8, zorder=0)
    random = np.asarray(record["random"])[rows]
    offset = np.random.default_rng(0).uniform(-0.2, 0.2, random.shape)
    ax.scatter(random, y[:, None] + offset, s=5, color=GREY, alpha=0.6, linewidths=0, rasterized=True)
    ax.scatter(np.median(random, axis=1), y, s=110, marker="|", color="black", linewidths=1.5, zorder=3)
    network = np.asarray(record["cascading"])[rows].mean(axis=2)
    ax.scatter(network[:, -1], y, s=24, marker="D", color=NETWORK, linewidths=0, zorder=4)
    ax.scatter(np.asarray(record["opposite"])[rows], y, s=30, marker="v", color=OPPOSITE, linewidths=0, zorder=4)
    if "seeds" in record:
        seeds = np.asarray(record["seeds"])[rows].min(axis=1)
        ax.scatter(seeds, y, s=46, facecolors="none", edgecolors=SEED, linewidths=1.6, zorder=5)
    ax.set_xlim(-1.05, 1.05)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks(y, names, fontsize=8)
    for tick, bad in zip(ax.get_yticklabels(), _warned(record, rows), strict=True):
        if bad:
            tick.set_color(BAD)
            tick.set_fontweight("bold")
    ax.set_xticks([-1, -0.5, 0, 0.5, 1])
    ax.tick_params(axis="x", labelsize=7)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("correlation with the concept's own map", fontsize=8)
    ax.set_title(f"Would another map look the same? ({record['method']})", fontsize=9, loc="left")
    ax.spines[["top", "right", "left"]].set_visible(False)


def _layers(ax: Axes, record: dict[str, Any], rows: list[int]) -> None:
    layers = [str(name) or "(encoder)" for name in record["layers"]]
    x = np.arange(len(layers) + 1)
    ax.axhspan(ALIKE, 1.05, xmin=0.6 / len(x), color=BAD, alpha=0.08, lw=0)
    ax.axhline(0, color="#cccccc", lw=0.8, zorder=0)
    alone = np.nanmean(np.asarray(record["independent"])[rows], axis=2)
    for k, values in zip(rows, alone, strict=True):
        cascading = np.asarray(record["cascading"])[k]
        line, low, high = (np.concatenate([[1.0], f(cascading, axis=1)]) for f in (np.mean, np.min, np.max))
        colour = BAD if (line[1:] >= ALIKE).any() else NETWORK
        ax.plot(x, line, color=colour, lw=1.2, alpha=0.8)
        ax.fill_between(x, low, high, color=colour, alpha=0.25 / len(rows) ** 0.5, lw=0)
        ax.scatter(x[1:], values, s=16, facecolors="white", edgecolors=GREY, linewidths=1, zorder=1)
    ax.set_ylim(-1.05, 1.05)
    ax.set_yticks([-1, -0.5, 0, 0.5, 1])
    ax.set_xticks(x, ["trained", *layers], rotation=30 if len(layers) <= 6 else 90, ha="right", fontsize=7)
    ax.tick_params(axis="y", labelsize=7)
    ax.set_xlabel("network layers re-initialised, from the top", fontsize=8)
    ax.set_ylabel("correlation with the trained map", fontsize=8)
    ax.set_title("Was it learned? (a line a concept)", fontsize=9, loc="left")
    ax.spines[["top", "right"]].set_visible(False)


def _warned(record: dict[str, Any], rows: list[int]) -> list[bool]:
    return [bool(text) for text in record["summary"]["warning"].iloc[rows]]


def _matrix(ax: Axes, values: np.ndarray, names: list[str]) -> None:
    image = ax.imshow(values, vmin=-1, vmax=1, cmap="RdBu_r")
    ticks = np.arange(len(names))
    ax.set_xticks(ticks, names, rotation=45, ha="right", fontsize=7)
    ax.set_yticks(ticks, names, fontsize=7)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if len(names) <= 10:
        for i, j in np.ndindex(values.shape):
            colour = "white" if abs(values[i, j]) > 0.6 else "black"
            ax.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", fontsize=6.5, color=colour)
    ax.set_title("Maps of the concepts", fontsize=9, loc="left")
    bar = figure_of(ax).colorbar(image, ax=ax, shrink=0.7, aspect=16, ticks=[-1, 0, 1])
    bar.ax.tick_params(labelsize=7)
    bar.set_label("correlation", fontsize=LABEL)
    bar.outline.set_visible(False)
