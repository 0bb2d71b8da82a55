"""Models on disk: tensors as safetensors, everything else as JSON. Nothing is ever unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stcsm._folder import whole_folder

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
