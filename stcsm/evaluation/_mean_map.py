"""Mean attribution over samples, for any number of concepts, without holding one map a sample and concept."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from stcsm.attribution import attribute
from stcsm.attribution._check import read_concepts
from stcsm.attribution._table import make_method
from stcsm.evaluation._runner import FloatArray

CHUNK_VALUES = 2**25
"""Values of attributions held at once."""


def mean_map(
    encoder: nn.Module,
    inputs: Tensor,
    concepts: Any,
    method: str,
    params: dict[str, Any] | None = None,
    *,
    where: ArrayLike | None = None,
) -> FloatArray:
    """Signed mean over the samples of the attributions of each concept.

    Parameters
    ----------
    encoder
        As for :func:`stcsm.attribution.attribute`.
    inputs
        (N, ...).
    concepts
        (K, L).
    method, params
        Of :func:`stcsm.attribution.attribute`.
    where
        Mask of the cells that are wanted, of a sample's shape.

    Returns
    -------
    (K, ...) float64, or (K, F) for F cells wanted. Methods linear in the concept attribute the latents once, however
    many concepts there are.
    """
    params = dict(params or {})
    vectors, _ = read_concepts(concepts, inputs)
    through_latents = make_method(method, params).linear and len(vectors) > vectors.shape[1]
    directions = torch.eye(vectors.shape[1], dtype=inputs.dtype) if through_latents else vectors
    step = int(np.clip(CHUNK_VALUES // (len(directions) * inputs[0].numel()), 1, 256))
    total = torch.zeros(len(directions), *inputs.shape[1:], dtype=torch.float64)
    for start in range(0, len(inputs), step):
        # A sample's noise depends on its place among all samples, not among those of the chunk.
        own = {"first": start} if method == "smoothgrad" else {}
        maps = attribute(
            encoder, inputs[start : start + step], directions, method, batch_size=step, **{**params, **own}
        )
        total += maps.double().sum(dim=0).cpu()
    mean = total / len(inputs)
    if where is not None:
        mean = mean[:, torch.as_tensor(np.asarray(where, dtype=bool))]
    if through_latents:
        mean = (vectors.double().cpu() @ mean.flatten(1)).reshape(len(vectors), *mean.shape[1:])
    return mean.numpy()
