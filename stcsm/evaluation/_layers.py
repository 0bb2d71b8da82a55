"""An encoder's layers from the top, and the encoder with some of them drawn anew, the original untouched."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.func import functional_call

from stcsm.attribution._check import check_encoder, home, read_inputs
from stcsm.attribution._evaluating import evaluating


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
    check_encoder(encoder)
    x = read_inputs(inputs, encoder)
    device = home(encoder, x)
    leaves = {
        name: p.detach().clone().requires_grad_() for name, p in encoder.named_parameters() if p.is_floating_point()
    }
    with evaluating(encoder, device):
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
    """The encoder with the parameters of some layers drawn anew; the encoder itself is not changed.

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
