"""Images with attributes as a torch dataset: in memory or on disk, read in batches by worker processes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from stcsm.images.data._image import ImageError
from stcsm.images.data._tables import PARTITIONS, attributes_from

__all__ = ["ImageArray", "ImageSet", "batch_loader", "lfw_subset", "stream"]


class ImageSet(Dataset[Tensor]):
    """Named images of one size, each with attributes and, where known, a part of the data set.

    An item is a uint8 tensor (3, size, size); `ImageVAE` divides by 255 itself. Subclasses say how the pixels of one
    image are read.

    Attributes
    ----------
    attributes
        Booleans, one row per image (indexed by its name), one column per attribute.
    partition
        ``"train"``, ``"valid"`` or ``"test"`` for each image, or None.
    size
        Height and width in pixels.
    """

    def __init__(self, attributes: pd.DataFrame, partition: pd.Series | None, size: int) -> None:
        self.attributes, self.partition, self.size = attributes, partition, int(size)

    def __len__(self) -> int:
        return len(self.attributes)

    def __getitem__(self, row: int) -> Tensor:
        if not -len(self) <= row < len(self):  # plain iteration ends with this error
            raise IndexError(f"Expected a row below {len(self)}, found {row}.")
        return torch.from_numpy(np.ascontiguousarray(self._pixels(int(row)).transpose(2, 0, 1)))

    def _pixels(self, row: int) -> NDArray[np.uint8]:
        """Return one image, (size, size, 3)."""
        raise NotImplementedError

    def _keep(self, rows: NDArray[np.intp]) -> None:
        """Keep these rows of what the subclass holds per image."""
        raise NotImplementedError

    @property
    def names(self) -> pd.Index:
        """Names of the images."""
        return self.attributes.index

    def stack(self, rows: ArrayLike) -> Tensor:
        """Return some images as one uint8 tensor (n, 3, size, size)."""
        chosen = np.atleast_1d(np.asarray(rows, dtype=np.intp))
        if not len(chosen):
            return torch.empty((0, 3, self.size, self.size), dtype=torch.uint8)
        return torch.stack([self[int(row)] for row in chosen])

    def take(self, rows: ArrayLike) -> ImageSet:
        """Return the data set of some of the images: row numbers, or one boolean per image."""
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise ValueError(f"Expected one boolean for each of {len(self)} images, found shape {chosen.shape}.")
            chosen = np.flatnonzero(chosen)
        chosen = chosen.astype(np.intp)
        part = copy.copy(self)
        part.attributes = self.attributes.iloc[chosen]
        part.partition = None if self.partition is None else self.partition.iloc[chosen]
        part._keep(chosen)
        return part

    def part(self, name: str) -> ImageSet:
        """Return the training, validation or test images, as the partition table assigns them.

        Raises
        ------
        ValueError
            If there is no partition, no such part, or no image in it.
        """
        if name not in PARTITIONS:
            raise ValueError(f"Expected one of {', '.join(PARTITIONS)}, found {name!r}.")
        if self.partition is None:
            raise ValueError(
                "Expected a partition of the images, found none; put list_eval_partition beside the images."
            )
        chosen = (self.partition == name).to_numpy()
        if not chosen.any():
            raise ValueError(f"Expected images in the part {name!r}, found none among {len(self)}.")
        return self.take(chosen)

    def without(self, names: Iterable[str]) -> ImageSet:
        """Return the data set without some images, such as those that `unreadable` found."""
        return self.take(~self.names.isin(list(names)))

    def masks(self, attribute: str, rows: ArrayLike | None = None) -> NDArray[np.bool_]:
        """Return where an attribute is visible, (n, size, size), for data that include masks.

        Raises
        ------
        ValueError
            If there are none.
        """
        raise ValueError(f"Expected images with masks of {attribute!r}, found none; simulated_faces writes masks.")

    def unreadable(self, workers: int = 0, progress: bool = True) -> dict[str, str]:
        """Name of each image that cannot be read -> why; empty for images in memory."""
        return {}

    def check(self, workers: int = 0, progress: bool = True) -> None:
        """Read every image once.

        Raises
        ------
        ImageError
            If some cannot be read; the message names the first, and how to exclude them.
        """
        bad = self.unreadable(workers, progress)
        if bad:
            first = next(iter(bad))
            raise ImageError(
                f"Expected {len(self)} images that can be read, found {len(bad)} that cannot, first {first}: "
                f"{bad[first]} Exclude them with data.without(data.unreadable())."
            )

    def load(self, workers: int = 0, progress: bool = True) -> ImageArray:
        """Read all images into memory, n x size x size x 3 bytes; masks stay on disk.

        Parameters
        ----------
        workers
            Processes that read in parallel.
        progress
            Whether to show a progress bar.
        """
        pixels = np.empty((len(self), self.size, self.size, 3), np.uint8)
        rows = [list(range(k, min(k + 64, len(self)))) for k in range(0, len(self), 64)]
        done = 0
        with tqdm(total=len(self), desc="load", unit="image", disable=not progress) as bar:
            for batch in stream(self, rows, workers):
                pixels[done : done + len(batch)] = batch.permute(0, 2, 3, 1).numpy()
                done += len(batch)
                bar.update(len(batch))
        loaded = ImageArray(pixels, self.attributes, self.partition)
        loaded._source = self
        return loaded


class ImageArray(ImageSet):
    """Images in memory.

    Parameters
    ----------
    pixels
        (n, size, size, 3) or, grey, (n, size, size): uint8, or floats between 0 and 1.
    attributes
        One row per image; -1/1, 0/1 or booleans.
    partition
        ``"train"``, ``"valid"`` or ``"test"`` for each image.

    Raises
    ------
    ValueError
        If shapes do not match or values are invalid.
    """

    def __init__(self, pixels: ArrayLike, attributes: pd.DataFrame, partition: pd.Series | None = None) -> None:
        array = np.asarray(pixels)
        if array.ndim == 3:
            array = np.repeat(array[..., None], 3, axis=-1)
        if array.ndim != 4 or array.shape[-1] != 3 or array.shape[1] != array.shape[2]:
            raise ValueError(
                f"Expected square images, (n, size, size, 3) or (n, size, size), found shape {np.shape(pixels)}."
            )
        if array.dtype != np.uint8:
            if not np.issubdtype(array.dtype, np.floating) or not ((array >= 0) & (array <= 1)).all():
                raise ValueError(
                    f"Expected uint8 pixels, or floats between 0 and 1, found {array.dtype} outside that range."
                )
            array = np.rint(array * 255).astype(np.uint8)
        if len(attributes) != len(array) or (partition is not None and len(partition) != len(array)):
            raise ValueError(f"Expected attributes (and a partition) of {len(array)} images, found {len(attributes)}.")
        super().__init__(attributes_from(attributes), partition, array.shape[1])
        self._array = array
        self._source: ImageSet | None = None  # what `load` read it from; it has the masks

    def masks(self, attribute: str, rows: ArrayLike | None = None) -> NDArray[np.bool_]:
        """Return where an attribute is visible, from the data that were loaded."""
        return super().masks(attribute, rows) if self._source is None else self._source.masks(attribute, rows)

    def _pixels(self, row: int) -> NDArray[np.uint8]:
        return self._array[row]

    def _keep(self, rows: NDArray[np.intp]) -> None:
        self._array = self._array[rows]
        self._source = None if self._source is None else self._source.take(rows)

    def stack(self, rows: ArrayLike) -> Tensor:
        """Return some images as one uint8 tensor (n, 3, size, size)."""
        chosen = np.atleast_1d(np.asarray(rows, dtype=np.intp))
        # channels last in memory, which is the faster layout for the model
        return torch.from_numpy(self._array[chosen]).permute(0, 3, 1, 2)


# ---------------------------------------------------------------- batches


class _Batches(Dataset[Tensor]):
    """A data set whose item is a whole batch."""

    def __init__(self, data: ImageSet) -> None:
        self.data = data

    def __getitem__(self, rows: list[int]) -> Tensor:
        return self.data.stack(rows)

    def __len__(self) -> int:
        return len(self.data)


class _BatchesOrErrors(_Batches):
    """The same, with errors as items: a worker process would wrap them in the text of its traceback."""

    def __getitem__(self, rows: list[int]) -> Tensor:
        try:
            return super().__getitem__(rows)
        except ImageError as error:
            return error  # type: ignore[return-value]


def batch_loader(data: ImageSet, batches: Iterable[list[int]], workers: int, pin: bool = False) -> DataLoader[Tensor]:
    """Load uint8 batches in the order of ``batches``; the loader can be iterated repeatedly."""
    return DataLoader(
        _Batches(data),
        sampler=batches,
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin,
        generator=torch.Generator(),  # without it, torch draws from the user's generator
    )


def stream(data: ImageSet, batches: Iterable[list[int]], workers: int = 0) -> Iterator[Tensor]:
    """Yield uint8 batches once; unreadable images raise the same error with and without workers."""
    loader = DataLoader(
        _BatchesOrErrors(data), sampler=batches, batch_size=None, num_workers=workers, generator=torch.Generator()
    )
    for batch in loader:
        if isinstance(batch, ImageError):
            raise batch
        yield batch


# ---------------------------------------------------------------- a small real set

_LFW_FACES = 100  # of the 200 images the first 100 are faces


def lfw_subset(size: int = 32, *, seed: int = 0) -> ImageArray:
    """Return scikit-image's ``lfw_subset``: 100 faces and 100 images without a face, grey, 25 x 25 pixels.

    It is part of scikit-image; nothing is downloaded. (A part of Labeled Faces in the Wild, Huang et al. 2007.)

    Parameters
    ----------
    size
        Images are resized to ``size`` x ``size`` pixels.
    seed
        Of the partition: of the faces, and of the others, 75 are ``"train"`` and 25 ``"test"``.

    Returns
    -------
    200 images with the attribute ``Face``.

    Raises
    ------
    ValueError
        If ``size`` is below 1.
    ModuleNotFoundError
        If scikit-image is not installed.
    """
    if size < 1:
        raise ValueError(f"Expected a size of at least one pixel, found {size}.")
    try:
        from skimage.data import lfw_subset as grey_images
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Expected scikit-image, which contains these images, found none; pip install scikit-image."
        ) from error
    grey = np.asarray(grey_images())
    pixels = np.stack([
        np.asarray(Image.fromarray(np.rint(255 * one).astype(np.uint8)).resize((size, size), Image.Resampling.BILINEAR))
        for one in grey
    ])  # fmt: skip
    names = pd.Index([f"lfw_{k:03d}" for k in range(len(grey))], name="image_id")
    face = np.arange(len(grey)) < _LFW_FACES
    part = pd.Series("train", index=names, name="partition")
    rng = np.random.default_rng(seed)
    for kind in (True, False):
        rows = np.flatnonzero(face == kind)
        part.iloc[rng.choice(rows, len(rows) // 4, replace=False)] = "test"
    return ImageArray(pixels, pd.DataFrame({"Face": face}, index=names), part)
