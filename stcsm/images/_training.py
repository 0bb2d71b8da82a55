"""Training of an `ImageVAE` through Lightning."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader

from ._batches import Batches, noise_of_step
from ._callbacks import Grids, Record, Saver
from ._checkpoint import SafeCheckpoints, read_state
from ._data import Pictures
from ._loading import stacked_loader
from ._vae import ImageVAE, as_pixels

__all__ = ["Log", "fit"]

Log = Literal["csv", "tensorboard"] | None

CHECKPOINT, HISTORY, MODEL = "checkpoints/last.safetensors", "history.csv", "model"
_HELD_OUT_BATCH = 64  # fixed, so that the validation loss does not depend on the batch size
_SHOWN = 256  # pictures whose latents tell where to sample


class _Plan(pl.LightningModule):
    """The steps of a training; a step's batch and noise depend on the seed and its number alone."""

    def __init__(self, model: ImageVAE, lr: float, seed: int) -> None:
        super().__init__()
        self.model, self.lr, self.seed = model, lr, seed

    def training_step(self, batch: Tensor, number: int) -> dict[str, Tensor]:
        shape = (len(batch), self.model.architecture.latent)
        noise = noise_of_step(self.seed, self.global_step, self.global_rank, shape).to(self.device)
        total, reconstruction, divergence = self.model.loss(as_pixels(batch), noise)
        self.log("train_loss", total.detach(), prog_bar=True)
        return {"loss": total, "reconstruction": reconstruction.detach(), "divergence": divergence.detach()}

    def validation_step(self, batch: Tensor, number: int) -> None:
        noise = noise_of_step(self.seed, number, self.global_rank, (len(batch), self.model.architecture.latent))
        loss = self.model.loss(as_pixels(batch), noise.to(self.device))
        for name, value in zip(("loss", "reconstruction", "divergence"), loss, strict=True):
            self.log(f"val_{name}", value, batch_size=len(batch), on_epoch=True, sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # Keras's epsilon, as published
        return torch.optim.Adam(self.model.parameters(), lr=self.lr, eps=1e-7)


def fit(
    model: ImageVAE,
    data: Pictures,
    out: str | Path | None,
    *,
    validation: Pictures | None,
    max_epochs: int,
    steps_per_epoch: int | None,
    batch_size: int,
    lr: float,
    seed: int,
    patience: int | None,
    precision: Any,
    accelerator: str,
    devices: int | list[int] | str,
    strategy: str,
    workers: int,
    log: Log,
    checkpoint_every: int | None,
    grids: bool,
    resume: bool,
    check: bool,
    progress: bool,
) -> pd.DataFrame:
    """See `ImageVAE.fit`."""
    steps = max(len(data) // batch_size, 1) if steps_per_epoch is None else steps_per_epoch
    _refuse(model, data, validation, max_epochs, steps, batch_size, lr, patience, workers, checkpoint_every, log)
    settings = {
        "architecture": model.architecture.to_json() | {"channels": list(model.architecture.channels)},
        "pictures": _fingerprint(data),
        "validation": None if validation is None else _fingerprint(validation),
        "steps_per_epoch": steps,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "patience": patience,
        "precision": str(precision),
    }
    folder = None if out is None else Path(out)
    checkpoint = None if folder is None else folder / CHECKPOINT
    earlier = _earlier(folder, settings, resume) if folder is not None else None
    if check and earlier is None:
        for part in (data, validation):
            if part is not None:
                part.check(workers, progress=progress)
    record, home = Record(settings, patience), model.device
    callbacks: list[pl.Callback] = [record]
    if folder is not None and checkpoint is not None:
        if grids:
            shown = data if validation is None else validation
            callbacks.append(Grids(folder / "grids", shown.stack(np.arange(min(_SHOWN, len(shown)))), seed))
        callbacks.append(Saver(checkpoint, folder / HISTORY, record, checkpoint_every))
    with _quiet(progress), torch.random.fork_rng(devices=[]):
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=devices,
            strategy=strategy,
            precision=precision,
            max_epochs=max_epochs,
            logger=_logger(log, folder),
            callbacks=callbacks,
            plugins=[SafeCheckpoints()],
            enable_checkpointing=folder is not None,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            log_every_n_steps=min(50, steps),
            default_root_dir=folder,
        )
        if batch_size % trainer.world_size or batch_size // trainer.world_size < 2:
            raise ValueError(
                f"Expected a batch_size that {trainer.world_size} devices can share evenly, two pictures each at "
                f"least, found {batch_size}."
            )
        if validation is not None and len(validation) < trainer.world_size:
            raise ValueError(
                f"Expected a validation picture for each of {trainer.world_size} devices, found {len(validation)}."
            )
        finished = earlier is not None and earlier["stopped"]
        plan = _Plan(model, lr, seed)
        loaders = _Loaders(data, validation, batch_size, steps, seed, workers)
        # with nothing left to do, Lightning still restores the weights
        trainer.fit_loop.max_epochs = len(earlier["rows"]) if earlier is not None and finished else max_epochs
        trainer.fit(plan, datamodule=loaders, ckpt_path=None if earlier is None else checkpoint)
        if trainer.interrupted:
            raise KeyboardInterrupt
    if record.best_weights is not None:
        model.load_state_dict(record.best_weights)
    model.to(home).eval()
    if folder is not None and trainer.is_global_zero:
        model.save(folder / MODEL, overwrite=True)
    return record.history()


class _Loaders(pl.LightningDataModule):
    """Batches of the training and validation pictures, each device its share."""

    def __init__(
        self, data: Pictures, validation: Pictures | None, batch_size: int, steps: int, seed: int, workers: int
    ) -> None:
        super().__init__()
        self.data, self.validation = data, validation
        self.batch_size, self.steps, self.seed, self.workers = batch_size, steps, seed, workers

    def train_dataloader(self) -> DataLoader[Tensor]:
        trainer = self.trainer
        assert trainer is not None
        batches = Batches(
            len(self.data),
            self.batch_size,
            self.steps,
            self.seed,
            lambda: trainer.global_step,
            trainer.global_rank,
            trainer.world_size,
        )
        return stacked_loader(self.data, batches, self.workers, pin=self._on_gpu())

    def val_dataloader(self) -> DataLoader[Tensor] | list[Any]:
        if self.validation is None:
            return []
        trainer = self.trainer
        assert trainer is not None
        mine = list(range(trainer.global_rank, len(self.validation), trainer.world_size))
        rows = [mine[k : k + _HELD_OUT_BATCH] for k in range(0, len(mine), _HELD_OUT_BATCH)]
        return stacked_loader(self.validation, rows, self.workers, pin=self._on_gpu())

    def _on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"


def _refuse(
    model: ImageVAE,
    data: Pictures,
    validation: Pictures | None,
    max_epochs: int,
    steps: int,
    batch_size: int,
    lr: float,
    patience: int | None,
    workers: int,
    checkpoint_every: int | None,
    log: Log,
) -> None:
    """Refuse what cannot be trained, before any work."""
    size = model.architecture.size
    for name, part in (("data", data), ("validation", validation)):
        if part is not None and (not isinstance(part, Pictures) or part.size != size):
            found = f"size {part.size}" if isinstance(part, Pictures) else type(part).__name__
            raise ValueError(
                f"Expected {name} to be pictures of the model's size {size}, found {found}; read them with size={size}."
            )
        if part is not None and not len(part):
            raise ValueError(f"Expected pictures in {name}, found none.")
    least = {"max_epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "patience": 1, "workers": 0, "checkpoint_every": 1}
    given = {
        "max_epochs": max_epochs,
        "steps_per_epoch": steps,
        "batch_size": batch_size,
        "patience": patience,
        "workers": workers,
        "checkpoint_every": checkpoint_every,
    }
    for name, value in given.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least[name]):
            raise ValueError(f"Expected {name} to be a whole number of at least {least[name]}, found {value!r}.")
    if batch_size > len(data):
        raise ValueError(f"Expected a batch_size of at most the {len(data)} pictures, found {batch_size}.")
    if not 0 < lr < float("inf"):
        raise ValueError(f"Expected a positive lr, found {lr}.")
    if patience is not None and validation is None:
        raise ValueError("Expected validation pictures to judge by, since patience is given, found none.")
    if log not in ("csv", "tensorboard", None):
        raise ValueError(f"Expected log to be 'csv', 'tensorboard' or None, found {log!r}.")


def _fingerprint(data: Pictures) -> str:
    """Names and number of the pictures in short: a run goes on only with the pictures it began with."""
    digest = hashlib.sha256("\n".join(map(str, data.names)).encode()).hexdigest()[:16]
    return f"{len(data)} pictures, {digest}"


def _earlier(folder: Path, settings: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    """State of the run that the folder holds, or None where it holds none; refuses those of other settings."""
    checkpoint = folder / CHECKPOINT
    if getattr(rank_zero_only, "rank", 0) and not checkpoint.is_file():
        return None  # the first process looks for the others, and may have begun to write
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"Expected a folder, found the file {folder}; choose another.")
    if not checkpoint.is_file():
        strangers = (
            [p.name for p in folder.iterdir() if p.name not in ("log", "grids", "checkpoints")]
            if folder.exists()
            else []
        )
        if strangers:
            raise FileExistsError(
                f"Expected a new folder or one of a training to go on with, found {strangers[0]!r} in {folder}; choose "
                "another."
            )
        return None
    if not resume:
        raise FileExistsError(
            f"Expected a new folder, found a training in {folder}; choose another, or pass resume=True to "
            "go on with it."
        )
    record = read_state(checkpoint)["callbacks"]["record"]
    for name, value in settings.items():
        if record["settings"].get(name) != value:
            raise ValueError(
                f"Expected the training in {folder} to have {name} {value!r}, found {record['settings'].get(name)!r}; "
                "call with that, or choose another folder."
            )
    return record


def _logger(log: Log, folder: Path | None) -> Logger | bool:
    if folder is None or log is None:
        return False
    if log == "csv":
        return CSVLogger(folder, name="log")
    try:
        return TensorBoardLogger(folder, name="log")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Expected the package tensorboard for log='tensorboard', found none; pip install tensorboard, or log='csv'."
        ) from error


@contextmanager
def _quiet(progress: bool) -> Iterator[None]:
    """Keep Lightning's notices to itself; of its warnings, those that do not concern the user."""
    library = logging.getLogger("lightning.pytorch")
    before = library.level
    library.setLevel(logging.ERROR if not progress else logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*LeafSpec.*",
            ".*GPU available but not used.*",
            ".*Total length of `list` across ranks is zero.*",  # no validation pictures
            ".*your dataloader is not resumable.*",  # ours is: which batch comes is a function of the step
        ):
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            library.setLevel(before)
