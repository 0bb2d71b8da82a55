"""How well smoothed counts predict counts that were held out; smoothing is chosen by it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse import csr_array

from stcsm.space._counts import thin_counts

SHARE = 0.7
"""Share of the counts that are smoothed; the rest is predicted."""
VALUES = 2_500_000
"""Spots x genes that are scored; more genes than fit are drawn at random."""


class HeldOutCounts:
    """Counts thinned 70/30, and the score of a prediction of the 30% from the 70%.

    A smoother turns the 70% of gene g into ``x`` (S,) and the spots' shares of all counts d (S,) into ``e``. The
    predicted share of the gene's held-out counts at spot s is proportional to ``d_s * (x_gs + a) / (n_g e_s + a)``, n_g
    the gene's counts among the 70%: relative expression around one, shrunk towards one by ``a`` counts. The score is
    the gain in log-likelihood, in nats a held-out count, over the profile d alone. ``a`` is taken where the score is
    best, so that no smoother gains from an amount of shrinkage that happens to suit it.

    Parameters
    ----------
    counts
        Whole numbers, shape (S, G).
    seed
        Seed of the thinning and of the choice of genes that are scored.
    values
        Most spots x genes to score.

    Attributes
    ----------
    kept
        The 70% of ALL genes, sparse (S, G): what a graph may be built on.
    training
        The 70% of the scored genes, dense (S, g) float32.
    depth
        Spots' shares of the 70%, (S,).
    """

    def __init__(self, counts: csr_array, *, seed: int = 0, values: int = VALUES) -> None:
        rng = np.random.default_rng(seed)
        self.kept, held = thin_counts(counts, SHARE, rng)
        seen = np.flatnonzero(
            (np.asarray(self.kept.sum(axis=0)).ravel() > 0) & (np.asarray(held.sum(axis=0)).ravel() > 0)
        )
        if not len(seen):
            raise ValueError("Expected genes with at least two counts, found none: too few counts to hold some out")
        most = max(values // counts.shape[0], 1)
        if len(seen) > most:
            seen = np.sort(rng.choice(seen, most, replace=False))
        depth = np.asarray(self.kept.sum(axis=1, dtype=np.float64)).ravel()
        self.depth = depth / depth.sum()
        self.training = self.kept[:, seen].toarray()
        coo = held[:, seen].tocoo()
        # A spot without a count among the 70% is given no rate, so its held-out counts cannot be scored.
        usable = self.depth[coo.row] > 0
        self._row, self._column = coo.row[usable], coo.col[usable]
        self._count = coo.data[usable].astype(np.float64)
        self._gene_counts = np.bincount(self._column, weights=self._count, minlength=len(seen))
        self._total = float(self._count.sum())
        if self._total == 0:
            raise ValueError(
                "Expected counts to hold out, found none at spots that keep counts; the section is too sparse"
            )
        self._gene_training = self.training.sum(axis=0, dtype=np.float64)
        self._prior = 0.3

    def gain(self, smoothed: NDArray[np.floating], depth: NDArray[np.floating]) -> tuple[float, float]:
        """Score a smoother.

        Parameters
        ----------
        smoothed
            The smoother's ``x``: :attr:`training` smoothed, (S, g).
        depth
            Its ``e``: :attr:`depth` smoothed the same way, (S,).

        Returns
        -------
        gain, prior
            Nats a held-out count over the depth profile, and the ``a`` that gave it.
        """
        expected = np.outer(depth, self._gene_training).astype(np.float32)
        seen = smoothed[self._row, self._column], expected[self._row, self._column]

        def score(prior: float) -> float:
            observed = np.log(np.maximum(_relative(*seen, prior), 1e-30), dtype=np.float64)
            return self._score(observed, self.depth @ _relative(smoothed, expected, prior))

        return self._climb(score)

    def gain_of_components(self, smoother: csr_array | None, n_components: int) -> tuple[float, float]:
        """Score the components of a smoother, which a model of spots with a spatial filter finds where it is linear.

        Relative expression ``(x_gs + a) / (n_g e_s + a)`` of :meth:`gain` is replaced, in logarithms, by its mean over
        genes and its principal components, each shrunk by the mean variance of those left out, as in probabilistic
        principal components (Tipping and Bishop 1999), and smoothed once more, as a decoder's output is.

        Parameters
        ----------
        smoother
            Spots by spots, (S, S); none: counts as they are.
        n_components
            Number of components, beside the mean over genes.

        Returns
        -------
        gain, prior
            As for :meth:`gain`.
        """
        smoothed, depth = self.training, self.depth
        if smoother is not None:
            smoothed, depth = np.asarray(smoother @ smoothed), np.asarray(smoother @ depth)
        expected = np.outer(depth, self._gene_training).astype(np.float32)

        def score(prior: float) -> float:
            of_spots, of_genes = _components(np.log(_relative(smoothed, expected, prior)), n_components)
            values = (of_spots if smoother is None else np.asarray(smoother @ of_spots)) @ of_genes
            observed = values[self._row, self._column].astype(np.float64)
            return self._score(observed, self.depth @ np.exp(values))

        return self._climb(score)

    def _score(self, observed: NDArray[np.float64], norm: NDArray[np.floating]) -> float:
        """Gain, from the log rate at each held-out count and the sum of each gene's rates."""
        return float((self._count @ observed - self._gene_counts @ np.log(norm)) / self._total)

    def _climb(self, score: Callable[[float], float]) -> tuple[float, float]:
        """Best score and its ``a``: unimodal in log a, so climb from where the last smoother had its best."""
        at = lru_cache(maxsize=None)(score)
        best = self._prior
        for factor in (2.0, 0.5):
            while 1e-3 <= best * factor <= 1e3 and at(best * factor) > at(best):
                best *= factor
        self._prior = best
        return at(best), best


def _relative(counts: NDArray[np.floating], expected: NDArray[np.float32], prior: float) -> NDArray[np.floating]:
    """Counts over those expected, both raised by ``prior``."""
    return (counts + np.float32(prior)) / (expected + np.float32(prior))


def _components(values: NDArray[np.float32], rank: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean over genes and shrunk principal components of values (S, g): factors (S, 1 + rank) and (1 + rank, g)."""
    mean = values.mean(axis=1, keepdims=True)
    centred = values - mean
    tall = len(values) > values.shape[1]
    scatter = (centred.T @ centred if tall else centred @ centred.T).astype(np.float64)
    size = len(scatter)
    rank = min(rank, size)
    variance, axes = eigh(scatter, subset_by_index=(size - rank, size - 1))
    noise = (np.trace(scatter) - variance.sum()) / max(size - rank, 1)
    shrunk = axes * np.clip(1 - noise / np.maximum(variance, 1e-30), 0, 1)
    of_spots, of_genes = (centred @ axes, shrunk.T) if tall else (shrunk, axes.T @ centred)
    ones = np.ones((1, values.shape[1]), dtype=np.float32)
    return np.hstack([mean, of_spots], dtype=np.float32), np.vstack([ones, of_genes], dtype=np.float32)
