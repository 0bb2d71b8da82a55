"""The autograd functions that put a rule in place of a gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stcsm.attribution._activations import Call
from stcsm.attribution._padding import zero_border
from stcsm.attribution._rules import Rule
from stcsm.attribution._sites import Site

__all__ = ["apply_border_mask", "apply_rule"]


class _Ruled(torch.autograd.Function):
    """An activation forwards, a rule backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Call, rule: Rule, site: Site) -> Tensor:
        a = call.plain(x)
        ctx.rule, ctx.site = rule, site
        kept = rule.keep(call, x, a, site)
        if kept is not None:
            ctx.save_for_backward(kept)
        return a

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, R: Tensor) -> tuple[Tensor | None, ...]:
        kept = ctx.saved_tensors[0] if ctx.saved_tensors else None
        return ctx.rule.backward(R, kept, ctx.site), None, None, None


class _BorderMask(torch.autograd.Function):
    """The identity forwards; backwards the outermost cells get nothing."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, R: Tensor) -> Tensor:
        return zero_border(R)


def apply_rule(call: Call, rule: Rule, site: Site) -> Tensor:
    """Run an activation under a rule."""
    return _Ruled.apply(call.input, call, rule, site)


def apply_border_mask(y: Tensor) -> Tensor:
    """Mask the signal that arrives at a padded convolution's output."""
    return _BorderMask.apply(y)
