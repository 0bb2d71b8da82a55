"""Pictures side by side in one picture; what a model draws while it trains."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ._vae import ImageVAE, as_pixels

__all__ = ["picture_grid", "reconstructions", "samples", "write_png"]


def picture_grid(pictures: Tensor | NDArray[np.generic], columns: int = 8) -> NDArray[np.uint8]:
    """Lay pictures side by side.

    Parameters
    ----------
    pictures
        (n, 3, size, size): uint8, or floats between 0 and 1.
    columns
        Pictures in a row.

    Returns
    -------
    (height, width, 3), 0 to 255, with white where the last row is short.

    Raises
    ------
    ValueError
        If there is no picture, or ``columns`` is below 1.
    """
    pixels = as_pixels(pictures).detach().cpu().float().mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    n, size = pixels.shape[:2]
    if n < 1 or columns < 1:
        raise ValueError(f"Expected at least one picture and one column, found {n} and {columns}.")
    columns = min(columns, n)
    rows = -(-n // columns)
    full = np.full((rows * columns, size, size, 3), 255, np.uint8)
    full[:n] = pixels
    return full.reshape(rows, columns, size, size, 3).swapaxes(1, 2).reshape(rows * size, columns * size, 3)


def reconstructions(model: ImageVAE, pixels: Tensor) -> Tensor:
    """Pictures (n, 3, size, size) and, row for row of eight, what the model makes of them."""
    decoded = _latents_decoded(model, pixels)[1]
    shown = [part for k in range(0, len(pixels), 8) for part in (pixels[k : k + 8], decoded[k : k + 8])]
    return torch.cat(shown)


def samples(model: ImageVAE, pixels: Tensor, n: int = 32, seed: int = 0) -> Tensor:
    """Decode n draws from the normal distribution that has the mean and covariance of the pictures' latents.

    The standard normal prior would show less: with so small a weight on the divergence, latents lie elsewhere.
    """
    latents, _ = _latents_decoded(model, pixels, decode=False)
    draws = np.random.default_rng(seed).standard_normal((n, len(latents)), dtype=np.float32)
    mean = latents.mean(0)
    mixed = torch.from_numpy(draws).to(latents) @ (latents - mean) / max(len(latents) - 1, 1) ** 0.5
    with torch.no_grad():
        return model.decode(mean + mixed)


def _latents_decoded(model: ImageVAE, pixels: Tensor, decode: bool = True) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        latents = model.posterior(pixels)[0]
        return latents, model.decode(latents) if decode else latents


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a picture (height, width, 3), whole or not at all."""
    scratch = path.with_name(f".{path.name}")
    Image.fromarray(pixels).save(scratch, format="PNG")
    os.replace(scratch, path)
