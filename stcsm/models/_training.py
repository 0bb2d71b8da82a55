"""Training a gene model: how long and in which steps, the plan, the run, and the choice of the filter's width.

scvi-tools' plan and runner do the work, so a model has the history, the devices and the trainer arguments that users
of scvi-tools know.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from scvi.model.base import BaseModelClass
from scvi.module.base import LossOutput
from scvi.train import TrainingPlan, TrainRunner
from torch import Tensor, nn

from stcsm.models._batches import GeneDataModule, most_counted
from stcsm.models._counts import GeneReader
from stcsm.models._module import GeneVAEModule, side_by_side
from stcsm.models._setup import quiet
from stcsm.space import HeldOutCounts, nearest_neighbour_distance, require_memory, some_spots, spatial_filter

logger = logging.getLogger(__name__)

GENES, FEWEST_STEPS = 450_000, 400
"""Genes that a training sees, counted once per pass, and the least optimisation steps, as far as MOST_EPOCHS allows."""
EPOCHS, MOST_EPOCHS = (40, 50), 100
"""Passes over the genes: with more than fifty, few genes are overfitted (benchmarks/RECOVERY.md); more only where the
steps would be too few to learn anything."""
BATCH, BATCH_MANY_GENES = 128, 256
LR, LR_MANY_GENES, MANY_GENES = 2e-3, 1.2e-2, 5000
"""Highest learning rate, and the one for fully connected encoders with so many genes or more and batches of 256.

The higher rate lets weak latent directions converge within the few steps of large batches, so that seeds agree; with
fewer genes it overfits (benchmarks/RECOVERY.md). Smaller batches have a rate in proportion."""
KL_WARMUP_MANY_GENES = 0.45
"""Share of the steps over which the KL weight rises there: with 0.3 some trainings lost a weak direction before it was
found, with 0.5 seeds agree less (benchmarks/RECOVERY.md)."""
MANY_SPOTS = 2**16
"""Larger sections have smaller batches, for the memory."""
SMALL = 2**19
"""Values of a batch (genes x spots) up to which one thread does the work of a fully connected model.

Two gain a quarter at most on an idle machine; on a busy one they wait for each other, spinning, and take four times and
more as long (docs/start.md). And what is learned does not depend on how many cores there are.
"""
WIDTHS = (0.0, 0.5, 1.0, 2.0)
"""Widths that are tried, the narrowest first, in nearest-neighbour distances."""
SEARCH_GENES, SEARCH_SPOTS = 1500, 5000
"""A width is chosen on at most so many genes, those of most counts, and (in whole patches) spots."""
TOLERANCE, RELATIVE_TOLERANCE = 5e-4, 0.02
"""A wider filter must be better than a narrower one by so many nats a held-out count, and by this share of its gain.

Components gain a little more from a filter than networks do, which are regularised (benchmarks/width.py)."""


@dataclass(frozen=True)
class Schedule:
    """How long a model is trained, and in which steps.

    Attributes
    ----------
    max_epochs
        Passes over the genes.
    batch_size
        Genes a batch.
    lr
        Highest learning rate.
    kl_warmup
        Share of the steps over which the KL weight rises; None leaves it to the plan.
    small
        Whether batches are so small that one thread does a member's work.
    """

    max_epochs: int
    batch_size: int
    lr: float
    kl_warmup: float | None
    small: bool

    @property
    def plan_kwargs(self) -> dict[str, Any]:
        """Arguments of the training plan."""
        return {"lr": self.lr} | ({} if self.kl_warmup is None else {"kl_warmup": self.kl_warmup})


def make_schedule(
    encoder: str, n_samples: int, n_spots: int, max_epochs: int | None, lr: float | None, batch_size: int | None
) -> Schedule:
    """Complete the arguments of a training by defaults: see ``GeneVAE.train``.

    Parameters
    ----------
    encoder
        ``"mlp"`` or ``"conv"``.
    n_samples, n_spots
        Genes trained on (each section's counted), and the length of their profiles.
    max_epochs, lr, batch_size
        As they were given; None takes the default.
    """
    many = n_samples >= MANY_GENES and encoder == "mlp"
    if batch_size is None:
        batch_size = BATCH_MANY_GENES if many and n_spots <= MANY_SPOTS else BATCH if n_samples >= 2000 else BATCH // 2
    if lr is None:
        lr = max(LR, LR_MANY_GENES * min(batch_size / BATCH_MANY_GENES, 1)) if many else LR
    if max_epochs is None:
        usual = int(np.clip(round(GENES / n_samples), *EPOCHS))
        steps_per_epoch = -(-n_samples // batch_size)
        max_epochs = max(usual, min(MOST_EPOCHS, -(-FEWEST_STEPS // steps_per_epoch)))
    small = encoder == "mlp" and batch_size * n_spots <= SMALL
    return Schedule(max_epochs, batch_size, lr, KL_WARMUP_MANY_GENES if many else None, small)


def training_memory(module: GeneVAEModule, batch_values: int) -> float:
    """Bytes of weights, gradients and two moments, and of the arrays of a batch of so many genes x spots."""
    return 4.0 * (4 * sum(p.numel() for p in module.parameters()) + 5 * batch_values)


def require_training_memory(module: GeneVAEModule, batch_size: int, n_spots: int) -> None:
    """Refuse a training that cannot fit: see :func:`training_memory`.

    Raises
    ------
    MemoryError
        With the arithmetic.
    """
    parameters = sum(p.numel() for p in module.parameters())
    require_memory(
        training_memory(module, batch_size * n_spots),
        f"4 x {parameters} parameters and 5 x {batch_size} genes x {n_spots} spots, 4 bytes each",
        "lower batch_size, n_hidden or n_seeds, or bin the tissue to fewer spots: stcsm.pp.to_grid",
    )


def _adamw(params: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW in one call for all parameters, where the device can; the optimiser takes a quarter of a step's time."""
    params = list(params)
    fused = all(p.device.type in ("cpu", "cuda") for p in params)
    return torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay, fused=fused)


class OneCyclePlan(TrainingPlan):
    """AdamW under a one-cycle learning rate (Smith & Topin 2019, arXiv 1708.07120), KL weight warmed up linearly.

    Parameters
    ----------
    module
        The gene module.
    lr
        Highest learning rate.
    weight_decay
        Decoupled weight decay.
    kl_warmup
        Share of the steps over which the KL weight rises from 0 to 1.
    **kwargs
        Passed to :class:`scvi.train.TrainingPlan`.
    """

    FIXED: ClassVar[dict[str, str]] = {
        "optimizer": "the plan has AdamW",
        "optimizer_creator": "the plan has AdamW",
        "n_epochs_kl_warmup": "kl_warmup is the share of the steps",
        "n_steps_kl_warmup": "kl_warmup is the share of the steps",
        "eps": "the plan has the epsilon of its optimizer",
        "reduce_lr_on_plateau": "the plan has a schedule of its own",
        "lr_factor": "the plan has a schedule of its own",
        "lr_patience": "the plan has a schedule of its own",
        "lr_threshold": "the plan has a schedule of its own",
        "lr_scheduler_metric": "the plan has a schedule of its own",
        "lr_min": "the plan has a schedule of its own",
    }
    """Arguments of scvi-tools' plan that have no effect or are set by this one, and why."""

    def __init__(
        self,
        module: Any,
        *,
        lr: float = 2e-3,
        weight_decay: float = 0.1,
        kl_warmup: float = 0.3,
        **kwargs: Any,
    ):
        super().__init__(
            module,
            optimizer="Custom",
            optimizer_creator=partial(_adamw, lr=lr, weight_decay=weight_decay),
            lr=lr,
            n_epochs_kl_warmup=None,
            n_steps_kl_warmup=1,  # set when the number of steps is known
            **kwargs,
        )
        self.kl_warmup = kl_warmup
        self._sums = {"train": torch.zeros(0), "validation": torch.zeros(0)}

    @classmethod
    def check_kwargs(cls, given: dict[str, Any], of_train: Sequence[str]) -> None:
        """Refuse ``plan_kwargs`` that the plan does not take.

        scvi-tools' plan passes names that it does not know to the loss, which fails in the first step.

        Parameters
        ----------
        given
            The arguments.
        of_train
            Names of the arguments of ``train`` itself.

        Raises
        ------
        ValueError
            Naming the argument, and where it belongs.
        """
        known = {n for k in (TrainingPlan, OneCyclePlan) for n in inspect.signature(k.__init__).parameters}
        known -= {"self", "module", "kwargs", "loss_kwargs", *cls.FIXED}
        for name in given:
            if name in cls.FIXED:
                raise ValueError(f"Expected plan_kwargs without {name!r}: {cls.FIXED[name]}")
            if name in of_train and name not in known:
                raise ValueError(f"Expected plan_kwargs without {name!r}: it is an argument of train itself")
            if name not in known:
                raise ValueError(f"Expected plan_kwargs among {sorted(known)}, found {name!r}")
        for name, most in (("kl_warmup", 1.0), ("weight_decay", np.inf)):
            if name in given and not 0 <= given[name] <= most:
                wanted = "0 or more" if most == np.inf else f"0 to {most:g}"
                raise ValueError(f"Expected {name} of {wanted} in plan_kwargs, found {given[name]!r}")

    def on_fit_start(self) -> None:
        """Restart the noise: the same in every process, each of which takes its own genes' rows of it."""
        self.module.reset_noise()

    def on_fit_end(self) -> None:
        """Leave a module that takes batches of any size."""
        self.module.reset_noise()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of a batch; scvi-tools' metric objects, updated at every step, would take longer than the step."""
        if not self.module.training:
            self.module.train()  # a callback that read latents has left it in evaluation mode
        self.loss_kwargs["kl_weight"] = self.kl_weight
        return self._step(batch, "train").loss * batch["weight"]

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Go back through the loss, and on through members that work on threads of their own."""
        super().backward(loss, *args, **kwargs)
        if self.module.workers is not None:
            self.module.workers.backward()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Add a batch of held-out counts to the epoch's means."""
        self._step(batch, "validation")

    def _step(self, batch: dict[str, Any], stage: str) -> LossOutput:
        self.module.take_part(batch["rows"], batch["size"])
        _, _, out = self.forward(batch, loss_kwargs=self.loss_kwargs)
        if batch["weight"]:
            sums = torch.stack([out.reconstruction_loss_sum, out.kl_local_sum]).detach().float()
            sums = torch.cat([sums, sums.new_tensor([out.n_obs_minibatch])])
            before = self._sums[stage]
            self._sums[stage] = sums if not len(before) else before + sums
        return out

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means over genes and members, under scvi-tools' names."""
        reconstruction, kl = self._means("train")
        kl_weight = self.loss_kwargs["kl_weight"]
        self.log("train_loss", reconstruction + kl_weight * kl, prog_bar=True)
        self.log("kl_weight", torch.as_tensor(kl_weight, dtype=torch.float32))

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's means over held-out counts; the divergence has the weight that it has in training."""
        reconstruction, kl = self._means("validation")
        self.log("validation_loss", reconstruction + self.loss_kwargs["kl_weight"] * kl)

    def _means(self, stage: str) -> Tensor:
        sums = self._sums[stage]
        # A process may have had no gene at all; the sums of all processes together give the mean.
        sums = sums if len(sums) else torch.zeros(3, device=self.device)
        sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
        self._sums[stage] = torch.zeros(0)
        reconstruction, kl = means = sums[:2] / sums[2]
        self.log_dict(
            {
                f"reconstruction_loss_{stage}": reconstruction,
                f"kl_local_{stage}": kl,
                f"elbo_{stage}": reconstruction + kl,
            }
        )
        return means

    def configure_optimizers(self) -> dict[str, Any]:
        """Return the optimizer with its schedule, stepped after every batch."""
        config = super().configure_optimizers()
        # The trainer knows how many steps this process takes, also where several share the batches.
        steps = int(self.trainer.estimated_stepping_batches)
        self.n_steps_kl_warmup = max(1, round(self.kl_warmup * steps))
        schedule = torch.optim.lr_scheduler.OneCycleLR(config["optimizer"], max_lr=self.lr, total_steps=max(steps, 2))
        config["lr_scheduler"] = {"scheduler": schedule, "interval": "step"}
        return config


def fit(
    model: BaseModelClass,
    plan: OneCyclePlan,
    data: GeneDataModule,
    schedule: Schedule,
    *,
    accelerator: str,
    devices: int | list[int] | str,
    early_stopping: bool,
    progress: bool,
    **trainer_kwargs: Any,
) -> None:
    """Train ``model.module`` through scvi-tools' runner, which writes the history; the global generator stays as it is.

    Parameters
    ----------
    model
        The model that the runner completes.
    plan, data, schedule
        Steps, batches, and their number.
    accelerator, devices, early_stopping, progress, **trainer_kwargs
        As for ``GeneVAE.train``.
    """
    if early_stopping:
        trainer_kwargs.setdefault("early_stopping_patience", 10)
    trainer_kwargs.setdefault("log_every_n_steps", min(10, data.steps_per_epoch))
    trainer_kwargs.setdefault("use_distributed_sampler", False)  # the batches come as one process's parts already
    module = plan.module
    module.train()  # Lightning leaves modules as they are, and encoding puts them into evaluation mode
    _keep_freed_memory()
    # Where processes share the batches, they share the cores too.
    alone = trainer_kwargs.get("strategy", "auto") == "auto"
    # Data loaders draw from the global generator; what the user has seeded stays as it was.
    with (
        torch.random.fork_rng(devices=[]),
        warnings.catch_warnings(),
        quiet("lightning.pytorch", logging.INFO if progress else logging.ERROR),
        side_by_side(module, schedule.small) if alone else nullcontext(),
    ):
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's own use of torch
        TrainRunner(
            model,
            training_plan=plan,
            data_splitter=data,
            max_epochs=schedule.max_epochs,
            accelerator=accelerator,
            devices=devices,
            early_stopping=early_stopping,
            enable_progress_bar=progress,
            **trainer_kwargs,
        )()


def _keep_freed_memory() -> None:
    """Let the C library keep what a step frees for the next one.

    glibc returns large blocks to the system when they are freed, and every step then pays for its pages again: a fifth
    of the time of a step of some 40 MiB. It stops doing so for blocks as large as one that was freed, 32 MiB at most;
    elsewhere this does nothing.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def choose_smoothing(
    reader: GeneReader, genes: np.ndarray, coordinates: np.ndarray, *, n_latent: int, seed: int
) -> float:
    """Choose the width of the spatial filter with which principal components predict held-out counts best.

    Counts of the genes that have most are thinned 70/30: the others are noise, which a wide filter removes, whatever
    the tissue. For each width, the narrowest first, as many components as the model has latents are found in the 70%
    and scored by the log-likelihood of the 30% (:meth:`stcsm.space.HeldOutCounts.gain_of_components`), in nats a
    held-out count over the depth profile; of several sections, each has components of its own. A wider filter is taken
    only if it is better by more than the tolerance; the search ends when wider gets worse. Labels are not used, and
    nothing is trained.

    Parameters
    ----------
    reader
        Counts; of several sections, of samples over array positions.
    genes
        Genes (n,), or samples, that the model will be trained on.
    coordinates
        Coordinates of the model's spots, (S', 2 or 3).
    n_latent
        Size of the model's latent space.
    seed
        Seed of the spots and the thinning.

    Returns
    -------
    The width.
    """
    some = most_counted(reader, genes, SEARCH_GENES)
    spots = some_spots(coordinates, SEARCH_SPOTS, seed)
    if len(np.unique(coordinates[spots], axis=0)) < 2:
        return WIDTHS[0]
    unit = nearest_neighbour_distance(coordinates[spots])
    counts, found = reader.counts(some, spots), reader.section(some)
    section = np.zeros(len(some), dtype=np.int64) if found is None else found
    parts: list[tuple[HeldOutCounts, np.ndarray, float]] = []
    for b in np.unique(section):
        own = counts[:, section == b]
        here = np.flatnonzero(own.sum(axis=1) > 0)
        if len(here) >= 2 and own.shape[1] >= 2:
            with suppress(ValueError):  # too few counts to hold some out
                parts.append((HeldOutCounts(own[here], seed=seed), coordinates[spots][here], float(own.sum())))
    if not parts:
        return WIDTHS[0]
    gains: dict[float, float] = {}
    best = WIDTHS[0]
    for width in WIDTHS:
        scores = [
            held.gain_of_components(
                spatial_filter(where, width, dtype=np.float32, unit=unit) if width else None, n_latent
            )[0]
            for held, where, _ in parts
        ]
        gains[width] = float(np.average(scores, weights=[n for *_, n in parts]))
        margin = max(TOLERANCE, RELATIVE_TOLERANCE * gains[best])
        if gains[width] > gains[best] + margin:
            best = width
        elif gains[width] < gains[best] - margin:
            break
    logger.info(f"smoothing {best:g} of { ({w: round(g, 5) for w, g in gains.items()}) } nats a held-out count")
    return best
