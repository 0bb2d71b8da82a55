"""What a training recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from stcsm.pl._figure import LABEL, PANEL, TICK, TITLE, FigureOptions, Panels, plot

LOSSES = {"reconstruction_loss": "reconstruction loss", "kl_local": "Kullback-Leibler divergence"}
OTHERWISE = {"train_loss": "loss"}
"""Of models that record one loss only."""


@plot
def history(model: Any, *, look: FigureOptions) -> Panels:
    """Show the losses of a training, epoch by epoch: one panel for each of its terms.

    Parameters
    ----------
    model
        A model that was trained in this session (``model.history``, which is not saved with the model).

    Raises
    ------
    ValueError
        If it holds no history.
    """
    held = dict(getattr(model, "history", None) or {})
    kinds = {kind: [name for name in held if name.startswith(kind)] for kind in LOSSES}
    kinds = {kind: names for kind, names in kinds.items() if names} or {k: [k] for k in OTHERWISE if k in held}
    if not kinds:
        raise ValueError(
            "Expected a model that was trained in this session, found no history; it is not saved with a model"
        )
    panels = Panels(len(kinds), look, (PANEL, 2.6))
    for k, (ax, (kind, names)) in enumerate(zip(panels.axes, kinds.items(), strict=True)):
        for name in names:
            values = _values(held[name])
            ax.plot(values.index, values, lw=1.3, label=name.removeprefix(kind).strip("_") or "train")
        ax.set_xlabel("epoch", fontsize=LABEL)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.tick_params(labelsize=TICK)
        ax.spines[["top", "right"]].set_visible(False)
        if len(names) > 1:
            ax.legend(fontsize=TICK, frameon=False)
        ax.set_title(panels.title(k, (LOSSES | OTHERWISE)[kind]), fontsize=TITLE)
    return panels


def _values(values: Any) -> pd.Series:
    held = values.iloc[:, 0] if isinstance(values, pd.DataFrame) else pd.Series(np.asarray(values))
    return held.astype(float).dropna()
