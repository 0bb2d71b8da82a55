"""Where a copy of CelebA keeps its pictures and its tables."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["CROP_SETTINGS", "SUFFIXES", "Layout", "find_layout", "list_pictures", "read_crop_settings"]

#: The file by which a folder says that its pictures are crops already; `crop_faces` writes it.
CROP_SETTINGS = "crop.json"

SUFFIXES = (".jpg", ".jpeg", ".png")
_DEPTH = 3  # the archive nests img_align_celeba/img_align_celeba; nothing that we read lies deeper
_TABLES = {
    "attributes": "list_attr_celeba",
    "landmarks": "list_landmarks_align_celeba",
    "partition": "list_eval_partition",
}


@dataclass(frozen=True)
class Layout:
    """Paths of one copy of CelebA; tables that are not there are None."""

    pictures: Path
    attributes: Path
    landmarks: Path | None = None
    partition: Path | None = None
    masks: Path | None = None


def find_layout(root: str | Path, pictures: str | Path | None = None, attributes: str | Path | None = None) -> Layout:
    """Find pictures and tables below ``root``, in the official archive's folders or in the Kaggle copy's.

    A table is taken from the place nearest to ``root``, text before csv. Pictures are taken from the folder
    ``img_align_celeba`` (nested or not, or ``..._png``), or from ``root`` itself if it holds some. ``pictures`` and
    ``attributes`` are taken as given where given.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, no attribute table or no picture.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"Expected the folder of a copy of CelebA, found no folder {root}.")
    folders = _folders(root)
    found = {key: _find(folders, name) for key, name in _TABLES.items()}
    table = found["attributes"] if attributes is None else Path(attributes)
    if table is None:
        raise FileNotFoundError(
            f"Expected list_attr_celeba.txt or .csv in {root} or the folders in it, found neither; "
            f"put it there, or give "
            f"attributes= its path."
        )
    folder = _find_pictures(root, folders) if pictures is None else Path(pictures)
    masks = next((f for f in folders if f.name == "masks"), None)
    return Layout(folder, table, found["landmarks"], found["partition"], masks)


def read_crop_settings(folder: Path) -> dict[str, Any] | None:
    """Settings of the crops that a folder holds; None where `crop_faces` did not write it.

    Raises
    ------
    ValueError
        If the cropping was not finished, or the file is damaged.
    """
    path = folder / CROP_SETTINGS
    if not path.is_file():
        return None
    try:
        mark = json.loads(path.read_text(encoding="utf-8"))
        settings, complete = dict(mark["settings"]), bool(mark["complete"])
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"Expected the settings of crops in {path}, found a damaged file; crop again.") from error
    if not complete:
        raise ValueError(
            f"Expected finished crops in {folder}, found some whose writing was cut short; call crop_faces again to "
            "write the rest."
        )
    return settings


def list_pictures(folder: Path) -> dict[str, int]:
    """Names of the pictures that lie directly in a folder, sorted, and their sizes in bytes."""
    with os.scandir(folder) as entries:
        sizes = {e.name: e.stat().st_size for e in entries if e.name.lower().endswith(SUFFIXES) and e.is_file()}
    return dict(sorted(sizes.items()))


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


def _find(folders: list[Path], name: str) -> Path | None:
    for folder in folders:
        for suffix in (".txt", ".csv"):
            if (folder / f"{name}{suffix}").is_file():
                return folder / f"{name}{suffix}"
    return None


def _find_pictures(root: Path, folders: list[Path]) -> Path:
    named = [f for f in folders if f.name.startswith("img_align_celeba")]
    for folder in [*named, root]:
        with os.scandir(folder) as entries:
            if any(e.name.lower().endswith(SUFFIXES) for e in entries):
                return folder
    packed = [f / "img_align_celeba.zip" for f in folders if (f / "img_align_celeba.zip").is_file()]
    fix = (
        f"unpack {packed[0]} first"
        if packed
        else "put the pictures into img_align_celeba, or give pictures= their folder"
    )
    raise FileNotFoundError(f"Expected pictures in a folder img_align_celeba of {root}, found none; {fix}.")
