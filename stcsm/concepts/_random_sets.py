"""Random gene sets that match a given one bin for bin."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln


class MatchedSampler:
    """Draws random gene sets with the same number of genes from every bin as a given set.

    Within a bin, genes are drawn without replacement and each with the same chance, so that a set whose members were
    themselves picked at random, given how many fell into each bin, is exchangeable with its draws: the exactness of the
    p values rests on this and on nothing else. In particular the draws may contain genes of the set itself.

    Parameters
    ----------
    bins
        (G,) bin of every gene, -1 for genes never drawn; see `matching_bins`.
    seed
        Draws depend on the seed and on the set asked for, not on what else is asked for or in which order.
    """

    def __init__(self, bins: ArrayLike, seed: int = 0) -> None:
        self.bins = np.asarray(bins)
        if self.bins.ndim != 1 or not np.issubdtype(self.bins.dtype, np.integer):
            raise ValueError(f"Expected one whole number a gene as bins, found {self.bins.dtype} {self.bins.shape}.")
        self.seed = seed
        # Genes in order of their bin; bin b holds genes[start[b] : start[b] + size[b]].
        order = np.argsort(self.bins, kind="stable")
        self._genes = order[np.count_nonzero(self.bins < 0) :]
        self._size = np.bincount(self.bins[self._genes], minlength=1)
        self._start = np.concatenate([[0], np.cumsum(self._size)[:-1]])

    def draw(self, members: ArrayLike, n_random: int, weights: ArrayLike | None = None) -> NDArray[np.intp]:
        """Random sets in place of ``members``.

        Parameters
        ----------
        members
            (n,) distinct rows of genes.
        n_random
            Number of random sets.
        weights
            (n,) weights of the members. They do not change how sets are drawn (column j stands in for member j and
            takes its weight), but sets that differ in weights alone get draws of their own.

        Returns
        -------
        (n_random, n) rows of genes; column j comes from the bin of member j; no gene twice in a row.

        Raises
        ------
        ValueError
            If a member is in no bin (it cannot be matched) or given twice.
        """
        genes = np.asarray(members, dtype=np.intp)
        if (self.bins[genes] < 0).any():
            lost = genes[self.bins[genes] < 0]
            raise ValueError(
                f"Expected members that lie in a matching bin, found {lost.size} that do not, first gene {lost[0]}; "
                f"leave genes without an embedding out."
            )
        if np.unique(genes).size != genes.size:
            raise ValueError("Expected distinct members, found a gene twice.")
        if n_random < 1:
            raise ValueError(f"Expected at least one random set, found {n_random}.")
        rng = self._generator(genes, weights)
        own = self.bins[genes]
        wanted = np.bincount(own, minlength=self._size.size)
        # Where much of a bin is taken, redrawing collisions takes long: shuffle the bin instead.
        crowded = wanted * 3 > self._size
        place = np.empty((genes.size, n_random), dtype=np.intp)
        for b in np.flatnonzero(crowded & (wanted > 0)):
            keys = rng.random((n_random, self._size[b]))
            place[own == b] = self._start[b] + np.argsort(keys, axis=1)[:, : wanted[b]].T
        slots = np.flatnonzero(~crowded[own])
        slots = slots[np.argsort(own[slots], kind="stable")]
        if slots.size:
            place[slots] = self._redraw(rng, own[slots], n_random)
        return self._genes[place.T]

    def log_possible(self, members: ArrayLike) -> float:
        """Natural logarithm of the number of different sets that match ``members``."""
        wanted = np.bincount(self.bins[np.asarray(members)], minlength=self._size.size)
        return float(np.sum(gammaln(self._size + 1) - gammaln(wanted + 1) - gammaln(self._size - wanted + 1)))

    def _redraw(self, rng: np.random.Generator, own: NDArray[np.intp], n_random: int) -> NDArray[np.intp]:
        """Draw every slot, then draw again those that hit a gene already taken, until none does.

        A set is then the first distinct genes of an endless stream of uniform draws, which is a uniform draw without
        replacement. ``own`` is the bin of every slot, sorted; the answer is (slots, n_random).
        """
        size, start = self._size[own][:, None], self._start[own][:, None]
        reach = int(np.bincount(own).max()) - 1
        place = start + np.floor(rng.random((own.size, n_random)) * size).astype(np.intp)
        if reach == 0:
            return place
        sets = np.arange(n_random)
        taken = np.zeros((own.size, n_random), dtype=bool)
        clash = _later_copies(place, taken, reach)
        while clash.any():
            again = clash.any(axis=0)
            sets, clash = sets[again], clash[:, again]
            slot, column = np.nonzero(clash)
            place[slot, sets[column]] = start[slot, 0] + np.floor(rng.random(slot.size) * size[slot, 0]).astype(np.intp)
            clash = _later_copies(place[:, sets], ~clash, reach)
        return place

    def _generator(self, genes: NDArray[np.intp], weights: ArrayLike | None) -> np.random.Generator:
        key = [zlib.crc32(genes.astype(np.int64).tobytes())]
        if weights is not None:
            key.append(zlib.crc32(np.asarray(weights, dtype=np.float64).tobytes()))
        return np.random.default_rng([self.seed, *key])


def _later_copies(place: NDArray[np.intp], taken: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Slots that hold the gene of another slot of their set which came first; ``taken`` slots came before all others.

    Slots of one bin stand side by side, so copies are at most ``reach`` slots apart.
    """
    copy = np.zeros(place.shape, dtype=bool)
    for lag in range(1, reach + 1):
        same = place[lag:] == place[:-lag]
        copy[lag:] |= same & ~taken[lag:]
        copy[:-lag] |= same & taken[lag:]
    return copy
