"""Autograd functions of our own that are affine."""

from __future__ import annotations

import torch


class AffineFunction(torch.autograd.Function):
    """An autograd function that is affine in its first argument: its backward pass is the same whatever the samples.

    A subclass says this of itself. The mean of gradients over samples then goes back through it once.
    """
