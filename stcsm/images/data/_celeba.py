"""CelebA: where a copy keeps its images and tables, and the data set that reads them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stcsm.images.data._crop import read_crop_settings
from stcsm.images.data._folder import SUFFIXES, ImageFolder
from stcsm.images.data._image import Resample

__all__ = ["CelebA"]

_DEPTH = 3  # the archive nests img_align_celeba/img_align_celeba; no file that we read is deeper
_TABLES = {
    "attributes": "list_attr_celeba",
    "landmarks": "list_landmarks_align_celeba",
    "partition": "list_eval_partition",
}


class CelebA(ImageFolder):
    """A copy of CelebA, cropped to the face as published.

    Parameters
    ----------
    root
        Folder of the official archive (jpg or png) or of the Kaggle copy; images and tables are searched for below it.
    size
        Crops are resized to ``size`` x ``size`` pixels.
    crop
        Whether to crop by landmarks: rows from 105 above the nose to 35 below the left corner of the mouth, columns
        from 50 left of the left eye to 50 right of the right eye (Brocki & Chung 2019). Folders that `crop_faces`
        wrote contain crops already and are read as they are.
    outside
        Crops that extend beyond the image: "clip" cuts them at the border, "skip" excludes the image, "published" uses
        Python slices like the published code, so that most crops with a negative start are empty. Images with an empty
        crop are excluded, and counted.
    resample
        "nearest" (published) or "bilinear".
    images, attributes, landmarks, partition, masks
        Paths, if they are not below ``root`` or have other names.
    missing
        If files of listed images are missing: "warn" and exclude them, or "error".

    Attributes
    ----------
    inventory
        Which images are used and which are not: an `Inventory`.

    Raises
    ------
    FileNotFoundError
        If images, attributes or, where needed, landmarks are not found.
    ValueError
        If a table is damaged or does not fit the images.

    Notes
    -----
    Only the tables, the file names and one image are read until images are requested. CelebA: Liu et al., Deep
    Learning Face Attributes in the Wild, ICCV 2015; its licence does not permit redistribution, so nothing here
    downloads it.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        size: int = 128,
        crop: bool = True,
        outside: str = "clip",
        resample: Resample = "nearest",
        images: str | Path | None = None,
        attributes: str | Path | None = None,
        landmarks: str | Path | None = None,
        partition: str | Path | None = None,
        masks: str | Path | None = None,
        missing: str = "warn",
    ) -> None:
        read_crop_settings(Path(root))  # refuses unfinished crops, whose tables are not written yet
        found = _find_layout(root, images, attributes)
        landmarks, partition = landmarks or found.landmarks, partition or found.partition
        cropped = read_crop_settings(found.images.parent)
        if cropped is not None and size > cropped["size"]:
            raise ValueError(
                f"Expected a size of at most {cropped['size']}, the size of the crops in {root}, found {size}; pass "
                f"size={cropped['size']}, or crop the original images again."
            )
        if crop and cropped is None and landmarks is None:
            raise FileNotFoundError(
                f"Expected list_landmarks_align_celeba.txt or .csv in {root} to crop by, found "
                f"neither; give landmarks= its path, or crop=False."
            )
        points = Path(landmarks) if crop and cropped is None and landmarks is not None else None
        masks = masks or found.masks
        self._open(found.images, found.attributes, partition, points, size, resample, outside, masks, missing)


@dataclass(frozen=True)
class _Layout:
    """Paths of one copy of CelebA; missing tables are None."""

    images: Path
    attributes: Path
    landmarks: Path | None = None
    partition: Path | None = None
    masks: Path | None = None


def _find_layout(root: str | Path, images: str | Path | None, attributes: str | Path | None) -> _Layout:
    """Find images and tables below ``root``, in the folders of the official archive or of the Kaggle copy.

    Of several tables the one nearest to ``root`` is used, text before csv and tsv. Images are in a folder
    ``img_align_celeba`` (nested or not, or ``..._png``), or in ``root`` itself. ``images`` and ``attributes`` replace
    the search.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, no attribute table or no image.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"Expected the folder of a copy of CelebA, found no folder {root}.")
    folders = _folders(root)
    found = {key: _find_table(folders, name) for key, name in _TABLES.items()}
    table = found["attributes"] if attributes is None else Path(attributes)
    if table is None:
        raise FileNotFoundError(
            f"Expected list_attr_celeba.txt or .csv in {root} or the folders in it, found neither; "
            f"put it there, or give attributes= its path."
        )
    folder = _find_images(root, folders) if images is None else Path(images)
    masks = next((f for f in folders if f.name == "masks"), None)
    return _Layout(folder, table, found["landmarks"], found["partition"], masks)


def _folders(root: Path) -> list[Path]:
    """Return root and the folders in it, nearest first."""
    level, found = [root], [root]
    for _ in range(_DEPTH):
        below: list[Path] = []
        for folder in level:
            with os.scandir(folder) as entries:
                below += [Path(e.path) for e in entries if not e.name.startswith(".") and e.is_dir()]
        level = sorted(below)
        found += level
    return found


def _find_table(folders: list[Path], name: str) -> Path | None:
    for folder in folders:
        for suffix in (".txt", ".csv", ".tsv"):
            if (folder / f"{name}{suffix}").is_file():
                return folder / f"{name}{suffix}"
    return None


def _find_images(root: Path, folders: list[Path]) -> Path:
    named = [f for f in folders if f.name.startswith("img_align_celeba")]
    for folder in [*named, root]:
        with os.scandir(folder) as entries:
            if any(e.name.lower().endswith(SUFFIXES) for e in entries):
                return folder
    packed = [f / "img_align_celeba.zip" for f in folders if (f / "img_align_celeba.zip").is_file()]
    fix = (
        f"unpack {packed[0]} first" if packed else "put the images into img_align_celeba, or give images= their folder"
    )
    raise FileNotFoundError(f"Expected images in a folder img_align_celeba of {root}, found none; {fix}.")
