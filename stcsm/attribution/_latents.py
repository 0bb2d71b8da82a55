"""Reading what an encoder returns, or saying how to wrap it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stcsm.attribution._arrays import short

__all__ = ["read_latents"]


def read_latents(latents: Any, rows: int, latent_dim: int, dtype: torch.dtype) -> Tensor:
    """Read an encoder's output as latents (rows, latent_dim) of a precision.

    Raises
    ------
    TypeError
        It is no tensor, or holds no real numbers.
    ValueError
        Its shape is another.
    """
    if not isinstance(latents, Tensor):
        raise TypeError(_not_a_tensor(latents))
    if latents.is_complex():
        raise TypeError(
            f"Expected real latents, found {short(latents.dtype)}; return their real and imaginary parts "
            "side by side: torch.view_as_real(z).flatten(1)."
        )
    if latents.ndim != 2 or latents.shape[0] != rows:
        raise ValueError(
            f"Expected an encoder that maps {rows} samples to latents of shape ({rows}, {latent_dim}), found "
            f"{tuple(latents.shape)}; flatten everything but the first dimension."
        )
    if latents.shape[1] != latent_dim:
        raise ValueError(
            f"Expected concepts with as many components as the encoder has latents, found concepts of "
            f"{latent_dim} components and latents of shape {tuple(latents.shape)}; "
            f"pass concepts of shape ({latents.shape[1]},) or (K, {latents.shape[1]})."
        )
    return latents.to(dtype)  # an encoder may compute in another precision than its inputs' (autocast within)


def _not_a_tensor(latents: Any) -> str:
    kind = type(latents).__name__
    if isinstance(latents, torch.distributions.Distribution):
        fix = "return its mean: def forward(self, x): return self.encoder(x).mean"
    elif isinstance(latents, (tuple, list)):
        inside = ", ".join(type(part).__name__ for part in latents)
        kind = f"{kind} of ({inside})"
        fix = "return the mean alone: def forward(self, x): return self.encoder(x)[0]"
    elif isinstance(latents, dict):
        fix = f"return one entry ({', '.join(map(repr, latents))}): def forward(self, x): return self.encoder(x)[...]"
    else:
        fix = "return the latents as a tensor"
    return (
        f"Expected an encoder that returns one tensor of latents (N, L), found {kind}; wrap it in a torch.nn.Module: "
        f"{fix}."
    )
