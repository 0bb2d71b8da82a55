"""Training through Lightning: what is refused, which images and noise a step sees, and the trainer's run.

The batch and the noise of a step are functions of the seed and the step's number, so that a resumed run repeats exactly
what an uninterrupted one does.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator
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
from torch.utils.data import DataLoader, Sampler

from stcsm.images.data import ImageSet, as_pixels, batch_loader
from stcsm.images.model._callbacks import Grids, Record, SafeCheckpoints, Saver, read_state
from stcsm.images.model._network import Network

__all__ = ["train"]

Log = Literal["csv", "tensorboard"] | None

CHECKPOINT, HISTORY = "checkpoints/last.safetensors", "history.csv"
_VALIDATION_BATCH = 64  # fixed, so that the validation loss does not depend on the batch size
_SHOWN = 256  # images whose latents determine where samples are drawn


def train(
    network: Network,
    data: ImageSet,
    out: str | Path | None,
    *,
    validation: ImageSet | None,
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
) -> tuple[pd.DataFrame, bool]:
    """Train a network in place; arguments and errors as in `ImageVAE.fit`.

    Returns
    -------
    The history, one row per epoch, and whether this process is the one of all devices' that writes files.
    """
    steps = max(len(data) // batch_size, 1) if steps_per_epoch is None else steps_per_epoch
    _refuse(network, data, validation, max_epochs, steps, batch_size, lr, patience, workers, checkpoint_every, log)
    settings = {
        "architecture": network.architecture.to_json() | {"channels": list(network.architecture.channels)},
        "images": _fingerprint(data),
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
    record, device = Record(settings, patience), network.device
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
                f"Expected a batch_size that is a multiple of the {trainer.world_size} devices, with at least two "
                f"images per device, found {batch_size}."
            )
        if validation is not None and len(validation) < trainer.world_size:
            raise ValueError(
                f"Expected a validation image for each of {trainer.world_size} devices, found {len(validation)}."
            )
        finished = earlier is not None and earlier["stopped"]
        plan = _Plan(network, lr, seed)
        loaders = _Loaders(data, validation, batch_size, steps, seed, workers)
        # with no epoch left, Lightning still restores the weights
        trainer.fit_loop.max_epochs = len(earlier["rows"]) if earlier is not None and finished else max_epochs
        trainer.fit(plan, datamodule=loaders, ckpt_path=None if earlier is None else checkpoint)
        if trainer.interrupted:
            raise KeyboardInterrupt
    if record.best_weights is not None:
        network.load_state_dict(record.best_weights)
    network.to(device).eval()
    return record.history(), trainer.is_global_zero


# ---------------------------------------------------------------- steps


class _Plan(pl.LightningModule):
    """Training and validation steps, and the optimiser."""

    def __init__(self, model: Network, lr: float, seed: int) -> None:
        super().__init__()
        self.model, self.lr, self.seed = model, lr, seed

    def training_step(self, batch: Tensor, number: int) -> dict[str, Tensor]:
        shape = (len(batch), self.model.architecture.latent)
        noise = _noise(self.seed, self.global_step, self.global_rank, shape).to(self.device)
        total, reconstruction, divergence = self.model.loss(as_pixels(batch), noise)
        self.log("train_loss", total.detach(), prog_bar=True)
        return {"loss": total, "reconstruction": reconstruction.detach(), "divergence": divergence.detach()}

    def validation_step(self, batch: Tensor, number: int) -> None:
        noise = _noise(self.seed, number, self.global_rank, (len(batch), self.model.architecture.latent))
        loss = self.model.loss(as_pixels(batch), noise.to(self.device))
        for name, value in zip(("loss", "reconstruction", "divergence"), loss, strict=True):
            self.log(f"val_{name}", value, batch_size=len(batch), on_epoch=True, sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # Keras's epsilon, as published
        return torch.optim.Adam(self.model.parameters(), lr=self.lr, eps=1e-7)


def _noise(seed: int, step: int, rank: int, shape: tuple[int, int]) -> Tensor:
    """Standard normal noise of one step on one device."""
    return torch.from_numpy(np.random.default_rng([seed, step, rank, 1]).standard_normal(shape, dtype=np.float32))


class _Batches(Sampler[list[int]]):
    """Rows of each step's batch, from an endless sequence of shuffled passes through the data.

    Parameters
    ----------
    n
        Number of images.
    batch_size
        Images per step, over all devices.
    steps
        Steps per epoch.
    seed
        Of the shuffling.
    first_step
        Returns the number of the next step; called whenever iteration begins.
    rank, world
        Number of this device and number of devices: device r takes every world-th image of each batch.
    """

    def __init__(
        self, n: int, batch_size: int, steps: int, seed: int, first_step: Callable[[], int], rank: int, world: int
    ) -> None:
        self.n, self.batch_size, self.steps, self.seed = n, batch_size, steps, seed
        self.first_step, self.rank, self.world = first_step, rank, world
        self._pass: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        first = self.first_step()
        for step in range(first, (first // self.steps + 1) * self.steps):
            yield self._rows(step)[self.rank :: self.world]

    def _rows(self, step: int) -> list[int]:
        """Return the batch of a step, for all devices."""
        start, rows = step * self.batch_size, list[int]()
        while len(rows) < self.batch_size:
            number, offset = divmod(start + len(rows), self.n)
            rows += self._shuffled(number)[offset : offset + self.batch_size - len(rows)].tolist()
        return rows

    def _shuffled(self, number: int) -> np.ndarray:
        if self._pass is None or self._pass[0] != number:
            self._pass = number, np.random.default_rng([self.seed, number]).permutation(self.n)
        return self._pass[1]


class _Loaders(pl.LightningDataModule):
    """Batches of the training and validation images; each device loads its share."""

    def __init__(
        self, data: ImageSet, validation: ImageSet | None, batch_size: int, steps: int, seed: int, workers: int
    ) -> None:
        super().__init__()
        self.data, self.validation = data, validation
        self.batch_size, self.steps, self.seed, self.workers = batch_size, steps, seed, workers

    def train_dataloader(self) -> DataLoader[Tensor]:
        trainer = self.trainer
        assert trainer is not None
        batches = _Batches(
            len(self.data),
            self.batch_size,
            self.steps,
            self.seed,
            lambda: trainer.global_step,
            trainer.global_rank,
            trainer.world_size,
        )
        return batch_loader(self.data, batches, self.workers, pin=self._on_gpu())

    def val_dataloader(self) -> DataLoader[Tensor] | list[Any]:
        if self.validation is None:
            return []
        trainer = self.trainer
        assert trainer is not None
        mine = list(range(trainer.global_rank, len(self.validation), trainer.world_size))
        rows = [mine[k : k + _VALIDATION_BATCH] for k in range(0, len(mine), _VALIDATION_BATCH)]
        return batch_loader(self.validation, rows, self.workers, pin=self._on_gpu())

    def _on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"


# ---------------------------------------------------------------- before and around the run


def _refuse(
    network: Network,
    data: ImageSet,
    validation: ImageSet | None,
    max_epochs: int,
    steps: int,
    batch_size: int,
    lr: float,
    patience: int | None,
    workers: int,
    checkpoint_every: int | None,
    log: Log,
) -> None:
    """Refuse invalid settings before any work."""
    size = network.architecture.size
    for name, part in (("data", data), ("validation", validation)):
        if part is not None and (not isinstance(part, ImageSet) or part.size != size):
            found = f"size {part.size}" if isinstance(part, ImageSet) else type(part).__name__
            raise ValueError(
                f"Expected {name} to be images of the model's size {size}, found {found}; read them with size={size}."
            )
        if part is not None and not len(part):
            raise ValueError(f"Expected images in {name}, found none.")
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
            raise ValueError(f"Expected {name} to be an integer of at least {least[name]}, found {value!r}.")
    if batch_size > len(data):
        raise ValueError(f"Expected a batch_size of at most the {len(data)} images, found {batch_size}.")
    if not 0 < lr < float("inf"):
        raise ValueError(f"Expected a positive lr, found {lr}.")
    if patience is not None and validation is None:
        raise ValueError("Expected validation images, since patience is given, found none.")
    if log not in ("csv", "tensorboard", None):
        raise ValueError(f"Expected log to be 'csv', 'tensorboard' or None, found {log!r}.")


def _fingerprint(data: ImageSet) -> str:
    """Number of the images and a hash of their names: a run is resumed only with the images it began with."""
    digest = hashlib.sha256("\n".join(map(str, data.names)).encode()).hexdigest()[:16]
    return f"{len(data)} images, {digest}"


def _earlier(folder: Path, settings: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    """State of the run in the folder, or None if there is none; a run with other settings is refused."""
    checkpoint = folder / CHECKPOINT
    if getattr(rank_zero_only, "rank", 0) and not checkpoint.is_file():
        return None  # the first process checks for all, and may have begun to write
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
                f"Expected a new folder or that of a training to resume, found {strangers[0]!r} in {folder}; choose "
                "another."
            )
        return None
    if not resume:
        raise FileExistsError(
            f"Expected a new folder, found a training in {folder}; choose another, or pass resume=True to resume it."
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
    """Silence Lightning's notices, and those of its warnings that do not concern the user."""
    library = logging.getLogger("lightning.pytorch")
    before = library.level
    library.setLevel(logging.ERROR if not progress else logging.WARNING)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*LeafSpec.*",
            ".*GPU available but not used.*",
            ".*Total length of `list` across ranks is zero.*",  # no validation images
            ".*your dataloader is not resumable.*",  # ours is: the batch is a function of the step
        ):
            warnings.filterwarnings("ignore", message=message)
        try:
            yield
        finally:
            library.setLevel(before)
