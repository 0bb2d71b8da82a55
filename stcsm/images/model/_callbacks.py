"""Callbacks of a training: history, best weights, checkpoints, image grids.

Everything that a resumed run needs is in the state of one callback, and so in the one checkpoint: a safetensors file of
tensors with a JSON text of all other values. Nothing is unpickled.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from stcsm._files import whole_file
from stcsm.images.data import as_pixels, image_grid, write_png
from stcsm.images.model._network import Network

__all__ = ["Grids", "Record", "SafeCheckpoints", "Saver", "read_state"]


class Record(Callback):
    """History of the epochs, the settings, and the weights of the best epoch.

    Parameters
    ----------
    settings
        Settings that must be the same for a run to be resumed.
    patience
        Training stops after this many epochs without a lower validation loss; None for no early stopping.
    """

    def __init__(self, settings: dict[str, Any], patience: int | None) -> None:
        self.settings, self.patience = settings, patience
        self.rows: list[dict[str, Any]] = []
        self.sums: Tensor | None = None  # of the losses of this epoch's steps so far
        self.best: float | None = None
        self.best_weights: dict[str, Tensor] | None = None
        self.waited, self.stopped = 0, False

    @property
    def state_key(self) -> str:
        """Name in the checkpoint."""
        return "record"

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs."""
        return {
            "settings": self.settings,
            "rows": self.rows,
            "sums": self.sums,
            "best": self.best,
            "best_weights": self.best_weights,
            "waited": self.waited,
            "stopped": self.stopped,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, value in state_dict.items():
            if name != "settings":
                setattr(self, name, value)

    def on_train_batch_end(self, trainer: Trainer, plan: LightningModule, outputs: Any, *args: Any) -> None:
        """Add the step's losses; they stay on the device, so that no step waits for the transfer."""
        parts = torch.stack([outputs["loss"].detach(), outputs["reconstruction"], outputs["divergence"]]).float()
        self.sums = parts if self.sums is None else self.sums.to(parts) + parts

    def on_train_epoch_end(self, trainer: Trainer, plan: LightningModule) -> None:
        """Add the epoch to the history, keep the best weights, and decide whether to stop."""
        assert self.sums is not None
        total = trainer.strategy.reduce(self.sums, reduce_op="mean").tolist()
        if not all(map(math.isfinite, total)):
            raise FloatingPointError(
                f"Expected a finite loss, found {total[0]} in epoch {len(self.rows) + 1}: training has diverged; use a "
                "smaller lr (and another folder)."
            )
        names = ("loss", "reconstruction", "divergence")
        row: dict[str, Any] = {"epoch": len(self.rows) + 1, "step": trainer.global_step}
        row |= {name: value / self.settings["steps_per_epoch"] for name, value in zip(names, total, strict=True)}
        self.sums = None
        if "val_loss" in trainer.callback_metrics:
            row |= {f"val_{name}": float(trainer.callback_metrics[f"val_{name}"]) for name in names}
        self.rows = [*self.rows, row]
        if self.patience is not None:
            self._compare(row["val_loss"], plan)
            if self.waited >= self.patience:
                self.stopped = trainer.should_stop = True

    def _compare(self, loss: float, plan: LightningModule) -> None:
        if self.best is None or loss < self.best:
            self.best, self.waited = loss, 0
            model = plan.model
            assert isinstance(model, Network)
            self.best_weights = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
        else:
            self.waited += 1

    def history(self) -> pd.DataFrame:
        """One row per epoch."""
        return pd.DataFrame(self.rows).set_index("epoch") if self.rows else pd.DataFrame()


class Saver(Checkpoint):
    """Writes the checkpoint after each epoch and at regular steps within it, and the history as CSV.

    Lightning calls checkpoint callbacks after all others, so that the state it saves is current.

    Parameters
    ----------
    checkpoint, history
        The files.
    record
        Source of the history.
    every
        Steps between checkpoints within an epoch, or None.
    """

    def __init__(self, checkpoint: Path, history: Path, record: Record, every: int | None) -> None:
        self.checkpoint, self.history, self.record, self.every = checkpoint, history, record, every

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Save within an epoch."""
        step = trainer.global_step
        if self.every and step % self.every == 0 and step % self.record.settings["steps_per_epoch"]:
            trainer.save_checkpoint(self.checkpoint)

    def on_train_epoch_end(self, trainer: Trainer, plan: LightningModule) -> None:
        """Save at its end, after validation."""
        trainer.save_checkpoint(self.checkpoint)
        if trainer.is_global_zero:
            with whole_file(self.history) as scratch:
                self.record.history().to_csv(scratch)


class Grids(Callback):
    """Writes reconstructions and samples after each epoch.

    Parameters
    ----------
    folder
        Folder of the PNG files.
    pixels
        uint8 images; the first 16 are reconstructed, the latents of all determine where samples are drawn.
    seed
        Of the samples.
    """

    def __init__(self, folder: Path, pixels: Tensor, seed: int) -> None:
        self.folder, self.pixels, self.seed = folder, pixels, seed

    def on_train_epoch_end(self, trainer: Trainer, plan: LightningModule) -> None:
        """Write both grids as files, and to TensorBoard if it is the logger."""
        if not trainer.is_global_zero:
            return
        model = plan.model
        assert isinstance(model, Network)
        was_training = model.training
        model.eval()
        try:
            pixels = as_pixels(self.pixels.to(model.device))
            shown = {
                "reconstructions": _reconstructions(model, pixels[:16]),
                "samples": _samples(model, pixels, 32, self.seed),
            }
        finally:
            model.train(was_training)
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, images in shown.items():
            grid = image_grid(images)
            write_png(self.folder / f"epoch_{trainer.current_epoch + 1:04d}_{name}.png", grid)
            experiment = getattr(trainer.logger, "experiment", None)
            if experiment is not None and hasattr(experiment, "add_image"):
                experiment.add_image(name, grid, trainer.global_step, dataformats="HWC")


def _reconstructions(model: Network, pixels: Tensor) -> Tensor:
    """Rows of eight images (n, 3, size, size), each followed by a row of their reconstructions."""
    with torch.no_grad():
        decoded = model.decode(model.posterior(pixels)[0])
    shown = [part for k in range(0, len(pixels), 8) for part in (pixels[k : k + 8], decoded[k : k + 8])]
    return torch.cat(shown)


def _samples(model: Network, pixels: Tensor, n: int, seed: int) -> Tensor:
    """Decode n samples of the normal distribution with the mean and covariance of the images' latents.

    Samples of the standard normal prior are less informative: the weight of the divergence is so small that the latents
    are far from the prior.
    """
    with torch.no_grad():
        latents = model.posterior(pixels)[0]
    draws = np.random.default_rng(seed).standard_normal((n, len(latents)), dtype=np.float32)
    mean = latents.mean(0)
    mixed = torch.from_numpy(draws).to(latents) @ (latents - mean) / max(len(latents) - 1, 1) ** 0.5
    with torch.no_grad():
        return model.decode(mean + mixed)


# ---------------------------------------------------------------- the checkpoint file

_STATE = "state"


class SafeCheckpoints(CheckpointIO):
    """Writes and reads checkpoints for Lightning; a file is written completely or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write what Lightning collected."""
        path, tensors = Path(path), dict[str, Tensor]()
        state = json.dumps(_pack(checkpoint, tensors))
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as scratch:
            save_file(tensors, scratch, {_STATE: state})

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; tensors are on the CPU, and Lightning moves them to the device."""
        state = _read_json(path)
        return _unpack(state, load_file(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def read_state(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint without its tensors (they are None), which is fast."""
    return _unpack(_read_json(path), None)


def _read_json(path: str | Path) -> Any:
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})[_STATE])
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        raise ValueError(
            f"Expected a checkpoint of a training in {path}, found another or a damaged file: {error}; delete it to "
            "start from the beginning."
        ) from error


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Convert nested values to JSON; dictionaries become pairs, since their keys need not be text."""
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
