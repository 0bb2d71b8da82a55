"""Crops of all faces on disk, written once, so that training reads small images."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from stcsm._files import whole_file
from stcsm.images.data._folder import ImageFolder, Inventory
from stcsm.images.data._image import ImageError
from stcsm.images.data._tables import PARTITIONS

__all__ = ["CropReport", "crop_faces", "read_crop_settings"]

_SETTINGS = "crop.json"  # marks a folder whose images are crops already
_FOLDER, _LEFT_OUT = "img_align_celeba", "left_out.csv"


@dataclass(frozen=True)
class CropReport:
    """Result of `crop_faces`.

    Attributes
    ----------
    folder
        Folder of the crops; `CelebA` opens it.
    written, kept
        Number of crops written by this call, and by earlier ones.
    unreadable
        Name of an image that cannot be read -> why.
    inventory
        Which images were excluded before that, see `Inventory`.
    """

    folder: Path
    written: int
    kept: int
    unreadable: Mapping[str, str] = field(default_factory=dict)
    inventory: Inventory | None = None

    def __str__(self) -> str:
        text = f"{self.written} crops written, {self.kept} existed already"
        if self.unreadable:
            text += f", {len(self.unreadable)} unreadable (first {next(iter(self.unreadable))})"
        return text if self.inventory is None else f"{text}; {self.inventory}"


def crop_faces(
    data: ImageFolder,
    out: str | Path,
    *,
    suffix: Literal["jpg", "png"] = "jpg",
    quality: int = 95,
    workers: int = 0,
    progress: bool = True,
) -> CropReport:
    """Write the crops of all images into a folder that `CelebA` opens.

    The folder contains the images, the tables of attributes and partition, masks if there are any, ``left_out.csv``
    (every image without a crop, and why) and ``crop.json``. The same call resumes an interrupted one; image files are
    written completely or not at all.

    Parameters
    ----------
    data
        A `CelebA` (its crop, size and resampling are used) or any `ImageFolder`, which is resized only.
    out
        A new folder, or that of an earlier call with the same settings.
    suffix
        "jpg" (about 5 kB at 128 pixels), or "png", which is lossless.
    quality
        Of JPEG, 1 to 100; at 90 and above colours keep their full resolution.
    workers
        Processes that work in parallel.
    progress
        Whether to show a progress bar.

    Raises
    ------
    FileExistsError
        If ``out`` contains other files or crops with other settings, or is the folder of the images.
    ValueError
        If a setting is out of range.
    """
    if suffix not in ("jpg", "png") or not 1 <= quality <= 100 or workers < 0:
        raise ValueError(
            "Expected suffix 'jpg' or 'png', a quality of 1 to 100 and 0 or more workers, found "
            f"{suffix!r}, {quality} and {workers}."
        )
    out = Path(out)
    names = [f"{Path(str(name)).stem}.{suffix}" for name in data.names]
    if len(set(names)) < len(names):
        twice = pd.Index(names)[pd.Index(names).duplicated()][0]
        raise ValueError(f"Expected names that differ in more than their suffix, found two for {twice}; rename one.")
    settings = data.settings | {"suffix": suffix, "quality": quality}
    _claim(out, data, settings)
    there = {entry.name for entry in os.scandir(out / _FOLDER)}
    rows = [row for row, name in enumerate(names) if name not in there]
    crops = _Crops(data, out, names, rows, quality)
    loader = DataLoader(crops, batch_size=32, num_workers=workers, collate_fn=list)
    unreadable: dict[str, str] = {}
    with tqdm(total=len(names), initial=len(names) - len(rows), desc="crop", unit="image", disable=not progress) as bar:
        for done in loader:
            unreadable |= {str(data.names[row]): why for row, why in done if why}
            bar.update(len(done))
    _finish(out, data, names, settings, unreadable)
    report = CropReport(out, len(rows) - len(unreadable), len(names) - len(rows), unreadable, data.inventory)
    if unreadable:
        warnings.warn(f"{report}; see {out / _LEFT_OUT}.", stacklevel=2)
    return report


def read_crop_settings(folder: Path) -> dict[str, Any] | None:
    """Settings of the crops in a folder; None if `crop_faces` did not write it.

    Raises
    ------
    ValueError
        If the cropping is not finished, or ``crop.json`` is damaged.
    """
    path = folder / _SETTINGS
    if not path.is_file():
        return None
    try:
        mark = json.loads(path.read_text(encoding="utf-8"))
        settings, complete = dict(mark["settings"]), bool(mark["complete"])
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"Expected the settings of crops in {path}, found a damaged file; crop again.") from error
    if not complete:
        raise ValueError(
            f"Expected finished crops in {folder}, found an interrupted cropping; call crop_faces again to write the "
            "rest."
        )
    return settings


class _Crops(Dataset[tuple[int, str]]):
    """Writes the crop of a row; the item is the row and, if the image cannot be read, why."""

    def __init__(self, data: ImageFolder, out: Path, names: list[str], rows: list[int], quality: int) -> None:
        self.data, self.out, self.names, self.rows, self.quality = data, out, names, rows, quality
        self.masked = data.masked_attributes()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[int, str]:
        row = self.rows[number]
        try:
            pixels = np.moveaxis(self.data[row].numpy(), 0, -1)
            masks = {name: self.data.masks(name, [row])[0] for name in self.masked}
        except ImageError as error:
            return row, str(error)
        for name, mask in masks.items():
            if mask.any():
                path = self.out / "masks" / name / f"{Path(self.names[row]).stem}.png"
                _write(Image.fromarray(mask), path, {})
        path = self.out / _FOLDER / self.names[row]
        _write(Image.fromarray(pixels), path, {} if path.suffix == ".png" else _jpeg(self.quality))
        return row, ""


def _jpeg(quality: int) -> dict[str, Any]:
    return {"quality": quality, "subsampling": 0 if quality >= 90 else 2}


def _write(image: Image.Image, path: Path, how: dict[str, Any]) -> None:
    with whole_file(path) as scratch:
        image.save(scratch, format="PNG" if path.suffix == ".png" else "JPEG", **how)


def _claim(out: Path, data: ImageFolder, settings: dict[str, Any]) -> None:
    """Create the folder, or check that this call can resume in it."""
    mark = out / _SETTINGS
    if (out / _FOLDER).exists() and (out / _FOLDER).samefile(data.folder):
        raise FileExistsError(f"Expected another folder than that of the images, found {out}; choose a new one.")
    if mark.is_file():
        try:
            found = json.loads(mark.read_text(encoding="utf-8"))["settings"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise FileExistsError(
                f"Expected crop.json of an earlier call in {out}, found a damaged one; choose a new folder."
            ) from error
        for name, value in settings.items():
            if found.get(name) != value:
                raise FileExistsError(
                    f"Expected crops with {name} {value!r} in {out}, found {found.get(name)!r}; choose a new folder."
                )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"Expected a new folder, found other files in {out}; choose another.")
    (out / _FOLDER).mkdir(parents=True, exist_ok=True)
    for name in data.masked_attributes():
        (out / "masks" / name).mkdir(parents=True, exist_ok=True)
    if not mark.is_file():
        _text(mark, json.dumps({"settings": settings, "complete": False}, indent=1))


def _finish(
    out: Path, data: ImageFolder, names: list[str], settings: dict[str, Any], unreadable: dict[str, str]
) -> None:
    """Write the tables, then mark the folder as complete."""
    good = ~data.names.isin(list(unreadable))
    index = pd.Index(np.array(names, dtype=object)[good], name="image_id")
    signs = data.attributes[good].astype(int) * 2 - 1
    _text(out / "list_attr_celeba.csv", signs.set_axis(index).to_csv())
    if data.partition is not None and data.partition[good].notna().all():
        numbers = data.partition[good].map({name: k for k, name in enumerate(PARTITIONS)}).astype(int)
        _text(out / "list_eval_partition.csv", numbers.set_axis(index).rename("partition").to_csv())
    kinds = {"missing": "no such file", "unplaced": "no landmarks", "empty": "empty crop"}
    excluded = [(name, why) for kind, why in kinds.items() for name in getattr(data.inventory, kind)]
    excluded += list(unreadable.items())
    _text(out / _LEFT_OUT, pd.DataFrame(excluded, columns=["image_id", "reason"]).to_csv(index=False))
    _text(out / _SETTINGS, json.dumps({"settings": settings, "complete": True}, indent=1))


def _text(path: Path, text: str) -> None:
    with whole_file(path) as scratch:
        scratch.write_text(text, encoding="utf-8")
