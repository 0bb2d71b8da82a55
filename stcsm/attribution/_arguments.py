"""Reading and refusing what the user passes, before any work."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = [
    "Arguments",
    "check_number",
    "check_positive_integer",
    "like_inputs",
    "open_result",
    "read_concepts",
    "read_real",
    "read_samples",
    "short",
]


@dataclass(frozen=True)
class Arguments:
    """An encoder's samples and the concepts, read and checked.

    Attributes
    ----------
    x
        Inputs, (N, ...), detached, where the user has them.
    vectors
        Concepts, (K, L), of the inputs' precision.
    single
        Whether one concept, (L,), was given.
    device
        Where the encoder's parameters are.
    batch_size
        Most samples in one pass.
    """

    x: Tensor
    vectors: Tensor
    single: bool
    device: torch.device
    batch_size: int

    @classmethod
    def read(cls, encoder: Any, inputs: Any, concepts: Any, batch_size: Any = 256) -> Arguments:
        """Read the arguments of :func:`stcsm.attribution.attribute`.

        Raises
        ------
        TypeError, ValueError
            One of them is not what it must be.
        """
        check_positive_integer(batch_size, "batch_size")
        x, device = read_samples(encoder, inputs)
        return cls(x, *read_concepts(concepts, x), device, int(batch_size))


def read_samples(encoder: Any, inputs: Any) -> tuple[Tensor, torch.device]:
    """Check an encoder and read samples for it.

    Returns
    -------
    x, device
        Samples, (N, ...), detached, where the user has them, and where the encoder's parameters are.

    Raises
    ------
    TypeError, ValueError
        One of them is not what :func:`stcsm.attribution.attribute` takes.
    """
    _check_encoder(encoder)
    x = _read_inputs(inputs, encoder)
    return x, _home(encoder, x)


def _check_encoder(encoder: Any) -> None:
    """Refuse what is no module, and modules whose inside Python cannot see.

    Raises
    ------
    TypeError
        ``encoder`` is no :class:`torch.nn.Module`.
    ValueError
        A part of it is compiled or scripted, not yet initialised, or made under inference mode.
    """
    if not isinstance(encoder, nn.Module) or isinstance(encoder, type):
        raise TypeError(
            f"Expected encoder to be a torch.nn.Module, found {type(encoder).__name__}; wrap a function in a module "
            "whose forward calls it."
        )
    dynamo = sys.modules.get("torch._dynamo")  # only there if something was compiled
    optimized = getattr(dynamo, "OptimizedModule", ())
    for name, module in encoder.named_modules():
        part = f"module {name!r}" if name else "the encoder"
        if isinstance(module, optimized):
            raise ValueError(
                f"Expected an encoder that runs in Python, found that {part} is compiled; pass the module that "
                "torch.compile was given (its ._orig_mod)."
            )
        if getattr(module, "_compiled_call_impl", None) is not None:
            raise ValueError(
                f"Expected an encoder that runs in Python, found that {part} was compiled in place by .compile(); "
                "build it again without, and load its state_dict()."
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"Expected an encoder that runs in Python, found that {part} is scripted or traced; pass the module "
                "that torch.jit was given, or build it again and load scripted.state_dict()."
            )
    for name, parameter in encoder.named_parameters():
        if is_lazy(parameter):
            raise ValueError(
                f"Expected initialised parameters, found that {name!r} is not; run the lazy encoder once on a batch."
            )
    for name, tensor in (*encoder.named_parameters(), *encoder.named_buffers()):
        if tensor.is_inference():
            raise ValueError(
                f"Expected an encoder that autograd can run, found that {name!r} was made under "
                "torch.inference_mode(); build or load the encoder outside it."
            )


def _read_inputs(inputs: Any, encoder: nn.Module) -> Tensor:
    """Read inputs as a tensor (N, ...), detached, where they are.

    Raises
    ------
    TypeError
        They are not floating point, or of another precision than the encoder.
    ValueError
        They hold no sample or no feature, have no batch dimension, or are not finite.
    """
    if not isinstance(inputs, (Tensor, np.ndarray)):
        raise TypeError(f"Expected inputs to be a tensor or a numpy array (N, ...), found {type(inputs).__name__}.")
    if isinstance(inputs, np.ndarray):
        if inputs.dtype.kind not in "fiub" or inputs.dtype.itemsize > 8:
            fix = "pass their .real or their magnitude" if inputs.dtype.kind == "c" else "pass .astype(np.float32)"
            raise TypeError(f"Expected floating-point inputs, found an array of {inputs.dtype}; {fix}.")
        plain = np.ascontiguousarray(inputs.astype(inputs.dtype.newbyteorder("="), copy=False))
        inputs = torch.as_tensor(plain, device="cpu")
    if inputs.is_nested:
        raise TypeError("Expected dense inputs, found a nested tensor; pad the samples to one shape.")
    if inputs.is_complex():
        raise TypeError(f"Expected real inputs, found {short(inputs.dtype)}; pass their .real or .abs().")
    if inputs.layout is not torch.strided:
        raise TypeError(f"Expected dense inputs, found {inputs.layout}; pass inputs.to_dense().")
    if not inputs.is_floating_point():
        raise TypeError(f"Expected floating-point inputs, found {short(inputs.dtype)}; pass inputs.float().")
    if inputs.ndim < 2:
        raise ValueError(
            f"Expected inputs of shape (N, ...), a batch dimension first, found {tuple(inputs.shape)}; "
            "pass inputs[None] for a single sample."
        )
    if inputs.numel() == 0:
        raise ValueError(f"Expected at least one sample with at least one feature, found shape {tuple(inputs.shape)}.")
    inputs = inputs.detach()
    bad = ~inputs.isfinite()
    if bool(bad.any()):
        where = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"Expected finite inputs, found {inputs[where].item()} at {where} and {int(bad.sum()) - 1} more."
        )
    precisions = {p.dtype for p in (*encoder.parameters(), *encoder.buffers()) if p.is_floating_point()}
    if precisions and inputs.dtype not in precisions:
        held = ", ".join(sorted(short(d) for d in precisions))
        raise TypeError(
            f"Expected inputs of the encoder's precision ({held}), found {short(inputs.dtype)}; "
            f"convert the inputs, or a copy of the encoder."
        )
    return inputs


def read_concepts(concepts: Any, like: Tensor) -> tuple[Tensor, bool]:
    """Read concepts as a matrix (K, L) of the inputs' precision, and whether there was one vector only.

    Raises
    ------
    TypeError
        They are sparse, complex or no numbers.
    ValueError
        They are neither a vector nor a matrix, empty, not finite, or zero.
    """
    vectors = read_real(concepts, "concepts", like.dtype)
    if vectors.ndim not in (1, 2) or vectors.numel() == 0:
        raise ValueError(f"Expected concepts of shape (L,) or (K, L), found {tuple(vectors.shape)}.")
    single = vectors.ndim == 1
    vectors = torch.atleast_2d(vectors)
    finite = vectors.isfinite().all(dim=1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0, 0])
        raise ValueError(f"Expected finite concepts, found NaN or infinity in {'it' if single else f'number {row}'}.")
    zero = ~vectors.any(dim=1)
    if bool(zero.any()):
        row = int(zero.nonzero()[0, 0])
        raise ValueError(
            f"Expected concept vectors that point somewhere, found {'it' if single else f'number {row}'} to be zero; "
            "leave out concepts without genes or samples."
        )
    return vectors, single


def _home(encoder: nn.Module, inputs: Tensor) -> torch.device:
    """Device of the encoder's parameters; of the inputs where it has none.

    Raises
    ------
    ValueError
        The parameters are on several devices or on none ("meta").
    """
    devices = {p.device for p in (*encoder.parameters(), *encoder.buffers())} or {inputs.device}
    if len(devices) > 1 or next(iter(devices)).type == "meta":
        raise ValueError(
            f"Expected all parameters on one device, found {', '.join(sorted(map(str, devices)))}; "
            "move the encoder with .to(device)."
        )
    return next(iter(devices))


def open_result(out: Any, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Tensor to write the result into: a new one, or a view of the user's array.

    Raises
    ------
    TypeError
        ``out`` is neither a tensor nor an array, or not of the inputs' precision.
    ValueError
        Its shape is not the result's, or it cannot be written.
    """
    if out is None:
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    if isinstance(out, np.ndarray):
        found = out.dtype.name + ("" if out.dtype.isnative else " of foreign byte order")
        usable = not any(stride < 0 for stride in out.strides)
        writable, overlaps = out.flags.writeable, 0 in out.strides and out.size > 1
    elif isinstance(out, Tensor):
        found = short(out.dtype) + (" that requires gradients" if out.requires_grad else "")
        usable = out.layout is torch.strided and out.device.type != "meta" and not out.is_nested
        overlaps = usable and any(s == 0 and n > 1 for s, n in zip(out.stride(), out.shape, strict=True))
        writable = not out.is_inference()
    else:
        raise TypeError(f"Expected out to be a tensor, a numpy array or a memory map, found {type(out).__name__}.")
    if tuple(out.shape) != shape:
        raise ValueError(f"Expected out of shape {shape}, found {tuple(out.shape)}.")
    if found != short(like.dtype):
        raise TypeError(f"Expected out to be plain {short(like.dtype)} as the inputs are, found {found}.")
    if not writable:
        raise ValueError(
            "Expected an array to write into as out, found a read-only one (or one made under inference mode); open a "
            "memory map with mode='r+'."
        )
    if not usable or overlaps:
        raise ValueError(
            "Expected out to be dense and to have memory of its own for every cell, found a reversed, expanded, sparse "
            "or meta one; allocate it with numpy.empty, numpy.lib.format.open_memmap or torch.empty."
        )
    return torch.from_numpy(out) if isinstance(out, np.ndarray) else out


def short(dtype: torch.dtype) -> str:
    """Name of a precision without "torch."."""
    return str(dtype).removeprefix("torch.")


def read_real(value: Any, name: str, dtype: torch.dtype | None = None) -> Tensor:
    """Read real numbers in any form that numpy understands as a detached, dense, strided tensor.

    Parameters
    ----------
    value
        A number, a tensor, an array in any byte order and with any strides, a list, a table.
    name
        What the user calls it.
    dtype
        Floating precision of the result; None keeps a floating one and turns integers into the default precision.

    Raises
    ------
    TypeError
        It is sparse, or holds no real numbers.
    ValueError
        A number in it is finite and not zero, and becomes infinite or zero in that precision.
    """
    wide = _dense(value, name)
    if dtype is None:
        return wide if wide.is_floating_point() else wide.to(torch.get_default_dtype())
    result = wide.to(dtype)
    limits = torch.finfo(dtype)
    for lost, what in (
        ((result == 0) & (wide != 0), f"not smaller than {limits.tiny:.2g}"),
        (result.isinf() & wide.isfinite(), f"not larger than {limits.max:.2g}"),
    ):
        if bool(lost.any()):
            raise ValueError(
                f"Expected numbers in {name} that {short(dtype)} can hold, {what} in magnitude, found "
                f"{wide[lost][0].item():.3g}; scale {name}, or convert encoder and inputs to float64."
            )
    return result


def _dense(value: Any, name: str) -> Tensor:
    if isinstance(value, Tensor):
        if value.layout is not torch.strided or value.is_nested:
            raise TypeError(f"Expected dense {name}, found a tensor of layout {value.layout}; pass .to_dense().")
        if value.is_complex():
            raise TypeError(f"Expected real numbers in {name}, found {short(value.dtype)}; pass .real or .abs().")
        # A tensor that was made under inference mode may not be saved for a backward pass; a clone of it may.
        value = value.detach().resolve_neg()
        return value.clone() if value.is_inference() else value
    if value is None:
        raise TypeError(f"Expected {name} to be an array of real numbers, found None.")
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise TypeError(f"Expected dense {name}, found {type(value).__name__}; pass .toarray().")
    if isinstance(value, (list, tuple)) and any(isinstance(part, Tensor) for part in value):
        value = [np.asarray(part.detach().cpu()) if isinstance(part, Tensor) else part for part in value]
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of several lengths
        raise TypeError(f"Expected {name} to be an array of numbers, found {type(value).__name__}: {error}") from None
    if array.dtype.kind == "O":
        with contextlib.suppress(TypeError, ValueError):
            array = array.astype(np.float64)
    if array.dtype.kind not in "fiub":
        found = type(value).__name__ if array.dtype.kind == "O" else f"{type(value).__name__} of {array.dtype}"
        raise TypeError(f"Expected {name} to be an array of real numbers, found {found}.")
    if (array.dtype.kind == "f" and array.dtype.itemsize > 8) or (array.dtype.kind == "u" and array.dtype.itemsize > 1):
        array = array.astype(np.float64)
    plain = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
    return torch.from_numpy(plain if plain.flags.writeable else plain.copy()).reshape(array.shape)


def like_inputs(value: Any, inputs: Tensor, name: str) -> Tensor:
    """Read a parameter that is a number, one sample or one sample for each input, as (1 or N, ...).

    Raises
    ------
    TypeError
        It holds no real numbers.
    ValueError
        Its shape fits neither, or it is not finite.
    """
    tensor = read_real(value, name, inputs.dtype)
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"Expected a finite {name}, found NaN or infinity in it.")
    shape = tuple(inputs.shape)
    if tensor.ndim == 0:
        return tensor.reshape([1] * inputs.ndim)
    if tuple(tensor.shape) == shape[1:]:
        return tensor[None]
    if tuple(tensor.shape) in (shape, (1, *shape[1:])):
        return tensor
    raise ValueError(
        f"Expected {name} to be a number, a sample of shape {shape[1:]} or one for each input, {shape}, "
        f"found {tuple(tensor.shape)}."
    )


def check_positive_integer(value: Any, name: str) -> None:
    """Refuse what is no integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"Expected {name} to be a positive integer, found {value!r}.")
    if value < 1:
        raise ValueError(f"Expected {name} to be a positive integer, found {value}.")


def check_number(value: Any, name: str) -> None:
    """Refuse what is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)) or value != value:
        raise TypeError(f"Expected {name} to be a number, found {value!r}.")
