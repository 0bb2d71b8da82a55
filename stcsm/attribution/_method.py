"""What an attribution method is: its parameters as fields, and one function that fills in a batch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from stcsm.attribution._arrays import read_real
from stcsm.attribution._encoder import Encoder

__all__ = ["Batch", "Method", "positive_integer", "real", "sample_like"]


@dataclass(frozen=True)
class Batch:
    """Samples ``start`` to ``stop`` of the inputs.

    Attributes
    ----------
    x
        (n, ...), on the encoder's device.
    start, stop
        Their place among all inputs.
    """

    x: Tensor
    start: int
    stop: int

    def part_of(self, value: Tensor) -> Tensor:
        """Rows of something that has one for each input, or the thing itself, shaped like ``x``."""
        rows = value if value.shape[0] == 1 else value[self.start : self.stop]
        return rows.to(self.x).expand_as(self.x)


@dataclass(frozen=True, kw_only=True)
class Method:
    """An attribution method. Fields are its parameters.

    Parameters
    ----------
    published
        The published code's numbers, its oddities included.

    Attributes
    ----------
    linear
        Whether attributions are linear in the concept, so that those of the latents make those of every concept.
    times_input
        Whether a map is a contribution (a slope times the input), so that it has the score's units, and not a slope.
    stochastic
        Whether attributions depend on a draw; such a method has a parameter ``first``, the number of the first sample.
    published_name
        Name in the published code.
    """

    published: bool = False
    linear: ClassVar[bool] = False
    times_input: ClassVar[bool] = False
    stochastic: ClassVar[bool] = False
    published_name: ClassVar[str]

    def __post_init__(self) -> None:
        """Check the parameters; subclasses add theirs."""
        if not isinstance(self.published, (bool, np.bool_)):
            raise TypeError(f"Expected published to be True or False, found {self.published!r}.")

    def prepared(self, inputs: Tensor) -> Method:
        """Return the method with parameters that depend on the inputs filled in.

        Parameters
        ----------
        inputs
            All of them, (N, ...).
        """
        return self

    def variants(self, shape: tuple[int, ...]) -> int:
        """How many variants of every sample of that shape the encoder runs on."""
        return 1

    def fill(self, encoder: Encoder, batch: Batch, directions: Tensor, into: Tensor) -> None:
        """Write the attributions of a batch.

        Parameters
        ----------
        encoder
            To run.
        batch
            Samples.
        directions
            (D, L): concepts, or the unit vectors of the latent space.
        into
            (n, D, ...), zero on entry; for linear methods on the encoder's device.
        """
        raise NotImplementedError

    @classmethod
    def parameters(cls) -> dict[str, Any]:
        """Names of the parameters and their defaults."""
        return {field.name: field.default for field in dataclasses.fields(cls)}


def sample_like(value: Any, inputs: Tensor, name: str) -> Tensor:
    """Read a parameter that is a number, one sample or one sample for each input, as (1 or N, ...).

    Raises
    ------
    TypeError
        It holds no real numbers.
    ValueError
        Its shape fits neither, or it is not finite.
    """
    tensor = read_real(value, name, inputs.dtype)
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"Expected a finite {name}, found NaN or infinity in it.")
    shape = tuple(inputs.shape)
    if tensor.ndim == 0:
        return tensor.reshape([1] * inputs.ndim)
    if tuple(tensor.shape) == shape[1:]:
        return tensor[None]
    if tuple(tensor.shape) in (shape, (1, *shape[1:])):
        return tensor
    raise ValueError(
        f"Expected {name} to be a number, a sample of shape {shape[1:]} or one for each input, {shape}, "
        f"found {tuple(tensor.shape)}."
    )


def positive_integer(value: Any, name: str) -> None:
    """Refuse what is no integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"Expected {name} to be a positive integer, found {value!r}.")
    if value < 1:
        raise ValueError(f"Expected {name} to be a positive integer, found {value}.")


def real(value: Any, name: str) -> None:
    """Refuse what is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)) or value != value:
        raise TypeError(f"Expected {name} to be a number, found {value!r}.")
