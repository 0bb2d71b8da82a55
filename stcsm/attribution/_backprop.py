"""Methods that are the gradient with another rule at every activation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from stcsm.attribution._encoder import Encoder
from stcsm.attribution._method import Batch, Method, real, sample_like
from stcsm.attribution._rules import Deconvolution, EpsilonLRP, GuidedBackprop, Rescale, Rule

__all__ = ["DeconvolutionMethod", "DeepLift", "EpsilonLRPMethod", "GuidedBackpropMethod", "RuleMethod"]


@dataclass(frozen=True, kw_only=True)
class RuleMethod(Method):
    """A method made of one rule: a forward pass, then a backward pass for each direction."""

    def rule(self) -> Rule:
        """Return the backward rule."""
        raise NotImplementedError

    def fill(self, encoder: Encoder, batch: Batch, directions: Tensor, into: Tensor) -> None:
        """Run the encoder once, and backwards once for each direction."""
        self._fill(encoder, batch, directions, into, self.rule(), batch.x if self.times_input else None)

    @staticmethod
    def _fill(
        encoder: Encoder, batch: Batch, directions: Tensor, into: Tensor, rule: Rule, factor: Tensor | None
    ) -> None:
        leaf, latents = encoder(batch.x, rule)
        for d, signal in enumerate(encoder.backward(leaf, latents, directions)):
            into[:, d].copy_(signal if factor is None else signal * factor)


@dataclass(frozen=True, kw_only=True)
class DeconvolutionMethod(RuleMethod):
    """Gradient that keeps only positive signals at every activation (Zeiler and Fergus 2014)."""

    published_name: ClassVar[str] = "deconv"

    def rule(self) -> Rule:
        """Return the rule."""
        return Deconvolution()


@dataclass(frozen=True, kw_only=True)
class GuidedBackpropMethod(RuleMethod):
    """Gradient that keeps only positive signals at positive pre-activations (Springenberg et al. 2015)."""

    published_name: ClassVar[str] = "guidedbp"

    def rule(self) -> Rule:
        """Return the rule."""
        return GuidedBackprop()


@dataclass(frozen=True, kw_only=True)
class EpsilonLRPMethod(RuleMethod):
    """Layer-wise relevance propagation with the epsilon rule, as input times a modified gradient (Ancona et al. 2018).

    Parameters
    ----------
    epsilon
        Positive; keeps the ratio of activation to pre-activation finite.
    """

    epsilon: float = 1e-4
    linear: ClassVar[bool] = True
    published_name: ClassVar[str] = "elrp"
    times_input: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check epsilon."""
        super().__post_init__()
        real(self.epsilon, "epsilon")
        if not 0 < self.epsilon < float("inf"):
            raise ValueError(f"Expected epsilon to be positive and finite, found {self.epsilon}.")

    def rule(self) -> Rule:
        """Return the rule."""
        return EpsilonLRP(float(self.epsilon))


@dataclass(frozen=True, kw_only=True)
class DeepLift(RuleMethod):
    """Differences from a baseline, handed down by the rescale rule (Shrikumar et al. 2017; Ancona et al. 2018).

    Parameters
    ----------
    baseline
        A number, a sample, or one for each input; zero if None.
    """

    baseline: Any = None
    linear: ClassVar[bool] = True
    times_input: ClassVar[bool] = True
    published_name: ClassVar[str] = "deeplift"

    def prepared(self, inputs: Tensor) -> DeepLift:
        """Bring the baseline to the inputs' shape."""
        given = 0.0 if self.baseline is None else self.baseline
        return dataclasses.replace(self, baseline=sample_like(given, inputs, "baseline"))

    def fill(self, encoder: Encoder, batch: Batch, directions: Tensor, into: Tensor) -> None:
        """Run the baseline, then the samples."""
        baseline = batch.part_of(self.baseline)
        rule = Rescale(encoder.pre_activations(baseline))
        self._fill(encoder, batch, directions, into, rule, batch.x - baseline)
