"""What the first pass is watched for: cuts of the gradient, activations in disguise, calls that no mode sees."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from stcsm.attribution._activations import recognise
from stcsm.attribution._disguise import Disguises
from stcsm.attribution._graph import Dependence

__all__ = ["Watch", "inside_function", "no_gradient"]

# Calls that carry the signal from inputs to latents: made without autograd they cut the gradient off.
_CARRIERS = frozenset(
    {"linear", "conv1d", "conv2d", "conv3d", "conv2d_same", "matmul", "bmm", "addmm", "mm", "batch_norm", "layer_norm"}
)
_DETACH = (Tensor.detach, Tensor.detach_, Tensor.data.__get__)  # type: ignore[attr-defined]


class Watch:
    """Looks at every call of the first pass.

    Parameters
    ----------
    dependence
        On the inputs.
    where
        Says where the running code is.
    ruled
        Whether a rule is on.

    Attributes
    ----------
    cuts
        Places where a part of the signal leaves autograd.
    seen
        Nodes of the graph that were made by calls that the mode saw.
    """

    def __init__(self, dependence: Dependence, where: Callable[[], str], *, ruled: bool) -> None:
        self._dependence, self._where, self._ruled = dependence, where, ruled
        self._disguises = Disguises()
        self.cuts: list[str] = []
        self.seen: set[Node] = set()

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Make a call, and look at what it does.

        Raises
        ------
        ValueError
            The signal's way is cut off, or under a rule the call completes an activation in disguise.
        """
        operands = [t for t in _tensors((args, kwargs)) if t.is_floating_point() and t.requires_grad]
        operands = [t for t in operands if self._dependence.on_inputs(t)]
        if not operands:
            return run()
        if not torch.is_grad_enabled():
            return self._without_autograd(func, args, kwargs, run)
        if func in _DETACH:
            self.cuts.append(f"{getattr(func, '__name__', '').strip('_')} in {self._where()}")
        if not self._ruled:
            return run()
        plain = recognise(func, args, kwargs) is None
        chains = self._disguises.before(func, operands) if plain else []
        stops = [t.grad_fn for t in operands]
        result = run()
        changed = args[0] if result is None and args else result  # item assignment returns nothing
        outputs = [t for t in _tensors(changed) if t.grad_fn is not None]
        self._mark([t.grad_fn for t in outputs], {node for node in stops if node is not None})
        if not plain:
            for output in outputs:
                self._disguises.ruled(output)
        elif len(outputs) == 1:
            found = self._disguises.after(chains, outputs[0])
            if found is not None:
                raise ValueError(
                    f"Expected every activation to be called by name, found arithmetic that makes a {found} in "
                    f"{self._where()} (it ends with {getattr(func, '__name__', func)}), on which a rule has no hold; "
                    f"call it through torch.nn.functional, or use a method without rules, such as integrated_gradients."
                )
        return result

    def _without_autograd(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]
    ) -> Any:
        inside = inside_function()
        name = getattr(func, "__name__", "")
        if inside == "CheckpointFunction":
            raise ValueError(
                f"Expected an encoder that autograd can run step by step, found a reentrant checkpoint in "
                f"{self._where()}; pass use_reentrant=False to torch.utils.checkpoint, or leave the checkpoint out."
            )
        if inside is not None:  # what it hands back is its own affair
            return run()
        if name in _CARRIERS or recognise(func, args, kwargs) is not None:
            raise ValueError(no_gradient(f"{name} in {self._where()} runs without autograd"))
        result = run()
        if any(t.is_floating_point() and not t.requires_grad for t in _tensors(result)):
            self.cuts.append(f"{name} in {self._where()}, which runs without autograd")
        return result

    def _mark(self, nodes: list[Node | None], stops: set[Node]) -> None:
        stack = list(nodes)
        while stack:
            node = stack.pop()
            if node is None or node in stops or node in self.seen:
                continue
            self.seen.add(node)
            stack.extend(parent for parent, _ in node.next_functions)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)


def inside_function() -> str | None:
    """Name of the custom autograd function whose forward pass is running, if one is."""
    bodies = [(getattr(getattr(cls, "forward", None), "__code__", None), cls.__name__) for cls in _functions()]
    frame = sys._getframe(1)
    while frame is not None:
        for code, name in bodies:
            if frame.f_code is code:
                return name
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _functions() -> Iterator[type]:
    stack: list[type] = list(torch.autograd.Function.__subclasses__())
    while stack:
        cls = stack.pop()
        yield cls
        stack.extend(cls.__subclasses__())


def no_gradient(found: str) -> str:
    """Message for an encoder that cuts the gradient off."""
    return (
        f"Expected an encoder whose latents depend on its inputs through autograd, found that {found}; remove "
        "torch.no_grad(), torch.inference_mode(), detach(), .data or numpy from its forward pass."
    )
