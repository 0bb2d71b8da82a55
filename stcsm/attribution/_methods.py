"""What a method is, and the methods that need no backward rule: gradients and occlusion."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from stcsm.attribution._arguments import check_number, check_positive_integer, like_inputs, read_real
from stcsm.attribution._forward import Encoder

__all__ = ["Batch", "InputXGradient", "IntegratedGradients", "Method", "Occlusion", "Saliency", "SmoothGrad"]

PUBLISHED_BATCH = 64
"""Samples in a batch of the published code."""


@dataclass(frozen=True)
class Batch:
    """Samples ``start`` to ``stop`` of the inputs.

    Attributes
    ----------
    x
        (n, ...), on the encoder's device.
    start, stop
        Their numbers among all inputs.
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
    is_gradient
        Whether an attribution is the gradient itself, so that a sum of them is the gradient of a sum.
    published_name
        Name in the published code; empty where it has no such method.
    """

    published: bool = False
    linear: ClassVar[bool] = False
    is_gradient: ClassVar[bool] = False
    times_input: ClassVar[bool] = False
    stochastic: ClassVar[bool] = False
    published_name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Check the parameters; subclasses add theirs."""
        if not isinstance(self.published, (bool, np.bool_)):
            raise TypeError(f"Expected published to be True or False, found {self.published!r}.")

    @property
    def together(self) -> int | None:
        """Samples that go through together where a map depends on the others beside it; None: it does not."""
        return None

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
            (n, D, ...). For linear methods it is zero on entry and on the encoder's device.
        """
        raise NotImplementedError

    @classmethod
    def parameters(cls) -> dict[str, Any]:
        """Names of the parameters and their defaults."""
        return {field.name: field.default for field in dataclasses.fields(cls)}


@dataclass(frozen=True, kw_only=True)
class Saliency(Method):
    """Gradient of the concept score, signed (Simonyan et al. 2014)."""

    linear: ClassVar[bool] = True
    is_gradient: ClassVar[bool] = True
    published_name: ClassVar[str] = "saliency"

    def fill(self, encoder: Encoder, batch: Batch, directions: Tensor, into: Tensor) -> None:
        """One pass forwards, one backwards for each direction."""
        leaf, latents = encoder(batch.x)
        for d, signal in enumerate(encoder.backward(leaf, latents, directions)):
            into[:, d].copy_(signal)


@dataclass(frozen=True, kw_only=True)
class InputXGradient(Saliency):
    """Input times gradient (Shrikumar et al. 2016)."""

    times_input: ClassVar[bool] = True
    is_gradient: ClassVar[bool] = False
    published_name: ClassVar[str] = "grad*input"

    def fill(self, encoder: Encoder, batch: Batch, directions: Tensor, into: Tensor) -> None:
        """Gradient, then the product."""
        super().fill(encoder, batch, directions, into)
        into.mul_(batch.x[:, None])


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(Method):
    """Gradient averaged over the path from a baseline, times the difference (Sundararajan et al. 2017).

    Parameters
    ----------
    steps
        Points on the path.
    baseline
        A number, a sample, or one for each input; zero if None.
    """

    steps: int = 50
    baseline: Any = None
    linear: ClassVar[bool] = True
    times_input: ClassVar[bool] = True
    published_name: ClassVar[str] = "intgrad"

    def __post_init__(self) -> None:
        """Check the number of steps."""
        super().__post_init__()
        check_positive_integer(self.steps, "steps")

    def prepared(self, inputs: Tensor) -> IntegratedGradients:
        """Bring the baseline to the inputs' shape."""
        given = 0.0 if self.baseline is None else self.baseline
        return dataclasses.replace(self, baseline=like_inputs(given, inputs, "baseline"))

    def variants(self, shape: tuple[int, ...]) -> int:
        """One for each step."""
        return self.steps

    def fill(self, encoder: Encoder, batch: Batch, directions: Tensor, into: Tensor) -> None:
        """Gauss-Legendre quadrature; the published code takes a right Riemann sum on the path from zero."""
        baseline = batch.part_of(self.baseline)
        way = batch.x - baseline
        nodes, weights = _right_riemann(self.steps) if self.published else _gauss_legendre(self.steps)
        start = torch.zeros_like(way) if self.published else baseline
        path = batch.x - start
        _add_gradients(encoder, lambda i: start + path * nodes[i], weights, directions, into)
        into.mul_(way[:, None])


def _right_riemann(steps: int) -> tuple[list[float], list[float]]:
    return [(i + 1) / steps for i in range(steps)], [1 / steps] * steps


@lru_cache(maxsize=8)  # every batch asks again, and thousands of nodes take seconds
def _gauss_legendre(steps: int) -> tuple[list[float], list[float]]:
    nodes, mass = np.polynomial.legendre.leggauss(steps)
    return ((nodes + 1) / 2).tolist(), (mass / 2).tolist()


@dataclass(frozen=True, kw_only=True)
class SmoothGrad(Method):
    """Gradient averaged over noisy copies of the input (Smilkov et al. 2017).

    Parameters
    ----------
    samples
        Noisy copies.
    noise_level
        Standard deviation of the noise, as a share of the sample's range.
    noise
        Given noise, (samples, N, ...), in place of a draw.
    seed
        Of the draw, which does not depend on the batch size.
    first
        Number of the first sample where the inputs are part of a larger set: a sample's noise depends on its number.
    """

    samples: int = 25
    noise_level: float = 0.1
    noise: Any = None
    seed: int = 0
    first: int = 0
    linear: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True
    published_name: ClassVar[str] = "smoothgrad"

    def __post_init__(self) -> None:
        """Check counts, level and seed."""
        super().__post_init__()
        check_positive_integer(self.samples, "samples")
        check_number(self.noise_level, "noise_level")
        if not 0 <= self.noise_level < float("inf"):
            raise ValueError(f"Expected noise_level to be finite and at least 0, found {self.noise_level}.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, (int, np.integer)):
            raise TypeError(f"Expected seed to be an integer, found {self.seed!r}.")
        if isinstance(self.first, bool) or not isinstance(self.first, (int, np.integer)) or self.first < 0:
            raise ValueError(f"Expected first to be a whole number of 0 or more, found {self.first!r}.")
        if not 0 <= self.seed < 2**128:
            raise ValueError(f"Expected seed to be at least 0 and below 2**128, found {self.seed}.")

    @property
    def together(self) -> int | None:
        """The published code's noise follows the range of its batch."""
        return PUBLISHED_BATCH if self.published and self.noise is None else None

    def prepared(self, inputs: Tensor) -> SmoothGrad:
        """Read given noise, or find how wide the noise shall be."""
        if self.noise is not None:
            noise = read_real(self.noise, "noise", inputs.dtype)
            if noise.ndim != inputs.ndim + 1 or noise.shape[1:] != inputs.shape or len(noise) == 0:
                raise ValueError(
                    f"Expected noise of shape (samples, {', '.join(map(str, inputs.shape))}), "
                    f"found {tuple(noise.shape)}."
                )
            if not bool(noise.isfinite().all()):
                raise ValueError("Expected finite noise, found NaN or infinity in it.")
            if self.samples not in (len(noise), type(self).samples):
                raise ValueError(
                    f"Expected as many samples as there are copies of the given noise, {len(noise)}, found "
                    f"{self.samples}; leave samples out."
                )
            return dataclasses.replace(self, noise=noise, samples=len(noise))
        return dataclasses.replace(self, noise=_Noise(inputs, self))

    def variants(self, shape: tuple[int, ...]) -> int:
        """One for each noisy copy."""
        return self.samples

    def fill(self, encoder: Encoder, batch: Batch, directions: Tensor, into: Tensor) -> None:
        """Mean gradient over the noisy copies."""
        noise = self.noise
        if isinstance(noise, Tensor):
            rows = noise[:, batch.start : batch.stop].to(batch.x)
            point = lambda i: batch.x + rows[i]  # noqa: E731
        else:
            point = lambda i: batch.x + noise.draw(i, batch)  # noqa: E731
        _add_gradients(encoder, point, [1 / self.samples] * self.samples, directions, into)


class _Noise:
    """Normal noise that depends on seed, copy and sample alone, so that batches do not change it."""

    def __init__(self, inputs: Tensor, method: SmoothGrad) -> None:
        self._seed, self._first = int(method.seed), int(method.first)
        flat = inputs.flatten(1)
        # The published code takes the range of the whole batch, so that a map depends on the other samples.
        spread = flat.max() - flat.min() if method.published else flat.amax(1) - flat.amin(1)
        self._width = (method.noise_level * spread).expand(len(inputs))

    def draw(self, copy: int, batch: Batch) -> Tensor:
        """Noise of one copy of a batch, (n, ...)."""
        shape, double = tuple(batch.x.shape[1:]), batch.x.dtype == torch.float64
        draws = []
        for sample in range(batch.start, batch.stop):
            stream = np.random.Philox(key=self._seed, counter=[0, 0, copy, self._first + sample])
            draws.append(np.random.Generator(stream).standard_normal(shape, np.float64 if double else np.float32))
        width = self._width[batch.start : batch.stop].to(batch.x)
        return torch.from_numpy(np.stack(draws)).to(batch.x) * width.reshape(-1, *[1] * len(shape))


def _add_gradients(
    encoder: Encoder, point: Callable[[int], Tensor], weights: list[float], directions: Tensor, into: Tensor
) -> None:
    """Add the weighted gradients at several variants of a batch, each (n, ...), to ``into``, (n, D, ...).

    One addition after another, so that the order, and with it the rounding, does not depend on the batch size.
    """
    for which, leaf, latents in encoder.points(len(into), len(weights), point):
        for d, signal in enumerate(encoder.backward(leaf, latents, directions)):
            for i, gradient in zip(which, signal.unflatten(0, (len(which), -1)), strict=True):
                into[:, d].add_(gradient, alpha=weights[i])


@dataclass(frozen=True, kw_only=True)
class Occlusion(Method):
    """Loss of the score when a window is covered, shared out among its cells (Zeiler and Fergus 2014).

    Every window's loss is divided by the number of its cells; a cell under several windows gets the mean.

    Parameters
    ----------
    window
        Cells along every dimension of a sample; one integer goes for all, cut where a dimension is smaller.
    step
        Cells from one window to the next, likewise.
    baseline
        What covers: a number, a sample, or one for each input; zero if None.
    """

    window: int | Sequence[int] = 1
    step: int | Sequence[int] = 1
    baseline: Any = None
    linear: ClassVar[bool] = True
    times_input: ClassVar[bool] = True
    published_name: ClassVar[str] = "occlusion"

    def __post_init__(self) -> None:
        """Check that windows and steps are positive integers."""
        super().__post_init__()
        for name in ("window", "step"):
            value = getattr(self, name)
            for part in value if isinstance(value, (list, tuple, np.ndarray)) else (value,):
                check_positive_integer(part, name)

    def prepared(self, inputs: Tensor) -> Occlusion:
        """Bring window, step and baseline to the inputs' shape."""
        shape = tuple(inputs.shape[1:])
        window, step = _for_each_dimension(self.window, shape, "window"), self.step
        if any(w > size for w, size in zip(window, shape, strict=True)):
            raise ValueError(f"Expected a window that fits into a sample of shape {shape}, found {window}.")
        given = 0.0 if self.baseline is None else self.baseline
        return dataclasses.replace(
            self,
            window=window,
            step=_for_each_dimension(step, shape, "step", cut=False),
            baseline=like_inputs(given, inputs, "baseline"),
        )

    def windows(self, shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
        """Places of the windows; the published code leaves out those that would stick out at the end."""
        windows = _for_each_dimension(self.window, shape, "window")
        steps = _for_each_dimension(self.step, shape, "step", cut=False)
        along = []
        for size, window, step in zip(shape, windows, steps, strict=True):
            starts = list(range(0, size - window + 1, step))
            if not self.published and starts[-1] + window < size and starts[-1] + step < size:
                starts.append(starts[-1] + step)
            along.append([slice(start, min(start + window, size)) for start in starts])
        return list(itertools.product(*along))

    def variants(self, shape: tuple[int, ...]) -> int:
        """One for each window."""
        return len(self.windows(shape))

    def fill(self, encoder: Encoder, batch: Batch, directions: Tensor, into: Tensor) -> None:
        """Cover one window after another; cells that none covers get NaN."""
        x, cover = batch.x, batch.part_of(self.baseline)
        scores = encoder.latents(x) @ directions.T
        coverage = torch.zeros(x.shape[1:], dtype=x.dtype, device=x.device)
        windows = self.windows(tuple(x.shape[1:]))
        many = encoder.many_latents(len(x), len(windows), lambda i: _covered(x, cover, windows[i]))
        for window, latents in zip(windows, many, strict=True):
            lost = scores - latents @ directions.T
            cells = int(np.prod([w.stop - w.start for w in window]))
            into[(slice(None), slice(None), *window)] += (lost / cells).reshape(*lost.shape, *[1] * len(window))
            coverage[window] += 1
        into.div_(coverage)


def _covered(x: Tensor, cover: Tensor, window: tuple[slice, ...]) -> Tensor:
    point, cells = x.clone(), (slice(None), *window)
    point[cells] = cover[cells]
    return point


def _for_each_dimension(value: int | Sequence[int], shape: tuple[int, ...], name: str, *, cut: bool = True) -> tuple:
    if isinstance(value, (int, np.integer)):
        return tuple(min(int(value), size) if cut else int(value) for size in shape)
    if len(value) != len(shape):
        raise ValueError(
            f"Expected {name} to be an integer or one for each dimension of a sample of shape {shape}, "
            f"found {tuple(value)}."
        )
    return tuple(int(v) for v in value)
