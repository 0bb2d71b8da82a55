"""Does a map survive a random network, or random inputs? Then it says nothing about either."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from torch import Tensor, nn

from stcsm.evaluation._layers import layers_from_top, randomised
from stcsm.evaluation._runner import FloatArray


@dataclass(frozen=True)
class LayerRandomisation:
    """How alike maps are before and after layers are drawn anew, as Spearman correlations.

    Attributes
    ----------
    layers
        (n,) names, nearest to the latents first.
    cascading
        (n, draws, K): entry i has the layers 0 to i drawn anew.
    independent
        (n, draws, K): entry i has layer i drawn anew and nothing else.
    """

    layers: list[str]
    cascading: FloatArray
    independent: FloatArray


def layer_randomisation(
    encoder: nn.Module,
    inputs: Any,
    explain: Callable[[nn.Module], ArrayLike],
    *,
    original: ArrayLike | None = None,
    where: ArrayLike | None = None,
    n_draws: int = 5,
    seed: int = 0,
    independent: bool = True,
) -> LayerRandomisation:
    """Compare maps with those of partly random networks (Adebayo et al. 2018, arXiv 1810.03292).

    The concepts stay as they are. A map that stays alike when the layers that carry the concept are random does not
    depend on what was learned.

    Parameters
    ----------
    encoder
        Any module that maps (N, ...) to latents (N, L). It is not changed, whatever happens.
    inputs
        A few samples, (N, ...), to find the layers with.
    explain
        Maps (K, ...) of the concepts for an encoder that it is given.
    original
        Its maps for ``encoder``, where they are there already.
    where
        Mask of the cells that are compared, of a map's shape.
    n_draws
        Random networks.
    seed
        Of the draws.
    independent
        Whether to draw single layers, too.

    Returns
    -------
    LayerRandomisation
    """
    if n_draws < 1:
        raise ValueError(f"Expected at least one draw, found {n_draws}.")
    layers = layers_from_top(encoder, inputs)
    before = _cells(explain(encoder) if original is None else original, where)
    cascading = np.empty((len(layers), n_draws, len(before)))
    alone = np.full_like(cascading, np.nan)
    for draw in range(n_draws):
        for i, layer in enumerate(layers):
            made = randomised(encoder, layers[: i + 1], seed + draw)
            cascading[i, draw] = paired_similarity(before, _cells(explain(made), where))
            if i == 0:
                alone[i, draw] = cascading[i, draw]
            elif independent:
                made = randomised(encoder, [layer], seed + draw)
                alone[i, draw] = paired_similarity(before, _cells(explain(made), where))
    return LayerRandomisation(layers, cascading, alone)


def input_randomisation(
    inputs: Any,
    explain: Callable[[Tensor], ArrayLike],
    *,
    original: ArrayLike | None = None,
    where: ArrayLike | None = None,
    moving: ArrayLike | None = None,
    n_draws: int = 5,
    seed: int = 0,
) -> FloatArray:
    """Compare maps with those of inputs whose cells are shuffled, each sample in an order of its own.

    A map that stays alike shows what the encoder looks at in any sample, not what these samples look like. That is what
    the mean gradient over genes is meant to be; of a method that is said to explain single samples it is not.

    Parameters
    ----------
    inputs
        (N, ...).
    explain
        Maps (K, ...) for inputs that it is given.
    moving
        Mask of the cells that are shuffled, of a sample's shape. None: those that are not zero in every sample (the
        surroundings of a tissue on a grid stay where they are).
    original, where, n_draws, seed
        As for :func:`layer_randomisation`.

    Returns
    -------
    (draws, K) Spearman correlations.
    """
    if n_draws < 1:
        raise ValueError(f"Expected at least one draw, found {n_draws}.")
    x = torch.as_tensor(inputs)
    flat = x.flatten(1)
    mask = (flat != 0).any(dim=0).cpu().numpy() if moving is None else np.asarray(moving, dtype=bool).ravel()
    if len(mask) != flat.shape[1]:
        raise ValueError(f"Expected a mask of a sample's shape {tuple(x.shape[1:])}, found one of {len(mask)} cells.")
    places = torch.from_numpy(np.flatnonzero(mask)).to(x.device)
    before = _cells(explain(x) if original is None else original, where)
    out = np.empty((n_draws, len(before)))
    for draw in range(n_draws):
        rng = np.random.default_rng([seed, draw])
        order = torch.from_numpy(np.argsort(rng.random((len(x), len(places))), axis=1)).to(x.device)
        shuffled = flat.clone()
        shuffled[:, places] = flat[:, places].gather(1, order)
        out[draw] = paired_similarity(before, _cells(explain(shuffled.reshape(x.shape)), where))
    return out


def cross_concept(maps: ArrayLike, others: ArrayLike | None = None) -> FloatArray:
    """Spearman correlations (K, J) between maps (K, ...) and others (J, ...), or among themselves.

    Cells that are NaN in any map are left out. A map without any differences is like no other: 0.
    """
    a = _cells(maps)
    b = a if others is None else _cells(others)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"Expected maps over the same cells, found {a.shape} and {b.shape}.")
    known = ~(np.isnan(a).any(axis=0) | np.isnan(b).any(axis=0))
    return _unit_ranks(a[:, known]) @ _unit_ranks(b[:, known]).T


def paired_similarity(maps: ArrayLike, others: ArrayLike) -> FloatArray:
    """Spearman correlation (K,) of each map (K, ...) with its counterpart; 0 where one has no differences."""
    a, b = _cells(maps), _cells(others)
    if a.shape != b.shape:
        raise ValueError(f"Expected as many maps of as many cells on both sides, found {a.shape} and {b.shape}.")
    known = ~(np.isnan(a).any(axis=0) | np.isnan(b).any(axis=0))
    return np.einsum("kf,kf->k", _unit_ranks(a[:, known]), _unit_ranks(b[:, known]))


def agreement(members: Sequence[ArrayLike]) -> FloatArray:
    """Spearman correlations (pairs, K) of the maps (K, ...) of each pair of members of an ensemble."""
    pairs = [paired_similarity(a, b) for a, b in combinations(members, 2)]
    return np.stack(pairs) if pairs else np.empty((0, len(np.asarray(members[0]))))


def _unit_ranks(maps: FloatArray) -> FloatArray:
    """Ranks of every row, centred and of length 1, so that products are Spearman correlations; a constant row is 0."""
    ranked = rankdata(maps, axis=1)
    ranked -= ranked.mean(axis=1, keepdims=True)
    length = np.linalg.norm(ranked, axis=1, keepdims=True)
    return ranked / np.where(length > 0, length, 1)


def _cells(maps: ArrayLike, where: ArrayLike | None = None) -> FloatArray:
    """Maps (K, ...) as (K, F), restricted to a mask."""
    values = np.asarray(maps.detach().cpu() if isinstance(maps, Tensor) else maps, dtype=np.float64)
    if values.ndim < 2:
        raise ValueError(f"Expected maps of shape (K, ...), found {values.shape}.")
    if where is None:
        return values.reshape(len(values), -1)
    mask = np.asarray(where, dtype=bool)
    if mask.shape != values.shape[1:]:
        raise ValueError(f"Expected a mask of a map's shape {values.shape[1:]}, found {mask.shape}.")
    return values[:, mask]
