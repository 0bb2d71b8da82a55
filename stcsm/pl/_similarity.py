"""How alike concepts are, as a clustered heat map."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import dendrogram

from stcsm.pl._read import entry, label

MOST_NAMED = 60
"""Concepts whose names can be read beside a heat map."""
INCH_A_CONCEPT = 0.2


def concept_similarity(adata: AnnData, *, cmap: str = "RdBu_r", size: float | None = None) -> Figure:
    """Show how alike concepts are: a heat map, similar concepts side by side, with the tree that joins them.

    Parameters
    ----------
    adata
        With what :func:`stcsm.tl.concept_similarity` wrote.
    cmap
        Matplotlib colour map; the limits are -1 and 1.
    size
        Width of the heat map in inches; by default from the number of concepts. The names of more than 60 concepts
        cannot be read and are left out.

    Returns
    -------
    The figure; ``adata`` is not changed.

    Raises
    ------
    ValueError
        If concepts have not been compared.
    """
    found = entry(adata, "similarity")
    if not found:
        raise ValueError(
            "Expected concepts that were compared, found none; run stcsm.tl.concept_similarity(adata) first"
        )
    order = np.asarray(found["order"])
    values = np.asarray(found["values"])[np.ix_(order, order)]
    names = [label(adata, str(found["concepts"][k])) for k in order]
    n = len(names)
    side = size or float(np.clip(INCH_A_CONCEPT * n, 2.2, 9))
    named = n <= MOST_NAMED
    tree_width = 0.7
    fig, (left, ax) = plt.subplots(
        1, 2, figsize=(side + tree_width + 2.8, side + (1.3 if named else 0.5)), width_ratios=(tree_width, side)
    )
    fig.set_layout_engine("constrained", w_pad=0.01, wspace=0)
    _draw_tree(left, np.asarray(found["linkage"]), n)
    image = ax.imshow(values, cmap=cmap, vmin=-1, vmax=1, interpolation="nearest", aspect="equal")
    ax.spines[:].set_visible(False)
    if named:
        ax.yaxis.tick_right()
        ax.set_yticks(range(n), names, fontsize=8)
        ax.set_xticks(range(n), names, rotation=90, fontsize=8)
        ax.tick_params(length=0)
    else:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_xlabel(f"{n} concepts", fontsize=9)
    maps = found["kind"] == "maps"
    text = f"{str(found['correlation']).capitalize()} of maps" if maps else "cosine of concept vectors"
    bar = fig.colorbar(image, ax=ax, location="right", shrink=min(1.0, 2 / side), aspect=12, pad=0.03)
    bar.set_label(text, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return fig


def _draw_tree(ax: plt.Axes, linkage: np.ndarray, n: int) -> None:
    ax.set_axis_off()
    if not len(linkage):
        return
    dendrogram(linkage, orientation="left", ax=ax, no_labels=True, color_threshold=0, above_threshold_color="#555555")
    # Leaves of a dendrogram are 10 apart, from 5 on; concepts that cannot be compared come after them.
    ax.set_ylim(10 * n, 0)
    ax.set_axis_off()
