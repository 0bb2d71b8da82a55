"""What a training will take, from a few batches of it: nothing of the model changes."""

from __future__ import annotations

import logging
import time
import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from stcsm.models._batches import GeneDataModule
from stcsm.models._checkpoint import interruptible
from stcsm.models._module import side_by_side
from stcsm.models._setup import quiet
from stcsm.models._training import WIDTHS, require_training_memory, training_memory

if TYPE_CHECKING:
    from stcsm.models._model import GeneVAE

ENOUGH_SECONDS = 1.0
"""Batches are timed for so long, two at least behind the first."""


class TrainingCost(NamedTuple):
    """What a training will take.

    Attributes
    ----------
    steps
        Batches of all epochs together.
    step_seconds
        Seconds that one took.
    batch_values
        Genes x spots of a batch.
    memory
        Bytes: weights, gradients, moments and the arrays of a batch.
    """

    steps: int
    step_seconds: float
    batch_values: int
    memory: float


class _Clock(Callback):
    """Times batches, and stops when it has seen enough of them."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self.at.append(time.perf_counter())
        trainer.should_stop = len(self.at) > 2 and self.at[-1] - self.at[0] > ENOUGH_SECONDS


def training_cost(model: GeneVAE) -> TrainingCost:
    """Time the first batches of the training that ``model.train()`` would do, on a module that is thrown away.

    Parameters
    ----------
    model
        A model; where its filter's width is to be chosen, one of the widths is taken.

    Raises
    ------
    MemoryError
        If the training does not fit: as ``model.train()`` would.
    """
    settings, samples, chosen = model.settings, model.samples, model.trained_samples
    schedule = model._make_schedule(settings["encoder"], len(chosen), samples.n_spots, None, None, None)
    require_training_memory(model.module, schedule.batch_size, samples.n_spots)
    width = WIDTHS[len(WIDTHS) // 2] if settings["smoothing"] == "auto" else settings["smoothing"]
    module = model._new_module(model.module.depth.cpu(), smoothing=width)
    data = GeneDataModule(samples, chosen, schedule.batch_size, settings["seed"])
    clock = _Clock()
    with (
        torch.random.fork_rng(devices=[]),
        warnings.catch_warnings(),
        quiet("lightning.pytorch", logging.ERROR),
        side_by_side(module, schedule.small),
        interruptible(),
    ):
        warnings.simplefilter("ignore")
        Trainer(
            accelerator="cuda" if torch.cuda.is_available() else "cpu",
            devices=1,
            max_epochs=schedule.max_epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            callbacks=[clock],
        ).fit(model._plan(module), data)
    steps = schedule.max_epochs * data.steps_per_epoch
    values = schedule.batch_size * samples.n_spots
    return TrainingCost(steps, float(np.diff(clock.at).mean()), values, training_memory(module, values))
