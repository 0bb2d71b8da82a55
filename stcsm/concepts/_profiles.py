"""A layer as if it were a gene: the profile of a gene expressed there and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ._latent import FloatArray


@dataclass(frozen=True)
class LayerProfiles:
    """Profiles of ideal genes.

    Attributes
    ----------
    names
        The K layers, sorted.
    counts
        (K, S) expected counts of a gene that is expressed in that layer only.
    background
        (S,) expected counts of a gene that is expressed everywhere alike. The encoded profile minus the encoded
        background is the layer's concept vector.
    """

    names: tuple[str, ...]
    counts: FloatArray
    background: FloatArray


def layer_profiles(labels: ArrayLike, depth: ArrayLike | None = None, *, total: float = 10_000.0) -> LayerProfiles:
    """Profiles of ideal genes, one for each layer, to be encoded as concepts (``"profile"``).

    Within its layer a gene follows the depth of the spots, as every gene does. At spots without a label the layer's
    gene
    is as common as a gene expressed everywhere, so that they speak neither for nor against the layer.

    Parameters
    ----------
    labels
        (S,) label of every spot; None, NaN or blank where there is none.
    depth
        (S,) total counts of the spots (any scale); None for the same everywhere.
    total
        Counts of the ideal gene: the more, the less its profile is damped by the model's pseudo-count.

    Raises
    ------
    ValueError
        If shapes do not fit, depth is negative or not finite, no spot has a label, all labelled spots have the same
        one (nothing to tell it from), or a layer has no counts.
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
        found = f"the one layer {names[0]!r}" if names else "no label at all"
        raise ValueError(f"Expected labels of at least two layers, found {found}.")
    share = d / d.sum() if d.sum() > 0 else d
    background = total * share
    counts = np.empty((len(names), text.size))
    for k, name in enumerate(names):
        inside = text == name
        if not share[inside].sum() > 0:
            raise ValueError(f"Expected counts in every layer, found none in the {inside.sum()} spots of {name!r}.")
        counts[k] = np.where(labelled, 0.0, background)
        counts[k, inside] = background[labelled].sum() * share[inside] / share[inside].sum()
    return LayerProfiles(names, counts, background)


def _label(value: object) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)) or value != value:
        return ""
    return str(value).strip()
