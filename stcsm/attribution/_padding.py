"""The published code's border mask ("PaddingTrick"): which convolutions it meets and what it does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stcsm.nets import conv2d_same

__all__ = ["is_padded_convolution", "zero_border"]

_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)


def is_padded_convolution(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call is a convolution that pads its input: ``conv2d_same``, or torch's with a padding that is not 0."""
    if func is conv2d_same:
        return True
    if func not in _CONVOLUTIONS:
        return False
    padding = args[4] if len(args) > 4 else kwargs.get("padding", 0)
    if isinstance(padding, str):
        return padding == "same"
    return any(padding) if isinstance(padding, (tuple, list)) else padding != 0


def zero_border(R: Tensor) -> Tensor:
    """Zero the outermost cell on either side of every spatial dimension of (N, C, ...).

    Raises
    ------
    ValueError
        A spatial dimension has a single cell, where the published code stops too.
    """
    if min(R.shape[2:]) < 2:
        raise ValueError(
            f"Expected padded convolutions whose output has at least 2 cells in every direction, as the published "
            f"code's border mask needs, found {tuple(R.shape[2:])}; use published=False."
        )
    masked = torch.zeros_like(R)
    inner = (slice(None), slice(None), *[slice(1, -1)] * (R.ndim - 2))
    masked[inner] = R[inner]
    return masked
