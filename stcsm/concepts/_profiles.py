"""A group of spots as if it were a gene: the profile of a gene that is expressed there and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stcsm._text import as_text, is_missing
from stcsm.concepts._latent import FloatArray


@dataclass(frozen=True)
class GroupProfiles:
    """Profiles of ideal genes.

    Attributes
    ----------
    names
        The K labels, sorted.
    counts
        (K, S) expected counts of a gene that is expressed in that group of spots only.
    background
        (S,) expected counts of a gene that is expressed everywhere alike. The encoded profile minus the encoded
        background is the group's concept vector.
    """

    names: tuple[str, ...]
    counts: FloatArray
    background: FloatArray


def group_profiles(labels: ArrayLike, depth: ArrayLike | None = None, *, total: float = 10_000.0) -> GroupProfiles:
    """Profiles of ideal genes, one for each label, to be encoded as concepts (``"profile"``).

    Within its group of spots a gene follows their depth, as every gene does. At spots without a label it is as common
    as a gene that is expressed everywhere, so that these spots count neither for nor against the group.

    Parameters
    ----------
    labels
        (S,) label of every spot; None, NaN, blank or a text such as ``"nan"`` where there is none.
    depth
        (S,) total counts of the spots (any scale); None for the same everywhere.
    total
        Counts of the ideal gene: the more, the less its profile is damped by the model's pseudo-count.

    Raises
    ------
    ValueError
        If shapes do not fit, depth is negative or not finite, no spot has a label, all labelled spots have the same
        one (there is nothing to compare it with), or a group has no counts.
    """
    text = np.array([_label(x) for x in np.asarray(labels, dtype=object).ravel()], dtype=object)
    d = np.ones(text.size) if depth is None else np.asarray(depth, dtype=np.float64)
    if d.shape != (text.size,):
        raise ValueError(f"Expected a depth for each of the {text.size} spots, found shape {d.shape}.")
    if not np.isfinite(d).all() or (d < 0).any():
        raise ValueError("Expected depths of zero or more, found negative or missing ones.")
    if not (np.isfinite(total) and total > 0):
        raise ValueError(f"Expected a positive total, found {total}.")
    labelled = text != ""
    names = tuple(sorted(set(text[labelled])))
    if len(names) < 2:
        found = f"the one label {names[0]!r}" if names else "no label at all"
        raise ValueError(f"Expected at least two different labels, found {found}.")
    share = d / d.sum() if d.sum() > 0 else d
    background = total * share
    counts = np.empty((len(names), text.size))
    for k, name in enumerate(names):
        inside = text == name
        if not share[inside].sum() > 0:
            raise ValueError(f"Expected counts for every label, found none in the {inside.sum()} spots of {name!r}.")
        counts[k] = np.where(labelled, 0.0, background)
        counts[k, inside] = background[labelled].sum() * share[inside] / share[inside].sum()
    return GroupProfiles(names, counts, background)


def _label(value: object) -> str:
    return "" if is_missing(value) else as_text(value).strip()
