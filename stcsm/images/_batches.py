"""Which pictures a training step sees: a function of the seed and the step alone.

So that a resumed run goes on exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

__all__ = ["Batches", "noise_of_step"]


class Batches(Sampler[list[int]]):
    """Rows of each step's batch, from an endless row of shuffled passes through the data.

    Parameters
    ----------
    n
        Pictures.
    batch_size
        Pictures a step, over all devices.
    steps
        Steps an epoch.
    seed
        Of the shuffling.
    first_step
        Returns the step that comes next; asked whenever iteration begins.
    rank, world
        This device and the number of devices: device r takes every world-th picture of each batch.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        steps: int,
        seed: int,
        first_step: Callable[[], int],
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.n, self.batch_size, self.steps, self.seed = n, batch_size, steps, seed
        self.first_step, self.rank, self.world = first_step, rank, world
        self._pass: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        first = self.first_step()
        for step in range(first, (first // self.steps + 1) * self.steps):
            yield self.rows(step)[self.rank :: self.world]

    def rows(self, step: int) -> list[int]:
        """Return the whole batch of a step."""
        start, rows = step * self.batch_size, list[int]()
        while len(rows) < self.batch_size:
            number, offset = divmod(start + len(rows), self.n)
            rows += self._shuffled(number)[offset : offset + self.batch_size - len(rows)].tolist()
        return rows

    def _shuffled(self, number: int) -> np.ndarray:
        if self._pass is None or self._pass[0] != number:
            self._pass = number, np.random.default_rng([self.seed, number]).permutation(self.n)
        return self._pass[1]


def noise_of_step(seed: int, step: int, rank: int, shape: tuple[int, int]) -> Tensor:
    """Standard normal noise of a training step, the same whenever and wherever that step is taken."""
    return torch.from_numpy(np.random.default_rng([seed, step, rank, 1]).standard_normal(shape, dtype=np.float32))
