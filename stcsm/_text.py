"""Names and labels as text, and the texts that say "none": one rule for what is read and for what is in memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "<na>", "nat", "none", "null"})
"""Texts, in lower case, that say there is no label or name: those of R, pandas, numpy, Python, Excel and databases."""


def is_missing(value: object) -> bool:
    """Whether `value` is missing (None, NaN, ``pandas.NA``) or a text that says so, such as ``"nan"`` or a blank."""
    return str(value).strip().lower() in MISSING


def as_text(value: object) -> str:
    """A name or label of any type as text.

    Whole numbers have no decimals: beside NaN, pandas holds integers as floats, and 7.0 is the name ``"7"``.
    """
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return value.decode() if isinstance(value, bytes) else str(value)


def some_of(names: Iterable[object]) -> str:
    """The first two of some names, for a message."""
    return ", ".join(repr(str(name)) for name in list(names)[:2])


def section_names(labels: pd.Series, where: str, spots: pd.Index) -> np.ndarray:
    """Name of each spot's section as text, (S,).

    Parameters
    ----------
    labels, where
        A column of sections, and what messages call it.
    spots
        Names of the spots.

    Raises
    ------
    ValueError
        If a spot has no section: a missing value, or a text that says so.
    """
    text, of_each = np.unique(labels.astype(str).to_numpy(dtype=str), return_inverse=True)
    without = labels.isna().to_numpy() | np.array([is_missing(name) for name in text], dtype=bool)[of_each]
    if without.any():
        said = some_of(text[np.unique(of_each[without & ~labels.isna().to_numpy()])])
        raise ValueError(
            f"Expected a section for every spot, found {without.sum()} of {len(without)} spots without one in {where} "
            f"(first: {str(spots[without.argmax()])!r}{f'; {said} stands for none' if said else ''}); drop them or "
            "fill it in"
        )
    return text[of_each]
