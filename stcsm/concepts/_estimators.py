"""Estimators: from weighted gene sets to concept vectors. One class an estimator, one line each in `ESTIMATORS`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from scipy import sparse
from scipy.stats import rankdata

from stcsm.concepts._latent import FloatArray, LatentSpace


class Estimator(Protocol):
    """Turns weighted gene sets into concept vectors, for any number of sets at once."""

    needs_rest: bool
    """Whether genes outside the set are needed (a set of all genes is then refused)."""

    def vectors(self, space: LatentSpace, up: sparse.csr_array, down: sparse.csr_array) -> FloatArray:
        """Concept vectors (K, L) from n genes, all of them finite, and weights (K, n) of up and of down genes.

        Rows of ``up`` and ``down`` hold non-negative weights that sum to one, or nothing where a set has no such gene.
        The random-concept null calls this with thousands of rows, so it must not loop over them.
        """
        ...

    def info(self, space: LatentSpace, up: FloatArray, down: FloatArray, seed: int) -> dict[str, Any]:
        """Report on one concept beside its vector: ``up`` and ``down`` are single rows (n,) of weights."""
        ...


def contrasts(space: LatentSpace, up: sparse.csr_array, down: sparse.csr_array) -> FloatArray:
    """Mean of up genes minus mean of down genes; the mean of all genes stands for a side that has none.

    Parameters
    ----------
    space
        The genes, (n, L).
    up, down
        (K, n) rows of non-negative weights that sum to one, or empty rows.

    Returns
    -------
    (K, L)
    """
    return _side(space, up) - _side(space, down)


def _side(space: LatentSpace, weights: sparse.csr_array) -> FloatArray:
    if not weights.nnz:
        return np.broadcast_to(space.mean, (weights.shape[0], space.mean.size))
    mean = np.asarray(weights @ space.coordinates)
    mean[np.diff(weights.indptr) == 0] = space.mean
    return mean


class Mean:
    """Weighted mean of the concept's genes (up minus down); the published choice for spatial transcriptomics."""

    needs_rest = False

    def vectors(self, space: LatentSpace, up: sparse.csr_array, down: sparse.csr_array) -> FloatArray:
        """Concept vectors (K, L)."""
        vectors = np.asarray(up @ space.coordinates)
        return vectors - np.asarray(down @ space.coordinates) if down.nnz else vectors

    def info(self, space: LatentSpace, up: FloatArray, down: FloatArray, seed: int) -> dict[str, Any]:
        """Nothing beyond what every concept reports."""
        return {}


class Contrast:
    """Weighted mean of the concept's genes minus the mean of all genes; with signs, of up minus of down genes."""

    needs_rest = True

    def vectors(self, space: LatentSpace, up: sparse.csr_array, down: sparse.csr_array) -> FloatArray:
        """Concept vectors (K, L)."""
        return contrasts(space, up, down)

    def info(self, space: LatentSpace, up: FloatArray, down: FloatArray, seed: int) -> dict[str, Any]:
        """Nothing beyond what every concept reports."""
        return {}


class CAV:
    r"""Normal of a regularised linear classifier of a concept's genes against the rest.

    A concept activation vector (Kim et al. 2018, arXiv 1711.11279). The classifier is Fisher's linear discriminant,
    :math:`v = ((1 - a) S + a \bar s I)^{-1} (m_{up} - m_{down})`, with ``S`` the covariance of all genes,
    :math:`\bar s` its mean eigenvalue, and :math:`a = L / (L + n)` for ``L`` latents and ``n`` genes (effective number,
    ``1 / sum(weight ** 2)``). With few genes a covariance-corrected direction is mostly noise, so the vector tends to
    the contrast; with many it tends to the full discriminant. Both classes count the same however many genes they have.
    Rotating or rescaling the latent space rotates or rescales the vector and changes nothing else. The closed form
    makes thousands of sets, and the thousands of random sets of their null, cost one eigendecomposition.
    """

    needs_rest = True
    max_folds = 5

    def vectors(self, space: LatentSpace, up: sparse.csr_array, down: sparse.csr_array) -> FloatArray:
        """Concept vectors (K, L)."""
        return _discriminants(space, contrasts(space, up, down), _effective_genes(up, down))

    def info(self, space: LatentSpace, up: FloatArray, down: FloatArray, seed: int) -> dict[str, Any]:
        """Cross-validated performance on genes that the vector was not made from.

        ``cv_accuracy``: balanced accuracy (0.5 is chance) with the threshold midway between the two class means of the
        training genes; ``cv_auroc``: its threshold-free kin; ``cv_folds``. NaN and 0 folds where a class has a single
        gene. Classes are up and down genes, or the concept's genes and all others where all signs are the same.
        """
        flip = -1.0 if not up.any() else 1.0
        positive, negative = (up, down) if flip > 0 else (down, up)
        rest = np.where(positive > 0, 0.0, 1.0) if not negative.any() else negative
        n_smaller = int(min(np.count_nonzero(positive), np.count_nonzero(rest)))
        n_folds = min(self.max_folds, n_smaller)
        if n_folds < 2:
            return {"cv_accuracy": float("nan"), "cv_auroc": float("nan"), "cv_folds": 0}
        fold = _folds(positive, rest, n_folds, seed)
        held = fold == np.arange(n_folds)[:, None]
        pos, neg = (_normalised(np.where(held, 0.0, w)) for w in (positive, rest))
        means = pos @ space.coordinates, neg @ space.coordinates
        n_genes = np.minimum(1.0 / np.sum(pos**2, axis=1), 1.0 / np.sum(neg**2, axis=1))
        vectors = _discriminants(space, means[0] - means[1], n_genes)
        threshold = 0.5 * np.einsum("kl,kl->k", means[0] + means[1], vectors)
        # Every gene's margin comes from the fold that held it out; genes in neither class (fold -1) are not looked at.
        margin = np.einsum("nl,nl->n", space.coordinates, vectors[fold]) - threshold[fold]
        accuracy = [
            np.mean([np.average(margin[s] * sign > 0, weights=w[s]) for w, s, sign in _sides(positive, rest, held[k])])
            for k in range(n_folds)
        ]
        return {
            "cv_accuracy": float(np.mean(accuracy)),
            "cv_auroc": _auroc(margin, positive > 0, rest > 0),
            "cv_folds": n_folds,
        }


def _discriminants(space: LatentSpace, delta: FloatArray, n_genes: FloatArray) -> FloatArray:
    """Solve for the normals of all rows of ``delta`` (K, L) with one eigendecomposition."""
    eigenvalues, axes = space.spectrum
    scale = float(eigenvalues.mean())
    if scale <= 0:
        return delta
    shrinkage = (eigenvalues.size / (eigenvalues.size + n_genes))[:, None]
    gain = scale / ((1 - shrinkage) * np.clip(eigenvalues, 0, None) + shrinkage * scale)
    return (delta @ axes * gain) @ axes.T


def _effective_genes(up: sparse.csr_array, down: sparse.csr_array) -> FloatArray:
    """Kish's effective number of genes of the smaller side, (K,)."""
    n = []
    for side in (up, down):
        square = np.bincount(
            np.repeat(np.arange(side.shape[0]), np.diff(side.indptr)), side.data**2, minlength=side.shape[0]
        )
        n.append(np.divide(1.0, square, out=np.full(square.shape, np.inf), where=square > 0))
    return np.minimum(*n)


def _normalised(weights: FloatArray) -> FloatArray:
    return weights / weights.sum(axis=-1, keepdims=True)


def _folds(positive: FloatArray, rest: FloatArray, n_folds: int, seed: int) -> np.ndarray:
    """Fold of every gene (-1: in neither class), each class dealt out evenly."""
    rng = np.random.default_rng(seed)
    fold = np.full(positive.size, -1)
    for side in (positive, rest):
        genes = rng.permutation(np.flatnonzero(side))
        fold[genes] = np.arange(genes.size) % n_folds
    return fold


def _sides(positive: FloatArray, rest: FloatArray, held: np.ndarray) -> list[tuple[FloatArray, np.ndarray, int]]:
    return [(positive, held & (positive > 0), 1), (rest, held & (rest > 0), -1)]


def _auroc(margin: FloatArray, positive: np.ndarray, rest: np.ndarray) -> float:
    both = positive | rest
    rank = rankdata(margin[both])
    n_pos, n_neg = int(positive.sum()), int(rest.sum())
    return float((rank[positive[both]].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))


ESTIMATORS: Mapping[str, Estimator] = MappingProxyType({"contrast": Contrast(), "mean": Mean(), "cav": CAV()})
"""Name -> estimator. A new one is one class and one line here."""


def get_estimator(name: str) -> Estimator:
    """Return the estimator of that name, or an error that lists them all."""
    if name not in ESTIMATORS:
        raise ValueError(f"Expected an estimator out of {', '.join(ESTIMATORS)}, found {name!r}.")
    return ESTIMATORS[name]
