"""Arrays that users pass, in whatever form, as plain tensors."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["read_real", "short"]


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
