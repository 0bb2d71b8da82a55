"""Concept saliency of images: the attribution of a concept score to pixels, and its agreement with known pixels."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_dilation, gaussian_filter
from sklearn.metrics import roc_auc_score
from torch import nn
from tqdm.auto import tqdm

from stcsm._files import whole_file
from stcsm.attribution import attribute, make_method
from stcsm.images._concepts import check_size, concept_scores, encode
from stcsm.images.data import ImageSet, as_pixels
from stcsm.images.model import ImageVAE

__all__ = ["CHANNELS", "DEFAULT_METHOD", "SaliencyMaps", "mask_agreement", "mean_difference", "pixel_maps", "saliency"]

#: How three channels are reduced to one value per pixel. "abs": sum of absolute values. "sum": their sum, as published.
CHANNELS = ("abs", "sum")
DEFAULT_METHOD = "saliency"


@dataclass(frozen=True)
class SaliencyMaps:
    """Maps of K concepts, n images each.

    Attributes
    ----------
    concepts
        Their K names.
    names
        (K, n) names of the images.
    rows
        (K, n) their rows in the data set.
    pixels
        (K, n, size, size, 3) uint8.
    maps
        (K, n, size, size, 3) float32 attributions, signed, one per channel and pixel.
    scores
        (K, n) concept scores.
    method, params
        Attribution method and its parameters.
    """

    concepts: list[str]
    names: NDArray[Any]
    rows: NDArray[np.intp]
    pixels: NDArray[np.uint8]
    maps: NDArray[np.float32]
    scores: NDArray[np.float64]
    method: str
    params: dict[str, Any] = field(default_factory=dict)

    def by_pixel(self, channels: str = "abs", smooth: float | None = None) -> NDArray[np.float32]:
        """One value per pixel, (K, n, size, size): see `pixel_maps`."""
        return pixel_maps(self.maps, channels, smooth)

    def save(self, path: str | Path) -> None:
        """Write one ``.npz`` file, completely or not at all; `numpy.load` reads it without pickle."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as scratch, scratch.open("wb") as file:
            np.savez_compressed(
                file, concepts=np.array(self.concepts, dtype=str), names=self.names, rows=self.rows,
                pixels=self.pixels, maps=self.maps, scores=self.scores, method=np.array(self.method),
                params=np.array(json.dumps(self.params, default=repr)),
            )  # fmt: skip


def saliency(
    model: ImageVAE,
    data: ImageSet,
    vectors: pd.DataFrame,
    *,
    rows: ArrayLike | None = None,
    n: int = 8,
    method: str = DEFAULT_METHOD,
    latents: ArrayLike | None = None,
    encoder: nn.Module | None = None,
    batch_size: int = 32,
    progress: bool = True,
    **params: Any,
) -> SaliencyMaps:
    """Attribute concept scores to the pixels of images.

    Parameters
    ----------
    model
        A trained model.
    data
        Images of the model's size.
    vectors
        Concept vectors, one row per concept: all or some rows of the result of `concept_vectors`.
    rows
        Rows of the images to explain, the same for every concept; None selects for each concept the ``n`` images with
        the highest scores.
    n
        Number of top-scoring images per concept.
    method
        One of :data:`stcsm.attribution.METHODS`; by default the plain gradient, which on simulated faces locates the
        pixels of an attribute better than the methods that multiply by the input (``docs/sanity.md``).
    latents
        (images, L) of ``data``, from which scores are computed; None encodes the images.
    encoder
        Module to explain instead of ``model.encoder``, such as ``model.sampled_encoder()``, the published one.
    batch_size
        Images per pass. It limits the memory and changes results only by rounding.
    progress
        Whether to show progress.
    **params
        The method's parameters; see `stcsm.attribution.attribute`. ``baseline`` (integrated gradients, DeepLIFT) has
        pixel values between 0 and 1, (3, size, size).

    Raises
    ------
    TypeError, ValueError
        If the method or a parameter is unknown, rows are out of range, or vectors belong to another model.
    """
    make_method(method, params)  # invalid arguments are refused before images are encoded
    check_size(model, data)
    if vectors.ndim != 2 or vectors.shape[1] != model.architecture.latent or not len(vectors):
        raise ValueError(
            f"Expected concept vectors (concepts, {model.architecture.latent}) of this model, found {vectors.shape}."
        )
    module = model.encoder if encoder is None else encoder
    v = vectors.to_numpy(dtype=np.float64)
    if rows is None:
        if n < 1:
            raise ValueError(f"Expected n of at least 1, found {n}.")
        z = encode(model, data, batch_size=batch_size, progress=progress) if latents is None else np.asarray(latents)
        if len(z) != len(data):
            raise ValueError(f"Expected latents of the {len(data)} images, found {len(z)} rows.")
        scores = concept_scores(z, vectors).to_numpy().T
        top = np.argsort(-scores, axis=1, kind="stable")[:, :n]
        scores = np.take_along_axis(scores, top, axis=1)
        shown = tqdm(range(len(v)), desc=method, unit="concept", disable=not progress)
        found = [_explain(module, data, top[k], v[[k]], method, batch_size, params) for k in shown]
        pixels, maps = np.stack([p for p, _ in found]), np.concatenate([m for _, m in found])
    else:
        chosen = _checked(rows, len(data))
        part = data.take(chosen)
        z = (
            encode(model, part, batch_size=batch_size, progress=False)
            if latents is None
            else np.asarray(latents)[chosen]
        )
        scores = concept_scores(z, vectors).to_numpy().T
        top = np.repeat(chosen[None], len(v), axis=0)
        one, maps = _explain(module, data, chosen, v, method, batch_size, params, progress)
        pixels = np.repeat(one[None], len(v), axis=0)
    names = np.asarray(data.names, dtype=str)[top]
    return SaliencyMaps([str(c) for c in vectors.index], names, top, pixels, maps, scores, method, dict(params))


def _checked(rows: ArrayLike, n: int) -> NDArray[np.intp]:
    given = np.atleast_1d(np.asarray(rows))
    if given.ndim != 1 or not len(given) or not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"Expected row numbers of images, found {given.dtype} of shape {given.shape}.")
    if given.min() < 0 or given.max() >= n:
        raise ValueError(f"Expected rows of {n} images, 0 to {n - 1}, found {given.min()} to {given.max()}.")
    return given.astype(np.intp)


def _explain(
    encoder: nn.Module, data: ImageSet, rows: NDArray[np.intp], vectors: NDArray[np.float64], method: str,
    batch_size: int, params: dict[str, Any], progress: bool = False,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:  # fmt: skip
    """Pixels (n, size, size, 3) and maps (K, n, size, size, 3) of some images."""
    pixels = data.stack(rows)
    maps = attribute(
        encoder,
        as_pixels(pixels),
        vectors.astype(np.float32),
        method,
        batch_size=batch_size,
        progress=progress,
        **params,
    )
    return (
        np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy()),
        np.ascontiguousarray(maps.permute(1, 0, 3, 4, 2).cpu().numpy()),
    )


def pixel_maps(maps: ArrayLike, channels: str = "abs", smooth: float | None = None) -> NDArray[np.float32]:
    """Reduce maps of three channels to one value per pixel.

    Parameters
    ----------
    maps
        (..., size, size, 3).
    channels
        One of `CHANNELS`.
    smooth
        Standard deviation, in pixels, of the Gaussian that smooths the result: the gradient of a strided convolution
        has a checkerboard pattern. None is 1/32 of the width; 0 does not smooth.

    Returns
    -------
    (..., size, size)

    Raises
    ------
    ValueError
        If the last axis does not have three channels, or an argument is invalid.
    """
    array = np.asarray(maps, dtype=np.float32)
    if array.ndim < 3 or array.shape[-1] != 3:
        raise ValueError(f"Expected maps of shape (..., size, size, 3), found {array.shape}.")
    if channels not in CHANNELS:
        raise ValueError(f"Expected channels to be one of {', '.join(CHANNELS)}, found {channels!r}.")
    width = array.shape[-2] / 32 if smooth is None else smooth
    if not 0 <= width < np.inf:
        raise ValueError(f"Expected smooth of at least 0 pixels, found {smooth}.")
    flat = np.abs(array).sum(axis=-1) if channels == "abs" else array.sum(axis=-1)
    if width == 0:
        return flat
    return gaussian_filter(flat, (*[0] * (flat.ndim - 2), width, width), mode="nearest")


# ---------------------------------------------------------------- agreement with known pixels


def mask_agreement(
    maps: ArrayLike, masks: ArrayLike, *, share: float = 0.05, margin: int | None = None
) -> dict[str, NDArray[np.float64]]:
    """Compare maps with the masks of an attribute, image by image.

    Parameters
    ----------
    maps
        (n, size, size), higher where the map locates the attribute; or one map (size, size) for all.
    masks
        (n, size, size) booleans, true where the attribute is visible.
    share
        Share of the pixels, those of the highest values, that ``top`` compares with the mask.
    margin
        Pixels by which the mask is dilated for ``top``, since the contour of an object counts as a hit; None is 1/32 of
        the width, at least one pixel.

    Returns
    -------
    ``auroc``: (n,), over pixels, 0.5 is chance. ``top``: (n,), share of the highest pixels in the dilated mask.
    ``chance``: (n,), the same of random pixels. NaN where a mask is empty or covers the image.

    Raises
    ------
    ValueError
        If shapes differ, a map is not finite, or the share is not between 0 and 1.
    """
    truth = np.asarray(masks, dtype=bool)
    values = np.asarray(maps, dtype=np.float64)
    if truth.ndim != 3 or values.shape not in (truth.shape, truth.shape[1:]):
        raise ValueError(f"Expected maps and masks of one shape (n, size, size), found {values.shape}, {truth.shape}.")
    if not np.isfinite(values).all():
        raise ValueError("Expected finite maps, found NaN or infinity.")
    if not 0 < share < 1:
        raise ValueError(f"Expected a share between 0 and 1, found {share}.")
    wide = max(1, round(truth.shape[1] / 32)) if margin is None else margin
    if wide < 0:
        raise ValueError(f"Expected a margin of at least 0 pixels, found {margin}.")
    values = np.broadcast_to(values, truth.shape)
    n_top = max(1, round(share * truth[0].size)) if len(truth) else 0
    out = {key: np.full(len(truth), np.nan) for key in ("auroc", "top", "chance")}
    for i, (value, mask) in enumerate(zip(values, truth, strict=True)):
        if not mask.any() or mask.all():
            continue
        near = binary_dilation(mask, iterations=wide) if wide else mask
        highest = np.argsort(-value, axis=None, kind="stable")[:n_top]
        out["auroc"][i] = roc_auc_score(mask.ravel(), value.ravel())
        out["top"][i] = near.ravel()[highest].mean()
        out["chance"][i] = near.mean()
    return out


def mean_difference(pixels: ArrayLike, has: ArrayLike) -> NDArray[np.float64]:
    """Mean of the images with an attribute minus mean of those without: a baseline map without a model.

    `pixel_maps` converts it to ``|mean(with) - mean(without)|``, one value per pixel. On aligned faces every method
    must be compared with it. It is the same for every image.

    Parameters
    ----------
    pixels
        (n, 3, size, size).
    has
        (n,) booleans.

    Returns
    -------
    (size, size, 3), in the units of the pixels.

    Raises
    ------
    ValueError
        If shapes do not match, or all images or none have the attribute.
    """
    which = np.asarray(has, dtype=bool)
    given = np.asarray(pixels)
    if given.ndim != 4 or which.shape != (len(given),):
        raise ValueError(f"Expected one boolean for each of {len(given)} images, found shape {which.shape}.")
    if not 0 < which.sum() < len(which):
        raise ValueError(f"Expected images with and without the attribute, found {which.sum()} of {len(which)}.")
    weights = np.where(which, 1 / which.sum(), -1 / (~which).sum())
    difference = np.zeros(given.shape[1:])
    for start in range(0, len(given), 256):
        part = slice(start, start + 256)
        difference += np.tensordot(weights[part], given[part].astype(np.float64), axes=1)
    return difference.transpose(1, 2, 0)
