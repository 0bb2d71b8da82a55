"""Benjamini-Hochberg q values that leave NaN where no test was made."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import false_discovery_control

from ._latent import FloatArray


def benjamini_hochberg(p: ArrayLike, axis: int | None = None) -> FloatArray:
    """Compute q values of the same shape as ``p`` (Benjamini & Hochberg 1995).

    Parameters
    ----------
    p
        p values; NaN marks what was not tested, gets NaN, and does not count among the tests.
    axis
        Axis along which the tests form one family; None takes all entries as one.
    """
    values = np.asarray(p, dtype=np.float64)
    tested = ~np.isnan(values)
    if tested.all() and values.size:
        return np.asarray(false_discovery_control(values, axis=axis))
    out = np.full(values.shape, np.nan)
    if axis is None:
        if tested.any():
            out[tested] = false_discovery_control(values[tested])
        return out
    for where in np.ndindex(*np.delete(values.shape, axis)):
        line = (*where[:axis], slice(None), *where[axis:])
        if tested[line].any():
            picked = out[line]
            picked[tested[line]] = false_discovery_control(values[line][tested[line]])
    return out
