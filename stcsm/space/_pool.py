"""Neighbouring places pooled to features: which belong together, sums over them, and the way back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stcsm.space._grid import fold_hexagonal


class Pool:
    """Places of which each belongs to one of fewer features.

    Parameters
    ----------
    feature
        Feature of each place, (P,), from 0 to ``n_features`` - 1.
    n_features
        Number of features, F.
    """

    def __init__(self, feature: NDArray[np.int64], n_features: int) -> None:
        self.feature, self.n_features = feature, n_features
        ones, places = np.ones(len(feature)), np.arange(len(feature))
        self._sums = sparse.csr_array((ones, (places, feature)), shape=(len(feature), n_features))

    def part(self, places: NDArray[np.int64]) -> Pool:
        """Some of the places; the features stay as they are."""
        return Pool(self.feature[places], self.n_features)

    def sums(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Add up values (..., P) over the places of each feature, (..., F); zero where it has none."""
        rows = values.reshape(-1, len(self.feature))
        return np.asarray(rows @ self._sums).reshape(*values.shape[:-1], self.n_features)

    def centroids(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean coordinates (F, d) of the places of each feature, whatever their counts; NaN where it has none."""
        with np.errstate(invalid="ignore"):
            return (self.sums(coordinates.T) / self.sums(np.ones(len(self.feature)))).T

    def repeat(self, maps: NDArray) -> NDArray:
        """Give each place the value of its feature: (..., F) to (..., P)."""
        return maps[..., self.feature]

    def divide(
        self, maps: NDArray[np.floating], counts: sparse.csr_array, depth: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Divide what features add to something among their places, so that every feature's places sum to its value.

        Parameters
        ----------
        maps
            Values of n genes, (n, ..., F).
        counts
            Their counts (n, P): places have shares in proportion to them.
        depth
            Depth (P,): where a feature has no count of the gene, shares are in proportion to it; where it has no depth
            either, they are equal.

        Returns
        -------
        (n, ..., P).
        """
        out = np.empty((*maps.shape[:-1], len(self.feature)))
        for gene, values in enumerate(maps):
            own = slice(counts.indptr[gene], counts.indptr[gene + 1])
            out[gene] = values[..., self.feature] * self._shares(counts.indices[own], counts.data[own], depth)
        return out

    def divided_sum(
        self, maps: NDArray[np.floating], counts: sparse.csr_array, depth: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Sum over genes of :meth:`divide`, (..., P), in the memory of one gene."""
        out = np.zeros((*maps.shape[1:-1], len(self.feature)))
        without = np.zeros(maps.shape[1:])
        for gene, values in enumerate(maps):
            own = slice(counts.indptr[gene], counts.indptr[gene + 1])
            places, x = counts.indices[own], counts.data[own].astype(np.float64)
            feature = self.feature[places]
            total = np.bincount(feature, x, self.n_features)
            out[..., places] += values[..., feature] * (x / total[feature])
            without += np.where(total > 0, 0, values)
        return out + self.repeat(without) * self._by_depth(depth)

    def _shares(
        self, places: NDArray[np.integer], x: NDArray[np.floating], depth: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Share (P,) of each place in its feature's value, for the counts ``x`` of a gene at some places."""
        feature = self.feature[places]
        total = np.bincount(feature, x, self.n_features)
        shares = np.where(self.repeat(total) > 0, 0.0, self._by_depth(depth))
        shares[places] = x / total[feature]
        return shares

    def _by_depth(self, depth: NDArray[np.floating]) -> NDArray[np.float64]:
        whole = self.repeat(self.sums(depth))
        equal = 1 / self.repeat(self.sums(np.ones(len(self.feature))))
        return np.where(whole > 0, depth / np.where(whole > 0, whole, 1), equal)


def pool_array(rows: NDArray[np.int64], cols: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Feature of each place of an array, (P,): blocks of b x b or b x (b + 1) positions, the smallest that are few.

    Blocks begin at the first row and column; on a hexagonal array columns are counted without its gaps.

    Parameters
    ----------
    rows, cols
        Array position of each place, (P,).
    most
        Most features, 1 or more.
    """
    cols = fold_hexagonal(rows, cols)
    rows, cols = rows - rows.min(), cols - cols.min()
    taken = len(np.unique(rows * (cols.max() + 1) + cols))
    size = max(1, int(np.sqrt(taken / most)) - 1)
    while True:
        for height, width in ((size, size), (size, size + 1)):
            across = cols // width
            block, feature = np.unique((rows // height) * (across.max() + 1) + across, return_inverse=True)
            if len(block) <= most:
                return feature.ravel()
        size += 1


def pool_points(coordinates: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Feature of each place anywhere in space, (P,): cells of a k-d tree with equally many places, one more or less.

    The places of a cell are divided where it is longest. The features do not depend on the order of the places, but for
    places that lie on one another.

    Parameters
    ----------
    coordinates
        Coordinates (P, 2 or 3).
    most
        Most features, 1 or more.
    """
    n = len(coordinates)
    each = -(-n // most)
    feature = np.empty(n, dtype=np.int64)
    waiting = [(np.lexsort(coordinates.T), -(-n // each))]
    found = 0
    while waiting:
        places, cells = waiting.pop()
        if cells == 1:
            feature[places] = found
            found += 1
            continue
        here = coordinates[places]
        places = places[np.argsort(here[:, np.argmax(np.ptp(here, axis=0))], kind="stable")]
        first = cells // 2
        cut = len(places) * first // cells
        waiting += [(places[cut:], cells - first), (places[:cut], first)]
    return feature
