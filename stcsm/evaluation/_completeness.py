"""Completeness: whether attributions add up to the difference of the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from stcsm.evaluation._runner import FloatArray, Runner


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
    run = Runner(encoder, inputs, concepts, batch_size)
    total = run.read_maps(maps).sum(axis=-1)
    difference = run.scores(run.x) - run.scores(run.baseline(baseline))
    scale = np.abs(difference).sum(axis=0)
    gap = np.abs(total - difference).sum(axis=0)
    error = np.divide(gap, scale, out=np.full(len(scale), np.nan), where=scale > 0)
    return Completeness(run.shaped(total), run.shaped(difference), error[0] if run.single else error)
