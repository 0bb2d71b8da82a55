"""Does a map survive a random network, or random inputs? Then it says nothing about either."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.func import functional_call

from stcsm.attribution import evaluation_mode, read_samples
from stcsm.evaluation._faithfulness import FloatArray


@dataclass(frozen=True)
class LayerRandomisation:
    """How alike maps are before and after network layers are re-initialised, as Spearman correlations.

    Attributes
    ----------
    layers
        (n,) names, nearest to the latents first.
    cascading
        (n, draws, K): entry i has the layers 0 to i re-initialised.
    independent
        (n, draws, K): entry i has layer i alone re-initialised.
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
        Whether to re-initialise single layers, too.

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
    x = inputs if isinstance(inputs, Tensor) else torch.as_tensor(inputs, device="cpu")
    flat = x.flatten(1)
    mask = (flat != 0).any(dim=0).cpu().numpy() if moving is None else np.asarray(moving, dtype=bool).ravel()
    if len(mask) != flat.shape[1]:
        raise ValueError(f"Expected a mask of a sample's shape {tuple(x.shape[1:])}, found one of {len(mask)} cells.")
    cells = torch.from_numpy(np.flatnonzero(mask)).to(x.device)
    before = _cells(explain(x) if original is None else original, where)
    out = np.empty((n_draws, len(before)))
    for draw in range(n_draws):
        rng = np.random.default_rng([seed, draw])
        order = torch.from_numpy(np.argsort(rng.random((len(x), len(cells))), axis=1)).to(x.device)
        shuffled = flat.clone()
        shuffled[:, cells] = flat[:, cells].gather(1, order)
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


def layers_from_top(encoder: nn.Module, inputs: Any) -> list[str]:
    """Modules with parameters that the latents depend on, the one nearest to the latents first.

    The order is that of the autograd graph, so that it holds however the encoder is written, and heads that the latents
    do not pass through are left out.

    Parameters
    ----------
    encoder
        Any module that maps (N, ...) to latents (N, L).
    inputs
        A few samples, (N, ...).

    Returns
    -------
    Names as in ``encoder.named_modules()``; ``""`` is the encoder itself.

    Raises
    ------
    ValueError
        If the latents depend on no parameter.
    """
    x, device = read_samples(encoder, inputs)
    leaves = {
        name: p.detach().clone().requires_grad_() for name, p in encoder.named_parameters() if p.is_floating_point()
    }
    with evaluation_mode(encoder, device):
        latents = functional_call(encoder, leaves, (x.to(device),))
    depth = _distances(latents)
    found: dict[str, int] = {}
    for name, leaf in leaves.items():
        if id(leaf) in depth:
            layer = _layer(name)
            found[layer] = min(found.get(layer, depth[id(leaf)]), depth[id(leaf)])
    if not found:
        raise ValueError(
            f"Expected parameters between inputs and latents, found none in {type(encoder).__name__}; an encoder "
            "without parameters, or one that hides them in a checkpoint, cannot be randomised."
        )
    later = {name: -i for i, name in enumerate(found)}
    return sorted(found, key=lambda layer: (found[layer], later[layer]))


def randomised(encoder: nn.Module, layers: Sequence[str], seed: int = 0) -> nn.Module:
    """The encoder with the parameters of some network layers re-initialised; the encoder itself is not changed.

    Weights (two dimensions or more) are drawn from a normal distribution around zero with the root mean square that
    they have, so that a map cannot be told from a random network's by its scale alone; vectors (biases, scales of
    normalisation) from one with their own mean and standard deviation. Running statistics stay.

    Parameters
    ----------
    encoder
        Any module.
    layers
        Names of its modules, as :func:`layers_from_top` gives them.
    seed
        A layer's draw depends on the seed and its name alone.

    Returns
    -------
    A module that computes what ``encoder`` would with those parameters.

    Raises
    ------
    ValueError
        If a layer has no parameters of that name.
    """
    parameters = {name: p for name, p in encoder.named_parameters() if p.is_floating_point()}
    known = {_layer(name) for name in parameters}
    unknown = [layer for layer in layers if layer not in known]
    if unknown:
        raise ValueError(f"Expected layers among {sorted(known)}, found {unknown[0]!r}.")
    chosen = set(layers)
    return _Randomised(
        encoder, {name: _drawn(name, p, seed) for name, p in parameters.items() if _layer(name) in chosen}
    )


class _Randomised(nn.Module):
    """Calls the encoder with other parameters, which torch takes out again after every call, also after an error."""

    def __init__(self, encoder: nn.Module, replaced: dict[str, Tensor]) -> None:
        super().__init__()
        self.encoder = encoder
        self._replaced = replaced
        self.training = encoder.training

    def forward(self, *inputs: Any) -> Any:
        """Latents of the randomised encoder."""
        return functional_call(self.encoder, self._replaced, inputs)


def _drawn(name: str, parameter: Tensor, seed: int) -> Tensor:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = parameter.detach().double().cpu()
    centre = 0.0 if values.ndim > 1 else float(values.mean())
    spread = float((values - centre).square().mean().sqrt())
    drawn = torch.from_numpy(centre + spread * rng.standard_normal(tuple(values.shape)))
    return torch.empty_like(parameter.detach()).copy_(drawn)


def _layer(parameter: str) -> str:
    """Module of a parameter; weight norm and the like keep theirs in a module of their own, ``parametrizations``."""
    parts = parameter.split(".")[:-1]
    if "parametrizations" in parts:
        parts = parts[: parts.index("parametrizations")]
    return ".".join(parts)


def _distances(latents: Tensor) -> dict[int, int]:
    """Longest way, in steps of the autograd graph, from the latents to every leaf, by the leaf's ``id``.

    The longest way, and not the shortest, keeps a layer below all that it feeds where connections skip layers.
    """
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(latents.grad_fn, False)] if latents.grad_fn is not None else []
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((parent, False) for parent, _ in node.next_functions if parent is not None)
    distance = dict.fromkeys(order, 0)
    for node in reversed(order):
        for parent, _ in node.next_functions:
            if parent is not None:
                distance[parent] = max(distance[parent], distance[node] + 1)
    return {id(node.variable): steps for node, steps in distance.items() if hasattr(node, "variable")}
