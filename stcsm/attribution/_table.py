"""The table of methods. A new method is a class and a line here."""

from __future__ import annotations

from typing import Any

from stcsm.attribution._backprop import DeconvolutionMethod, DeepLift, EpsilonLRPMethod, GuidedBackpropMethod
from stcsm.attribution._gradients import InputXGradient, IntegratedGradients, Saliency, SmoothGrad
from stcsm.attribution._method import Method
from stcsm.attribution._occlusion import Occlusion
from stcsm.attribution._rectgrad import (
    RectGradConstantMethod,
    RectGradMethod,
    RectGradModifiedMethod,
    RectGradRedistributingMethod,
)

__all__ = ["LINEAR_METHODS", "METHODS", "TABLE", "make_method", "method_class"]

#: Every method by its name, in order.
TABLE: dict[str, type[Method]] = {
    "saliency": Saliency,
    "input_x_gradient": InputXGradient,
    "integrated_gradients": IntegratedGradients,
    "smoothgrad": SmoothGrad,
    "deconvolution": DeconvolutionMethod,
    "guided_backprop": GuidedBackpropMethod,
    "rectgrad": RectGradMethod,
    "rectgrad_const": RectGradConstantMethod,
    "rectgrad_mod": RectGradModifiedMethod,
    "rectgrad_prr": RectGradRedistributingMethod,
    "epsilon_lrp": EpsilonLRPMethod,
    "deeplift": DeepLift,
    "occlusion": Occlusion,
}

#: Names of all methods, in order.
METHODS: tuple[str, ...] = tuple(TABLE)

#: Names of the methods whose maps are linear in the concept vector.
LINEAR_METHODS: tuple[str, ...] = tuple(name for name, method in TABLE.items() if method.linear)


def method_class(name: Any) -> type[Method]:
    """Class of a method: its traits (``linear``, ``times_input``, ``stochastic``) and its parameters.

    Raises
    ------
    ValueError
        There is no method of that name.
    """
    if not isinstance(name, str) or name not in TABLE:
        raise ValueError(f"Expected method to be one of {', '.join(TABLE)}, found {name!r}.")
    return TABLE[name]


def make_method(name: Any, params: dict[str, Any]) -> Method:
    """Build a method from its name and parameters.

    Raises
    ------
    ValueError
        No such method.
    TypeError
        The method has no such parameter.
    """
    cls = method_class(name)
    unknown = [key for key in params if key not in cls.parameters()]
    if unknown:
        raise TypeError(
            f"Expected parameters of {name} ({', '.join(cls.parameters())}), found {', '.join(map(repr, unknown))}."
        )
    return cls(**params)
