"""Genes of highest score on a concept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from stcsm import _keys
from stcsm.pl._figure import LABEL, PANEL, TICK, TITLE, PanelOptions, Panels, plot
from stcsm.pl._read import label, panels, stored, table

IN_SET, OTHER, MOST = "#b2182b", "#4d4d4d", "#e3e3e3"
USUAL = (2.5, 97.5)
"""Percentiles between which the scores of most genes lie."""


@plot
def concept_scores(
    adata: AnnData, concepts: Sequence[str] | str | None = None, *, n_genes: int = 15, look: PanelOptions
) -> Panels:
    """Show the genes of highest score on each concept against the scores of all genes; those of its definition in red.

    The axis begins in the grey field, where the scores of 95% of all genes end. Where none of a concept's own genes is
    among the highest, the best of these is added below, with its rank.

    Parameters
    ----------
    adata
        With concepts (:func:`stcsm.tl.concepts`).
    concepts
        Names; None is all of them, but of more than 24 only the most significant (or the first) 24.
    n_genes
        Genes a panel.

    Raises
    ------
    ValueError
        If there are no concept scores, a concept is unknown, or ``n_genes`` is below 1.
    """
    if n_genes < 1:
        raise ValueError(f"Expected n_genes of 1 or more, found {n_genes}")
    scores = panels(adata, table(adata, _keys.CONCEPT_SCORE, concepts, where="varm"), concepts)
    drawn = Panels(scores.shape[1], look, (PANEL, 0.8 + 0.19 * n_genes), ncols=look.ncols)
    for k, (ax, key) in enumerate(zip(drawn.axes, scores, strict=True)):
        rows = highest_genes(adata, str(key), n_genes)[::-1]
        top = rows["score"].to_numpy()
        everywhere = scores[key].to_numpy(dtype=float)
        low, high = np.nanpercentile(everywhere, USUAL)
        start = min(high - 0.15 * (top.max() - high), top.min() - 0.05 * (top.max() - top.min()))
        names = [str(name) if rank <= n_genes else f"{name} (rank {rank:,})" for name, rank in rows["rank"].items()]
        colours = [IN_SET if own else OTHER for own in rows["in_set"]]
        ax.axvspan(low, high, color=MOST, lw=0, zorder=0)
        ax.hlines(range(len(top)), high, top, color=colours, lw=1)
        ax.scatter(top, range(len(top)), c=colours, s=16, zorder=3)
        ax.set_yticks(range(len(top)), names, fontsize=TICK)
        for tick, own in zip(ax.get_yticklabels(), rows["in_set"], strict=True):
            tick.set_color(IN_SET if own else "black")
        ax.tick_params(axis="x", labelsize=TICK)
        ax.set_ylim(-0.6, len(top) - 0.4)
        ax.set_xlim(start, top.max() + 0.05 * max(top.max() - start, 1e-9))
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_title(drawn.title(k, label(adata, str(key))), fontsize=TITLE)
        ax.set_xlabel("concept score", fontsize=LABEL)
    if drawn.own:
        handles = [
            Line2D([], [], marker="o", ls="", ms=4, color=IN_SET, label="in its definition"),
            Line2D([], [], marker="o", ls="", ms=4, color=OTHER, label="other gene"),
            Patch(color=MOST, lw=0, label="95% of all genes"),
        ]
        drawn.figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=LABEL, frameon=False)
    return drawn


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
