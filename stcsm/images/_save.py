"""Models on disk: tensors as safetensors, everything else as JSON. Nothing is ever unpickled."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = ["SETTINGS", "TENSORS", "read_model", "write_model"]

TENSORS, SETTINGS = "model.safetensors", "model.json"
_FORMAT = 1


def write_model(folder: str | Path, tensors: dict[str, Tensor], settings: dict[str, Any], overwrite: bool) -> None:
    """Write a model's folder, whole or not at all: it is made beside its place and moved there."""
    folder = Path(folder)
    if folder.exists():
        if not overwrite:
            raise FileExistsError(
                f"Expected a new folder, found that {folder} exists; choose another or pass overwrite=True."
            )
        strangers = (
            [p.name for p in folder.iterdir() if p.name not in (TENSORS, SETTINGS)] if folder.is_dir() else ["a file"]
        )
        if strangers:
            raise FileExistsError(
                f"Expected a folder that holds a model alone, found {strangers[0]!r} in {folder}; choose another."
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, scratch / TENSORS)
        (scratch / SETTINGS).write_text(json.dumps({"format": _FORMAT, **settings}, indent=1), encoding="utf-8")
        scratch.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(scratch, folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def read_model(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and settings of a saved model."""
    folder = Path(folder)
    for name in (TENSORS, SETTINGS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"Expected {name} in {folder}, found none; is this a folder that a model's save wrote?"
            )
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except (json.JSONDecodeError, SafetensorError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected a whole model in {folder}, found a damaged file: {error}") from error
    if not isinstance(settings, dict) or settings.get("format") != _FORMAT:
        raise ValueError(
            f"Expected a model of format {_FORMAT} in {folder}, found another; read it with the version that wrote it."
        )
    return tensors, settings
