"""Names and labels as text, and the texts that say "none": one rule for what is read and for what is in memory."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

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


def listed(names: Sequence[str], at_most: int = 12) -> str:
    """Names for a message, the first of many and "..."; "nothing" of none."""
    return ", ".join([*names[:at_most], *(["..."] if len(names) > at_most else [])]) or "nothing"


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


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """The end of a message about an unknown name: "; did you mean 'Penk'?", or nothing where no name is close."""
    names = {str(k).casefold(): str(k) for k in known}
    text = str(name).casefold()
    close = difflib.get_close_matches(text, list(names), n=1) or [k for k in names if text.strip() and text in k]
    return f"; did you mean {names[close[0]]!r}?" if close else ""


def by_its_text(name: str, labels: Iterable[str]) -> str:
    """The label that a name means: itself, or the only one of that text after a number ("Granular" for "1: Granular").

    A name that is no label is returned as it is.
    """
    known = list(dict.fromkeys(labels))
    same = [label for label in known if _text_of(label) == name.strip().casefold()]
    return same[0] if name not in known and len(same) == 1 else name


def _text_of(label: str) -> str:
    return re.sub(r"^\s*\d+\s*[:.)_-]\s*", "", label).strip().casefold()
