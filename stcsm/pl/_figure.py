"""What all plots have in common: the options of their figures, the panels, and showing, saving or handing them out."""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from stcsm._files import whole_file

PANEL = 3.5
"""Width of a panel in inches, its colour bar included."""
TITLE, LABEL, TICK = 10, 8, 7
"""Font sizes in points."""

Limit = float | str | Sequence[float | str | None] | None


@dataclass(frozen=True, kw_only=True)
class FigureOptions:
    """Of every plot."""

    ax: Annotated[Axes | Sequence[Axes] | None, "Axes to draw into, one for each panel; by default a new figure."] = (
        None
    )
    figsize: Annotated[tuple[float, float] | None, "Width and height of the figure in inches."] = None
    title: Annotated[str | Sequence[str] | None, "Titles of the panels instead of the usual ones."] = None
    dpi: Annotated[float | None, "Dots per inch of the figure and of the saved file."] = None
    show: Annotated[
        bool | None, "Show the figure; by default if it is new, is not returned, and there is a screen or notebook."
    ] = None
    save: Annotated[str | Path | None, "File to save the figure in; its ending says the format."] = None
    return_fig: Annotated[bool, "Return the figure, which is then not shown."] = False


@dataclass(frozen=True, kw_only=True)
class PanelOptions(FigureOptions):
    """Of plots with a panel for each concept or gene."""

    ncols: Annotated[int, "Most panels in a row."] = 4


@dataclass(frozen=True, kw_only=True)
class ColourOptions(FigureOptions):
    """Of plots whose colours are values."""

    cmap: Annotated[
        str | Colormap | None, "Colour map; by default one that diverges from the centre where there is one."
    ] = None
    vmin: Annotated[
        Limit, 'Lower colour limit: a number, a percentile (``"p1"``), or a list with one for each panel.'
    ] = None
    vmax: Annotated[
        Limit,
        "Upper colour limit. By default limits lie symmetrically about the centre at the 99th percentile of the "
        "distances from it, and without a centre at the 1st and 99th percentiles.",
    ] = None
    vcenter: Annotated[
        float | Sequence[float | None] | None,
        "Value of the middle colour; by default 0 where there are values on both sides of it and not both limits are "
        "given.",
    ] = None
    alpha: Annotated[float | None, "Opacity, from 0 to 1."] = None
    colorbar: Annotated[bool, "Draw the colour bars."] = True


def figure_of(ax: Axes) -> Figure:
    """The figure that a panel is in, not a subfigure of it."""
    figure: Any = ax.figure
    return figure.figure


class Panels:
    """Axes to draw into: the user's, or those of a new figure.

    Parameters
    ----------
    n
        Number of panels.
    look
        Options of the plot.
    size
        Width and height of a panel in inches.
    ncols
        Most panels in a row; all in one by default.
    """

    def __init__(
        self,
        n: int,
        look: FigureOptions,
        size: tuple[float, float] = (PANEL, PANEL),
        *,
        ncols: int | None = None,
        even: bool = True,
        **grid: Any,
    ) -> None:
        if ncols is not None and ncols < 1:
            raise ValueError(f"Expected ncols of 1 or more, found {ncols}")
        self.titles = _titles(look.title, n)
        self.figure: Figure
        self.own = look.ax is None
        if look.ax is not None:
            given = [look.ax] if isinstance(look.ax, Axes) else list(np.ravel(np.asarray(look.ax, dtype=object)))
            if len(given) != n:
                raise ValueError(f"Expected ax to be {n} Axes, one for each panel, found {len(given)}; {_how(n)}")
            self.axes: list[Axes] = given
            self.figure = figure_of(given[0])
            return
        nrows = -(-n // (ncols or n))
        across = -(-n // nrows) if even else (ncols or n)  # rows of even length: five panels are three and two
        self.figure, axes = plt.subplots(
            nrows,
            across,
            figsize=look.figsize or (size[0] * across, size[1] * nrows),
            dpi=look.dpi,
            squeeze=False,
            **grid,
        )
        self.figure.set_layout_engine("constrained")
        self.axes = list(axes.flat)[:n]
        for ax in axes.flat[n:]:
            ax.set_axis_off()

    def title(self, k: int, usual: str) -> str:
        """Title of a panel."""
        return usual if self.titles is None else self.titles[k]


def _titles(given: str | Sequence[str] | None, n: int) -> list[str] | None:
    if given is None:
        return None
    titles = [given] * n if isinstance(given, str) and n == 1 else [given] if isinstance(given, str) else list(given)
    if len(titles) != n:
        raise ValueError(f"Expected {n} titles, one for each panel, found {len(titles)}")
    return titles


def _how(n: int) -> str:
    return "name one concept, or give none" if n == 1 else f"fig, axes = plt.subplots(1, {n})"


def plot(draw: Callable[..., Panels]) -> Callable[..., Any]:
    """Make a plot of a function that draws panels.

    The function's argument ``look`` is one of the classes of options above. The plot takes each of its fields as an
    argument of that name, and shows, saves or returns what was drawn.
    """
    kind: type[FigureOptions] = get_type_hints(draw)["look"]
    names = {field.name for field in fields(kind)}

    @functools.wraps(draw)
    def run(*args: Any, **kwargs: Any) -> Any:
        look = kind(**{name: kwargs.pop(name) for name in list(kwargs) if name in names})
        _check_file(look.save)
        open_before = set(plt.get_fignums())
        try:
            return _hand_out(draw(*args, look=look, **kwargs), look)
        except BaseException:
            for number in set(plt.get_fignums()) - open_before:
                plt.close(number)
            raise

    signature = inspect.signature(draw)
    own = [p for p in signature.parameters.values() if p.name != "look"]
    hints = get_type_hints(kind)
    options = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in fields(kind)
    ]
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*own, *options], return_annotation="Axes | list[Axes] | Figure | None"
    )
    run.__doc__ = _with_options(inspect.getdoc(draw) or "", kind)
    return run


def _with_options(text: str, kind: type[FigureOptions]) -> str:
    """A docstring with the options of its plot, and what every plot returns."""
    told = get_type_hints(kind, include_extras=True)
    lines = [
        f"{field.name}\n{textwrap.indent(textwrap.fill(told[field.name].__metadata__[0], 110), '    ')}"
        for field in fields(kind)
    ]
    returns = (
        "Returns\n-------\nThe Axes (a list for several panels) where nothing is shown, the figure with "
        "``return_fig``, otherwise None.\n``adata`` is not changed."
    )
    head, mark, tail = text.partition("\nRaises\n------")
    return "\n".join([head.rstrip(), *lines, "", returns, mark + tail])


def _check_file(save: str | Path | None) -> None:
    if save is None:
        return
    known = Figure().canvas.get_supported_filetypes()
    if isinstance(save, bool) or Path(save).suffix.lstrip(".").lower() not in known:
        raise ValueError(f"Expected save to be a file that ends in one of {sorted(known)}, found {str(save)!r}")
    if not Path(save).resolve().parent.is_dir():
        raise FileNotFoundError(f"Expected a folder for the figure, found none: {Path(save).resolve().parent}")


def _hand_out(drawn: Panels, look: FigureOptions) -> Any:
    """Save, show or return what was drawn."""
    figure = drawn.figure
    if look.save is not None:
        kind = Path(look.save).suffix.lstrip(".").lower()
        with whole_file(Path(look.save)) as scratch:
            figure.savefig(scratch, format=kind, dpi=look.dpi or "figure", bbox_inches="tight")
    if look.return_fig:
        if drawn.own:
            plt.close(figure)  # a notebook would show it a second time
        return figure
    screen = plt.get_backend().lower() != "agg"
    show = drawn.own and screen if look.show is None else look.show
    if show and screen:
        plt.show()
    if look.save is not None and drawn.own and look.show is not False:
        plt.close(figure)
    if show:
        return None  # a notebook would print the Axes beside the figure
    return drawn.axes[0] if len(drawn.axes) == 1 else drawn.axes
