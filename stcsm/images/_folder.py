"""Anyone's own folder of pictures with a table of attributes."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import warnings
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ._data import Pictures
from ._inventory import Inventory
from ._layout import SUFFIXES, list_pictures
from ._picture import ALIGNED, PictureError, Resample, crop_boxes, fit_boxes, open_picture, read_mask, read_picture
from ._tables import attributes_from, read_attributes, read_landmarks, read_partition

__all__ = ["PictureFolder"]


class PictureFolder(Pictures):
    """A folder of pictures of any size, with a table of attributes.

    Parameters
    ----------
    folder
        Holds the pictures (jpg, jpeg or png), no folders deep.
    attributes
        A table: csv, tsv or CelebA's text (see `read_attributes`), or a DataFrame indexed by file names.
    partition
        A table of 0, 1, 2 (see `read_partition`), a Series of ``train``, ``valid``, ``test``, or None.
    size
        Pictures are resized to ``size`` x ``size`` pixels.
    resample
        "nearest" or "bilinear".
    masks
        Folder with a folder for each attribute that has masks, see `masks`.
    missing
        What to do where listed files are absent: "warn" and leave them out, or "error".

    Raises
    ------
    ValueError
        If a table is damaged, or names no picture of the folder.
    FileNotFoundError
        If the folder or a table is not there.
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
            raise FileNotFoundError(f"Expected a folder of pictures, found no folder {folder}.")
        table = attributes_from(attributes) if isinstance(attributes, pd.DataFrame) else read_attributes(attributes)
        parts = read_partition(partition) if isinstance(partition, str | Path) else partition
        files = list_pictures(folder)
        whole = np.array([files.get(name, 0) > 0 for name in table.index], dtype=bool)
        self.folder, self.resample, self.outside = folder, resample, outside
        self._masks = None if masks is None else Path(masks)
        if self._masks is not None and not self._masks.is_dir():
            raise FileNotFoundError(f"Expected a folder of masks, found no folder {self._masks}.")
        if not whole.any():
            raise ValueError(_no_overlap(table.index, list(files), folder))
        lost = {"missing": tuple(table.index[~whole])}
        if lost["missing"] and missing == "error":
            raise ValueError(
                f"Expected a picture for every row, found none for {len(lost['missing'])}, first {lost['missing'][0]}; "
                "add them, or pass missing='warn' to leave them out."
            )
        extra = tuple(pd.Index(list(files)).difference(table.index))
        used = table[whole]
        self._boxes: NDArray[np.int64] | None = None
        self._whole: tuple[int, int] | None = None
        if landmarks is not None:
            used, more = self._place(used, read_landmarks(landmarks), outside)
            lost |= more
        self.inventory = Inventory(listed=len(table), used=len(used), extra=extra, **lost)
        if any((self.inventory.missing, self.inventory.unplaced)):
            warnings.warn(f"{self.inventory}.", stacklevel=3)
        if not len(used):
            raise ValueError(f"Expected pictures to be left, found none: {self.inventory}.")
        super().__init__(used, None if parts is None else parts.reindex(used.index), size)

    def _place(
        self, table: pd.DataFrame, landmarks: pd.DataFrame, outside: str
    ) -> tuple[pd.DataFrame, dict[str, tuple[str, ...]]]:
        """Set the crop of every picture, and leave those without one out."""
        known = table.index.isin(landmarks.index)
        placed = table[known]
        if not len(placed):
            raise ValueError(
                f"Expected landmarks of {table.index[0]} and the like, found {landmarks.index[0]} and the like; give "
                "the landmarks of this copy, or crop=False."
            )
        self._whole = ALIGNED
        with contextlib.suppress(PictureError):  # a damaged one is told of when it is asked for
            first = open_picture(self.folder / str(placed.index[0]))
            if (first.height, first.width) != ALIGNED:
                raise ValueError(
                    f"Expected aligned pictures of {ALIGNED[0]} x {ALIGNED[1]} pixels (height x width), for which the "
                    f"crop is made, found {first.height} x {first.width} in {placed.index[0]}; use img_align_celeba, "
                    "or crop=False."
                )
        boxes, fate = fit_boxes(crop_boxes(landmarks.loc[placed.index].to_numpy()), *self._whole, outside)
        kept = fate != "empty"
        self._boxes = boxes[kept]
        lost = {
            "unplaced": tuple(table.index[~known]),
            "empty": tuple(placed.index[~kept]),
            "clipped": tuple(placed.index[fate == "clipped"]),
        }
        return placed[kept], lost

    def path(self, row: int) -> Path:
        """Return the file of a picture."""
        return self.folder / str(self.names[row])

    @property
    def settings(self) -> dict[str, Any]:
        """What decides which pixels are read, in plain values; names, attributes and boxes as a hash."""
        digest = hashlib.sha256(self.attributes.to_csv().encode())
        if self._boxes is not None:
            digest.update(np.ascontiguousarray(self._boxes).tobytes())
        settings = {"size": self.size, "resample": self.resample, "crop": self._boxes is not None}
        return settings | {"outside": self.outside, "pictures": digest.hexdigest()[:16]}

    def masked_attributes(self) -> list[str]:
        """Names of the attributes that have masks."""
        if self._masks is None:
            return []
        return [name for name in self.attributes.columns if (self._masks / str(name)).is_dir()]

    def masks(self, attribute: str, rows: ArrayLike | None = None) -> NDArray[np.bool_]:
        """Return where an attribute is seen, cropped and resized as the pictures are.

        Masks lie beside the pictures as ``masks/<attribute>/<name>.png``; a picture without such a file has none.

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
        PictureError
            If a mask cannot be read, or has another size than its picture.
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
                found[k] = read_mask(path, self.size, box, self.resample, self._whole)
        return found

    def unreadable(self, workers: int = 0, progress: bool = True) -> dict[str, str]:
        """Read every picture once: name of each that cannot be read -> why."""
        found: dict[str, str] = {}
        loader = DataLoader(_Trial(self), batch_size=32, num_workers=workers, collate_fn=list)
        with tqdm(total=len(self), desc="check", unit="picture", disable=not progress) as bar:
            for batch in loader:
                found |= {str(self.names[row]): why for row, why in batch if why}
                bar.update(len(batch))
        return found

    def _pixels(self, row: int) -> NDArray[np.uint8]:
        box = None if self._boxes is None else self._boxes[row]
        return read_picture(self.path(row), self.size, box, self.resample, self._whole)

    def _keep(self, rows: NDArray[np.intp]) -> None:
        self._boxes = None if self._boxes is None else self._boxes[rows]


class _Trial(Dataset[tuple[int, str]]):
    """Whether a picture can be read."""

    def __init__(self, data: PictureFolder) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, row: int) -> tuple[int, str]:
        if row >= len(self):
            raise IndexError(row)
        try:
            self.data[row]
        except PictureError as error:
            return row, str(error)
        return row, ""


def _no_overlap(names: pd.Index, files: list[str], folder: Path) -> str:
    if not files:
        return f"Expected pictures ({', '.join(SUFFIXES)}) in {folder}, found none; give the folder that holds them."
    stem = {Path(f).stem: f for f in files}
    near = stem.get(Path(str(names[0])).stem) or next(
        iter(difflib.get_close_matches(str(names[0]), files, n=1)), files[0]
    )
    return (
        f"Expected {folder} to hold the pictures that the table names, such as {names[0]}, "
        f"found others, such as {near}; give the table that belongs to the folder, with names as the files have them."
    )
