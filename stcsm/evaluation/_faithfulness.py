"""Does the concept score stand on the features that a map points at? Perturbation curves and completeness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from torch import Tensor, nn

from stcsm.attribution import Arguments, evaluation_mode, like_inputs

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """Concept scores while features are replaced by the baseline.

    Attributes
    ----------
    share
        (T,) share of the features that are replaced, from 0 to 1.
    mif, lif
        (N, K, T), or (N, T) for one concept: scores, most important features first and least important first.
    area
        (N, K) or (N,): integral over the share of LIF minus MIF, in units of the score. 0 for an order that says
        nothing; the larger, the better the map knows what the score stands on.
    relative
        (K,) or a number: sum of the areas over the samples, divided by the sum of |score - score of the baseline|, so
        that concepts and models can be compared.
    """

    share: FloatArray
    mif: FloatArray
    lif: FloatArray
    area: FloatArray
    relative: FloatArray


def perturbation_curves(
    encoder: nn.Module,
    inputs: Any,
    concepts: Any,
    maps: Any,
    *,
    baseline: Any = 0.0,
    features: Any = None,
    steps: int = 20,
    seed: int = 0,
    batch_size: int = 256,
) -> Curves:
    """Follow the concept score while features are replaced in order of importance (Brocki & Chung, arXiv 2203.02928).

    Most important first (MIF) should bring the score down at once, least important first (LIF) should keep it, or raise
    it where features speak against the concept. Replacing is an artefact of its own, the same in both curves, so that
    the area between them is the part that the order earns.

    Parameters
    ----------
    encoder, inputs, concepts
        As for :func:`stcsm.attribution.attribute`.
    maps
        Attributions of those inputs, (N, ...) for one concept or (N, K, ...); the signed value is the importance. One
        map for all samples goes in through :func:`numpy.broadcast_to`.
    baseline
        What replaces: a number, a sample, or one for each input.
    features
        Integer label for each cell of a sample: cells of one label are one feature, replaced together, its importance
        the sum of theirs (see :func:`patches`). None: each cell by itself.
    steps
        Steps from nothing replaced to everything.
    seed
        Of the order among features of equal importance (many maps are zero in most places).
    batch_size
        Most samples in one pass.

    Returns
    -------
    Curves

    Raises
    ------
    ValueError
        If shapes do not fit, ``maps`` are not finite, or steps is below 1.
    """
    run = Scorer(encoder, inputs, concepts, batch_size)
    importance, label = _by_feature(run, maps, features)
    if steps < 1:
        raise ValueError(f"Expected at least one step, found {steps}.")
    n, k, j = importance.shape
    removed = np.unique(np.round(np.linspace(0, j, steps + 1)).astype(int))
    share = removed / j
    cover = run.baseline(baseline).cpu()
    x = run.x.cpu()
    ends = np.stack([run.scores(x), run.scores(cover)], axis=-1)  # (N, K, 2): nothing replaced, everything replaced
    curves = np.empty((2, n, k, len(removed)))
    curves[..., 0], curves[..., -1] = ends[..., 0], ends[..., 1]
    between = removed[1:-1]
    pairs = [(i, c) for i in range(n) for c in range(k)] if len(between) else []
    at_once = max(1, run.batch_size // (2 * max(len(between), 1)))
    cells = torch.from_numpy(label)
    for start in range(0, len(pairs), at_once):
        some = pairs[start : start + at_once]
        rows = []
        for i, c in some:
            rank = torch.from_numpy(_rank(importance[i, c], seed, i, c))
            gone = torch.stack(
                [torch.stack([rank < r for r in between]), torch.stack([rank >= j - r for r in between])]
            )
            gone = gone[..., cells].reshape(-1, *run.shape)
            rows.append(torch.where(gone, cover[i], x[i]))
        found = run.scores(torch.cat(rows)).reshape(len(some), 2, len(between), k)
        for (i, c), scores in zip(some, found, strict=True):
            curves[:, i, c, 1:-1] = scores[..., c]
    mif, lif = curves
    area = trapezoid(lif - mif, share, axis=-1)
    scale = np.abs(ends[..., 0] - ends[..., 1]).sum(axis=0)
    relative = np.divide(area.sum(axis=0), scale, out=np.full(k, np.nan), where=scale > 0)
    return Curves(share, run.shaped(mif), run.shaped(lif), run.shaped(area), relative[0] if run.single else relative)


def patches(shape: Sequence[int], size: int) -> np.ndarray:
    """Label the cells of an image by square patches, all channels together.

    Parameters
    ----------
    shape
        Of a sample, (C, H, W) or (H, W).
    size
        Edge of a patch in cells; at the right and lower edge patches are cut.

    Returns
    -------
    Integer array of that shape, labels from 0.
    """
    if len(shape) not in (2, 3) or size < 1:
        raise ValueError(f"Expected a shape (C, H, W) or (H, W) and a size of 1 or more, found {tuple(shape)}, {size}.")
    height, width = shape[-2:]
    across = -(-width // size)
    rows, columns = np.arange(height) // size, np.arange(width) // size
    return np.broadcast_to(rows[:, None] * across + columns, tuple(shape)).copy()


def _by_feature(run: Scorer, maps: Any, features: Any) -> tuple[FloatArray, np.ndarray]:
    """Importance (N, K, J) of the features, and the feature (F,) of every cell."""
    values = run.read_maps(maps)
    if features is None:
        return values, np.arange(values.shape[-1])
    given = np.asarray(features)
    if given.shape != run.shape or given.dtype.kind not in "iu":
        raise ValueError(
            f"Expected an integer label for each cell of a sample of shape {run.shape}, found {given.dtype} "
            f"{given.shape}."
        )
    names, label = np.unique(given.ravel(), return_inverse=True)
    summed = np.zeros((*values.shape[:2], len(names)))
    for i in range(len(values)):
        for c in range(values.shape[1]):
            summed[i, c] = np.bincount(label, weights=values[i, c], minlength=len(names))
    return summed, label


def _rank(importance: FloatArray, seed: int, sample: int, concept: int) -> np.ndarray:
    """Rank of every feature in the order of importance, 0 for the most important; ties in a random order."""
    tie = np.random.default_rng([seed, sample, concept]).random(len(importance))
    order = np.lexsort((tie, -importance))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank


@dataclass(frozen=True)
class Completeness:
    """Sums of attributions against differences of scores.

    Attributes
    ----------
    total
        (N, K) or (N,): sum of the attributions of a sample.
    difference
        The same shape: score of the sample minus score of the baseline.
    error
        (K,) or a number: sum over the samples of |total - difference| over the sum of |difference|. 0 is complete; 1 is
        what a map of zeros gets.
    """

    total: FloatArray
    difference: FloatArray
    error: FloatArray


def completeness(
    encoder: nn.Module, inputs: Any, concepts: Any, maps: Any, *, baseline: Any = 0.0, batch_size: int = 256
) -> Completeness:
    """Compare the sum of attributions with the change of the concept score (Sundararajan et al. 2017).

    It is meant for methods that multiply by the input (see :func:`multiplies_by_input`); the sum of a gradient has
    other units.

    Parameters
    ----------
    encoder, inputs, concepts
        As for :func:`stcsm.attribution.attribute`.
    maps
        Attributions of those inputs, (N, ...) for one concept or (N, K, ...).
    baseline
        Where the path starts: a number, a sample, or one for each input.
    batch_size
        Most samples in one pass.

    Raises
    ------
    ValueError
        If shapes do not fit or ``maps`` are not finite.
    """
    run = Scorer(encoder, inputs, concepts, batch_size)
    total = run.read_maps(maps).sum(axis=-1)
    difference = run.scores(run.x) - run.scores(run.baseline(baseline))
    scale = np.abs(difference).sum(axis=0)
    gap = np.abs(total - difference).sum(axis=0)
    error = np.divide(gap, scale, out=np.full(len(scale), np.nan), where=scale > 0)
    return Completeness(run.shaped(total), run.shaped(difference), error[0] if run.single else error)


class Scorer:
    """Scores of concepts, in batches, without autograd; the encoder's modes are as before afterwards.

    Parameters
    ----------
    encoder, inputs, concepts
        As for :func:`stcsm.attribution.attribute`.
    batch_size
        Most samples in one pass of the encoder.

    Attributes
    ----------
    x
        Inputs (N, ...).
    vectors
        Concepts (K, L).
    single
        Whether one vector (L,) was given.
    """

    def __init__(self, encoder: nn.Module, inputs: Any, concepts: Any, batch_size: int = 256) -> None:
        self.encoder = encoder
        given = Arguments.read(encoder, inputs, concepts, batch_size)
        self.x, self.vectors, self.single = given.x, given.vectors, given.single
        self.device, self.batch_size = given.device, given.batch_size

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample."""
        return tuple(self.x.shape[1:])

    def scores(self, rows: Tensor) -> FloatArray:
        """Concept scores (n, K) of rows (n, ...)."""
        parts = []
        with evaluation_mode(self.encoder, self.device), torch.no_grad():
            for start in range(0, len(rows), self.batch_size):
                z = self.encoder(rows[start : start + self.batch_size].to(self.device))
                if not isinstance(z, Tensor) or z.ndim != 2 or z.shape[1] != self.vectors.shape[1]:
                    found = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
                    raise ValueError(
                        f"Expected an encoder whose latents have the concepts' {self.vectors.shape[1]} components, "
                        f"found {found}."
                    )
                parts.append(z.double().cpu() @ self.vectors.double().cpu().T)
        return torch.cat(parts).numpy()

    def baseline(self, value: Any) -> Tensor:
        """A number, a sample or one for each input, as (N, ...)."""
        return like_inputs(value, self.x, "baseline").to(self.x).expand_as(self.x)

    def read_maps(self, maps: Any) -> FloatArray:
        """Attributions (N, ...) or (N, K, ...) as (N, K, F).

        Raises
        ------
        ValueError
            If their shape does not fit inputs and concepts, or they are not finite.
        """
        values = np.asarray(maps.detach().cpu() if isinstance(maps, Tensor) else maps, dtype=np.float64)
        wanted = (len(self.x), *self.shape) if self.single else (len(self.x), len(self.vectors), *self.shape)
        if values.shape != wanted:
            raise ValueError(
                f"Expected attributions of shape {wanted}, as stcsm.attribution.attribute returns them for these "
                f"inputs and concepts, found {values.shape}."
            )
        if not np.isfinite(values).all():
            raise ValueError(
                "Expected finite attributions, found NaN or infinity; occlusion leaves cells that no window covers "
                "NaN: choose window and step so that all are covered."
            )
        return values.reshape(len(self.x), len(self.vectors), -1)

    def shaped(self, values: FloatArray) -> FloatArray:
        """Drop the concepts' axis, the second, where one vector was given."""
        return values[:, 0] if self.single else values
