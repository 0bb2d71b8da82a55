"""From images to concepts and back: latents, vectors, scores and how well they classify, faces along a vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.metrics import roc_auc_score
from tqdm.auto import tqdm

from stcsm import concepts
from stcsm.images.data import ImageSet, as_pixels, stream
from stcsm.images.model import ImageVAE

__all__ = [
    "STEPS",
    "both_classes",
    "check_size",
    "concept_scores",
    "concept_vectors",
    "encode",
    "performance",
    "traverse",
]

STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)


# ---------------------------------------------------------------- latents


def encode(
    model: ImageVAE,
    data: ImageSet,
    *,
    batch_size: int = 256,
    workers: int = 0,
    sampled: bool = False,
    seed: int = 0,
    out: NDArray[np.float32] | None = None,
    progress: bool = True,
) -> NDArray[np.float32]:
    """Encode images in batches; the pixels of one batch are in memory at a time.

    Parameters
    ----------
    model
        A trained model; it runs on its own device, in evaluation mode.
    data
        n images of the model's size.
    batch_size
        Images per pass. It limits the memory and changes results only by rounding.
    workers
        Processes that read and crop ahead.
    sampled
        Return samples of the posterior, as the published code does, instead of its mean. They depend on the seed and
        the row of the image, not on the batch size.
    seed
        Of the samples.
    out
        (n, latent) to write into, such as a memory map; 200,000 images of 400 latents take 320 MB.
    progress
        Whether to show a progress bar.

    Returns
    -------
    (n, latent), float32: ``out`` if given.

    Raises
    ------
    ValueError
        If images have another size, or ``batch_size`` or ``out`` is invalid.
    ImageError
        If an image cannot be read.
    """
    check_size(model, data)
    n, latent = len(data), model.architecture.latent
    if batch_size < 1:
        raise ValueError(f"Expected a batch size of at least 1, found {batch_size}.")
    latents = np.empty((n, latent), np.float32) if out is None else out
    if latents.shape != (n, latent):
        raise ValueError(f"Expected out to have the shape {(n, latent)}, found {latents.shape}.")
    rows = [list(range(i, min(i + batch_size, n))) for i in range(0, n, batch_size)]
    noise = np.random.default_rng(seed)
    was_training = model.training
    model.eval()
    done = 0
    try:
        with torch.inference_mode(), tqdm(total=n, desc="encode", unit="image", disable=not progress) as bar:
            for pixels in stream(data, rows, workers):
                mean, log_var = model.posterior(as_pixels(pixels.to(model.device, non_blocking=True)))
                batch = mean.cpu().numpy()
                if sampled:
                    draw = noise.standard_normal(batch.shape, dtype=np.float32)
                    batch = batch + np.exp(log_var.cpu().numpy()) * draw
                latents[done : done + len(batch)] = batch
                done += len(batch)
                bar.update(len(batch))
    finally:
        model.train(was_training)
    return latents


def check_size(model: ImageVAE, data: ImageSet) -> None:
    """Refuse images of another size than the model's."""
    size = model.architecture.size
    if data.size != size:
        raise ValueError(f"Expected images of the model's size, {size}, found {data.size}; read them with size={size}.")


# ---------------------------------------------------------------- vectors and scores


def concept_vectors(
    latents: ArrayLike, attributes: pd.DataFrame, *, n: int | None = None, estimator: str = "contrast"
) -> pd.DataFrame:
    """Compute the concept vector of every attribute.

    Parameters
    ----------
    latents
        (n, L), one row per image; see `encode`.
    attributes
        Booleans, one row per image in the same order, one column per attribute.
    n
        Use the first ``n`` images with the attribute and the first ``n`` without; None uses all. The published run
        used 500 of each (Brocki & Chung 2019).
    estimator
        "contrast": mean latent with the attribute minus mean latent without, as published. "cav": the normal of a
        linear classifier, which gives less weight to directions of large variance within the classes (Kim et al. 2018,
        arXiv 1711.11279).

    Returns
    -------
    One row per attribute, one column per latent; float64.

    Raises
    ------
    ValueError
        If the numbers of rows differ, all images or none have an attribute, or the estimator is unknown.
    """
    if estimator not in ("contrast", "cav"):
        raise ValueError(f"Expected estimator='contrast' or 'cav', found {estimator!r}.")
    if n is not None and n < 1:
        raise ValueError(f"Expected n of at least 1, or None for all images, found {n}.")
    z = _matched(latents, attributes)
    has = _booleans(attributes)
    lacking = [name for name in attributes if name not in both_classes(attributes)]
    if lacking:
        k = list(attributes).index(lacking[0])
        raise ValueError(
            f"Expected images with and without {lacking[0]!r}, found {int(has[:, k].sum())} with it among "
            f"{len(has)}; drop the attribute (both_classes lists the others), or use more images."
        )
    weights = sparse.vstack([_classes(column, n) for column in has.T], format="csr")
    used = np.unique(weights.indices)  # a few hundred of each out of 200,000: avoids a copy of the rest
    vectors = concepts.concept_vectors(z[used], weights[:, used], estimator)
    return pd.DataFrame(vectors, index=pd.Index(attributes.columns, name="attribute"))


def concept_scores(
    latents: ArrayLike, vectors: pd.DataFrame, names: Sequence[str] | pd.Index | None = None
) -> pd.DataFrame:
    """Compute the score z . v of every image on every concept.

    Parameters
    ----------
    latents
        (n, L).
    vectors
        (K, L), as `concept_vectors` returns them.
    names
        Of the images.

    Returns
    -------
    One row per image, one column per concept.

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
    """Measure how well each concept score separates images with the attribute from images without.

    Parameters
    ----------
    scores, attributes
        Of the images to evaluate on, such as the test part: one row per image, columns of the same names.
    train_scores, train_attributes
        Of the images that determine the threshold: the midpoint between the mean scores of the two classes.

    Returns
    -------
    One row per attribute: ``auroc`` (0.5 is chance), ``accuracy``, ``balanced_accuracy`` (mean over the two classes,
    0.5 is chance), ``majority`` (accuracy of always predicting the larger class), ``threshold``, ``n_with``,
    ``n_without``. NaN if the images to evaluate on are all of one class.

    Raises
    ------
    ValueError
        If rows or columns do not match.
    """
    for given, known in ((scores, attributes), (train_scores, train_attributes)):
        if len(given) != len(known):
            raise ValueError(f"Expected attributes of {len(given)} images, found {len(known)}.")
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
    """Names of the attributes that some images have and others do not."""
    share = _booleans(attributes).mean(axis=0)
    return [str(name) for name in attributes.columns[(share > 0) & (share < 1)]]


def _matched(latents: ArrayLike, attributes: pd.DataFrame) -> NDArray[np.floating]:
    z = np.asarray(latents)
    if z.ndim != 2 or len(z) != len(attributes):
        raise ValueError(
            f"Expected latents of the {len(attributes)} images in the attribute table, (images, latents), found "
            f"shape {z.shape}."
        )
    return z


def _booleans(attributes: pd.DataFrame) -> NDArray[np.bool_]:
    values = attributes.to_numpy()
    if values.dtype != bool:
        raise ValueError(
            f"Expected booleans in the attribute table, found {values.dtype}; CelebA and ImageFolder convert -1/1 "
            f"and 0/1."
        )
    return values


def _classes(has: NDArray[np.bool_], n: int | None) -> sparse.csr_array:
    """Weights (1, images): 1 for images with the attribute, -1 for those without, 0 for those not used."""
    taken = [np.flatnonzero(side)[:n] for side in (has, ~has)]
    weights = np.repeat([1.0, -1.0], [len(side) for side in taken])
    rows = np.concatenate(taken)
    return sparse.csr_array((weights, (np.zeros_like(rows), rows)), shape=(1, len(has)))


# ---------------------------------------------------------------- traversal


def traverse(
    model: ImageVAE, latents: ArrayLike, vectors: pd.DataFrame, steps: Sequence[float] = STEPS
) -> NDArray[np.float32]:
    """Decode z + t v: how a face changes along a concept vector.

    Parameters
    ----------
    model
        A trained model.
    latents
        (n, L) or (L,): starting points z, such as the latents of some faces, or the mean of all.
    vectors
        (K, L) concept vectors v. For contrasts, a step of 1 is the difference between the mean face without the
        attribute and the mean face with it.
    steps
        T values of t.

    Returns
    -------
    (K, n, T, size, size, 3), between 0 and 1.

    Raises
    ------
    ValueError
        If latents or vectors belong to another model, or a step is not finite.
    """
    latent, size = model.architecture.latent, model.architecture.size
    z = np.atleast_2d(np.asarray(latents, dtype=np.float32))
    v = vectors.to_numpy(dtype=np.float32)
    t = np.asarray(steps, dtype=np.float32)
    if z.ndim != 2 or z.shape[1] != latent or v.shape[1] != latent:
        raise ValueError(
            f"Expected latents and vectors of {latent} coordinates, found shapes {z.shape} and {v.shape}; do they "
            f"belong to this model?"
        )
    if t.ndim != 1 or not len(t) or not np.isfinite(t).all():
        raise ValueError(f"Expected finite steps, found {list(steps)}.")
    points = z[None, :, None] + t[None, None, :, None] * v[:, None, None]
    flat = torch.from_numpy(points.reshape(-1, latent))
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            faces = torch.cat([model.decode(part.to(model.device)).cpu() for part in flat.split(64)])
    finally:
        model.train(was_training)
    return faces.permute(0, 2, 3, 1).reshape(*points.shape[:3], size, size, 3).numpy()
