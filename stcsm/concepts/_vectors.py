"""Concept vectors: a direction in latent space from a (weighted, signed) set of genes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from ._estimators import get_estimator
from ._latent import FloatArray, LatentSpace, check_latent


@dataclass(frozen=True)
class ConceptVector:
    """A concept vector and how it came about.

    Attributes
    ----------
    vector
        (L,) float64.
    info
        Plain numbers and strings: ``estimator``, ``n_members`` (genes with a weight), ``n_used`` (those with an
        embedding), ``n_up``, ``n_down``, ``n_genes`` (all genes with an embedding), and what the estimator adds
        (``"cav"``: ``cv_accuracy``, ``cv_auroc``, ``cv_folds``).
    """

    vector: FloatArray
    info: dict[str, Any] = field(default_factory=dict)


def concept_vector(
    latent: ArrayLike, weights: ArrayLike, estimator: str = "contrast", *, seed: int = 0
) -> ConceptVector:
    """Concept vector of one gene set.

    Parameters
    ----------
    latent
        (G, L) latent coordinates of the genes; rows of NaN (genes without counts) are left out.
    weights
        (G,) 0 for genes that are no members, 1 for members; other positive values weigh the members, negative values
        are genes that are down in the concept (their weighted mean is subtracted).
    estimator
        A name in `ESTIMATORS`.
    seed
        Seed of the cross-validation folds of ``"cav"``.

    Raises
    ------
    ValueError
        If no member has an embedding, a weight is NaN or infinite, the set covers all genes and the estimator needs a
        rest, or the vector comes out as zero.
    """
    z, usable = check_latent(latent)
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (z.shape[0],):
        raise ValueError(f"Expected one weight for each of the {z.shape[0]} genes, found shape {w.shape}.")
    rows = sparse.csr_array(w[None])
    space = LatentSpace(z[usable])
    vector = _vectors(space, usable, rows, estimator)[0]
    up, down = (side.toarray()[0] for side in split_signs(rows[:, usable]))
    info: dict[str, Any] = {
        "estimator": estimator,
        "n_members": int(np.count_nonzero(w)),
        "n_used": int(np.count_nonzero(w[usable])),
        "n_up": int(np.count_nonzero(up)),
        "n_down": int(np.count_nonzero(down)),
        "n_genes": int(usable.sum()),
    }
    info |= get_estimator(estimator).info(space, up, down, seed)
    return ConceptVector(vector, info)


def concept_vectors(latent: ArrayLike, weights: ArrayLike | sparse.sparray, estimator: str = "contrast") -> FloatArray:
    """Concept vectors (K, L) of many gene sets at once; ``weights`` is (K, G), dense or sparse.

    The same numbers as `concept_vector` row by row, and the same errors, which name the row.
    """
    z, usable = check_latent(latent)
    rows = sparse.csr_array(weights if sparse.issparse(weights) else np.atleast_2d(np.asarray(weights, float)))
    if rows.shape[1] != z.shape[0]:
        raise ValueError(f"Expected weights of shape (concepts, {z.shape[0]}), found {rows.shape}.")
    return _vectors(LatentSpace(z[usable]), usable, rows, estimator)


def concept_info(
    latent: ArrayLike, weights: ArrayLike | sparse.sparray, estimator: str = "contrast", *, seed: int = 0
) -> list[dict[str, Any]]:
    """What the estimator reports of each of K concepts beside its vector; empty for those that report nothing.

    Parameters
    ----------
    latent, estimator, seed
        As for `concept_vector`.
    weights
        (K, G), dense or sparse.
    """
    z, usable = check_latent(latent)
    chosen = get_estimator(estimator)
    rows = sparse.csr_array(weights if sparse.issparse(weights) else np.atleast_2d(np.asarray(weights, float)))
    up, down = usable_sides(rows, usable, needs_rest=chosen.needs_rest)
    space = LatentSpace(z[usable])
    return [
        chosen.info(space, up[[k]].toarray()[0], down[[k]].toarray()[0], seed) for k in range(rows.shape[0])
    ]  # fmt: skip


def _vectors(space: LatentSpace, usable: np.ndarray, rows: sparse.csr_array, estimator: str) -> FloatArray:
    chosen = get_estimator(estimator)
    up, down = usable_sides(rows, usable, needs_rest=chosen.needs_rest)
    vectors = chosen.vectors(space, up, down)
    refuse_zero(vectors, space.coordinates)
    return vectors


def usable_sides(
    rows: sparse.csr_array, usable: np.ndarray, *, needs_rest: bool
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Up and down weights (K, n) over the usable genes, after the checks that `concept_vector` promises."""
    bad = np.flatnonzero(~np.isfinite(rows.data))
    if bad.size:
        row = int(np.searchsorted(rows.indptr, bad[0], side="right")) - 1
        raise ValueError(
            f"Expected finite weights, found NaN or infinity for gene {int(rows.indices[bad[0]])} of concept {row}."
        )
    inside = sparse.csr_array(rows[:, usable])
    inside.eliminate_zeros()
    n_used = np.diff(inside.indptr)
    if (n_used == 0).any():
        row = int(np.flatnonzero(n_used == 0)[0])
        n_given = int(np.count_nonzero(rows[[row]].toarray()))
        found = f"{n_given} members, none of which has an embedding (no counts)" if n_given else "no member at all"
        raise ValueError(f"Expected at least one usable gene in concept {row}, found {found}; name other genes.")
    up, down = split_signs(inside)
    one_sided = (np.diff(up.indptr) == 0) | (np.diff(down.indptr) == 0)
    covers = one_sided & (n_used == inside.shape[1])
    if needs_rest and covers.any():
        raise ValueError(
            f"Expected genes outside concept {int(np.flatnonzero(covers)[0])} to compare it with, found a set of all "
            f"{inside.shape[1]} genes; use a smaller set, or estimator='mean'."
        )
    return up, down


def refuse_zero(vectors: FloatArray, latent: FloatArray) -> None:
    """Refuse vectors that are zero up to the rounding of a difference of means (about 1e-16 of the coordinates)."""
    zero = np.abs(vectors).max(axis=1) <= 1e-12 * np.abs(latent).max(initial=0.0)
    if zero.any():
        raise ValueError(
            f"Expected a concept with a direction, found a zero vector for concept {int(np.flatnonzero(zero)[0])}: its "
            f"members' mean is the mean of what they are compared with."
        )


def split_signs(weights: sparse.csr_array) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Up and down genes as two (K, n) matrices of non-negative weights whose rows sum to one (or are empty)."""
    sides = []
    for sign in (1.0, -1.0):
        side = sparse.csr_array(weights, copy=True)
        side.data = np.maximum(sign * side.data, 0.0)
        side.eliminate_zeros()
        total = np.asarray(side.sum(axis=1)).ravel()
        side.data /= np.repeat(total, np.diff(side.indptr))
        sides.append(side)
    return sides[0], sides[1]
