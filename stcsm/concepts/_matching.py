"""Which genes may stand in for which in a random concept: bins of like abundance and like dispersion."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.stats import rankdata

from ._latent import FloatArray

GENES_A_BIN = 50
GENES_A_BIN_SINGLE = 1000
MAX_BINS = 100


def gene_abundance_dispersion(counts: ArrayLike | sparse.sparray) -> tuple[FloatArray, FloatArray]:
    r"""Total count of every gene, and its overdispersion once the depth of the spots is allowed for.

    With :math:`\mu_{gs} = n_g d_s` (``n_g`` the gene's total, ``d_s`` the spot's share of all counts) the negative
    binomial variance is :math:`\mu + \phi \mu^2`; the moment estimate is
    :math:`\phi_g = (\sum_s (x_{gs} - \mu_{gs})^2 - n_g) / \sum_s \mu_{gs}^2`. It needs no dense copy of the counts.

    Parameters
    ----------
    counts
        (S, G) counts, spots x genes, dense or sparse.

    Returns
    -------
    abundance
        (G,) total counts.
    dispersion
        (G,) :math:`\phi`, 0 for Poisson; NaN for genes without a count.
    """
    given: Any = counts
    x = sparse.csc_array(given).astype(np.float64)
    total: FloatArray = np.asarray(x.sum(axis=0), dtype=np.float64).ravel()
    depth: FloatArray = np.asarray(x.sum(axis=1), dtype=np.float64).ravel()
    if not depth.sum() > 0:
        raise ValueError(f"Expected counts, found a matrix of shape {x.shape} without a single one.")
    depth /= depth.sum()
    square: FloatArray = np.asarray(x.multiply(x).sum(axis=0), dtype=np.float64).ravel()
    cross: FloatArray = np.asarray(x.T @ depth, dtype=np.float64).ravel()
    return total, moment_dispersion(total, square, cross, float(np.sum(depth**2)))


def moment_dispersion(total: FloatArray, square: FloatArray, cross: FloatArray, depth_square: float) -> FloatArray:
    """Overdispersion (G,) of genes from sums over spots, see `gene_abundance_dispersion`; NaN where there is no count.

    Parameters
    ----------
    total, square
        (G,) sums of a gene's counts and of their squares.
    cross
        (G,) sum of a gene's counts times the spots' shares of all counts.
    depth_square
        Sum of the squared shares.
    """
    expected_square = total**2 * depth_square
    with np.errstate(invalid="ignore", divide="ignore"):
        dispersion = (square - 2 * total * cross + expected_square - total) / expected_square
    return np.where(total > 0, dispersion, np.nan)


def matching_bins(
    abundance: ArrayLike,
    dispersion: ArrayLike | None = None,
    *,
    usable: ArrayLike | None = None,
    n_bins: tuple[int, int] | None = None,
    single: bool = False,
) -> NDArray[np.intp]:
    """Bins of genes that may replace each other in a random concept.

    Genes are cut into bins of equal number by abundance, and each of these by dispersion, so a bin of rare genes is cut
    at what is a high dispersion for rare genes. Ranks decide, so the scale of either measure does not matter; ties are
    broken by row.

    Parameters
    ----------
    abundance
        (G,) any measure that grows with a gene's counts.
    dispersion
        (G,) any measure of overdispersion; None matches on abundance alone.
    usable
        (G,) True for genes with an embedding; the others are never drawn. None: where abundance is above zero.
    n_bins
        Number of abundance bins, and of dispersion bins within each. None: bins of about 50 genes, at most about 100
        of them, twice as many by abundance as by dispersion.
    single
        Bins for concepts of a single gene, which can be no rarer than one in its bin: of about 1000 genes, or a quarter
        of a small panel.

    Returns
    -------
    (G,) bin of every gene; -1 for genes that are not usable.
    """
    a = np.asarray(abundance, dtype=np.float64)
    d = None if dispersion is None else np.asarray(dispersion, dtype=np.float64)
    if a.ndim != 1 or (d is not None and d.shape != a.shape):
        raise ValueError(
            f"Expected abundance and dispersion of one length, found {a.shape} and {None if d is None else d.shape}."
        )
    use = a > 0 if usable is None else np.asarray(usable, dtype=bool)
    if use.shape != a.shape:
        raise ValueError(f"Expected one entry of usable a gene ({a.size}), found {use.shape}.")
    bad = use & (np.isnan(a) | (np.isnan(d) if d is not None else False))
    if bad.any():
        raise ValueError(
            f"Expected abundance and dispersion of every usable gene, found NaN for {int(bad.sum())} of them, first "
            f"gene {int(np.flatnonzero(bad)[0])}."
        )
    n_use = int(use.sum())
    if n_bins is None:
        at_least = min(GENES_A_BIN_SINGLE, n_use // 4) if single else GENES_A_BIN
        n_all = min(MAX_BINS, max(1, n_use // max(at_least, 1)))
        n_d = 1 if d is None else max(1, round(np.sqrt(n_all / 2)))
        n_bins = (max(1, n_all // n_d), n_d)
    if min(n_bins) < 1:
        raise ValueError(f"Expected at least one bin each way, found {n_bins}.")
    bins = np.full(a.size, -1, dtype=np.intp)
    rows = np.flatnonzero(use)
    by_abundance = _quantile_bins(a[rows], n_bins[0])
    for i in range(n_bins[0]):
        inside = rows[by_abundance == i]
        within = np.zeros(inside.size, dtype=np.intp) if d is None else _quantile_bins(d[inside], n_bins[1])
        bins[inside] = i * n_bins[1] + within
    return bins


def _quantile_bins(values: FloatArray, n: int) -> NDArray[np.intp]:
    rank = rankdata(values, method="ordinal") - 1
    return (rank * n // max(values.size, 1)).astype(np.intp)
