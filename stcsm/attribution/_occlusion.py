"""Occlusion: what the score loses when a window of the input is covered."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from stcsm.attribution._encoder import Encoder
from stcsm.attribution._method import Batch, Method, positive_integer, sample_like

__all__ = ["Occlusion"]


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
                positive_integer(part, name)

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
            baseline=sample_like(given, inputs, "baseline"),
        )

    def windows(self, shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
        """Places of the windows; the published code leaves out those that would stick out at the end."""
        assert not isinstance(self.window, int)
        assert not isinstance(self.step, int)
        along = []
        for size, window, step in zip(shape, self.window, self.step, strict=True):
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
    point, place = x.clone(), (slice(None), *window)
    point[place] = cover[place]
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
