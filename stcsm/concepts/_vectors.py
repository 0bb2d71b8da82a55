"""Concept vectors of gene sets, their combinations, and the scores of genes on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.stats import rankdata

from stcsm.concepts._estimators import get_estimator
from stcsm.concepts._latent import FloatArray, LatentSpace, check_latent, check_vectors

KEPT = 1e-6
"""Smallest share of the length that may be left: less is rounding of a vector that lies within the excluded ones."""


@dataclass(frozen=True)
class ConceptVector:
    """A concept vector and how it was made.

    Attributes
    ----------
    vector
        (L,) float64.
    info
        Plain numbers and strings: ``estimator``, ``n_given`` (genes with a weight), ``n_used`` (those with an
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
        (G,) 1 for the genes of the concept, 0 for all others; other positive values weigh the genes, negative values
        are genes that are down in the concept (their weighted mean is subtracted).
    estimator
        A name in `ESTIMATORS`.
    seed
        Seed of the cross-validation folds of ``"cav"``.

    Raises
    ------
    ValueError
        If no gene of the set has an embedding, a weight is NaN or infinite, the set covers all genes and the
        estimator needs a rest, or the vector is zero.
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
        "n_given": int(np.count_nonzero(w)),
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
    return _vectors(LatentSpace(z[usable]), usable, weight_rows(weights, len(z)), estimator)


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
    up, down = usable_sides(weight_rows(weights, len(z)), usable, needs_rest=chosen.needs_rest)
    space = LatentSpace(z[usable])
    return [chosen.info(space, up[[k]].toarray()[0], down[[k]].toarray()[0], seed) for k in range(up.shape[0])]


def combine(include: ArrayLike, exclude: ArrayLike | None = None) -> FloatArray:
    """Combine concept vectors: "A", "A and B", "A and not B", "A and B, but neither C nor D".

    The included vectors, each scaled to length one so that they count the same, are averaged; the part of the
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
    """Remove the part within the span of ``exclude`` (J, L) from vectors (L,) or (N, L).

    Raises
    ------
    ValueError
        If an excluded vector is zero.
    """
    size = np.linalg.norm(exclude, axis=1)
    if (size == 0).any():
        raise ValueError(f"Expected excluded vectors with a direction, found a zero vector (number {size.argmin()}).")
    # An orthonormal basis of the excluded span; parallel vectors (rank below J) are allowed.
    u, s, _ = np.linalg.svd((exclude / size[:, None]).T, full_matrices=False)
    span = u[:, s > 1e-10 * s[0]]
    rest = vectors - (vectors @ span) @ span.T
    return rest - (rest @ span) @ span.T  # once more, for the digits that the first subtraction loses


def concept_scores(latent: ArrayLike, vectors: ArrayLike) -> FloatArray:
    """Score z . v of every gene on every concept.

    Parameters
    ----------
    latent
        (G, L); rows of NaN stay NaN.
    vectors
        (K, L) or (L,).

    Returns
    -------
    (G, K) float64.
    """
    z, usable = check_latent(latent)
    v = check_vectors(vectors, z.shape[1])
    scores = np.full((z.shape[0], v.shape[0]), np.nan)
    scores[usable] = z[usable] @ v.T
    return scores


def standardise(scores: ArrayLike) -> FloatArray:
    """Each column to mean 0 and standard deviation 1 over its finite entries; a constant column becomes 0.

    Latent spaces of different training runs differ in scale, so scores are brought to one scale before they are
    averaged or compared.
    """
    s = np.asarray(scores, dtype=np.float64)
    known = ~np.isnan(s)
    n = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, s, 0.0).sum(axis=0) / n
    centred = s - mean
    spread = np.sqrt(np.square(np.where(known, centred, 0.0)).sum(axis=0) / n)
    # A column is constant when its spread is rounding noise of its size.
    size = np.abs(np.where(known, s, 0.0)).max(axis=0, initial=0.0)
    constant = spread <= 1e-12 * size
    centred[:, constant] = np.where(known[:, constant], 0.0, np.nan)
    return centred / np.where(constant, 1.0, spread)


def ranks(scores: ArrayLike) -> FloatArray:
    """Rank of every gene in every column, 1 for the highest score; ties share the best rank; NaN has no rank (NaN).

    Parameters
    ----------
    scores
        (G, K) or (G,).
    """
    s = np.asarray(scores, dtype=np.float64)
    columns = s.reshape(s.shape[0], -1)
    out = np.full(columns.shape, np.nan)
    for k in range(columns.shape[1]):
        known = ~np.isnan(columns[:, k])
        out[known, k] = rankdata(-columns[known, k], method="min")
    return out.reshape(s.shape)


def _vectors(space: LatentSpace, usable: np.ndarray, rows: sparse.csr_array, estimator: str) -> FloatArray:
    chosen = get_estimator(estimator)
    up, down = usable_sides(rows, usable, needs_rest=chosen.needs_rest)
    vectors = chosen.vectors(space, up, down)
    refuse_zero(vectors, space.coordinates)
    return vectors


def weight_rows(weights: ArrayLike | sparse.sparray, n_genes: int) -> sparse.csr_array:
    """Weights of K concepts over the genes as sparse rows, (K, G).

    Raises
    ------
    ValueError
        If they have another number of genes.
    """
    rows = sparse.csr_array(weights if sparse.issparse(weights) else np.atleast_2d(np.asarray(weights, float)))
    if rows.shape[1] != n_genes:
        raise ValueError(f"Expected weights of shape (concepts, {n_genes}), found {rows.shape}.")
    return rows


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
        found = f"{n_given} genes, none of which has an embedding (no counts)" if n_given else "none at all"
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
            f"Expected a concept with a direction, found a zero vector for concept {int(np.flatnonzero(zero)[0])}: the "
            f"mean of its genes is the mean of what they are compared with."
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
