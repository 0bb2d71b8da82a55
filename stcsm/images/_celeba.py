"""CelebA as people have it on disk, and anyone's own folder of pictures."""

from __future__ import annotations

import difflib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ._data import Pictures
from ._layout import SUFFIXES, find_layout, list_pictures, read_crop_settings
from ._picture import PictureError, Resample, crop_boxes, fit_boxes, open_picture, read_mask, read_picture
from ._tables import attributes_from, read_attributes, read_landmarks, read_partition

__all__ = ["CelebA", "Inventory", "PictureFolder"]


@dataclass(frozen=True)
class Inventory:
    """What became of every picture: nothing is left out without being counted.

    Attributes
    ----------
    listed, used
        Pictures in the attribute table, and those that the dataset holds.
    missing
        Listed, but no such file, or one of no bytes.
    extra
        Files that no row lists.
    unplaced
        On disk, but without landmarks.
    empty
        Pictures of whose crop nothing lies within the picture (or, with ``outside="skip"``, not all of it).
    clipped
        Pictures part of whose crop lies outside; they are used.
    """

    listed: int
    used: int
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    unplaced: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    clipped: tuple[str, ...] = ()

    def __str__(self) -> str:
        kinds = {
            "without a file": self.missing,
            "files not listed": self.extra,
            "without landmarks": self.unplaced,
            "with an empty crop": self.empty,
            "with a clipped crop": self.clipped,
        }
        told = [
            f"{len(names)} {what} ({names[0]}{', ...' if len(names) > 1 else ''})"
            for what, names in kinds.items()
            if names
        ]
        return f"{self.used} of {self.listed} pictures used" + "".join(f"; {text}" for text in told)


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
                f"Expected a picture for every row, found none for {len(lost['missing'])}, first {lost['missing'][0]}."
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
                f"Expected landmarks of {table.index[0]} and the like, found {landmarks.index[0]} and the like."
            )
        first = open_picture(self.folder / str(placed.index[0]))
        self._whole = (first.height, first.width)
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
        """What decides how a picture is read, in plain values."""
        cropped = self._boxes is not None
        return {"size": self.size, "resample": self.resample, "crop": cropped, "outside": self.outside}

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


class CelebA(PictureFolder):
    """A copy of CelebA, cropped to the face as published.

    Parameters
    ----------
    root
        Folder of the official archive's files or of the Kaggle copy; pictures and tables are found below it.
    size
        Crops are resized to ``size`` x ``size`` pixels.
    crop
        Whether to crop by landmarks (see `crop_boxes`). Folders that `crop_faces` wrote are crops already and are
        read as they are.
    outside
        Crops that leave their picture: "clip" keeps what lies inside, "skip" leaves the picture out, "reference" cuts
        by python slices as the published code did, where most crops that start outside come out empty.
        Empty ones are left out, and counted.
    resample
        "nearest" (published) or "bilinear".
    pictures, attributes, landmarks, partition, masks
        Paths, where they are not below ``root`` or go by other names.
    missing
        What to do where listed files are absent: "warn" and leave them out, or "error".

    Attributes
    ----------
    inventory
        What became of every picture: an `Inventory`.

    Raises
    ------
    FileNotFoundError
        If pictures, attributes or, where needed, landmarks are not found.
    ValueError
        If a table is damaged or does not fit the pictures.

    Notes
    -----
    Nothing but the tables, the names of the files and one picture is read until pictures are asked for. CelebA: Liu
    et al.,
    Deep Learning Face Attributes in the Wild, ICCV 2015; its licence does not allow to pass it on, so nothing here
    fetches it.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        size: int = 128,
        crop: bool = True,
        outside: str = "clip",
        resample: Resample = "nearest",
        pictures: str | Path | None = None,
        attributes: str | Path | None = None,
        landmarks: str | Path | None = None,
        partition: str | Path | None = None,
        masks: str | Path | None = None,
        missing: str = "warn",
    ) -> None:
        found = find_layout(root, pictures, attributes)
        pictures, attributes = found.pictures, found.attributes
        landmarks, partition = landmarks or found.landmarks, partition or found.partition
        done = read_crop_settings(found.pictures.parent)
        if done is not None and size > done["size"]:
            raise ValueError(
                f"Expected a size of at most {done['size']}, which the crops in {root} have, found {size}; pass "
                f"size={done['size']}, or crop the original pictures again."
            )
        if crop and done is None and landmarks is None:
            raise FileNotFoundError(
                f"Expected list_landmarks_align_celeba.txt or .csv in {root} to crop by, found "
                f"neither; give landmarks= its path, or crop=False."
            )
        points = Path(landmarks) if crop and done is None and landmarks is not None else None
        self._open(pictures, attributes, partition, points, size, resample, outside, masks or found.masks, missing)


def _no_overlap(names: pd.Index, files: list[str], folder: Path) -> str:
    if not files:
        return f"Expected pictures ({', '.join(SUFFIXES)}) in {folder}, found none."
    stem = {Path(f).stem: f for f in files}
    near = stem.get(Path(str(names[0])).stem) or next(
        iter(difflib.get_close_matches(str(names[0]), files, n=1)), files[0]
    )
    return (
        f"Expected {folder} to hold the pictures that the table names, such as {names[0]}, "
        f"found others, such as {near}."
    )
