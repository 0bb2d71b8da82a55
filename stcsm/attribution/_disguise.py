"""Activations written as arithmetic: found by their values, since no call says what they are.

``torch.where(z > 0, z, 0)``, ``z * (z > 0)``, ``(z + z.abs()) / 2``, ``z / (1 + exp(-z))``: what element-wise
arithmetic makes of a tensor is compared with what the known activations would make of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["Disguises"]

# fmt: off
_ELEMENTWISE = frozenset({
    "abs", "absolute", "add", "addcmul", "clamp", "clamp_max", "clamp_min", "clip", "clone", "contiguous", "copysign",
    "div", "divide", "erf", "exp", "expm1", "fmax", "fmin", "heaviside", "iadd", "idiv", "imul", "index_put", "isub",
    "itruediv", "lerp", "log", "log1p", "logaddexp", "masked_fill", "max", "maximum", "min", "minimum", "mul",
    "multiply", "neg", "negative", "pow", "rdiv", "reciprocal", "rpow", "rsqrt", "rsub", "setitem", "sign", "sqrt",
    "square", "sub", "subtract", "true_divide", "where",
})
# fmt: on
_KNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "relu6": functional.relu6,
    "hardtanh": functional.hardtanh,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": functional.softplus,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu (tanh)": lambda x: functional.gelu(x, approximate="tanh"),
    "mish": functional.mish,
    "elu": functional.elu,
    "selu": functional.selu,
    "softsign": functional.softsign,
}
_CELLS, _LONGEST = 1024, 8
# Values of a tensor in some of its cells, at every step of the arithmetic that made it; None: a rule was in it.
Chain = list[tuple[torch.Size, Tensor]] | None


class Disguises:
    """Remembers the arithmetic of one pass."""

    def __init__(self) -> None:
        self._chains: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def before(self, func: Any, operands: list[Tensor]) -> list[Chain]:
        """Take the operands' values before a call, which may change them in place."""
        if _name(func) not in _ELEMENTWISE:
            return []
        return [self._chains[t] if t in self._chains else [_values(t)] for t in operands]

    def after(self, chains: list[Chain], result: Tensor) -> str | None:
        """Name of the activation that the arithmetic up to this result amounts to, or None."""
        if not chains:
            return None
        if any(chain is None for chain in chains):
            self._chains[result] = None
            return None
        shape, y = _values(result)
        steps = [step for chain in chains for step in chain or () if step[0] == shape][-_LONGEST:]
        self._chains[result] = [*steps, (shape, y)]
        return next((name for _, x in steps if (name := _match(x, y)) is not None), None)

    def ruled(self, result: Tensor) -> None:
        """Note that a rule was applied here: arithmetic with its result is no activation of its own."""
        self._chains[result] = None


def _name(func: Any) -> str:
    return getattr(func, "__name__", "").strip("_").split(".")[0]


def _values(tensor: Tensor) -> tuple[torch.Size, Tensor]:
    flat = tensor.detach().reshape(-1)
    step = max(1, flat.numel() // _CELLS) | 1  # odd, so as not to follow one column
    return tensor.shape, flat[::step].double().clone()


def _match(x: Tensor, y: Tensor) -> str | None:
    below, above = x < 0, x > 0
    if min(int(below.sum()), int(above.sum())) < 4 or float(x.abs().max()) < 0.1 or not bool(y.isfinite().all()):
        return None
    left, right = y[below] / x[below], y[above] / x[above]
    scale = 1e-4 * float(torch.maximum(left.abs().max(), right.abs().max()))
    if scale and float(left.max() - left.min()) <= scale and float(right.max() - right.min()) <= scale:
        a, b = float(left.mean()), float(right.mean())
        if abs(a - b) <= scale or a * b < 0:  # a straight line, or an absolute value
            return None
        return "relu" if min(abs(a), abs(b)) <= scale else "leaky_relu"
    for name, known in _KNOWN.items():
        expected = known(x)
        if float((y - expected).abs().max()) <= 1e-5 * float(expected.abs().max()):
            return name
    return None
