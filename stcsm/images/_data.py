"""Pictures with attributes as a torch dataset, whatever they are read from."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ._loading import stream
from ._picture import PictureError
from ._tables import PARTITIONS, attributes_from

__all__ = ["PictureArray", "Pictures"]


class Pictures(Dataset[Tensor]):
    """Named pictures of one size, each with attributes and, where known, a part of the data it belongs to.

    An item is a uint8 tensor (3, size, size); `ImageVAE` divides by 255 itself.

    Attributes
    ----------
    attributes
        Booleans, one row a picture (indexed by its name), one column an attribute.
    partition
        ``"train"``, ``"valid"`` or ``"test"`` of each picture, or None.
    size
        Height and width in pixels.
    """

    def __init__(self, attributes: pd.DataFrame, partition: pd.Series | None, size: int) -> None:
        self.attributes, self.partition, self.size = attributes, partition, int(size)

    def __len__(self) -> int:
        return len(self.attributes)

    def __getitem__(self, row: int) -> Tensor:
        if not -len(self) <= row < len(self):  # plain iteration ends by this error
            raise IndexError(f"Expected a row below {len(self)}, found {row}.")
        return torch.from_numpy(np.ascontiguousarray(self._pixels(int(row)).transpose(2, 0, 1)))

    def _pixels(self, row: int) -> NDArray[np.uint8]:
        """Return one picture, (size, size, 3)."""
        raise NotImplementedError

    def _keep(self, rows: NDArray[np.intp]) -> None:
        """Keep some of the rows of whatever the subclass holds."""
        raise NotImplementedError

    @property
    def names(self) -> pd.Index:
        """Names of the pictures."""
        return self.attributes.index

    def stack(self, rows: ArrayLike) -> Tensor:
        """Return some pictures as one uint8 tensor (n, 3, size, size)."""
        chosen = np.atleast_1d(np.asarray(rows, dtype=np.intp))
        if not len(chosen):
            return torch.empty((0, 3, self.size, self.size), dtype=torch.uint8)
        return torch.stack([self[int(row)] for row in chosen])

    def take(self, rows: ArrayLike) -> Pictures:
        """Return the dataset of some of the pictures: row numbers, or one boolean a picture."""
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise ValueError(f"Expected one boolean for each of {len(self)} pictures, found shape {chosen.shape}.")
            chosen = np.flatnonzero(chosen)
        chosen = chosen.astype(np.intp)
        part = copy.copy(self)
        part.attributes = self.attributes.iloc[chosen]
        part.partition = None if self.partition is None else self.partition.iloc[chosen]
        part._keep(chosen)
        return part

    def part(self, name: str) -> Pictures:
        """Return the training, validation or test pictures, as the partition table says.

        Raises
        ------
        ValueError
            If there is no partition, no such part, or no picture in it.
        """
        if name not in PARTITIONS:
            raise ValueError(f"Expected one of {', '.join(PARTITIONS)}, found {name!r}.")
        if self.partition is None:
            raise ValueError(
                "Expected a partition of the pictures, found none; put list_eval_partition beside the pictures."
            )
        chosen = (self.partition == name).to_numpy()
        if not chosen.any():
            raise ValueError(f"Expected pictures in the part {name!r}, found none among {len(self)}.")
        return self.take(chosen)

    def masks(self, attribute: str, rows: ArrayLike | None = None) -> NDArray[np.bool_]:
        """Return where an attribute is seen, (n, size, size), for data that come with masks.

        Raises
        ------
        ValueError
            If there are none.
        """
        raise ValueError(f"Expected pictures with masks of {attribute!r}, found none; simulated_faces writes some.")

    def unreadable(self, workers: int = 0, progress: bool = True) -> dict[str, str]:
        """Name of each picture that cannot be read -> why; there are none in memory."""
        return {}

    def check(self, workers: int = 0, progress: bool = True) -> None:
        """Read every picture once.

        Raises
        ------
        PictureError
            If some cannot be read; the message names the first, and how to leave them out.
        """
        bad = self.unreadable(workers, progress)
        if bad:
            first = next(iter(bad))
            raise PictureError(
                f"Expected {len(self)} pictures that can be read, found {len(bad)} that cannot, first {first}: "
                f"{bad[first]} Leave them out with data.without(data.unreadable())."
            )

    def load(self, workers: int = 0, progress: bool = True) -> PictureArray:
        """Read all pictures into memory, n x size x size x 3 bytes; masks stay where they are.

        Parameters
        ----------
        workers
            Processes that read side by side.
        progress
            Whether to show a progress bar.
        """
        pixels = np.empty((len(self), self.size, self.size, 3), np.uint8)
        rows = [list(range(k, min(k + 64, len(self)))) for k in range(0, len(self), 64)]
        done = 0
        with tqdm(total=len(self), desc="load", unit="picture", disable=not progress) as bar:
            for batch in stream(self, rows, workers):
                pixels[done : done + len(batch)] = batch.permute(0, 2, 3, 1).numpy()
                done += len(batch)
                bar.update(len(batch))
        loaded = PictureArray(pixels, self.attributes, self.partition)
        loaded._source = self
        return loaded

    def without(self, names: Iterable[str]) -> Pictures:
        """Return the dataset without some pictures, such as those that `unreadable` found."""
        return self.take(~self.names.isin(list(names)))


class PictureArray(Pictures):
    """Pictures held in memory.

    Parameters
    ----------
    pixels
        (n, size, size, 3) or, grey, (n, size, size): uint8, or floats between 0 and 1.
    attributes
        One row a picture; -1/1, 0/1 or booleans.
    partition
        ``"train"``, ``"valid"`` or ``"test"`` of each picture.

    Raises
    ------
    ValueError
        If shapes do not match or values are none of the above.
    """

    def __init__(self, pixels: ArrayLike, attributes: pd.DataFrame, partition: pd.Series | None = None) -> None:
        array = np.asarray(pixels)
        if array.ndim == 3:
            array = np.repeat(array[..., None], 3, axis=-1)
        if array.ndim != 4 or array.shape[-1] != 3 or array.shape[1] != array.shape[2]:
            raise ValueError(
                f"Expected square pictures, (n, size, size, 3) or (n, size, size), found shape {np.shape(pixels)}."
            )
        if array.dtype != np.uint8:
            if not np.issubdtype(array.dtype, np.floating) or not ((array >= 0) & (array <= 1)).all():
                raise ValueError(f"Expected uint8 pixels, or floats between 0 and 1, found {array.dtype} beyond that.")
            array = np.rint(array * 255).astype(np.uint8)
        if len(attributes) != len(array) or (partition is not None and len(partition) != len(array)):
            raise ValueError(
                f"Expected attributes (and a partition) of {len(array)} pictures, found {len(attributes)}."
            )
        super().__init__(attributes_from(attributes), partition, array.shape[1])
        self._array = array
        self._source: Pictures | None = None  # what `load` read it from

    def masks(self, attribute: str, rows: ArrayLike | None = None) -> NDArray[np.bool_]:
        """Return where an attribute is seen, as the data that were loaded know."""
        return super().masks(attribute, rows) if self._source is None else self._source.masks(attribute, rows)

    def _pixels(self, row: int) -> NDArray[np.uint8]:
        return self._array[row]

    def _keep(self, rows: NDArray[np.intp]) -> None:
        self._array = self._array[rows]
        self._source = None if self._source is None else self._source.take(rows)

    def stack(self, rows: ArrayLike) -> Tensor:
        """Return some pictures as one uint8 tensor (n, 3, size, size)."""
        chosen = np.atleast_1d(np.asarray(rows, dtype=np.intp))
        return torch.from_numpy(self._array[chosen]).permute(
            0, 3, 1, 2
        )  # channels last in memory, as the model likes it
