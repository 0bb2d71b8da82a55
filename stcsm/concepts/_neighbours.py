"""The genes nearest to a seed gene in latent space, with correlation, p and q values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ._fdr import benjamini_hochberg
from ._latent import FloatArray, check_latent


@dataclass(frozen=True)
class Neighbours:
    """Genes in order of falling correlation with a seed gene, the seed itself first.

    Attributes
    ----------
    index
        (n,) rows of the latent space.
    r
        (n,) Pearson correlation over the latent coordinates; 1 for the seed.
    p
        (n,) two-sided p value of r, t distribution with L - 2 degrees of freedom; NaN for the seed, which is no test.
    q
        (n,) Benjamini-Hochberg q value over ALL genes tested, not over the n returned.
    n_tested
        Number of genes that were tested.
    """

    index: NDArray[np.intp]
    r: FloatArray
    p: FloatArray
    q: FloatArray
    n_tested: int


def nearest_genes(latent: ArrayLike, index: int, n: int = 50) -> Neighbours:
    """Find the n genes whose latent coordinates correlate most with those of gene ``index``, itself first.

    The published pipeline takes the 50 most correlated genes, the seed among them. Genes without an embedding (NaN) and
    genes whose coordinates are all the same (no correlation is defined) are never neighbours. Equal correlations are
    ordered by row, so the answer never depends on the machine. Fewer than n come back where fewer can be compared.

    The p value takes the L coordinates of a gene as independent draws from one normal distribution, as the published
    pipeline does. Latents differ in spread, so read it as a ranking aid; the random-concept null is the test.

    Parameters
    ----------
    latent
        (G, L) with L >= 3.
    index
        Row of the seed gene.
    n
        Number of genes to return, the seed included.

    Raises
    ------
    ValueError
        If L < 3 (no degree of freedom is left), n < 1, ``index`` is no row, or the seed has no embedding or a constant
        one.
    """
    z, usable = check_latent(latent)
    n_genes, n_latent = z.shape
    if n_latent < 3:
        raise ValueError(f"Expected at least 3 latents to correlate genes over, found {n_latent}.")
    if n < 1:
        raise ValueError(f"Expected n of at least 1, found {n}.")
    if not -n_genes <= index < n_genes:
        raise ValueError(f"Expected a gene index below {n_genes}, found {index}.")
    seed = int(index) % n_genes
    if not usable[seed]:
        raise ValueError(f"Expected a seed gene with an embedding, found gene {seed} without one (it has no counts).")
    unit, varies = _unit_rows(z)
    if not varies[seed]:
        raise ValueError(f"Expected a seed gene whose latent coordinates differ, found {z[seed, 0]:g} in all of them.")
    others = np.flatnonzero(varies & (np.arange(n_genes) != seed))
    r = np.clip(unit[others] @ unit[seed], -1.0, 1.0)
    p = correlation_p(r, n_latent)
    q = benjamini_hochberg(p)
    # Correlations that agree to rounding are ties; a stable sort then leaves them in row order.
    order = np.argsort(-np.round(r, 12), kind="stable")[: n - 1]
    return Neighbours(
        index=np.concatenate([[seed], others[order]]).astype(np.intp),
        r=np.concatenate([[1.0], r[order]]),
        p=np.concatenate([[np.nan], p[order]]),
        q=np.concatenate([[np.nan], q[order]]),
        n_tested=int(others.size),
    )


def correlation_p(r: ArrayLike, n_points: int) -> FloatArray:
    """Two-sided p value of a Pearson correlation over ``n_points`` pairs: t distribution, n_points - 2 df."""
    rho = np.asarray(r, dtype=np.float64)
    df = n_points - 2
    with np.errstate(divide="ignore"):
        t = np.abs(rho) * np.sqrt(df / np.maximum(1.0 - rho**2, 0.0))
    return np.asarray(2.0 * stats.t.sf(t, df))


def _unit_rows(z: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Rows centred and scaled to length one, and which rows vary at all (rows of NaN do not)."""
    centred = z - z.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1)
    size = np.abs(z).max(axis=1)
    varies = length > 1e-12 * size  # NaN compares False
    return np.where(varies[:, None], centred, 0.0) / np.where(varies, length, 1.0)[:, None], varies
