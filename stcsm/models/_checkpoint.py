"""State of a training on disk: one that was killed goes on from it, to the same weights.

The state is Lightning's own checkpoint, with what only a gene model has: the members' noise, the filter's width, the
history. It is one safetensors file, whole or not at all; nothing is unpickled. It is written after every epoch, or
after as many as ten seconds hold, so that it costs little where epochs are short.
"""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import CheckpointIO
from scvi.train._logger import SimpleLogger
from torch import Tensor

from stcsm._files import read_state, remove_state, write_state
from stcsm.models._tissue import Tissue

SAVE_SECONDS = 10.0
"""Seconds between two writings, at least."""
OBJECTS = ("callbacks", "logger", "plugins", "profiler")
"""Arguments of a trainer that are objects: they do not tell trainings apart."""
SETTINGS = "settings of the training"
"""Name of what a training depends on beside its model."""
OWN = "stcsm"
"""What a checkpoint holds beside Lightning's own state."""


class SafeCheckpoints(CheckpointIO):
    """Lightning's checkpoints as safetensors: tensors, and in the header everything else as JSON."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, whole or not at all."""
        tensors: dict[str, Tensor] = {}
        plain = _without_tensors(checkpoint, tensors, "")
        write_state(Path(path), tensors, json.dumps(plain))

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint."""
        tensors, plain = read_state(Path(path))
        return _with_tensors(json.loads(plain), tensors)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint."""
        remove_state(Path(path))


class TrainingState(Callback):
    """Keeps the state of a training in a file, and lets a training go on from it.

    Parameters
    ----------
    path
        The file.
    of
        What tells trainings apart, by name: see :func:`training_of`.

    Attributes
    ----------
    found
        What the file holds beside Lightning's own state, without tensors; None where there is no file.
    smoothing
        Width of the spatial filter that is trained with.

    Raises
    ------
    ValueError
        If the file is damaged, or holds the state of another training.
    """

    def __init__(self, path: str | Path, of: dict[str, str]):
        self.path = Path(path).expanduser()
        self.of = of
        self.found: dict[str, Any] | None = None
        self.smoothing = 0.0
        self._written: float | None = None
        if self.path.parent.is_file() or self.path.is_dir():
            raise FileExistsError(f"Expected a file for the state of the training, found a folder: {self.path}")
        if self.path.exists():
            _, plain = read_state(self.path, tensors=False)
            self.found = _with_tensors(json.loads(plain), {})[OWN]
            self._refuse_others(self.found["of"])
            self.smoothing = self.found["smoothing"]

    def _refuse_others(self, theirs: dict[str, str]) -> None:
        differ = [name for name in self.of if theirs.get(name) != self.of[name]]
        if differ:
            raise ValueError(
                f"Expected the state of this training in {self.path}, found that of one with other "
                f"{', '.join(differ)}; go on with what it was begun with, or remove the file to begin anew"
            )

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to be trained."""
        return self.found is not None and self.found["complete"]

    def weights(self) -> dict[str, Tensor]:
        """State of the module."""
        prefix = "module."
        held = SafeCheckpoints().load_checkpoint(self.path)["state_dict"]
        return {name.removeprefix(prefix): t for name, t in held.items() if name.startswith(prefix)}

    def history(self) -> dict[str, pd.DataFrame]:
        """Scores of the epochs that are done, as in ``model.history``."""
        held = {} if self.found is None else self.found["history"]
        return {
            name: pd.DataFrame({name: t["values"]}, index=pd.Index(t["at"], name=t["axis"]), dtype=object)
            for name, t in held.items()
        }

    def trainer_kwargs(self, given: dict[str, Any]) -> dict[str, Any]:
        """Arguments of a trainer that begins where the file left off, and keeps it up to date."""
        callbacks = given.get("callbacks") or []
        more = {"callbacks": [*(callbacks if isinstance(callbacks, list) else [callbacks]), self]}
        plugins = given.get("plugins") or []
        more["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), SafeCheckpoints()]
        return given | more | ({} if self.found is None else {"ckpt_path": str(self.path)})

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep what Lightning does not restore until the training starts.

        Raises
        ------
        ValueError
            If the training began on another kind of device: its noise cannot go on there.
        """
        self._loaded = checkpoint[OWN]
        if self._loaded["device"] != pl_module.device.type:
            raise ValueError(
                f"Expected to go on on the kind of device that the training began on, {self._loaded['device']}, found "
                f"{pl_module.device.type}; pass accelerator="
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with noise, order and history where they were; the plan has restarted the noise."""
        if self.found is None:
            return
        module: Any = pl_module.module
        for optimizer in trainer.optimizers:
            for parameter, held in optimizer.state.items():
                for name, value in held.items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        # Fused optimisers go through weights and moments in the order of memory: it must be the same.
                        held[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        module.set_noise_state(self._loaded["noise"])
        trainer.datamodule.order.set_state(self._loaded["order"])  # type: ignore[attr-defined]
        if isinstance(trainer.logger, SimpleLogger):
            trainer.logger.experiment.data.update(self.history())

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the state before the first epoch and between epochs, when the scores of the last are logged."""
        if self._written is None or time.perf_counter() - self._written >= SAVE_SECONDS:
            self._write(trainer, complete=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last state, unless the training was cut short (``max_time``): the one before it goes on."""
        done = trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch
        done |= 0 <= trainer.max_steps <= trainer.global_step
        if done or any(stopping.stopped_epoch for stopping in trainer.early_stopping_callbacks):
            self._write(trainer, complete=True)

    def _write(self, trainer: Trainer, complete: bool) -> None:
        self._complete = complete
        trainer.save_checkpoint(self.path)
        self._written = time.perf_counter()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not know."""
        if not self._complete:
            # Lightning counts the epoch that is about to begin as one to be finished, and would skip its batches.
            for progress in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
                progress["ready"] = progress["completed"]
        history = getattr(trainer.logger, "history", {})
        module: Any = pl_module.module
        checkpoint[OWN] = {
            "of": self.of,
            "complete": self._complete,
            "smoothing": self.smoothing,
            "device": pl_module.device.type,
            "noise": module.noise_state(),
            "order": trainer.datamodule.order.get_state(),  # type: ignore[attr-defined]
            "history": {
                name: {"axis": table.index.name, "at": table.index.tolist(), "values": table[name].tolist()}
                for name, table in history.items()
            },
        }

    def remove(self) -> None:
        """Remove the file."""
        SafeCheckpoints().remove_checkpoint(self.path)


def training_of(
    tissue: Tissue, settings: dict[str, Any], samples: np.ndarray, weights: str, **training: Any
) -> dict[str, str]:
    """Short hashes of what a training's result depends on, by a name for messages.

    Parameters
    ----------
    tissue, settings, samples
        The model's tissue, its settings, and what it is trained on.
    weights
        Hash of the weights before the training.
    **training
        Arguments of the training; those of ``OBJECTS`` are ignored.
    """
    return {
        "genes": _hash([*map(str, tissue.gene_names), samples]),
        "spots": _hash([*map(str, tissue.spot_names), tissue.reader.spots, tissue.frame.coordinates]),
        "counts": _hash([asdict(tissue.setup), tissue.samples.gene_checks]),
        "settings of the model": _hash([settings]),
        SETTINGS: _hash(sorted((k, repr(v)) for k, v in training.items() if k not in OBJECTS)),
        "weights at its start": weights,
        "version of stcsm": version("stcsm"),
    }


def _hash(parts: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        raw = np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else repr(part).encode()
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()[:16]


def refuse_processes(devices: int | list[int] | str, trainer_kwargs: dict[str, Any]) -> None:
    """Refuse to keep the state of a training that several processes share.

    Raises
    ------
    ValueError
        If there would be more than one.
    """
    several = _n_devices(devices) > 1 or trainer_kwargs.get("num_nodes", 1) > 1
    if several or trainer_kwargs.get("strategy", "auto") != "auto":
        raise ValueError(
            "Expected a training in one process to keep the state of, found several devices or a strategy; leave "
            "checkpoint= or devices= and strategy= out"
        )


def _n_devices(devices: int | Sequence[int] | str) -> float:
    """How many devices Lightning would take, where it was told: -1 and "-1" are all that there are."""
    if isinstance(devices, str):
        devices = [int(d) for d in devices.split(",") if d.strip()] if "," in devices else devices.strip()
    if devices == "auto":
        return 1
    n = int(devices) if isinstance(devices, (int, str)) else len(devices)
    return np.inf if n == -1 else n


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C be a KeyboardInterrupt, as everywhere: Lightning leaves the process, and ignores further ones."""
    here = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if here and isinstance(error.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, before)
            raise KeyboardInterrupt from None
        raise


def _without_tensors(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """``value`` as JSON can hold it: tensors go into ``tensors``, under the name of the place where they were."""
    if isinstance(value, Tensor):
        tensors[where] = value
        return {"tensor": where}
    if isinstance(value, dict):
        return {"dict": [[k, _without_tensors(v, tensors, f"{where}/{k}")] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_without_tensors(v, tensors, f"{where}/{k}") for k, v in enumerate(value)]}
    if isinstance(value, np.generic):
        return value.item()
    if _is_plain(value):
        return value
    raise ValueError(
        f"Expected a state of the training of tensors, numbers and text, found {type(value).__name__} at {where}; "
        "leave out the callback or plugin that it belongs to, or checkpoint="
    )


def _with_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Inverse of :func:`_without_tensors`; None for tensors that are absent."""
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "tensor":
        return tensors.get(held)
    if kind == "dict":
        return {k: _with_tensors(v, tensors) for k, v in held}
    parts = [_with_tensors(v, tensors) for v in held]
    return tuple(parts) if kind == "tuple" else parts
