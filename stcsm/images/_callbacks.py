"""What happens beside the steps of a training: history, best weights, checkpoints, grids.

All that a resumed run must know stands in one callback's state, so in the one checkpoint.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from ._grids import picture_grid, reconstructions, samples, write_png
from ._vae import ImageVAE, as_pixels

__all__ = ["Grids", "Record", "Saver"]


class Record(Callback):
    """History of the epochs, the settings, and the weights of the best one.

    Parameters
    ----------
    settings
        What must be the same for a run to go on.
    patience
        Epochs without a better validation loss after which training stops, or None.
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
        """Return all that a resumed run needs."""
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
        """Go on from what `state_dict` returned."""
        for name, value in state_dict.items():
            if name != "settings":
                setattr(self, name, value)

    def on_train_batch_end(self, trainer: Trainer, plan: LightningModule, outputs: Any, *args: Any) -> None:
        """Add the step's losses; they stay on the device, so nothing waits for them."""
        parts = torch.stack([outputs["loss"].detach(), outputs["reconstruction"], outputs["divergence"]]).float()
        self.sums = parts if self.sums is None else self.sums.to(parts) + parts

    def on_train_epoch_end(self, trainer: Trainer, plan: LightningModule) -> None:
        """Close the epoch: a row of history, best weights, and whether to stop."""
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
        held_out = trainer.callback_metrics.get("val_loss")
        if held_out is not None:
            row |= {f"val_{name}": float(trainer.callback_metrics[f"val_{name}"]) for name in names}
        self.rows = [*self.rows, row]
        if self.patience is not None:
            self._judge(row["val_loss"], plan)
            if self.waited >= self.patience:
                self.stopped = trainer.should_stop = True

    def _judge(self, loss: float, plan: LightningModule) -> None:
        if self.best is None or loss < self.best:
            self.best, self.waited = loss, 0
            model = plan.model
            assert isinstance(model, ImageVAE)
            self.best_weights = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
        else:
            self.waited += 1

    def history(self) -> pd.DataFrame:
        """One row an epoch."""
        return pd.DataFrame(self.rows).set_index("epoch") if self.rows else pd.DataFrame()


class Saver(Checkpoint):
    """Writes the checkpoint after each epoch, and every so many steps within one; and the history as CSV.

    Lightning calls checkpoint callbacks after all others, so what they keep is up to date.

    Parameters
    ----------
    checkpoint, history
        The files.
    record
        What the history is taken from.
    every
        Steps, or None.
    """

    def __init__(self, checkpoint: Path, history: Path, record: Record, every: int | None) -> None:
        self.checkpoint, self.history, self.record, self.every = checkpoint, history, record, every

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Save within an epoch."""
        step = trainer.global_step
        if self.every and step % self.every == 0 and step % self.record.settings["steps_per_epoch"]:
            trainer.save_checkpoint(self.checkpoint)

    def on_train_epoch_end(self, trainer: Trainer, plan: LightningModule) -> None:
        """Save at its end, when validation is over."""
        trainer.save_checkpoint(self.checkpoint)
        if trainer.is_global_zero:
            scratch = self.history.with_name(f".{self.history.name}")
            self.record.history().to_csv(scratch)
            os.replace(scratch, self.history)


class Grids(Callback):
    """Draws reconstructions and samples after each epoch.

    Parameters
    ----------
    folder
        Where the PNG files go.
    pixels
        uint8 pictures; the first 16 are reconstructed, the latents of all tell where to sample.
    seed
        Of the samples.
    """

    def __init__(self, folder: Path, pixels: Tensor, seed: int) -> None:
        self.folder, self.pixels, self.seed = folder, pixels, seed

    def on_train_epoch_end(self, trainer: Trainer, plan: LightningModule) -> None:
        """Write both pictures, and into TensorBoard where that logs."""
        if not trainer.is_global_zero:
            return
        model = plan.model
        assert isinstance(model, ImageVAE)
        was_training = model.training
        model.eval()
        try:
            pixels = as_pixels(self.pixels.to(model.device))
            shown = {
                "reconstructions": reconstructions(model, pixels[:16]),
                "samples": samples(model, pixels, 32, self.seed),
            }
        finally:
            model.train(was_training)
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, pictures in shown.items():
            grid = picture_grid(pictures)
            write_png(self.folder / f"epoch_{trainer.current_epoch + 1:04d}_{name}.png", grid)
            experiment = getattr(trainer.logger, "experiment", None)
            if experiment is not None and hasattr(experiment, "add_image"):
                experiment.add_image(name, grid, trainer.global_step, dataformats="HWC")
