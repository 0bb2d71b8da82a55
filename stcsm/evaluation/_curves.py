"""MIF and LIF curves: what happens to the concept score as features are taken away in order of importance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.integrate import trapezoid
from torch import nn

from stcsm.evaluation._runner import FloatArray, Runner


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
    run = Runner(encoder, inputs, concepts, batch_size)
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
            place = torch.from_numpy(_place(importance[i, c], seed, i, c))
            gone = torch.stack(
                [torch.stack([place < r for r in between]), torch.stack([place >= j - r for r in between])]
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
    """Label the cells of a picture by square patches, all channels together.

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


def _by_feature(run: Runner, maps: Any, features: Any) -> tuple[FloatArray, np.ndarray]:
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


def _place(importance: FloatArray, seed: int, sample: int, concept: int) -> np.ndarray:
    """Place of every feature in the order of importance, 0 for the most important; ties in a random order."""
    tie = np.random.default_rng([seed, sample, concept]).random(len(importance))
    order = np.lexsort((tie, -importance))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return place
