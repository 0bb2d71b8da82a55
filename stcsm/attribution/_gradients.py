"""Methods that need no rule: the gradient, times the input, along a path, under noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from stcsm.attribution._arrays import read_real
from stcsm.attribution._encoder import Encoder
from stcsm.attribution._method import Batch, Method, positive_integer, real, sample_like

__all__ = ["InputXGradient", "IntegratedGradients", "Saliency", "SmoothGrad"]


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


def _right_riemann(steps: int) -> tuple[list[float], list[float]]:
    return [(i + 1) / steps for i in range(steps)], [1 / steps] * steps


@lru_cache(maxsize=8)  # every batch asks again, and thousands of nodes take seconds
def _gauss_legendre(steps: int) -> tuple[list[float], list[float]]:
    nodes, mass = np.polynomial.legendre.leggauss(steps)
    return ((nodes + 1) / 2).tolist(), (mass / 2).tolist()


@dataclass(frozen=True, kw_only=True)
class Saliency(Method):
    """Gradient of the concept score, signed (Simonyan et al. 2014)."""

    linear: ClassVar[bool] = True
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
    published_name: ClassVar[str] = "grad*input"

    def fill(self, encoder: Encoder, batch: Batch, directions: Tensor, into: Tensor) -> None:
        """Gradient, then the product."""
        super().fill(encoder, batch, directions, into)
        into.mul_(batch.x[:, None])


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(Method):
    """Gradient averaged over the straight path from a baseline, times the way (Sundararajan et al. 2017).

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
        positive_integer(self.steps, "steps")

    def prepared(self, inputs: Tensor) -> IntegratedGradients:
        """Bring the baseline to the inputs' shape."""
        given = 0.0 if self.baseline is None else self.baseline
        return dataclasses.replace(self, baseline=sample_like(given, inputs, "baseline"))

    def variants(self, shape: tuple[int, ...]) -> int:
        """One for each step."""
        return self.steps

    def fill(self, encoder: Encoder, batch: Batch, directions: Tensor, into: Tensor) -> None:
        """Gauss-Legendre quadrature; the published code takes a right Riemann sum on the path from zero."""
        baseline = batch.part_of(self.baseline)
        way = batch.x - baseline
        places, weights = _right_riemann(self.steps) if self.published else _gauss_legendre(self.steps)
        start = torch.zeros_like(way) if self.published else baseline
        path = batch.x - start
        _add_gradients(encoder, lambda i: start + path * places[i], weights, directions, into)
        into.mul_(way[:, None])


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
        positive_integer(self.samples, "samples")
        real(self.noise_level, "noise_level")
        if not 0 <= self.noise_level < float("inf"):
            raise ValueError(f"Expected noise_level to be finite and at least 0, found {self.noise_level}.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, (int, np.integer)):
            raise TypeError(f"Expected seed to be an integer, found {self.seed!r}.")
        if isinstance(self.first, bool) or not isinstance(self.first, (int, np.integer)) or self.first < 0:
            raise ValueError(f"Expected first to be a whole number of 0 or more, found {self.first!r}.")
        if not 0 <= self.seed < 2**128:
            raise ValueError(f"Expected seed to be at least 0 and below 2**128, found {self.seed}.")

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
