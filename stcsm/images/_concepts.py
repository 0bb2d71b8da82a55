"""Concepts from attributes: vectors, scores, and how well a score tells who has the attribute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.metrics import roc_auc_score

from stcsm import concepts

__all__ = ["both_classes", "concept_scores", "concept_vectors", "performance"]


def concept_vectors(
    latents: ArrayLike, attributes: pd.DataFrame, *, n: int | None = None, estimator: str = "contrast"
) -> pd.DataFrame:
    """Concept vector of every attribute.

    Parameters
    ----------
    latents
        (n, L), one row a picture; see `encode`.
    attributes
        Booleans, one row a picture in the same order, one column an attribute.
    n
        Take the first ``n`` pictures that have the attribute and the first ``n`` that have it not; None takes all. The
        published run took 500 of each (Brocki & Chung 2019).
    estimator
        "contrast": mean latent with the attribute minus mean latent without, as published. "cav": the normal of a
        linear classifier, which discounts directions in which all pictures vary (Kim et al. 2018, arXiv 1711.11279).

    Returns
    -------
    One row an attribute, one column a latent; float64.

    Raises
    ------
    ValueError
        If the numbers of rows differ, all pictures or none have an attribute, or the estimator is another.
    """
    if estimator not in ("contrast", "cav"):
        raise ValueError(f"Expected estimator='contrast' or 'cav', found {estimator!r}.")
    if n is not None and n < 1:
        raise ValueError(f"Expected n of at least 1, or None for all pictures, found {n}.")
    z = _matched(latents, attributes)
    has = _booleans(attributes)
    lacking = [name for name in attributes if name not in both_classes(attributes)]
    if lacking:
        k = list(attributes).index(lacking[0])
        raise ValueError(
            f"Expected pictures with and without {lacking[0]!r}, found {int(has[:, k].sum())} with it among "
            f"{len(has)}; leave it out (both_classes lists those that can stay), or take more pictures."
        )
    weights = sparse.vstack([_classes(column, n) for column in has.T], format="csr")
    used = np.unique(weights.indices)  # a few hundred of each out of 200,000: the rest need not be copied
    vectors = concepts.concept_vectors(z[used], weights[:, used], estimator)
    return pd.DataFrame(vectors, index=pd.Index(attributes.columns, name="attribute"))


def concept_scores(
    latents: ArrayLike, vectors: pd.DataFrame, names: Sequence[str] | pd.Index | None = None
) -> pd.DataFrame:
    """Score z . v of every picture on every concept.

    Parameters
    ----------
    latents
        (n, L).
    vectors
        (K, L), as `concept_vectors` returns them.
    names
        Of the pictures.

    Returns
    -------
    One row a picture, one column a concept.

    Raises
    ------
    ValueError
        If the vectors belong to another latent space.
    """
    scores = concepts.concept_scores(latents, vectors.to_numpy())
    return pd.DataFrame(scores, index=None if names is None else pd.Index(names), columns=vectors.index)


def performance(
    scores: pd.DataFrame, attributes: pd.DataFrame, train_scores: pd.DataFrame, train_attributes: pd.DataFrame
) -> pd.DataFrame:
    """How well each concept score tells the pictures with the attribute from those without.

    Parameters
    ----------
    scores, attributes
        Of the pictures to judge by, such as the test split: one row a picture, columns of the same names.
    train_scores, train_attributes
        Of the pictures that set the threshold: it lies midway between the mean scores of the two classes.

    Returns
    -------
    One row an attribute: ``auroc`` (0.5 is chance), ``accuracy``, ``balanced_accuracy`` (mean over the two classes, 0.5
    is chance), ``majority`` (accuracy of always naming the larger class), ``threshold``, ``n_with``, ``n_without``. NaN
    where the pictures to judge by are all of one class.

    Raises
    ------
    ValueError
        If rows or columns do not match.
    """
    for given, known in ((scores, attributes), (train_scores, train_attributes)):
        if len(given) != len(known):
            raise ValueError(f"Expected attributes of {len(given)} pictures, found {len(known)}.")
        absent = [name for name in given if name not in known]
        if absent:
            raise ValueError(f"Expected an attribute for every concept, found none called {absent[0]!r}.")
    rows = {}
    for name in scores:
        s, has = scores[name].to_numpy(), _booleans(attributes[[name]])[:, 0]
        before, had = train_scores[name].to_numpy(), _booleans(train_attributes[[name]])[:, 0]
        both = 0 < has.sum() < len(has)
        threshold = (before[had].mean() + before[~had].mean()) / 2 if 0 < had.sum() < len(had) else np.nan
        hit = (s > threshold) == has
        known = both and np.isfinite(threshold)
        rows[name] = {
            "auroc": roc_auc_score(has, s) if both else np.nan,
            "accuracy": hit.mean() if np.isfinite(threshold) else np.nan,
            "balanced_accuracy": (hit[has].mean() + hit[~has].mean()) / 2 if known else np.nan,
            "majority": max(has.mean(), 1 - has.mean()),
            "threshold": threshold,
            "n_with": int(has.sum()),
            "n_without": int((~has).sum()),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("attribute")


def both_classes(attributes: pd.DataFrame) -> list[str]:
    """Names of the attributes that some pictures have and others have not."""
    share = _booleans(attributes).mean(axis=0)
    return [str(name) for name in attributes.columns[(share > 0) & (share < 1)]]


def _matched(latents: ArrayLike, attributes: pd.DataFrame) -> NDArray[np.floating]:
    z = np.asarray(latents)
    if z.ndim != 2 or len(z) != len(attributes):
        raise ValueError(
            f"Expected latents of the {len(attributes)} pictures in the attribute table, (pictures, latents), found "
            f"shape {z.shape}."
        )
    return z


def _booleans(attributes: pd.DataFrame) -> NDArray[np.bool_]:
    values = attributes.to_numpy()
    if values.dtype != bool:
        raise ValueError(
            f"Expected booleans in the attribute table, found {values.dtype}; CelebA and PictureFolder read -1/1 and "
            f"0/1."
        )
    return values


def _classes(has: NDArray[np.bool_], n: int | None) -> sparse.csr_array:
    """Weights (1, pictures): 1 for those with, -1 for those without, 0 for those not taken."""
    taken = [np.flatnonzero(side)[:n] for side in (has, ~has)]
    weights = np.repeat([1.0, -1.0], [len(side) for side in taken])
    rows = np.concatenate(taken)
    return sparse.csr_array((weights, (np.zeros_like(rows), rows)), shape=(1, len(has)))
