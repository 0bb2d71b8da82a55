"""Concept saliency of pictures: which pixels carry an attribute."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter
from torch import nn
from tqdm.auto import tqdm

from stcsm.attribution import attribute, make_method

from ._concepts import concept_scores
from ._data import Pictures
from ._encode import encode
from ._vae import ImageVAE, as_pixels

__all__ = ["CHANNELS", "DEFAULT_METHOD", "SaliencyMaps", "pixel_maps", "saliency"]

#: How three channels become one value a pixel. "abs": sum of absolute values. "sum": their sum, as published.
CHANNELS = ("abs", "sum")
DEFAULT_METHOD = "saliency"


@dataclass(frozen=True)
class SaliencyMaps:
    """Maps of K concepts, n pictures each.

    Attributes
    ----------
    concepts
        Their K names.
    names
        (K, n) names of the pictures.
    rows
        (K, n) their rows in the data.
    pixels
        (K, n, size, size, 3) uint8.
    maps
        (K, n, size, size, 3) float32 attributions, signed, one for each channel of each pixel.
    scores
        (K, n) concept scores.
    method, params
        What made the maps.
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
        """One value a pixel, (K, n, size, size): see `pixel_maps`."""
        return pixel_maps(self.maps, channels, smooth)

    def save(self, path: str | Path) -> None:
        """Write everything into one ``.npz`` file, whole or not at all; `numpy.load` reads it without pickle."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.part")
        try:
            with scratch.open("wb") as file:
                np.savez_compressed(
                    file, concepts=np.array(self.concepts, dtype=str), names=self.names, rows=self.rows,
                    pixels=self.pixels, maps=self.maps, scores=self.scores, method=np.array(self.method),
                    params=np.array(json.dumps(self.params, default=repr)),
                )  # fmt: skip
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)


def saliency(
    model: ImageVAE,
    data: Pictures,
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
    """Attribute concept scores to the pixels of pictures.

    Parameters
    ----------
    model
        A trained model.
    data
        Pictures of the model's size.
    vectors
        Concept vectors, one row a concept: some or all rows of what `concept_vectors` returned.
    rows
        Rows of the pictures to explain, the same for every concept; None takes the ``n`` pictures that score highest on
        each concept.
    n
        Top-scoring pictures of each concept.
    method
        One of :data:`stcsm.attribution.METHODS`; by default the plain gradient, which on drawn faces points at the
        pixels of an attribute more often than the methods that multiply by the input (``docs/sanity.md``).
    latents
        (pictures, L) of ``data``, to find the top-scoring ones by; None encodes all of ``data``.
    encoder
        Module to explain in place of ``model.encoder``, such as ``model.sampled_encoder()``, the published one.
    batch_size
        Pictures in one pass; it bounds the memory and changes nothing else beyond rounding.
    progress
        Whether to show progress.
    **params
        The method's parameters; see `stcsm.attribution.attribute`. ``baseline`` (integrated gradients, DeepLIFT) is in
        pixels between 0 and 1, (3, size, size).

    Raises
    ------
    TypeError, ValueError
        If the method or a parameter is unknown, rows are not those of pictures, or vectors belong to another model.
    """
    make_method(method, params)  # refused before anything is encoded
    if data.size != model.architecture.size:
        raise ValueError(
            f"Expected pictures of the model's size, {model.architecture.size}, found {data.size}; "
            f"read them with size={model.architecture.size}."
        )
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
            raise ValueError(f"Expected latents of the {len(data)} pictures, found {len(z)} rows.")
        scores = concept_scores(z, vectors).to_numpy().T
        top = np.argsort(-scores, axis=1, kind="stable")[:, :n]
        scores = np.take_along_axis(scores, top, axis=1)
        shown = tqdm(range(len(v)), desc=method, unit="concept", disable=not progress)
        found = [_explain(module, data, top[k], v[[k]], method, batch_size, params) for k in shown]
        pixels, maps = np.stack([p for p, _ in found]), np.concatenate([m for _, m in found])
    else:
        chosen = _any(rows, len(data))
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


def pixel_maps(maps: ArrayLike, channels: str = "abs", smooth: float | None = None) -> NDArray[np.float32]:
    """One value a pixel from one for each channel.

    Parameters
    ----------
    maps
        (..., size, size, 3).
    channels
        One of `CHANNELS`.
    smooth
        Standard deviation, in pixels, of a Gaussian that the result is smoothed with: the gradient of a convolution
        that skips pixels is checkered. None takes 1/32 of the width; 0 smooths nothing.

    Returns
    -------
    (..., size, size)

    Raises
    ------
    ValueError
        If the last axis does not hold three channels, or an argument is none of the above.
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


def _any(rows: ArrayLike, n: int) -> NDArray[np.intp]:
    given = np.atleast_1d(np.asarray(rows))
    if given.ndim != 1 or not len(given) or not np.issubdtype(given.dtype, np.integer):
        raise ValueError(f"Expected row numbers of pictures, found {given.dtype} of shape {given.shape}.")
    if given.min() < 0 or given.max() >= n:
        raise ValueError(f"Expected rows of {n} pictures, 0 to {n - 1}, found {given.min()} to {given.max()}.")
    return given.astype(np.intp)


def _explain(
    encoder: nn.Module, data: Pictures, rows: NDArray[np.intp], vectors: NDArray[np.float64], method: str,
    batch_size: int, params: dict[str, Any], progress: bool = False,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:  # fmt: skip
    """Pixels (n, size, size, 3) and maps (K, n, size, size, 3) of some pictures."""
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
