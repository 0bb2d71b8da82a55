"""What every function of this package asks of a latent space before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


class LatentSpace:
    """Coordinates of the usable genes, (n, L), with what estimators need of them again and again."""

    def __init__(self, coordinates: FloatArray) -> None:
        self.coordinates = coordinates

    @cached_property
    def mean(self) -> FloatArray:
        """Mean gene, (L,)."""
        return np.asarray(self.coordinates.mean(axis=0))

    @cached_property
    def spectrum(self) -> tuple[FloatArray, FloatArray]:
        """Eigenvalues (L,) and axes (L, L) of the covariance of all genes."""
        values, axes = np.linalg.eigh(np.atleast_2d(np.cov(self.coordinates, rowvar=False, bias=True)))
        return values, axes


def check_latent(latent: ArrayLike) -> tuple[FloatArray, BoolArray]:
    """Latent coordinates as float64 and which rows can be used.

    Parameters
    ----------
    latent
        (G, L) latent coordinates; a row of NaN is a gene (sample) without an embedding.

    Returns
    -------
    latent
        (G, L) float64.
    usable
        (G,) True where the row is finite.

    Raises
    ------
    ValueError
        If the array is not two-dimensional, has no usable row, or holds infinities.
    """
    z = np.asarray(latent, dtype=np.float64)
    if z.ndim != 2 or z.shape[1] == 0:
        raise ValueError(f"Expected latent coordinates of shape (genes, latents), found shape {z.shape}.")
    infinite = np.isinf(z).any(axis=1)
    if infinite.any():
        raise ValueError(
            f"Expected finite latent coordinates (or NaN for genes without an embedding), found infinite values in "
            f"{int(infinite.sum())} rows, first row {int(np.flatnonzero(infinite)[0])}; the model has diverged: "
            f"train it again with a smaller learning rate."
        )
    usable: BoolArray = np.asarray(~np.isnan(z).any(axis=1))
    if not usable.any():
        raise ValueError(f"Expected at least one gene with an embedding, found {z.shape[0]} rows that all hold NaN.")
    return z, usable


def check_latents(latent: ArrayLike | Sequence[ArrayLike]) -> tuple[list[FloatArray], NDArray[np.bool_]]:
    """Latent coordinates of every member, each (G, L), and the genes that all of them embed.

    Raises
    ------
    ValueError
        If a member's array is at fault (see `check_latent`), or members embed different genes.
    """
    single = isinstance(latent, np.ndarray) and latent.ndim == 2
    given = [check_latent(z) for z in ([latent] if single else list(latent))]  # type: ignore[arg-type]
    if not given:
        raise ValueError("Expected latent coordinates, found none.")
    usable = given[0][1]
    for z, other in given[1:]:
        if z.shape[0] != usable.size or (other != usable).any():
            raise ValueError("Expected members of an ensemble that embed the same genes, found others.")
    return [z for z, _ in given], usable


def check_vectors(vectors: ArrayLike, n_latent: int) -> FloatArray:
    """Concept vectors as (K, L) float64; a single (L,) vector becomes one row."""
    v = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
    if v.ndim != 2 or v.shape[1] != n_latent:
        raise ValueError(
            f"Expected concept vectors of shape (concepts, {n_latent}), found {np.shape(vectors)}; "
            f"were they made in another model's latent space?"
        )
    if not np.isfinite(v).all():
        bad = np.flatnonzero(~np.isfinite(v).all(axis=1))
        raise ValueError(f"Expected finite concept vectors, found NaN or infinity in concept number {int(bad[0])}.")
    return v
