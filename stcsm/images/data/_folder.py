"""A folder of images with a table of attributes: which images are used, how each is cropped, their masks."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from stcsm.images.data._dataset import ImageSet
from stcsm.images.data._image import (
    ALIGNED,
    ImageError,
    Resample,
    crop_boxes,
    fit_boxes,
    open_image,
    read_image,
    read_mask,
)
from stcsm.images.data._tables import attributes_from, read_attributes, read_landmarks, read_partition

__all__ = ["SUFFIXES", "ImageFolder", "Inventory"]

#: How the names of image files end, in lower case.
SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Inventory:
    """How many of the listed images are used, and why the others are not: no image is excluded silently.

    Attributes
    ----------
    listed, used
        Number of images in the attribute table, and in the data set.
    missing
        Names of listed images without a file, or with an empty one.
    extra
        Files that are not listed.
    unplaced
        Images without landmarks.
    empty
        Images whose crop is outside the image entirely (with ``outside="skip"``, even in part).
    clipped
        Images whose crop is partly outside the image; they are used.
    by_stem
        Files whose suffix is not the listed one (``000001.png`` for ``000001.jpg``); they are used.
    """

    listed: int
    used: int
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    unplaced: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    clipped: tuple[str, ...] = ()
    by_stem: tuple[str, ...] = ()

    def __str__(self) -> str:
        kinds = {
            "without a file": self.missing,
            "files not listed": self.extra,
            "without landmarks": self.unplaced,
            "with an empty crop": self.empty,
            "with a clipped crop": self.clipped,
            "with another suffix than listed": self.by_stem,
        }
        counts = [
            f"{len(names)} {what} ({names[0]}{', ...' if len(names) > 1 else ''})"
            for what, names in kinds.items()
            if names
        ]
        return f"{self.used} of {self.listed} images used" + "".join(f"; {text}" for text in counts)


class ImageFolder(ImageSet):
    """A folder of images of any size, with a table of attributes.

    Parameters
    ----------
    folder
        The folder that directly contains the images (jpg, jpeg or png).
    attributes
        A table separated by commas, semicolons or tabs, or in CelebA's text format (first column: file names; values
        -1/1, 0/1 or true/false), or a DataFrame indexed by file names. A name that no file has stands for the file that
        differs in its suffix only, as in CelebA's release of png files, whose tables say jpg.
    partition
        A table of 0 (train), 1 (validation), 2 (test) per file name, a Series of ``train``, ``valid``, ``test``, or
        None.
    size
        Images are resized to ``size`` x ``size`` pixels.
    resample
        "nearest" or "bilinear".
    masks
        Folder with one folder per attribute that has masks, see `masks`.
    missing
        If files of listed images are missing: "warn" and exclude them, or "error".

    Attributes
    ----------
    inventory
        Which images are used and which are not: an `Inventory`.

    Raises
    ------
    ValueError
        If a table is damaged, lists no image of the folder, or a name stands for several files.
    FileNotFoundError
        If the folder or a table does not exist.
    """

    def __init__(
        self,
        folder: str | Path,
        attributes: str | Path | pd.DataFrame,
        *,
        partition: str | Path | pd.Series | None = None,
        size: int = 128,
        resample: Resample = "bilinear",
        masks: str | Path | None = None,
        missing: str = "warn",
    ) -> None:
        self._open(Path(folder), attributes, partition, None, size, resample, "clip", masks, missing)

    def _open(
        self,
        folder: Path,
        attributes: str | Path | pd.DataFrame,
        partition: str | Path | pd.Series | None,
        landmarks: Path | None,
        size: int,
        resample: Resample,
        outside: str,
        masks: str | Path | None,
        missing: str,
    ) -> None:
        if size < 1:
            raise ValueError(f"Expected a size of at least one pixel, found {size}.")
        if resample not in get_args(Resample):
            raise ValueError(f"Expected resample to be one of {', '.join(get_args(Resample))}, found {resample!r}.")
        if missing not in ("warn", "error"):
            raise ValueError(f"Expected missing='warn' or 'error', found {missing!r}.")
        if not folder.is_dir():
            raise FileNotFoundError(f"Expected a folder of images, found no folder {folder}.")
        table = attributes_from(attributes) if isinstance(attributes, pd.DataFrame) else read_attributes(attributes)
        parts = read_partition(partition) if isinstance(partition, str | Path) else partition
        files = _list_images(folder)
        listed = table.index
        table = table.set_axis(_named_as(listed, pd.Index(list(files)), "the attribute table"))
        by_stem = tuple(table.index[table.index != listed])
        present = np.array([files.get(name, 0) > 0 for name in table.index], dtype=bool)
        self.folder, self.resample, self.outside = folder, resample, outside
        self._masks = None if masks is None else Path(masks)
        if self._masks is not None and not self._masks.is_dir():
            raise FileNotFoundError(f"Expected a folder of masks, found no folder {self._masks}.")
        if not present.any():
            raise ValueError(_no_overlap(table.index, list(files), folder))
        excluded = {"by_stem": by_stem, "missing": tuple(table.index[~present])}
        if excluded["missing"] and missing == "error":
            raise ValueError(
                f"Expected an image for every row, found none for {len(excluded['missing'])}, first "
                f"{excluded['missing'][0]}; add the files, or pass missing='warn' to exclude these rows."
            )
        extra = tuple(pd.Index(list(files)).difference(table.index))
        used = table[present]
        self._boxes: NDArray[np.int64] | None = None
        self._source_size: tuple[int, int] | None = None
        if landmarks is not None:
            points = read_landmarks(landmarks)
            points = points.set_axis(_named_as(points.index, used.index, str(landmarks)))
            used, without_crop = self._set_boxes(used, points, outside)
            excluded |= without_crop
        self.inventory = Inventory(listed=len(table), used=len(used), extra=extra, **excluded)
        if any((self.inventory.missing, self.inventory.unplaced, by_stem)):
            warnings.warn(f"{self.inventory}.", stacklevel=3)
        if not len(used):
            raise ValueError(f"Expected at least one usable image, found none: {self.inventory}.")
        if parts is not None:
            parts = parts.set_axis(_named_as(parts.index, used.index, "the partition")).reindex(used.index)
        super().__init__(used, parts, size)

    def _set_boxes(
        self, table: pd.DataFrame, landmarks: pd.DataFrame, outside: str
    ) -> tuple[pd.DataFrame, dict[str, tuple[str, ...]]]:
        """Set the crop of every image, and exclude images without one."""
        known = table.index.isin(landmarks.index)
        placed = table[known]
        if not len(placed):
            raise ValueError(
                f"Expected landmarks for names such as {table.index[0]}, found names such as {landmarks.index[0]}; "
                "give the landmarks of this copy, or crop=False."
            )
        self._source_size = ALIGNED
        with contextlib.suppress(ImageError):  # a damaged image is reported when it is read
            first = open_image(self.folder / str(placed.index[0]))
            if (first.height, first.width) != ALIGNED:
                raise ValueError(
                    f"Expected aligned images of {ALIGNED[0]} x {ALIGNED[1]} pixels (height x width), for which the "
                    f"crop is defined, found {first.height} x {first.width} in {placed.index[0]}; use "
                    "img_align_celeba, or crop=False."
                )
        boxes, status = fit_boxes(crop_boxes(landmarks.loc[placed.index].to_numpy()), *self._source_size, outside)
        kept = status != "empty"
        self._boxes = boxes[kept]
        excluded = {
            "unplaced": tuple(table.index[~known]),
            "empty": tuple(placed.index[~kept]),
            "clipped": tuple(placed.index[status == "clipped"]),
        }
        return placed[kept], excluded

    def path(self, row: int) -> Path:
        """Return the file of an image."""
        return self.folder / str(self.names[row])

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that determines the pixels, in plain values; names, attributes and boxes as a hash."""
        digest = hashlib.sha256(self.attributes.to_csv().encode())
        if self._boxes is not None:
            digest.update(np.ascontiguousarray(self._boxes).tobytes())
        settings = {"size": self.size, "resample": self.resample, "crop": self._boxes is not None}
        return settings | {"outside": self.outside, "images": digest.hexdigest()[:16]}

    def masked_attributes(self) -> list[str]:
        """Names of the attributes that have masks."""
        if self._masks is None:
            return []
        return [name for name in self.attributes.columns if (self._masks / str(name)).is_dir()]

    def masks(self, attribute: str, rows: ArrayLike | None = None) -> NDArray[np.bool_]:
        """Return where an attribute is visible, cropped and resized like the images.

        Masks are files ``masks/<attribute>/<name>.png`` beside the images; an image without such a file has an empty
        mask.

        Parameters
        ----------
        attribute
            A column of `attributes`.
        rows
            Row numbers; all by default.

        Returns
        -------
        (n, size, size).

        Raises
        ------
        ValueError
            If there are no masks of the attribute.
        ImageError
            If a mask cannot be read, or its size differs from its image's.
        """
        if attribute not in self.masked_attributes() or self._masks is None:
            held = ", ".join(self.masked_attributes()) or "none"
            raise ValueError(f"Expected masks of {attribute!r} (a folder masks/{attribute}), found {held}.")
        chosen = np.arange(len(self)) if rows is None else np.atleast_1d(np.asarray(rows, dtype=np.intp))
        found = np.zeros((len(chosen), self.size, self.size), dtype=bool)
        for k, row in enumerate(chosen):
            path = self._masks / attribute / f"{Path(str(self.names[row])).stem}.png"
            if path.is_file():
                box = None if self._boxes is None else self._boxes[row]
                found[k] = read_mask(path, self.size, box, self.resample, self._source_size)
        return found

    def unreadable(self, workers: int = 0, progress: bool = True) -> dict[str, str]:
        """Read every image once: name of each that cannot be read -> why."""
        found: dict[str, str] = {}
        loader = DataLoader(_Readable(self), batch_size=32, num_workers=workers, collate_fn=list)
        with tqdm(total=len(self), desc="check", unit="image", disable=not progress) as bar:
            for batch in loader:
                found |= {str(self.names[row]): why for row, why in batch if why}
                bar.update(len(batch))
        return found

    def _pixels(self, row: int) -> NDArray[np.uint8]:
        box = None if self._boxes is None else self._boxes[row]
        return read_image(self.path(row), self.size, box, self.resample, self._source_size)

    def _keep(self, rows: NDArray[np.intp]) -> None:
        self._boxes = None if self._boxes is None else self._boxes[rows]


class _Readable(Dataset[tuple[int, str]]):
    """The row of each image and why it cannot be read; an empty text if it can."""

    def __init__(self, data: ImageFolder) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, row: int) -> tuple[int, str]:
        if row >= len(self):
            raise IndexError(row)
        try:
            self.data[row]
        except ImageError as error:
            return row, str(error)
        return row, ""


def _list_images(folder: Path) -> dict[str, int]:
    """Names of the image files directly in a folder, sorted, and their sizes in bytes."""
    with os.scandir(folder) as entries:
        sizes = {e.name: e.stat().st_size for e in entries if e.name.lower().endswith(SUFFIXES) and e.is_file()}
    return dict(sorted(sizes.items()))


def _named_as(names: pd.Index, files: pd.Index, source: str) -> pd.Index:
    """Names of a table as the files have them: exactly, else by the stem; names without a file stay.

    Raises
    ------
    ValueError
        If a name stands for several files that differ in their suffix, or a file for several names.
    """
    other = ~names.isin(files)
    free = files[~files.isin(names)]
    if not other.any() or not len(free):
        return names
    stems, wanted = pd.Index(free.map(_stem)), pd.Index(names[other].map(_stem))
    for what, found, held in (("file", stems, free), ("name", wanted, names[other])):
        several = found[found.duplicated()].intersection(wanted if what == "file" else stems)
        if len(several):
            those = ", ".join(map(str, held[found == several[0]]))
            raise ValueError(
                f"Expected one {what} for {several[0]!r}, found {those} (the suffixes of {source} are not those of the "
                "files); remove one of them, or list the files with their suffixes."
            )
    at = stems.get_indexer(wanted)
    renamed = names[other].to_numpy(dtype=object, copy=True)
    renamed[at >= 0] = free[at[at >= 0]]
    whole = names.to_numpy(dtype=object, copy=True)
    whole[other] = renamed
    return pd.Index(whole, name=names.name)


def _stem(name: str) -> str:
    """The name without the suffix of an image."""
    base, dot, suffix = str(name).rpartition(".")
    return base if dot and f".{suffix.lower()}" in SUFFIXES else str(name)


def _no_overlap(names: pd.Index, files: list[str], folder: Path) -> str:
    if not files:
        return f"Expected images ({', '.join(SUFFIXES)}) in {folder}, found none; give the folder that contains them."
    near = next(iter(difflib.get_close_matches(str(names[0]), files, n=1)), files[0])
    return (
        f"Expected {folder} to contain the images that the table lists, such as {names[0]}, found others, such as "
        f"{near}; give the table that belongs to the folder, with the names of its files."
    )
