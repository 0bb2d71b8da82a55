"""Latents of all pictures, streamed: pixels never lie in memory all at once."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ._data import Pictures
from ._loading import stream
from ._vae import ImageVAE, as_pixels

__all__ = ["encode"]


def encode(
    model: ImageVAE,
    data: Pictures,
    *,
    batch_size: int = 256,
    workers: int = 0,
    sampled: bool = False,
    seed: int = 0,
    out: NDArray[np.float32] | None = None,
    progress: bool = True,
) -> NDArray[np.float32]:
    """Encode pictures in batches.

    Parameters
    ----------
    model
        A trained model; it runs on its own device, in evaluation mode.
    data
        n pictures of the model's size.
    batch_size
        Pictures in one pass. It bounds the memory and changes nothing else beyond rounding.
    workers
        Processes that read and crop ahead.
    sampled
        Draw from the posterior, as the published code does, in place of its mean. The draw depends on the seed and
        the place of the picture, not on the batch size.
    seed
        Of that draw.
    out
        (n, latent) to write into, such as a memory map; 200,000 pictures of 400 latents take 320 MB.
    progress
        Whether to show a progress bar.

    Returns
    -------
    (n, latent), float32: ``out`` if given.
    """
    n, latent = len(data), model.architecture.latent
    if data.size != model.architecture.size:
        raise ValueError(
            f"Expected pictures of the model's size, {model.architecture.size}, found {data.size}; "
            f"read them with size={model.architecture.size}."
        )
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
        with torch.inference_mode(), tqdm(total=n, desc="encode", unit="picture", disable=not progress) as bar:
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
