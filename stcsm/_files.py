"""Files and folders that appear whole or not at all; models as safetensors and JSON. Nothing is ever unpickled."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

TENSORS = "model.safetensors"
SETTINGS = "model.json"
FORMAT = 1


def strangers_in(folder: Path) -> list[str]:
    """What a folder holds beside a model; ``"."`` where it is no folder."""
    held = [p.name for p in folder.iterdir()] if folder.is_dir() else ["."]
    return [name for name in held if name not in (TENSORS, SETTINGS)]


def holds_only_a_model(folder: str | Path) -> bool:
    """Whether a folder holds a saved model and nothing else, so that writing a model there loses nothing else."""
    return not strangers_in(Path(folder))


def write_model(folder: str | Path, tensors: dict[str, Tensor], settings: dict[str, Any], overwrite: bool) -> None:
    """Write a model's folder, whole or not at all.

    Raises
    ------
    FileExistsError
        If ``folder`` exists and ``overwrite`` is false, or if it holds something else than a model.
    """
    folder = Path(folder)
    if folder.exists():
        if not overwrite:
            raise FileExistsError(f"Expected a new folder, found that {folder} exists; pass overwrite=True")
        strangers = strangers_in(folder)
        if strangers:
            raise FileExistsError(
                f"Expected a folder that holds a stcsm model and nothing else, found {strangers[0]!r} in {folder}; "
                "it is left as it is: choose another folder"
            )
    with whole_folder(folder) as scratch:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, scratch / TENSORS)
        (scratch / SETTINGS).write_text(json.dumps({"format": FORMAT, **settings}, indent=1), encoding="utf-8")


def read_model(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and settings of a saved model.

    Raises
    ------
    FileNotFoundError
        If ``folder`` holds no model.
    ValueError
        If its files are damaged or of a newer format.
    """
    folder = Path(folder)
    for name in (TENSORS, SETTINGS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"Expected {name} in {folder}, found none; is this a folder that model.save wrote?")
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except (json.JSONDecodeError, SafetensorError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected a whole model in {folder}, found a damaged file: {error}") from error
    found = settings.get("format") if isinstance(settings, dict) else None
    if found != FORMAT:
        raise ValueError(
            f"Expected a model of format {FORMAT}, found {found!r} in {folder}; "
            "read it with the version of stcsm that wrote it"
        )
    return tensors, settings


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to; that file replaces ``path`` when the block ends without an error.

    Its name ends with ``.part``, so that no reader takes an incomplete file for an image or a table.
    """
    scratch = path.with_name(f".{path.name}.part")
    try:
        yield scratch
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into, which takes the place of ``folder`` when the block ends without an error.

    What stands at ``folder`` is replaced only then; after an error it is as it was, and nothing else is left behind.
    Where it is a link, the folder that it leads to is replaced.

    Raises
    ------
    NotADirectoryError
        If something else than a folder stands there.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"Expected a folder or nothing at {folder}, found a file; choose another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield scratch
        scratch.chmod(0o755)  # mkdtemp's folder is the owner's alone
        _take_place(scratch, folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _take_place(scratch: Path, folder: Path) -> None:
    """Move ``scratch`` to ``folder``; what stands there is put aside, and deleted only when that is done."""
    if not folder.exists():
        os.replace(scratch, folder)
        return
    aside = scratch.with_name(f"{scratch.name}-old")
    os.replace(folder, aside)
    try:
        os.replace(scratch, folder)
    except BaseException:
        os.replace(aside, folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def replace_all(names: Sequence[str], scratch: Path, folder: Path) -> None:
    """Move the files and folders of these names from ``scratch`` to ``folder``: all of them, or none.

    What ``folder`` had under any of the names is gone afterwards, whether there is a new one or not; if a step fails,
    it is all back. ``scratch`` lies on the same disk, and is to be deleted by the caller.
    """
    aside = Path(tempfile.mkdtemp(prefix="old-", dir=scratch))
    new = [name for name in names if (scratch / name).exists()]
    try:
        for name in names:
            if (folder / name).exists():
                os.replace(folder / name, aside / name)
            if name in new:
                os.replace(scratch / name, folder / name)
    except BaseException:
        for name in new:
            if not (scratch / name).exists():
                os.replace(folder / name, scratch / name)
        for name in names:
            if (aside / name).exists():
                os.replace(aside / name, folder / name)
        raise
