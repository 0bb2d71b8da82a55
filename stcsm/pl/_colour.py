"""Colours of values: limits that a few extreme values do not set, colour maps that show zero, labelled colour bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap, Normalize, TwoSlopeNorm
from matplotlib.ticker import MaxNLocator

from stcsm.pl._figure import LABEL, TICK, ColourOptions, figure_of

DIVERGING = "coolwarm"
"""Its middle is a light grey, which is seen on white."""
SEQUENTIAL = LinearSegmentedColormap.from_list(
    "stcsm_sequential", ["#dddddd", "#f4a582", "#d6604d", "#b2182b", "#67001f"]
)
"""From the same grey as the middle of the diverging map."""
USUAL = 99.0
"""Percentile at which colour limits lie."""


def limits(values: np.ndarray, look: ColourOptions, k: int = 0) -> Normalize:
    """Colour limits of panel ``k``.

    Raises
    ------
    ValueError
        If limits do not lie in order, or a list of limits is too short.
    """
    finite = values[np.isfinite(values)]
    low, high = (_limit(finite, getattr(look, name), k, name) for name in ("vmin", "vmax"))
    centre = _of_panel(look.vcenter, k, "vcenter")
    if not finite.size:
        finite = np.array([0.0, 1.0])
    if centre is None and not (low is not None and high is not None) and finite.min() < 0 < finite.max():
        centre = 0.0
    if centre is None:
        low = float(np.percentile(finite, 100 - USUAL)) if low is None else low
        high = float(np.percentile(finite, USUAL)) if high is None else high
        if high <= low:  # a gene that few spots have
            high = max(float(finite.max()), low) if finite.max() > low else low + 1
        return Normalize(low, high)
    if low is None or high is None:
        given = [abs(v - centre) for v in (low, high) if v is not None]
        away = np.abs(finite - centre)
        reach = given[0] if given else float(np.percentile(away, USUAL)) or float(away.max()) or 1.0
        low, high = centre - reach, centre + reach
    if not low < centre < high:
        raise ValueError(f"Expected vmin below vcenter and vcenter below vmax, found {low:g}, {centre:g} and {high:g}")
    return TwoSlopeNorm(centre, low, high)


def _of_panel(given: Any, k: int, name: str) -> Any:
    if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray):
        return given
    if k >= len(given):
        raise ValueError(f"Expected {name} to be one value or one for each panel, found {len(given)}")
    return given[k]


def _limit(finite: np.ndarray, given: Any, k: int, name: str) -> float | None:
    found = _of_panel(given, k, name)
    if not isinstance(found, str):
        return None if found is None else float(found)
    try:
        percentile = float(found.removeprefix("p"))
        return float(np.percentile(finite, percentile)) if finite.size else None
    except ValueError:
        raise ValueError(f'Expected {name} to be a number or a percentile such as "p99", found {found!r}') from None


def colours(look: ColourOptions, norm: Normalize, *, on_image: bool = False) -> Colormap:
    """The colour map asked for, or the usual one; over an image, its middle lets the tissue through."""
    if look.cmap is not None:
        return plt.get_cmap(look.cmap)
    diverging = isinstance(norm, TwoSlopeNorm)
    usual = colormaps[DIVERGING] if diverging else SEQUENTIAL
    if not on_image:
        return usual
    at = np.linspace(0, 1, 256)
    shades = usual(at)
    strength = np.abs(2 * at - 1) if diverging else at
    shades[:, 3] = np.clip(FLOOR + (1 - FLOOR) * 2 * strength, 0, 1)
    return ListedColormap(shades)


FLOOR = 0.75
"""Opacity of a spot at zero over an image: seen, but so is the tissue under it."""


def colour_bar(
    ax: Axes,
    norm: Normalize,
    cmap: Colormap,
    label: str,
    *,
    alpha: float | None = None,
    behind: Any = None,
    **place: Any,
) -> None:
    """A labelled colour bar beside a panel, in the colours of the panel, what lies behind transparent ones included."""
    bar: Any = figure_of(ax).colorbar(
        ScalarMappable(norm=norm, cmap=cmap), ax=ax, **{"shrink": 0.6, "pad": 0.02, "aspect": 18, **place}
    )
    bar.solids.set(alpha=alpha, edgecolor="none", rasterized=True)
    if behind is not None:
        bar.ax.set_facecolor(behind)
    bar.ax.tick_params(labelsize=TICK)
    bar.outline.set_linewidth(0.5)
    bar.locator = MaxNLocator(3)
    bar.update_ticks()
    bar.set_label(label, fontsize=LABEL)
