"""The verdict on a concept's map, in the same words wherever it is told: by q, then what q and sanity mean together."""

from __future__ import annotations

import math

LEVEL = 0.05
"""q below which a map counts as stronger than those of random genes."""


def stronger(q: float) -> bool:
    """Whether a map counts as stronger than those of random genes."""
    return q < LEVEL


def by_q(q: float) -> str:
    """How strong a map is against those of random genes; ``q`` is NaN for a concept that was not tested."""
    if math.isnan(q):
        return "not tested against random genes"
    text = f"{q:.2g}"
    if q < LEVEL <= float(text):
        text = f"{q:.3g}"
    if q < LEVEL:
        return f"stronger than random genes (q = {text})"
    return f"not distinguishable from random genes (q = {text})"


def together(q: float, warned: bool | None) -> str:
    """What q and the check of sanity mean together; empty where one of them is missing.

    Parameters
    ----------
    q
        Of the whole map; NaN where it was not tested.
    warned
        Whether :func:`stcsm.tl.sanity` warns of the map; None where it was not checked.
    """
    if math.isnan(q) or warned is None:
        return ""
    if q < LEVEL and not warned:
        return "The map is the concept's own, and random genes do not give one as strong: it is evidence."
    if q < LEVEL:
        return (
            "Random genes do not give a map as strong, but the map does not depend on what it should: it is no "
            "evidence until the warning is understood."
        )
    if not warned:
        return (
            "The map is the concept's own, but random genes give one as strong: it describes these genes and is no "
            "evidence of where the concept is."
        )
    return "Random genes give a map as strong, and the map does not depend on what it should: do not interpret it."
