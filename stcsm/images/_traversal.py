"""Latent traversal: what the decoder draws as a face moves along a concept."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from ._vae import ImageVAE

__all__ = ["STEPS", "plot_traversal", "traverse"]

STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)


def traverse(
    model: ImageVAE, latents: ArrayLike, vectors: pd.DataFrame, steps: Sequence[float] = STEPS
) -> NDArray[np.float32]:
    """Decode z + t v.

    Parameters
    ----------
    model
        A trained model.
    latents
        (n, L) or (L,): where to start, such as the latents of some faces, or the mean of all.
    vectors
        (K, L) concept vectors. Where they are contrasts, a step of 1 goes from the mean face without the attribute to
        the mean face with it.
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
            f"Expected latents and vectors of {latent} coordinates, found shapes {z.shape} and {v.shape}; are they "
            f"this model's?"
        )
    if t.ndim != 1 or not len(t) or not np.isfinite(t).all():
        raise ValueError(f"Expected finite steps, found {list(steps)}.")
    places = z[None, :, None] + t[None, None, :, None] * v[:, None, None]
    flat = torch.from_numpy(places.reshape(-1, latent))
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            faces = torch.cat([model.decode(part.to(model.device)).cpu() for part in flat.split(64)])
    finally:
        model.train(was_training)
    return faces.permute(0, 2, 3, 1).reshape(*places.shape[:3], size, size, 3).numpy()


def plot_traversal(faces: ArrayLike, concepts: Sequence[str], steps: Sequence[float] = STEPS) -> Figure:
    """Show a traversal: one row a concept and starting point, one column a step.

    Parameters
    ----------
    faces
        (K, n, T, size, size, 3), as `traverse` returns them.
    concepts
        K names.
    steps
        T values.

    Returns
    -------
    The figure.

    Raises
    ------
    ValueError
        If the numbers of concepts or steps are others.
    """
    drawn = np.asarray(faces)
    if drawn.ndim != 6 or drawn.shape[0] != len(concepts) or drawn.shape[2] != len(steps):
        raise ValueError(
            f"Expected faces of shape ({len(concepts)} concepts, n, {len(steps)} steps, size, size, 3), found "
            f"{drawn.shape}."
        )
    k, n, t = drawn.shape[:3]
    figure, axes = plt.subplots(
        k * n, t, figsize=(0.95 * t + 0.9, 0.95 * k * n + 0.25), squeeze=False,
        gridspec_kw={"wspace": 0.03, "hspace": 0.06, "left": 0.9 / (0.95 * t + 0.9), "right": 0.995,
                     "top": 1 - 0.25 / (0.95 * k * n + 0.25), "bottom": 0.005},
    )  # fmt: skip
    for row, (c, i) in zip(axes, np.ndindex(k, n), strict=True):
        if i == 0:
            text = str(concepts[c]).replace("_", "\n")
            row[0].text(-0.08, 0.5, text, transform=row[0].transAxes, ha="right", va="center", fontsize=8)
        for j, axis in enumerate(row):
            axis.imshow(drawn[c, i, j], interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
    for axis, step in zip(axes[0], steps, strict=True):
        axis.set_title(f"{step:+g} v" if step else "z", fontsize=8, pad=3)
    return figure
