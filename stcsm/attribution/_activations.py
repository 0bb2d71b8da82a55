"""Which torch call is which activation, however it is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["IN_PUBLISHED", "PLAIN_IN_PUBLISHED", "RULED", "UNRULED", "Call", "recognise"]

#: Activations that the published code gives a rule.
IN_PUBLISHED = ("relu", "relu6", "elu", "sigmoid", "tanh", "softplus", "softsign")
#: Activations whose TensorFlow operation the published code does not override: they pass their plain gradient there.
PLAIN_IN_PUBLISHED = ("leaky_relu", "selu")
#: Activations that have a rule here; the rest of them by the generalisation in the documentation.
RULED = (*IN_PUBLISHED, *PLAIN_IN_PUBLISHED, "gelu", "silu", "mish")
#: Activations that no method has a rule for.
UNRULED = (
    "celu",
    "glu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "logsigmoid",
    "prelu",
    "rrelu",
    "softshrink",
    "tanhshrink",
    "threshold",
    # Activations are inside these, out of reach.
    "gru",
    "gru_cell",
    "lstm",
    "lstm_cell",
    "rnn_relu",
    "rnn_relu_cell",
    "rnn_tanh",
    "rnn_tanh_cell",
)


@dataclass(frozen=True)
class Call:
    """One call of an activation.

    Attributes
    ----------
    name
        Which activation, a member of :data:`RULED` or :data:`UNRULED`.
    input
        Its argument (pre-activation).
    plain
        The activation as a function of that argument alone, out of place.
    inplace
        Whether the caller expects ``input`` to hold the result.
    result_is_saved
        Whether torch itself keeps the result for the backward pass, so that it cannot be changed in place later.
    """

    name: str
    input: Tensor
    plain: Callable[[Tensor], Tensor]
    inplace: bool
    result_is_saved: bool


def _spellings(name: str) -> dict[Any, tuple[str, Callable[..., Tensor], bool]]:
    """Every torch callable of that name -> (name, out-of-place form, is it in place)."""
    homes = (torch, functional, Tensor, torch._C._nn, torch.special, torch.ops.aten)
    found: dict[Any, tuple[str, Callable[..., Tensor], bool]] = {}
    for home in homes:
        plain = getattr(home, name, None)
        if plain is None:
            continue
        found[plain] = (name, plain, False)
        in_place = getattr(home, f"{name}_", None)
        if in_place is not None:
            found[in_place] = (name, plain, True)
    return found


_TABLE: dict[Any, tuple[str, Callable[..., Tensor], bool]] = {}
for _name in (*RULED, *UNRULED, "clamp", "clip", "clamp_min", "maximum", "fmax", "expit"):
    _TABLE.update(_spellings(_name))
_TABLE[torch._C._nn.log_sigmoid] = ("logsigmoid", torch._C._nn.log_sigmoid, False)
_TABLE[torch.special.expit] = ("sigmoid", torch.special.expit, False)
_TABLE[torch.max] = ("maximum", torch.max, False)
_TABLE[Tensor.max] = ("maximum", Tensor.max, False)
# functional.threshold dispatches under the name of its body.
_TABLE[functional._threshold] = ("threshold", functional._threshold, False)  # type: ignore[attr-defined]


def _zero(value: Any) -> bool:
    """Whether a bound is the constant zero."""
    if isinstance(value, Tensor):
        return not value.requires_grad and not bool(value.any())
    return isinstance(value, (int, float)) and value == 0


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, *names: str) -> Any:
    if len(args) > place:
        return args[place]
    return next((kwargs[n] for n in names if n in kwargs), None)


def _bounded(low: Any, high: Any) -> str | None:
    """Name of the activation that keeps values between two bounds, or None for a mere guard."""
    low, high = _constant(low, -math.inf), _constant(high, math.inf)
    return {(0, math.inf): "relu", (0, 6): "relu6", (0, 1): "hardtanh", (-1, 1): "hardtanh"}.get((low, high))


def _constant(bound: Any, absent: float) -> Any:
    """A bound's value; None where it is computed or not the same everywhere."""
    if bound is None:
        return absent
    if not isinstance(bound, Tensor):
        return bound
    if bound.requires_grad or bound.numel() == 0 or not bool((bound == bound.reshape(-1)[0]).all()):
        return None
    return bound.reshape(-1)[0].item()


def _resolve(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Canonical name of a call whose arguments decide what it is; None where it is no activation."""
    if name in ("clamp", "clip"):
        return _bounded(_argument(args, kwargs, 1, "min"), _argument(args, kwargs, 2, "max"))
    if name == "clamp_min":
        return _bounded(_argument(args, kwargs, 1, "min"), None)
    if name == "hardtanh":
        low, high = _argument(args, kwargs, 1, "min_val"), _argument(args, kwargs, 2, "max_val")
        return _bounded(-1.0 if low is None else low, 1.0 if high is None else high) or name
    if name == "threshold":
        zero = _zero(_argument(args, kwargs, 1, "threshold")) and _zero(_argument(args, kwargs, 2, "value"))
        return "relu" if zero else name
    return "sigmoid" if name == "expit" else name


def recognise(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
    """Read a call that torch is about to make.

    Parameters
    ----------
    func, args, kwargs
        As ``__torch_function__`` receives them.

    Returns
    -------
    Call or None
        None where the call is no activation.
    """
    if isinstance(func, torch._ops.OpOverload):
        func = func.overloadpacket
    try:
        entry = _TABLE.get(func)
    except TypeError:  # unhashable callable
        return None
    if entry is None or "out" in kwargs:
        return None
    name, plain, in_place = entry
    if name in ("maximum", "fmax"):
        return _maximum(plain, args, kwargs)
    resolved = _resolve(name, args, kwargs)
    if resolved is None:
        return None
    rest = {k: v for k, v in kwargs.items() if k not in ("inplace", "input", "self")}
    value = args[0] if args else kwargs.get("input", kwargs.get("self"))
    if not isinstance(value, Tensor):
        return None
    return Call(
        name=resolved,
        input=value,
        plain=lambda t: plain(t, *args[1:], **rest),
        inplace=in_place or bool(kwargs.get("inplace", False)),
        result_is_saved=name in ("relu", "sigmoid", "tanh"),
    )


def _maximum(plain: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
    """``maximum(x, 0)`` in either order; every other use of a maximum is no activation."""
    other = _argument(args, kwargs, 1, "other")
    value = args[0] if args else kwargs.get("input")
    if not isinstance(value, Tensor) or not isinstance(other, Tensor):
        return None
    if _zero(value):
        value, other = other, value
    elif not _zero(other):
        return None
    if torch.broadcast_shapes(value.shape, other.shape) != value.shape:
        return None
    return Call("relu", value, lambda t: plain(t, other), inplace=False, result_is_saved=False)
