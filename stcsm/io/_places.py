"""Spot names of the ST text format: `16.92x9.015` is the spot at column 16.92 and row 9.015 of the array."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_PLACE = re.compile(rf"\s*({_NUMBER})x({_NUMBER})\s*")


def is_place(name: str) -> bool:
    """Whether `name` is two finite numbers joined by `x`."""
    pair = _PLACE.fullmatch(name)
    return pair is not None and math.isfinite(float(pair[1])) and math.isfinite(float(pair[2]))


def share_of_places(names: Sequence[str]) -> float:
    """Share of `names` that are places; 0 of none."""
    return sum(map(is_place, names)) / len(names) if names else 0.0


def parse_places(names: Sequence[str]) -> np.ndarray:
    """Array coordinates, shape (number of names, 2): x (column), then y (row).

    Names must be places (see `is_place`).
    """
    pairs = [_PLACE.fullmatch(name) for name in names]
    return np.array([[float(pair[1]), float(pair[2])] for pair in pairs if pair], dtype=np.float64).reshape(-1, 2)
