"""Reading the autograd graph: what depends on the inputs, and which activations no mode has seen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from torch import Tensor
from torch.autograd.graph import Node

__all__ = ["Dependence", "hidden_activations"]

# Names that autograd gives the activations' nodes -> what a person calls them.
_NODES = {
    "Relu": "relu",
    "Hardtanh": "hardtanh or relu6",
    "Elu": "elu",
    "LeakyRelu": "leaky_relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "Gelu": "gelu",
    "Silu": "silu",
    "Mish": "mish",
    "Hardswish": "hardswish",
    "Hardsigmoid": "hardsigmoid",
    "PreluKernel": "prelu",
    "RreluWithNoise": "rrelu",
    "Glu": "glu",
    "LogSigmoid": "logsigmoid",
    "Hardshrink": "hardshrink",
    "Softshrink": "softshrink",
    "Threshold": "threshold",
    "CompiledFunction": "a compiled function",
    "CheckpointFunction": "a checkpointed block",
    "DifferentiableGraph": "a scripted function",
}
# Names of nodes that an activation may be made of. Where a mode saw the call they are judged by their values.
_PARTS = {
    "Clamp": "clamp",
    "ClampMin": "clamp",
    "ClampMax": "clamp",
    "Where": "where",
    "MaskedFill": "masked_fill",
    "Logaddexp": "logaddexp",
    "Erf": "erf",
    "Exp": "exp",
    "Abs": "abs",
    "Maximum": "maximum",
    "Fmax": "fmax",
}


def _parents(node: Node) -> Iterator[Node]:
    return (parent for parent, _ in node.next_functions if parent is not None)


class Dependence:
    """Whether tensors depend on given leaves, remembered between questions.

    Parameters
    ----------
    leaves
        Tensors that require gradients and have none above them.
    """

    def __init__(self, leaves: Iterable[Tensor]) -> None:
        self._leaves = list(leaves)
        self._known: dict[Node, bool] = {}

    def on_inputs(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` depends on a leaf through autograd."""
        if any(tensor is leaf for leaf in self._leaves):
            return True
        node = tensor.grad_fn
        if node is None:  # a view that was taken without autograd
            base = tensor._base if tensor.requires_grad else None
            return base is not None and self.on_inputs(base)
        return self.of_node(node)

    def of_node(self, node: Node) -> bool:
        """Whether a node of the graph depends on a leaf."""
        stack = [node]
        while stack:
            top = stack[-1]
            if top in self._known:
                stack.pop()
                continue
            variable = getattr(top, "variable", None)
            if variable is not None:
                self._known[top] = any(variable is leaf for leaf in self._leaves)
                continue
            parents = list(_parents(top))
            unknown = [p for p in parents if p not in self._known]
            if unknown:
                stack.extend(unknown)
            else:
                self._known[top] = any(self._known[p] for p in parents)
        return self._known[node]


def hidden_activations(
    latents: Tensor, leaf: Tensor, spared: Iterable[Node], called: set[Node]
) -> tuple[list[str], list[str]]:
    """Activations between inputs and latents that kept their own gradient although a rule was on.

    A rule replaces an activation's node by one of ours, so whatever still stands in the graph under its own name
    was called where no mode can see it: in a scripted or compiled function, or inside a fused operation.

    Parameters
    ----------
    latents, leaf
        Output and inputs of a pass under a rule.
    spared
        Nodes that keep their gradient on purpose.
    called
        Nodes made by calls that the mode saw.

    Returns
    -------
    hidden, custom
        Names of activations and of the user's own autograd functions, sorted, each once.
    """
    dependence, kept = Dependence([leaf]), set(spared)
    found: set[str] = set()
    custom: set[str] = set()
    seen: set[Node] = set()
    stack = [latents.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        stack.extend(_parents(node))
        function = getattr(type(node), "_forward_cls", None)
        if function is not None and not function.__module__.startswith(("torch.", "stcsm.attribution.")):
            if dependence.of_node(node):
                custom.add(function.__name__)
            continue
        kind = re.sub(r"Backward\d*$", "", node.name())
        name = _NODES.get(kind) or (None if node in called else _PARTS.get(kind))
        if name is not None and node not in kept and dependence.of_node(node):
            found.add(name)
    return sorted(found), sorted(custom)
