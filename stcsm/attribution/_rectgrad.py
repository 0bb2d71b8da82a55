"""RectGrad and its variants: a unit passes its signal only if activation times signal is large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from stcsm.attribution._backprop import RuleMethod
from stcsm.attribution._method import real
from stcsm.attribution._percentile import check_percentile
from stcsm.attribution._rules import RectGrad, RectGradConstant, RectGradModified, Rule

__all__ = ["RectGradConstantMethod", "RectGradMethod", "RectGradModifiedMethod", "RectGradRedistributingMethod"]


@dataclass(frozen=True, kw_only=True)
class RectGradMethod(RuleMethod):
    """Input times a signal that every layer thins to what exceeds a percentile (Kim et al. 2019).

    Parameters
    ----------
    percentile
        In [0, 100), over the cells of one sample in one layer.
    """

    percentile: float = 95
    published_name: ClassVar[str] = "rectgrad"
    times_input: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the percentile."""
        super().__post_init__()
        check_percentile(self.percentile)

    def rule(self) -> Rule:
        """Return the percentile rule; the published code masks borders as well."""
        return RectGrad(self.percentile, masks_borders=self.published)


@dataclass(frozen=True, kw_only=True)
class RectGradModifiedMethod(RectGradMethod):
    """RectGrad by magnitude: what exceeds a percentile of absolute values passes.

    Parameters
    ----------
    signed_layers
        Layers where the sign counts: indices among the activations, or names of modules.
    """

    signed_layers: Sequence[str | int] = ()
    published_name: ClassVar[str] = "rectgradmod"

    def __post_init__(self) -> None:
        """Check the layers' names."""
        super().__post_init__()
        layers = self.signed_layers
        if not isinstance(layers, (list, tuple)) or any(
            isinstance(name, (bool, np.bool_)) or not isinstance(name, (str, int, np.integer)) for name in layers
        ):
            raise TypeError(f"Expected signed_layers to be a list of names or indices, found {layers!r}.")

    def rule(self) -> Rule:
        """Return the rule on magnitudes."""
        layers = tuple(name if isinstance(name, str) else int(name) for name in self.signed_layers)
        return RectGradModified(self.percentile, masks_borders=self.published, signed_layers=layers)


@dataclass(frozen=True, kw_only=True)
class RectGradRedistributingMethod(RectGradMethod):
    """RectGrad with proportional redistribution: max pooling hands its signal to all cells of a window."""

    published_name: ClassVar[str] = "rectgradprr"

    def rule(self) -> Rule:
        """Return the percentile rule with redistribution."""
        return RectGrad(self.percentile, masks_borders=self.published, redistributes_pools=True)


@dataclass(frozen=True, kw_only=True)
class RectGradConstantMethod(RuleMethod):
    """RectGrad with one constant threshold for all layers.

    Parameters
    ----------
    tau
        Threshold; minus infinity lets everything pass.
    """

    tau: float = 0.0
    published_name: ClassVar[str] = "rectgradconst"
    times_input: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the threshold."""
        super().__post_init__()
        real(self.tau, "tau")

    def rule(self) -> Rule:
        """Return the constant rule; the published code masks borders as well."""
        return RectGradConstant(float(self.tau), masks_borders=self.published)
