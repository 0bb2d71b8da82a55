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


def _parents(node: Node) -> Iterator[Node]:
    return (parent for parent, _ in node.next_functions if parent is not None)


def _node(tensor: Tensor) -> Node | None:
    return tensor.grad_fn if tensor.grad_fn is not None else None


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
        node = _node(tensor)
        return node is not None and self.of_node(node)

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


def hidden_activations(latents: Tensor, leaf: Tensor, spared: Iterable[Node]) -> list[str]:
    """Activations between inputs and latents that kept their own gradient although a rule was on.

    A rule replaces an activation's node by one of ours, so whatever still stands in the graph under its own name
    was called where no mode can see it: in a scripted or compiled function, or inside a fused operation.

    Parameters
    ----------
    latents, leaf
        Output and inputs of a pass under a rule.
    spared
        Nodes that keep their gradient on purpose.

    Returns
    -------
    list of str
        Names, sorted, each once.
    """
    dependence, kept = Dependence([leaf]), set(spared)
    found: set[str] = set()
    seen: set[Node] = set()
    stack = [latents.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = _NODES.get(re.sub(r"Backward\d*$", "", node.name()))
        if name is not None and node not in kept and dependence.of_node(node):
            found.add(name)
        stack.extend(_parents(node))
    return sorted(found)
