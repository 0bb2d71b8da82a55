"""Training checkpoints as one safetensors file: tensors beside a JSON text of all the rest. Nothing is unpickled."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = ["SafeCheckpoints", "read_state"]

_STATE = "state"


class SafeCheckpoints(CheckpointIO):
    """How Lightning writes and reads checkpoints; a file is written whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write what Lightning has gathered."""
        path, tensors = Path(path), dict[str, Tensor]()
        state = json.dumps(_pack(checkpoint, tensors))
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        os.close(handle)
        try:
            save_file(tensors, scratch, {_STATE: state})
            os.replace(scratch, path)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; tensors come onto the CPU, and Lightning moves them on."""
        state = _read_json(path)
        return _unpack(state, load_file(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def read_state(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint without its tensors (they come as None), which is quick."""
    return _unpack(_read_json(path), None)


def _read_json(path: str | Path) -> Any:
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})[_STATE])
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        raise ValueError(
            f"Expected a checkpoint of a training in {path}, found another or a damaged file: {error}; delete it to "
            "begin again."
        ) from error


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Turn nested values into what JSON holds; dictionaries become pairs, since their keys need not be text."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, dict):
        return {"map": [[_pack(k, tensors), _pack(v, tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(v, tensors) for v in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"Expected plain values and tensors in a checkpoint, found {type(value).__name__}.")


def _unpack(value: Any, tensors: dict[str, Tensor] | None) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "tensor":
        return None if tensors is None else tensors[held]
    if kind == "map":
        return {_unpack(k, tensors): _unpack(v, tensors) for k, v in held}
    values = [_unpack(v, tensors) for v in held]
    return values if kind == "list" else tuple(values)
