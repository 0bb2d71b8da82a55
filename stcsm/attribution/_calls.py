"""What a torch call is under a backward rule: an activation, a call that passes its plain gradient, or neither.

An activation gets the rule, however it is written. Linear and shape operations, norms, pooling, soft-max, attention and
products with what does not depend on the input, or is one number for many cells, pass their plain gradient. Any other
call may be an activation in other words, such as ``torch.where(z > 0, z, 0)``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "IN_PUBLISHED",
    "PLAIN_IN_PUBLISHED",
    "RULED",
    "Call",
    "argument",
    "call_name",
    "is_plain_node",
    "is_product",
    "is_reduction",
    "is_scaling",
    "is_square",
    "keeps_statistics",
    "passes",
]

#: Activations that the published code gives a rule.
IN_PUBLISHED = ("relu", "relu6", "elu", "sigmoid", "tanh", "softplus", "softsign")
#: Activations whose TensorFlow operation the published code does not override: they pass their plain gradient there.
PLAIN_IN_PUBLISHED = ("leaky_relu", "selu")
#: Activations that have a rule here; the rest of them by the generalisation in the documentation.
RULED = (*IN_PUBLISHED, *PLAIN_IN_PUBLISHED, "gelu", "silu", "mish")


def call_name(func: Any) -> str:
    """Name of a torch callable, the same for all its spellings: "add" for ``Tensor.add_`` and ``aten.add.Tensor``."""
    name: str = getattr(func, "__name__", str(func)).split(".")[0].strip("_")
    return re.sub(r"^(special|linalg|sparse)_", "", name)


def argument(args: tuple[Any, ...], kwargs: dict[str, Any], index: int, *names: str) -> Any:
    """Argument of a call by its position or one of its names; None where it is absent."""
    if len(args) > index:
        return args[index]
    return next((kwargs[n] for n in names if n in kwargs), None)


# ---------------------------------------------------------------------------------------------------------------------
# Activations


@dataclass(frozen=True)
class Call:
    """One call of an activation that has a rule.

    Attributes
    ----------
    name
        Which activation, one of :data:`RULED`.
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

    @classmethod
    def read(cls, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], allow: Sequence[str] = ()) -> Call | None:
        """Read a call that torch is about to make.

        Parameters
        ----------
        func, args, kwargs
            As ``__torch_function__`` receives them.
        allow
            Names of calls that pass their plain gradient on purpose.

        Returns
        -------
        Call or None
            None where it is no activation with a rule, or an allowed one.
        """
        spelling = _SPELLINGS.get(func.overloadpacket if isinstance(func, torch._ops.OpOverload) else func)
        if spelling is None or "out" in kwargs:
            return None
        if spelling.name in ("maximum", "fmax", "max"):
            call = _maximum(spelling, args, kwargs)
        else:
            call = _of_one_argument(spelling, args, kwargs)
        return None if call is None or {call.name, call_name(func)} & set(allow) else call


@dataclass(frozen=True)
class _Spelling:
    """A torch callable that is an activation, or is one for some arguments."""

    name: str
    plain: Callable[..., Tensor]
    inplace: bool


def _spellings() -> Iterator[tuple[Any, _Spelling]]:
    homes = (torch, functional, Tensor, torch._C._nn, torch.special, torch.ops.aten)
    for name in (*RULED, "clamp", "clip", "clamp_min", "hardtanh", "threshold", "maximum", "fmax", "max", "expit"):
        for home in homes:
            plain = getattr(home, name, None)
            if plain is None:
                continue
            yield plain, _Spelling(name, plain, inplace=False)
            changing = getattr(home, f"{name}_", None)
            if changing is not None:
                yield changing, _Spelling(name, plain, inplace=True)
    # functional.threshold dispatches under the name of its body.
    body = functional._threshold  # type: ignore[attr-defined]
    yield body, _Spelling("threshold", body, inplace=False)


_SPELLINGS = dict(_spellings())


def _of_one_argument(spelling: _Spelling, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
    name: str | None = spelling.name
    if name in ("clamp", "clip"):
        name = _bounded(argument(args, kwargs, 1, "min"), argument(args, kwargs, 2, "max"))
    elif name == "clamp_min":
        name = _bounded(argument(args, kwargs, 1, "min"), None)
    elif name == "hardtanh":
        low, high = argument(args, kwargs, 1, "min_val"), argument(args, kwargs, 2, "max_val")
        name = _bounded(-1.0 if low is None else low, 1.0 if high is None else high)
    elif name == "threshold":
        zeros = _is_zero(argument(args, kwargs, 1, "threshold")) and _is_zero(argument(args, kwargs, 2, "value"))
        name = "relu" if zeros else None
    elif name == "expit":
        name = "sigmoid"
    value = argument(args, kwargs, 0, "input", "self")
    if name is None or not isinstance(value, Tensor):
        return None
    # Without the argument itself: a function that held it would keep it alive until the backward pass.
    rest, others = {k: v for k, v in kwargs.items() if k not in ("inplace", "input", "self")}, args[1:]
    return Call(
        name=name,
        input=value,
        plain=lambda t: spelling.plain(t, *others, **rest),
        inplace=spelling.inplace or bool(kwargs.get("inplace", False)),
        result_is_saved=spelling.name in ("relu", "sigmoid", "tanh"),
    )


def _maximum(spelling: _Spelling, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
    """``maximum(x, 0)`` in either order; every other use of a maximum is no ReLU."""
    value, other = argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "other")
    if not isinstance(value, Tensor) or not isinstance(other, Tensor):
        return None
    if _is_zero(value):
        value, other = other, value
    elif not _is_zero(other):
        return None
    if torch.broadcast_shapes(value.shape, other.shape) != value.shape:
        return None
    return Call("relu", value, lambda t: spelling.plain(t, other), inplace=False, result_is_saved=False)


def _bounded(low: Any, high: Any) -> str | None:
    """Name of the activation that keeps values between two bounds, or None."""
    low, high = _constant(low, -math.inf), _constant(high, math.inf)
    return {(0, math.inf): "relu", (0, 6): "relu6"}.get((low, high))


def _constant(bound: Any, absent: float) -> Any:
    """A bound's value; None where it is computed or not the same everywhere."""
    if bound is None:
        return absent
    if not isinstance(bound, Tensor):
        return bound
    if bound.requires_grad or bound.numel() == 0 or not bool((bound == bound.reshape(-1)[0]).all()):
        return None
    return bound.reshape(-1)[0].item()


def _is_zero(value: Any) -> bool:
    return _constant(value, math.nan) == 0


# ---------------------------------------------------------------------------------------------------------------------
# Calls that pass their plain gradient

# fmt: off
_LINEAR = frozenset({
    "add", "iadd", "radd", "sub", "subtract", "isub", "rsub", "neg", "negative", "positive", "sum", "nansum",
    "mean", "nanmean", "cumsum", "diff", "trapezoid", "trapz", "mm", "mv", "bmm", "matmul", "rmatmul", "imatmul",
    "addmm", "addmv", "addbmm", "baddbmm", "addr", "outer", "ger", "dot", "vdot", "vecdot", "inner", "tensordot",
    "einsum", "kron", "chain_matmul", "multi_dot", "linear", "bilinear", "view", "view_as", "unsafe_view",
    "reshape", "reshape_as", "reshape_alias", "flatten", "unflatten", "ravel", "squeeze", "unsqueeze", "expand",
    "expand_as", "broadcast_to", "broadcast_tensors", "repeat", "repeat_interleave", "tile", "permute", "transpose",
    "swapaxes", "swapdims", "movedim", "moveaxis", "t", "adjoint", "flip", "fliplr", "flipud", "roll", "rot90",
    "cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "column_stack", "row_stack",
    "atleast_1d", "atleast_2d", "atleast_3d", "chunk", "split", "split_with_sizes", "tensor_split", "hsplit",
    "vsplit", "dsplit", "unbind", "unsafe_chunk", "unsafe_split", "select", "narrow", "slice", "getitem", "index",
    "index_select", "gather", "take", "take_along_dim", "masked_select", "diagonal", "diag", "diag_embed", "tril",
    "triu", "trace", "as_strided", "copy_slices", "meshgrid", "block_diag", "pad", "constant_pad_nd",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "interpolate", "grid_sample",
    "affine_grid", "fold", "unfold", "im2col", "col2im", "scatter_add", "index_add", "slice_scatter",
    "select_scatter", "diagonal_scatter", "to", "to_copy", "type", "type_as", "float", "double", "half", "bfloat16",
    "cfloat", "cdouble", "cpu", "cuda", "contiguous", "clone", "alias", "copy", "get", "lift_fresh",
    "requires_grad", "real", "imag", "conj", "conj_physical", "resolve_conj", "resolve_neg", "view_as_real",
    "view_as_complex", "complex", "to_dense", "to_sparse", "coalesce", "values", "stft", "istft", "nan_to_num",
})
_STATISTICS = frozenset({
    # of norms
    "var", "std", "var_mean", "std_mean", "norm_except_dim", "normalize",
    # of pooling: a choice of cells, or of one of them
    "amax", "amin", "aminmax", "median", "nanmedian", "quantile", "nanquantile", "kthvalue", "topk", "sort",
    "msort", "cummax", "cummin", "mode", "scatter_reduce", "segment_reduce",
    # soft-max, attention and similarity
    "cosine_similarity", "softmin", "logsumexp", "scaled_dot_product_attention", "multi_head_attention_forward",
    "native_multi_head_attention",
})
# fmt: on
_FAMILIES = re.compile(
    r"conv\w*|fft_\w+|upsample_\w+|\w+_pad[123]d|\w*dropout([123]d)?|(\w+_)?norm|\w*_(un)?pool[123]d(_with_indices)?|"
    r"(\w+_)?softmax"
)
# Linear in each of their operands, so that they pass with one that depends on the input.
_PRODUCTS = frozenset({"mul", "multiply", "rmul", "imul", "addcmul", "cross"})
# Linear in all operands but one, and which: it must not depend on the input.
_LINEAR_BUT = {"div": 1, "divide": 1, "true_divide": 1, "truediv": 1, "itruediv": 1, "addcdiv": 2, "lerp": 2}
# Linear in what they take, for a choice of cells that does not depend on the input.
_CHOICES = frozenset(
    {"where", "masked_fill", "masked_scatter", "setitem", "index_put", "index_fill", "index_copy", "scatter"}
)


def passes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], dependent: Sequence[Tensor]) -> bool:
    """Whether a call that is no activation passes its plain gradient under a rule.

    Parameters
    ----------
    func, args, kwargs
        As ``__torch_function__`` receives them.
    dependent
        Operands that depend on the inputs, with a gradient or without; one that stands twice comes twice. Of a product
        or quotient (:func:`is_product`) only those that are not one number for many cells.
    """
    name = call_name(func)
    if name in _LINEAR or name in _STATISTICS or _FAMILIES.fullmatch(name):
        return True
    if name in ("max", "min"):  # over a dimension it is pooling
        return not isinstance(argument(args, kwargs, 1, "other"), Tensor)
    if name in _PRODUCTS:
        factors = (*args, *kwargs.values())
        if name == "addcmul":
            factors = (argument(args, kwargs, 1, "tensor1"), argument(args, kwargs, 2, "tensor2"))
        return sum(any(f is t for t in dependent) for f in factors) < 2
    if name in _LINEAR_BUT:
        other = argument(args, kwargs, _LINEAR_BUT[name], "tensor2", "other", "weight")
        return not any(other is t for t in dependent)
    if name in _CHOICES:
        return not any(not t.is_floating_point() and not t.is_complex() for t in dependent)
    return False


def is_product(func: Any) -> bool:
    """Whether a call is a product or quotient, where a factor that is one number for many cells is no activation."""
    name = call_name(func)
    return name in _PRODUCTS or name in _LINEAR_BUT


def is_scaling(func: Any) -> bool:
    """Whether such a call multiplies or divides all of its result by such a factor."""
    return is_product(func) and call_name(func) not in ("addcmul", "addcdiv", "lerp")


# ---------------------------------------------------------------------------------------------------------------------
# Statistics: what a norm or a gate divides and multiplies by

# fmt: off
_REDUCTIONS = frozenset({
    "sum", "nansum", "mean", "nanmean", "var", "std", "var_mean", "std_mean", "amax", "amin", "aminmax", "median",
    "nanmedian", "quantile", "nanquantile", "logsumexp", "norm", "vector_norm", "matrix_norm", "norm_except_dim",
    "cosine_similarity",
})
_OF_STATISTICS = frozenset({
    "add", "iadd", "radd", "sub", "subtract", "isub", "rsub", "neg", "negative", "mul", "multiply", "rmul", "imul",
    "div", "divide", "true_divide", "truediv", "itruediv", "rdiv", "rtruediv", "reciprocal", "pow", "ipow",
    "float_power", "square", "sqrt", "rsqrt", "clamp", "clip", "clamp_min", "clamp_max", "maximum", "fmax", "max",
    # shape and precision
    "view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze", "expand", "expand_as",
    "broadcast_to", "permute", "transpose", "movedim", "getitem", "select", "to", "type", "type_as", "float",
    "double", "half", "bfloat16", "contiguous", "clone",
})
# fmt: on
_POOLS = re.compile(r"\w*_pool([123])d(_with_indices)?")


def is_reduction(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> bool:
    """Whether a call makes one number of many cells, whatever their number: over dimensions, or of a whole image."""
    name = call_name(func)
    pool = _POOLS.fullmatch(name)
    if pool is not None:
        return set(result.shape[-int(pool[1]) :]) == {1}
    if name in ("max", "min"):
        return not isinstance(argument(args, kwargs, 1, "other"), Tensor)
    return name in _REDUCTIONS


def keeps_statistics(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], is_statistic: Callable[[Tensor], bool]
) -> bool:
    """Whether a call on statistics makes statistics again: shape operations and arithmetic with single numbers."""
    name = call_name(func)
    if name not in _OF_STATISTICS:
        return False
    values = args[:1] if name.endswith("_as") else (*args, *kwargs.values())
    operands = [t for t in values if isinstance(t, Tensor)]
    constants = [t for t in operands if not is_statistic(t)]
    return len(constants) < len(operands) and all(t.numel() == 1 and not t.requires_grad for t in constants)


def is_square(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether a call may begin a norm: a power, an absolute value, or the product of a tensor with itself."""
    name = call_name(func)
    return name in ("pow", "square", "abs", "absolute") or (name in _PRODUCTS and len(args) == 2 and args[0] is args[1])


def is_plain_node(kind: str) -> bool:
    """Whether a node of the autograd graph, by its name without "Backward0", is a linear or shape operation."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()
    return name in _LINEAR or name == "convolution"
