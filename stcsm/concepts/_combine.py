"""Combinations of concepts: "A and B, but not C", by projection."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ._latent import FloatArray, check_vectors

KEPT = 1e-6
"""Share of the length that has to be left: less is the rounding of a vector that lies within the excluded ones."""


def combine(include: ArrayLike, exclude: ArrayLike | None = None) -> FloatArray:
    """Combine concept vectors: "A", "A and B", "A and not B", "A and B, but neither C nor D".

    The included vectors, each scaled to length one so that none drowns the others, are averaged; the part of the
    average that lies in the span of the excluded vectors is removed, so the result's score is blind to them.

    Parameters
    ----------
    include
        (L,) or (K, L) concept vectors that the combination should follow. A single vector keeps its length.
    exclude
        (L,) or (J, L) concept vectors that it should be blind to.

    Returns
    -------
    (L,)

    Raises
    ------
    ValueError
        If a vector is zero, or nothing is left: the included concept lies (almost) within the excluded ones.
    """
    wanted = np.atleast_2d(np.asarray(include, dtype=np.float64))
    wanted = check_vectors(wanted, wanted.shape[-1])
    length = np.linalg.norm(wanted, axis=1)
    if (length == 0).any():
        raise ValueError(f"Expected concept vectors with a direction, found a zero vector (number {length.argmin()}).")
    v = wanted[0] if len(wanted) == 1 else (wanted / length[:, None]).mean(axis=0)
    if exclude is None:
        return v.copy()
    rest = without(v, check_vectors(exclude, wanted.shape[1]))
    kept = np.linalg.norm(rest) / max(float(np.linalg.norm(v)), np.finfo(float).tiny)
    if not kept > KEPT:
        raise ValueError(
            f"Expected a concept that differs from the excluded ones, found that {1 - kept**2:.4%} of it lies within "
            f"them; nothing is left to show."
        )
    return rest


def without(vectors: FloatArray, exclude: FloatArray) -> FloatArray:
    """Take the part within the span of ``exclude`` (J, L) out of vectors (L,) or (N, L).

    Raises
    ------
    ValueError
        If an excluded vector is zero.
    """
    size = np.linalg.norm(exclude, axis=1)
    if (size == 0).any():
        raise ValueError(f"Expected excluded vectors with a direction, found a zero vector (number {size.argmin()}).")
    # An orthonormal basis of the excluded span; parallel vectors (rank below J) are no trouble.
    u, s, _ = np.linalg.svd((exclude / size[:, None]).T, full_matrices=False)
    span = u[:, s > 1e-10 * s[0]]
    rest = vectors - (vectors @ span) @ span.T
    return rest - (rest @ span) @ span.T  # once more, for the digits that the first subtraction loses
