"""Batches of pictures, read ahead by worker processes where there are some."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ._picture import PictureError

__all__ = ["stacked_loader", "stream"]


class _Stackable(Protocol):
    def stack(self, rows: list[int]) -> Tensor: ...


class _Stacked(Dataset[Tensor]):
    """A dataset whose item is a whole batch."""

    def __init__(self, data: _Stackable, n: int) -> None:
        self.data, self.n = data, n

    def __getitem__(self, rows: list[int]) -> Tensor:
        return self.data.stack(rows)

    def __len__(self) -> int:
        return self.n


class _Told(_Stacked):
    """The same, with errors as items: a worker would wrap them in the text of its traceback."""

    def __getitem__(self, rows: list[int]) -> Tensor:
        try:
            return super().__getitem__(rows)
        except PictureError as error:
            return error  # type: ignore[return-value]


def stacked_loader(
    data: _Stackable, batches: Iterable[list[int]], workers: int, pin: bool = False
) -> DataLoader[Tensor]:
    """Load batches of uint8 pictures in the order that ``batches`` gives, again and again."""
    return DataLoader(
        _Stacked(data, len(data)),  # type: ignore[arg-type]
        sampler=batches,
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin,
        generator=torch.Generator(),  # or the user's would be drawn from
    )


def stream(data: _Stackable, batches: Iterable[list[int]], workers: int = 0) -> Iterator[Tensor]:
    """Yield batches of uint8 pictures once; pictures that cannot be read raise as they would without workers."""
    loader = DataLoader(
        _Told(data, 0), sampler=batches, batch_size=None, num_workers=workers, generator=torch.Generator()
    )
    for batch in loader:
        if isinstance(batch, PictureError):
            raise batch
        yield batch
