"""Backward rules: what an activation passes back instead of its gradient. One small class each.

Throughout, ``x`` is what enters an activation, ``a`` what leaves it, ``R`` the signal that arrives from above.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from stcsm.attribution._activations import Call
from stcsm.attribution._percentile import keep_above_percentile
from stcsm.attribution._sites import Site

__all__ = [
    "Deconvolution",
    "EpsilonLRP",
    "GuidedBackprop",
    "RectGrad",
    "RectGradConstant",
    "RectGradModified",
    "Rescale",
    "Rule",
]


class Rule:
    """A backward rule.

    Attributes
    ----------
    per_sample
        Whether the rule looks at all cells of one sample at once, so that it must know which dimension the batch is.
    masks_borders
        Whether the signal is zeroed in the outermost cells of every padded convolution's output.
    redistributes_pools
        Whether max pooling hands its signal to all cells of a window in proportion to their value.
    """

    per_sample = False
    masks_borders = False
    redistributes_pools = False

    def keep(self, call: Call, x: Tensor, a: Tensor, site: Site) -> Tensor | None:
        """Return the one tensor that the backward pass needs: ``a`` itself or one that nobody else holds."""
        raise NotImplementedError

    def backward(self, R: Tensor, kept: Tensor | None, site: Site) -> Tensor:
        """Return the signal to pass below."""
        raise NotImplementedError


class Deconvolution(Rule):
    """``max(R, 0)`` (Zeiler and Fergus 2014)."""

    def keep(self, call: Call, x: Tensor, a: Tensor, site: Site) -> None:
        """Nothing."""

    def backward(self, R: Tensor, kept: Tensor | None, site: Site) -> Tensor:
        """Clip the signal at zero."""
        return R.clamp(min=0)


class GuidedBackprop(Rule):
    """``max(R, 0)`` where ``x > 0``, else 0 (Springenberg et al. 2015)."""

    def keep(self, call: Call, x: Tensor, a: Tensor, site: Site) -> Tensor:
        """Where the pre-activation is positive."""
        return x > 0

    def backward(self, R: Tensor, kept: Tensor | None, site: Site) -> Tensor:
        """Clip the signal at zero and gate it."""
        assert kept is not None
        return torch.where(kept, R.clamp(min=0), 0.0)


def _private(call: Call, a: Tensor) -> Tensor:
    # The encoder may add to its activation in place afterwards; torch itself forbids that only where it saved it.
    return a if call.result_is_saved or call.inplace else a.clone()


@dataclass(frozen=True)
class RectGrad(Rule):
    """``R`` where ``a * R`` exceeds its percentile over the sample's cells (Kim et al. 2019, eq. 3)."""

    percentile: float
    masks_borders: bool = False
    redistributes_pools: bool = False
    per_sample = True

    def keep(self, call: Call, x: Tensor, a: Tensor, site: Site) -> Tensor:
        """Return the activation."""
        return _private(call, a)

    def importance(self, R: Tensor, kept: Tensor, site: Site) -> Tensor:
        """Return what is compared with the threshold."""
        return kept * R

    def backward(self, R: Tensor, kept: Tensor | None, site: Site) -> Tensor:
        """Pass what matters most in every sample."""
        assert kept is not None
        importance = site.by_sample(self.importance(R, kept, site))
        return site.from_sample(keep_above_percentile(importance, site.by_sample(R), self.percentile), R)


@dataclass(frozen=True)
class RectGradModified(RectGrad):
    """RectGrad on ``|a * R|``, except in ``signed_layers``."""

    signed_layers: tuple[str | int, ...] = field(default=())

    def importance(self, R: Tensor, kept: Tensor, site: Site) -> Tensor:
        """Magnitude of ``a * R``, signed in the layers that were named."""
        product = kept * R
        return product if any(site.answers_to(name) for name in self.signed_layers) else product.abs()


@dataclass(frozen=True)
class RectGradConstant(Rule):
    """``R`` where ``a * R > tau``."""

    tau: float
    masks_borders: bool = False

    def keep(self, call: Call, x: Tensor, a: Tensor, site: Site) -> Tensor:
        """Return the activation."""
        return _private(call, a)

    def backward(self, R: Tensor, kept: Tensor | None, site: Site) -> Tensor:
        """Pass what exceeds the constant."""
        assert kept is not None
        return torch.where(kept * R > self.tau, R, 0.0)


@dataclass(frozen=True)
class EpsilonLRP(Rule):
    """``R * a / (x + epsilon * sign(x))``, the sign of zero being +1 (Bach et al. 2015; Ancona et al. 2018)."""

    epsilon: float

    def keep(self, call: Call, x: Tensor, a: Tensor, site: Site) -> Tensor:
        """Return the factor."""
        return a / (x + torch.where(x >= 0, x.new_tensor(self.epsilon), x.new_tensor(-self.epsilon)))

    def backward(self, R: Tensor, kept: Tensor | None, site: Site) -> Tensor:
        """Multiply by the factor."""
        assert kept is not None
        return R * kept


@dataclass(frozen=True)
class Rescale(Rule):
    """``R * (a - a0) / (x - x0)``, where 0 marks the baseline's pass (Shrikumar et al. 2017; Ancona et al. 2018).

    Where the pre-activations differ by no more than 1e-5 the gradient halfway between them stands in.
    """

    at_baseline: list[tuple[str, Tensor]]
    smallest_difference: float = 1e-5

    def keep(self, call: Call, x: Tensor, a: Tensor, site: Site) -> Tensor:
        """Return the multiplier."""
        name, x0 = self.at_baseline[site.index] if site.index < len(self.at_baseline) else ("nothing", x[:0])
        if name != call.name or x0.shape != x.shape:
            raise ValueError(
                f"Expected the encoder to call the same activations for the baseline as for the samples, found {name} "
                f"of shape {tuple(x0.shape)} in place of {site.where} of shape {tuple(x.shape)}; pass an encoder "
                "whose control flow does not depend on the data."
            )
        dx, da = x - x0, a - call.plain(x0)
        middle = (0.5 * (x + x0)).detach()
        with torch.enable_grad():
            middle.requires_grad_()
            (slope,) = torch.autograd.grad(call.plain(middle).sum(), middle)
        return torch.where(dx.abs() > self.smallest_difference, da / dx, slope)

    def backward(self, R: Tensor, kept: Tensor | None, site: Site) -> Tensor:
        """Multiply by the multiplier."""
        assert kept is not None
        return R * kept
