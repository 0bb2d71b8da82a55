"""How alike concepts are, as a clustered heat map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from scipy.cluster.hierarchy import dendrogram

from stcsm.pl._colour import colour_bar
from stcsm.pl._figure import LABEL, TITLE, FigureOptions, Panels, plot
from stcsm.pl._read import entry, label

MOST_NAMED = 60
"""Concepts whose names can be read beside a heat map."""
INCH_A_CONCEPT = 0.2
TREE = 0.18
"""Width of the tree as a share of the heat map's."""


@dataclass(frozen=True, kw_only=True)
class HeatMapOptions(FigureOptions):
    """Of a heat map."""

    cmap: Annotated[str | Colormap, "Colour map."] = "RdBu_r"
    vmin: Annotated[float, "Lower colour limit."] = -1.0
    vmax: Annotated[float, "Upper colour limit."] = 1.0
    colorbar: Annotated[bool, "Draw the colour bar."] = True


@plot
def concept_similarity(adata: AnnData, *, look: HeatMapOptions) -> Panels:
    """Show how alike concepts are: a heat map, similar concepts side by side, with the tree that joins them.

    The names of more than 60 concepts cannot be read and are left out.

    Parameters
    ----------
    adata
        With what :func:`stcsm.tl.concept_similarity` wrote.

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
    side = float(np.clip(INCH_A_CONCEPT * n, 2.2, 9))
    named = n <= MOST_NAMED
    margin = 0.075 * max(len(name) for name in names) if named else 0.3
    panels = Panels(1, look, (side * (1 + TREE) + margin + 0.9, side + margin + 0.3))
    (ax,) = panels.axes
    _draw_tree(ax.inset_axes((-TREE, 0, TREE - 0.01, 1)), np.asarray(found["linkage"]), n)
    norm, cmap = Normalize(look.vmin, look.vmax), plt.get_cmap(look.cmap)
    ax.imshow(values, cmap=cmap, norm=norm, interpolation="nearest", aspect="equal")
    ax.spines[:].set_visible(False)
    if named:
        ax.yaxis.tick_right()
        ax.set_yticks(range(n), names, fontsize=LABEL)
        ax.set_xticks(range(n), names, rotation=90, fontsize=LABEL)
        ax.tick_params(length=0)
    else:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_xlabel(f"{n} concepts", fontsize=LABEL)
    ax.set_title(panels.title(0, ""), fontsize=TITLE)
    if look.colorbar:
        maps = found["kind"] == "maps"
        text = f"{str(found['correlation']).capitalize()} of maps" if maps else "cosine of concept vectors"
        colour_bar(ax, norm, cmap, text, shrink=min(1.0, 2 / side), aspect=12, pad=0.03)
    return panels


def _draw_tree(ax: Axes, linkage: np.ndarray, n: int) -> None:
    ax.set_axis_off()
    if not len(linkage):
        return
    dendrogram(linkage, orientation="left", ax=ax, no_labels=True, color_threshold=0, above_threshold_color="#555555")
    # Leaves of a dendrogram are 10 apart, from 5 on; concepts that cannot be compared come after them.
    ax.set_ylim(10 * n, 0)
    ax.set_axis_off()
