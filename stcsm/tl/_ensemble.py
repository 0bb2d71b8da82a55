"""One answer from several members: standardise each, then average."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stcsm.concepts import standardise


def average_members(values: Sequence[np.ndarray]) -> np.ndarray:
    """Average tables (n, K) of the members, column by column.

    Latent spaces of different seeds are neither aligned nor of one scale, so each column is brought to mean 0 and
    standard deviation 1 first. A single member is returned as it is, in its own units.
    """
    if len(values) == 1:
        return np.asarray(values[0], dtype=np.float64)
    return np.mean([standardise(v) for v in values], axis=0)
