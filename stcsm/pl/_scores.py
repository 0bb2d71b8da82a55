"""Genes: their concept scores and their embedding."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stcsm import _keys
from stcsm.pl._read import MAKERS, label, panels, stored, table

IN_SET, OTHER = "#b2182b", "#4d4d4d"


def concept_scores(
    adata: AnnData, concepts: Sequence[str] | str | None = None, *, n_genes: int = 15, ncols: int = 4
) -> Figure:
    """Show the genes of highest score on each concept; those of its definition in red.

    Where none of a concept's own genes is among them, the highest of these is added below, with its rank.

    Parameters
    ----------
    adata
        With concepts (:func:`stcsm.tl.concepts`).
    concepts
        Names; None is all of them, but of more than 24 only the most significant (or the first) 24.
    n_genes
        Genes a panel.
    ncols
        Panels in a row.

    Returns
    -------
    The figure.

    Raises
    ------
    ValueError
        If there are no concept scores, a concept is unknown, or ``n_genes`` is below 1.
    """
    if n_genes < 1:
        raise ValueError(f"Expected n_genes of 1 or more, found {n_genes}")
    if ncols < 1:
        raise ValueError(f"Expected ncols of 1 or more, found {ncols}")
    scores = panels(adata, table(adata, _keys.CONCEPT_SCORE, concepts, where="varm"), concepts)
    ncols = min(ncols, scores.shape[1])
    nrows = -(-scores.shape[1] // ncols)
    fig, axes = plt.subplots(nrows, ncols, figsize=(2.7 * ncols, (0.6 + 0.19 * n_genes) * nrows), squeeze=False)
    fig.set_layout_engine("constrained")
    for ax in axes.flat[scores.shape[1] :]:
        ax.set_axis_off()
    for ax, key in zip(axes.flat, scores, strict=False):
        rows = highest_genes(adata, str(key), n_genes)[::-1]
        top = rows["score"].to_numpy()
        names = [name if rank <= n_genes else f"{name} (rank {rank:,})" for name, rank in rows["rank"].items()]
        colours = [IN_SET if own else OTHER for own in rows["in_set"]]
        ax.hlines(range(len(top)), 0, top, color=colours, lw=1)
        ax.scatter(top, range(len(top)), c=colours, s=16, zorder=3)
        ax.set_yticks(range(len(top)), names, fontsize=7)
        ax.tick_params(axis="x", labelsize=7)
        ax.set_ylim(-0.6, len(top) - 0.4)
        ax.set_xlim(left=0 if len(top) and top.min() >= 0 else None)
        ax.margins(x=0.05)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_title(label(adata, str(key)), fontsize=10)
        ax.set_xlabel("concept score", fontsize=8)
    handles = [
        Line2D([], [], marker="o", ls="", ms=4, color=c, label=t)
        for c, t in ((IN_SET, "in its definition"), (OTHER, "other gene"))
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return fig


def highest_genes(adata: AnnData, concept: str, n_genes: int = 15) -> pd.DataFrame:
    """Genes of highest score on a concept, those that :func:`concept_scores` shows.

    Where none of the concept's own genes is among them, the highest of these follows; genes that count against the
    concept (of negative weight) belong at the other end and are not added.

    Parameters
    ----------
    adata
        With concepts (:func:`stcsm.tl.concepts`).
    concept
        Name of a concept.
    n_genes
        Genes before the one that is added.

    Returns
    -------
    DataFrame indexed by gene, highest score first: ``score``; ``rank`` among all genes, from 1; ``in_set``, whether the
    gene is in the concept's definition.

    Raises
    ------
    ValueError
        If there are no concept scores or the concept is unknown.
    """
    scores = table(adata, _keys.CONCEPT_SCORE, concept, where="varm").iloc[:, 0]
    record = stored(adata).get(str(scores.name), {})
    genes = list(map(str, record.get("genes", ())))
    ordered = pd.Series(scores.to_numpy(dtype=float), index=adata.var_names.astype(str)).dropna()
    ordered = ordered.sort_values(ascending=False, kind="stable")
    found = pd.DataFrame(
        {"score": ordered, "rank": np.arange(1, len(ordered) + 1), "in_set": ordered.index.isin(genes)}
    )
    up = {gene for gene, weight in zip(genes, record.get("weights", [1.0] * len(genes)), strict=True) if weight > 0}
    best = np.flatnonzero(found.index.isin(up))[:1]
    return found.iloc[[*range(min(n_genes, len(found))), *best[best >= n_genes]]]


def embedding(adata: AnnData, color: str | None = None, *, genes: Sequence[str] = (), cmap: str = "RdBu_r") -> Figure:
    """Show the gene embedding on its two principal axes.

    Parameters
    ----------
    adata
        With a gene embedding (:func:`stcsm.tl.embed_genes`).
    color
        Concept whose scores colour the genes; None for one colour.
    genes
        Genes to name in the plot.
    cmap
        Matplotlib colour map of the scores.

    Returns
    -------
    The figure.

    Raises
    ------
    ValueError
        If there is no embedding, or a concept or gene is unknown.
    """
    if _keys.EMBEDDING not in adata.varm:
        raise ValueError(f"Expected adata.varm[{_keys.EMBEDDING!r}], found none; run {MAKERS[_keys.EMBEDDING]} first")
    unknown = [g for g in genes if g not in adata.var_names]
    if unknown:
        raise ValueError(f"Expected gene names of this AnnData, found {unknown[0]!r}")
    z = np.asarray(adata.varm[_keys.EMBEDDING], dtype=float)
    if z.shape[1] < 2:
        raise ValueError(f"Expected an embedding of two dimensions or more, found {z.shape[1]}")
    known = np.isfinite(z).all(axis=1)
    centred = z - z[known].mean(axis=0)
    _, spread, axes_ = np.linalg.svd(centred[known], full_matrices=False)
    xy = centred @ axes_[:2].T
    share = spread**2 / np.sum(spread**2)
    fig, ax = plt.subplots(figsize=(4.8, 4))
    fig.set_layout_engine("constrained")
    if color is None:
        x, y = xy[known].T
        ax.scatter(x, y, color="#777777", alpha=0.5, s=5, linewidths=0, rasterized=True)
    else:
        scores = table(adata, _keys.CONCEPT_SCORE, color, where="varm").iloc[:, 0]
        values = scores.to_numpy(dtype=float)[known]
        order = np.argsort(np.abs(values))
        top = float(np.nanpercentile(np.abs(values), 99)) or 1.0
        x, y = xy[known][order].T
        points = ax.scatter(x, y, c=values[order], cmap=cmap, vmin=-top, vmax=top, s=5, linewidths=0, rasterized=True)
        fig.colorbar(points, ax=ax, shrink=0.6, label="concept score")
        ax.set_title(label(adata, str(scores.name)), fontsize=10)
    for gene in genes:
        x, y = xy[adata.var_names.get_loc(gene)]
        ax.plot(x, y, "o", ms=4, mfc="none", mec="black")
        ax.annotate(gene, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    ax.set_xlabel(f"axis 1 ({share[0]:.0%} of variance)", fontsize=8)
    ax.set_ylabel(f"axis 2 ({share[1]:.0%})", fontsize=8)
    ax.tick_params(labelsize=7)
    ax.spines[["top", "right"]].set_visible(False)
    return fig
