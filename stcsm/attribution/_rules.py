"""Methods with a backward rule, which replaces the gradient of each activation; one class holds all of a method.

Throughout, ``x`` is what enters an activation, ``a`` what leaves it, ``R`` the signal that arrives from above.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from stcsm.attribution._arguments import check_number, like_inputs
from stcsm.attribution._forward import Encoder, Site
from stcsm.attribution._methods import Batch, Method

__all__ = ["Deconvolution", "DeepLift", "EpsilonLRP", "GuidedBackprop", "RuleMethod"]


@dataclass(frozen=True, kw_only=True)
class RuleMethod(Method):
    """A method made of one rule: a forward pass, then a backward pass for each direction.

    A subclass says what an activation passes back (:meth:`passed_back`, and :meth:`keep` for what that needs), and
    where it differs from the default: what it asks of the encoder (:meth:`check_sites`, ``per_sample``), what other
    calls pass back (:meth:`around`), whether the signal is multiplied by the input (``times_input``).

    Parameters
    ----------
    allow
        Names of torch calls, or of autograd functions, that pass their plain gradient although they may be
        activations: without it such a call is refused.

    Attributes
    ----------
    per_sample
        Whether the rule looks at all cells of one sample at once, so that the batch must be the first dimension of
        every activation.
    """

    allow: Sequence[str] = ()
    per_sample: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the names that are allowed."""
        super().__post_init__()
        if not isinstance(self.allow, (list, tuple, set, frozenset)) or not all(isinstance(n, str) for n in self.allow):
            raise TypeError(f"Expected allow to be names of torch calls, such as ('exp',), found {self.allow!r}.")

    def keep(self, x: Tensor, a: Tensor, site: Site) -> Tensor | None:
        """Return the one tensor that :meth:`passed_back` needs, or None."""
        return None

    def passed_back(self, R: Tensor, kept: Tensor | None, site: Site) -> Tensor:
        """Return the signal to pass below. It replaces the gradient: the activation's derivative is not applied."""
        raise NotImplementedError

    def around(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """Make a call that is no activation; a rule may change what it passes back."""
        return run()

    def check_sites(self, sites: list[Site]) -> None:
        """Refuse an encoder, or warn of it, by the activations that the first pass met."""

    def fill(self, encoder: Encoder, batch: Batch, directions: Tensor, into: Tensor) -> None:
        """Run the encoder once, and backwards once for each direction."""
        self._fill(encoder, batch, directions, into, batch.x if self.times_input else None)

    def _fill(
        self,
        encoder: Encoder,
        batch: Batch,
        directions: Tensor,
        into: Tensor,
        factor: Tensor | None,
        baseline: Tensor | None = None,
    ) -> None:
        leaf, latents = encoder(batch.x, self, baseline)
        for d, signal in enumerate(encoder.backward(leaf, latents, directions)):
            into[:, d].copy_(signal if factor is None else signal * factor)


@dataclass(frozen=True, kw_only=True)
class Deconvolution(RuleMethod):
    """Gradient that keeps only positive signals at every activation (Zeiler and Fergus 2014)."""

    published_name: ClassVar[str] = "deconv"

    def passed_back(self, R: Tensor, kept: Tensor | None, site: Site) -> Tensor:
        """``max(R, 0)``."""
        return R.clamp(min=0)


@dataclass(frozen=True, kw_only=True)
class GuidedBackprop(RuleMethod):
    """Gradient that keeps only positive signals at positive pre-activations (Springenberg et al. 2015)."""

    published_name: ClassVar[str] = "guidedbp"

    def keep(self, x: Tensor, a: Tensor, site: Site) -> Tensor:
        """Where the pre-activation is positive."""
        return x > 0

    def passed_back(self, R: Tensor, kept: Tensor | None, site: Site) -> Tensor:
        """``max(R, 0)`` where ``x > 0``, else 0."""
        assert kept is not None
        return torch.where(kept, R.clamp(min=0), 0.0)


@dataclass(frozen=True, kw_only=True)
class EpsilonLRP(RuleMethod):
    """Layer-wise relevance propagation with the epsilon rule (Bach et al. 2015).

    It is computed as input times a modified gradient (Ancona et al. 2018): each activation's derivative is replaced by
    ``a / (x + epsilon * sign(x))``, the sign of zero being +1. Epsilon does not act at linear layers.

    Parameters
    ----------
    epsilon
        Positive; keeps the ratio of activation to pre-activation finite.
    """

    epsilon: float = 1e-4
    linear: ClassVar[bool] = True
    times_input: ClassVar[bool] = True
    published_name: ClassVar[str] = "elrp"

    def __post_init__(self) -> None:
        """Check epsilon."""
        super().__post_init__()
        check_number(self.epsilon, "epsilon")
        if not 0 < self.epsilon < float("inf"):
            raise ValueError(f"Expected epsilon to be positive and finite, found {self.epsilon}.")

    def keep(self, x: Tensor, a: Tensor, site: Site) -> Tensor:
        """``a / (x + epsilon * sign(x))``, the sign of zero being +1."""
        epsilon = x.new_tensor(float(self.epsilon))
        return a / (x + torch.where(x >= 0, epsilon, -epsilon))

    def passed_back(self, R: Tensor, kept: Tensor | None, site: Site) -> Tensor:
        """``R * a / (x + epsilon * sign(x))``."""
        assert kept is not None
        return R * kept


@dataclass(frozen=True, kw_only=True)
class DeepLift(RuleMethod):
    """Differences from a baseline, propagated by the rescale rule (Shrikumar et al. 2017; Ancona et al. 2018).

    Parameters
    ----------
    baseline
        A number, a sample, or one for each input; zero if None.
    """

    baseline: Any = None
    linear: ClassVar[bool] = True
    times_input: ClassVar[bool] = True
    published_name: ClassVar[str] = "deeplift"
    #: Where pre-activations differ by no more than this the gradient halfway between them stands in.
    smallest_difference: ClassVar[float] = 1e-5

    def prepared(self, inputs: Tensor) -> DeepLift:
        """Bring the baseline to the inputs' shape."""
        given = 0.0 if self.baseline is None else self.baseline
        return dataclasses.replace(self, baseline=like_inputs(given, inputs, "baseline"))

    def fill(self, encoder: Encoder, batch: Batch, directions: Tensor, into: Tensor) -> None:
        """Run the baseline, then the samples."""
        baseline = batch.part_of(self.baseline)
        self._fill(encoder, batch, directions, into, batch.x - baseline, baseline)

    def keep(self, x: Tensor, a: Tensor, site: Site) -> Tensor:
        """``(a - a0) / (x - x0)``, where 0 marks the baseline's pass."""
        assert site.at_baseline is not None
        dx, da = x - site.at_baseline, a - site.function(site.at_baseline)
        middle = (0.5 * (x + site.at_baseline)).detach()
        with torch.enable_grad():
            middle.requires_grad_()
            (slope,) = torch.autograd.grad(site.function(middle).sum(), middle)
        return torch.where(dx.abs() > self.smallest_difference, da / dx, slope)

    def passed_back(self, R: Tensor, kept: Tensor | None, site: Site) -> Tensor:
        """``R * (a - a0) / (x - x0)``."""
        assert kept is not None
        return R * kept
