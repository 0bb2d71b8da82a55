"""Principal components of spots and of genes, without ever densifying a large section, and how many of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.sparse import csr_array

from stcsm.space._heldout import HeldOutCounts
from stcsm.space._scratch import BlockMatrix, HeldMatrix, fits_in_memory

COMPONENTS = (5, 10, 20)
"""Numbers of components that held-out counts choose from."""

_EXTRA, _PASSES = 10, 6
"""Directions beyond those asked for, and passes over the samples, that find the axes to three digits."""
_FINE_PASSES = 14
"""Passes after which 50 neighbours in 20 components are the exact ones but for 4 in 10,000."""
_DENSE_VALUES = 50_000_000  # smoothed values that may be held densely (200 MB in float32)
_DENSE_SIDE = 2_000  # beyond this the small side's eigenproblem costs more than an iteration


def spot_components(
    values: csr_array | BlockMatrix, n: int, smoother: csr_array | None = None, *, seed: int = 0
) -> NDArray[np.float64]:
    """Principal components of the spots of ``smoother @ values``, genes centred.

    How they are found depends on the number of values alone, not on what holds them.

    Parameters
    ----------
    values
        Log-normalised counts, shape (S, G), in memory or in a scratch file.
    n
        Components, at most ``min(S, G) - 1``.
    smoother
        Spatial filter (S, S); None is none.
    seed
        Start of the iteration on large sections.

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
    small = min(spots, genes) <= _DENSE_SIDE and spots * genes <= _DENSE_VALUES
    if small and not isinstance(values, BlockMatrix) and fits_in_memory(values.nnz):
        dense = values.toarray() if smoother is None else np.asarray(smoother @ values.toarray())
        dense -= dense.mean(axis=0)
        if spots <= genes:
            variance, u = linalg.eigh(
                np.asarray(dense @ dense.T, dtype=np.float64), subset_by_index=[spots - n, spots - 1]
            )
            return u[:, ::-1] * np.sqrt(np.maximum(variance[::-1], 0))
        _, v = linalg.eigh(np.asarray(dense.T @ dense, dtype=np.float64), subset_by_index=[genes - n, genes - 1])
        return np.asarray(dense @ v[:, ::-1], dtype=np.float64)
    return _iterated(values if isinstance(values, BlockMatrix) else HeldMatrix(values), n, smoother, seed)


def _iterated(values: BlockMatrix, n: int, smoother: csr_array | None, seed: int) -> NDArray[np.float64]:
    """Smoothing and centring are linear, so they are applied to vectors and the matrix stays sparse."""
    spots, genes = values.shape
    transposed, back = values.transposed_product, None if smoother is None else smoother.T
    weights = np.full(spots, 1 / spots) if back is None else np.asarray(back @ np.full(spots, 1 / spots))
    mean = transposed(weights)

    def forward(v: NDArray[np.float64]) -> NDArray[np.float64]:
        out = values @ v
        return (out if smoother is None else smoother @ out) - mean @ v

    def backward(u: NDArray[np.float64]) -> NDArray[np.float64]:
        return transposed(u if back is None else back @ u) - (
            mean * u.sum() if u.ndim == 1 else np.outer(mean, u.sum(0))
        )

    return forward(_axes(forward, backward, (spots, genes), n, seed, _FINE_PASSES))


def choose_components(
    held: HeldOutCounts, smoother: csr_array | None = None, *, candidates: Sequence[int] = COMPONENTS, seed: int = 0
) -> int:
    """Choose the number of components of the depth-corrected input that predicts held-out counts best.

    The input is u = log1p(x / (n d + 1/2)) of the 70% of the counts that are kept, centred over genes; its rank-n
    reconstruction, turned back into counts, is scored as :meth:`HeldOutCounts.gain` scores every smoother.

    Parameters
    ----------
    held
        Counts thinned 70/30.
    smoother
        Spatial filter (S, S) of the input; None is none.
    candidates
        Numbers that are tried; those that the data cannot have are left out.
    seed
        Seed of the randomised decomposition.

    Returns
    -------
    int
    """
    expected = np.outer(held.depth, held.training.sum(axis=0)).astype(np.float32)
    u: NDArray[np.floating] = np.log1p(held.training / (expected + 0.5))
    if smoother is not None:
        u = np.asarray(smoother @ u)
    most = min(u.shape) - 1
    tried = sorted({min(n, most) for n in candidates if min(n, most) >= 1})
    centre = u.mean(axis=1, keepdims=True)
    left, size, right = _leading(u - centre, tried[-1], seed)
    gain: dict[int, float] = {}
    for n in tried:
        back = np.expm1(np.maximum(centre + (left[:, :n] * size[:n]) @ right[:n], 0))
        gain[n] = held.gain(back * (expected + 0.5), held.depth)[0]
    return max(gain, key=lambda n: gain[n])


def _leading(
    matrix: NDArray[np.floating], n: int, seed: int
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
    """Leading ``n`` singular vectors and values of a matrix, by randomised range finding (Halko et al. 2011)."""
    if matrix.shape[0] < matrix.shape[1]:
        right, size, left = _leading(matrix.T, n, seed)
        return left.T, size, right.T
    # The legacy generator, as scikit-learn has it, keeps the numbers that were published with it.
    start = np.random.RandomState(seed).normal(size=(matrix.shape[1], n + 10))
    basis = start.astype(matrix.dtype)
    for _ in range(7 if n < 0.1 * min(matrix.shape) else 4):
        basis, _ = linalg.lu(matrix @ basis, permute_l=True, check_finite=False)
        basis, _ = linalg.lu(matrix.T @ basis, permute_l=True, check_finite=False)
    basis, _ = linalg.qr(matrix @ basis, mode="economic", check_finite=False)
    inner, size, right = linalg.svd(basis.T @ matrix, full_matrices=False)
    return (basis @ inner)[:, :n], size[:n], right[:n]


def principal_axes(samples: csr_array | BlockMatrix, n: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Leading principal axes of samples.

    Block Krylov iteration (Musco & Musco 2015, arXiv 1504.05477) on the smaller side, samples or features: axes are
    sought among the directions of all passes. The last ones stand little above the noise, and the newest directions
    alone would need many times the passes. Centring is linear, so the samples stay sparse.

    Parameters
    ----------
    samples
        Shape (N, F), in memory or in a scratch file.
    n
        Number of axes; fewer come back where there are fewer samples or features.
    seed
        Of the first directions.

    Returns
    -------
    Orthonormal axes (F, n), and the samples' mean (F,), float64.

    Raises
    ------
    ValueError
        If there is no sample.
    """
    count, features = samples.shape
    if not count:
        raise ValueError("Expected samples to find the axes of, found none.")
    whole = samples if isinstance(samples, BlockMatrix) else HeldMatrix(samples)
    centre = whole.transposed_product(np.full(count, 1 / count))

    def scores(v: np.ndarray) -> np.ndarray:
        return np.asarray(whole @ v) - centre @ v

    def loadings(u: np.ndarray) -> np.ndarray:
        return whole.transposed_product(u) - np.outer(centre, u.sum(axis=0))

    return _axes(scores, loadings, (count, features), n, seed, _PASSES), centre


def _axes(
    scores: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    loadings: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    shape: tuple[int, int],
    n: int,
    seed: int,
    passes: int,
) -> NDArray[np.float64]:
    """Leading axes (F, n) of a matrix (N, F) that is known by its products, ``scores``, and its transpose's."""
    count, features = shape

    def there_and_back(x: np.ndarray) -> np.ndarray:
        return loadings(scores(x)) if features <= count else scores(loadings(x))

    side = min(features, count)
    width = min(n + _EXTRA, side)
    newest = np.linalg.qr(np.random.default_rng(seed).normal(size=(side, width)))[0]
    basis, images = newest, []
    for _ in range(passes):
        room = side - basis.shape[1]
        if room < 1:
            break
        images.append(there_and_back(newest))
        newest = images[-1]
        # Once leaves rounding errors behind that grow from pass to pass; and beyond what the samples span the first
        # directions are arbitrary, and only the second time orthogonal: they do no harm, and weigh nothing.
        for _again in range(2):
            newest = np.linalg.qr(newest - basis @ (basis.T @ newest))[0]
        newest = newest[:, :room]
        basis = np.hstack([basis, newest])
    images.append(there_and_back(newest))
    inner = basis.T @ np.hstack(images)
    _, rotation = np.linalg.eigh(inner)
    leading = basis @ rotation[:, ::-1][:, :n]
    return leading if features <= count else np.linalg.qr(loadings(leading))[0]
