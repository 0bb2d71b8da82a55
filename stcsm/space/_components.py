"""Leading principal components of the spots, without ever densifying a large section."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, svds

_DENSE_VALUES = 50_000_000  # smoothed values that may be held densely (200 MB in float32)
_DENSE_SIDE = 2_000  # beyond this the small side's eigenproblem costs more than Lanczos steps


def spot_components(
    values: csr_array, n: int, smoother: csr_array | None = None, *, seed: int = 0
) -> NDArray[np.float64]:
    """Principal components of the spots of ``smoother @ values``, genes centred.

    Parameters
    ----------
    values
        Log-normalised counts, shape (S, G).
    n
        Components, at most ``min(S, G) - 1``.
    smoother
        Spatial filter (S, S); None is none.
    seed
        Start of the Lanczos iteration on large sections.

    Returns
    -------
    ndarray
        Scores (S, n), the largest variance first; signs are arbitrary.

    Raises
    ------
    ValueError
        If ``n`` is out of range.
    """
    spots, genes = values.shape
    most = min(spots, genes) - 1
    if not 1 <= n <= max(most, 1):
        raise ValueError(f"Expected 1 to {max(most, 1)} components of {spots} spots x {genes} genes, found {n}")
    if min(spots, genes) <= _DENSE_SIDE and spots * genes <= _DENSE_VALUES:
        dense = values.toarray() if smoother is None else np.asarray(smoother @ values.toarray())
        dense -= dense.mean(axis=0)
        if spots <= genes:
            variance, u = eigh(np.asarray(dense @ dense.T, dtype=np.float64), subset_by_index=[spots - n, spots - 1])
            return u[:, ::-1] * np.sqrt(np.maximum(variance[::-1], 0))
        _, v = eigh(np.asarray(dense.T @ dense, dtype=np.float64), subset_by_index=[genes - n, genes - 1])
        return np.asarray(dense @ v[:, ::-1], dtype=np.float64)
    return _by_lanczos(values.astype(np.float64), n, smoother, seed)


def _by_lanczos(values: csr_array, n: int, smoother: csr_array | None, seed: int) -> NDArray[np.float64]:
    """Smoothing and centring are linear, so they are applied to vectors and the matrix stays sparse."""
    spots, genes = values.shape
    transposed = values.T.tocsr()
    back = None if smoother is None else smoother.T.tocsr()
    weights = np.full(spots, 1 / spots) if back is None else np.asarray(back @ np.full(spots, 1 / spots))
    mean = transposed @ weights

    def forward(v: NDArray[np.float64]) -> NDArray[np.float64]:
        out = values @ v
        return (out if smoother is None else smoother @ out) - mean @ v

    def backward(u: NDArray[np.float64]) -> NDArray[np.float64]:
        return transposed @ (u if back is None else back @ u) - (
            mean * u.sum() if u.ndim == 1 else np.outer(mean, u.sum(0))
        )

    operator: LinearOperator = LinearOperator(
        (spots, genes), matvec=forward, rmatvec=backward, matmat=forward, rmatmat=backward, dtype=np.float64
    )
    start = np.random.default_rng(seed).normal(size=min(spots, genes))
    u, s, _ = svds(operator, k=n, v0=start, tol=1e-5, return_singular_vectors="u")
    order = np.argsort(-s)
    return np.asarray(u[:, order] * s[order])
