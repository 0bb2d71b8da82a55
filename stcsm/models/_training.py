"""Training a gene model through scvi-tools' plan and runner."""

from __future__ import annotations

import logging
import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi.train import TrainRunner
from torch import Tensor

from stcsm.models._agreement import warn_of_strangers
from stcsm.models._data import GeneDataModule
from stcsm.models._logging import quiet
from stcsm.models._module import GeneVAEModule
from stcsm.models._plan import OneCyclePlan
from stcsm.models._reader import GeneReader
from stcsm.models._sections import Frame
from stcsm.models._side_by_side import SMALL, side_by_side, torch_threads
from stcsm.models._smoothing import choose_smoothing
from stcsm.space import require_memory

GENES, FEWEST_STEPS = 450_000, 400
"""Genes that a training aims to see, each as often as it is passed over, and optimisation steps that it takes at least,
if MOST_EPOCHS allow."""
EPOCHS, MOST_EPOCHS = (40, 50), 100
"""Passes over the genes: more than fifty, and few genes are overfitted (benchmarks/RECOVERY.md); more only where the
steps would be too few to learn anything."""
BATCH, BATCH_MANY_GENES = 128, 256
LR, LR_MANY_GENES, MANY_GENES = 2e-3, 1.2e-2, 5000
"""Highest learning rate, and the one for fully connected encoders with so many genes or more and batches of 256.

There weak directions of the latent space settle in the steps that there are, and seeds agree; fewer genes are
overfitted by it (benchmarks/RECOVERY.md). Smaller batches, of which there are more, take smaller steps."""
KL_WARMUP_MANY_GENES = 0.45
"""Share of the steps over which the KL weight rises there: with 0.3 some trainings lost a weak direction before it had
been found, with 0.5 seeds agree less (benchmarks/RECOVERY.md)."""
MANY_SPOTS = 2**16
"""Larger sections have smaller batches, for the memory."""
SEARCH = 2
"""A search for the filter's width takes at most one step for so many of the training itself, at each width."""

logger = logging.getLogger(__name__)


class TrainingMixin:
    """``train`` for a model that has a module, a reader of samples, settings and samples to train on."""

    module: GeneVAEModule
    samples: GeneReader
    settings: dict[str, Any]
    trained_samples: np.ndarray
    frame: Frame

    if TYPE_CHECKING:  # what the model brings

        def _build_module(self, depth: Tensor) -> GeneVAEModule: ...

        def _trial_module(self, depth: Tensor, coordinates: np.ndarray, width: float) -> GeneVAEModule: ...

        def section_agreement(self) -> dict[tuple[str, str], float]: ...

    def train(
        self,
        max_epochs: int | None = None,
        lr: float | None = None,
        batch_size: int | None = None,
        early_stopping: bool = False,
        held_out: float = 0.1,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        progress: bool = True,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train all members, through scvi-tools' plan and runner.

        Every gene with ``min_counts`` counts is trained on, in each section where it has them; none is held out. With
        ``smoothing="auto"`` short trainings choose the width of the spatial filter first.

        Parameters
        ----------
        max_epochs
            Passes over the genes; by default 450,000 divided by their number, at least 40 and at most 50, or, where
            these are fewer than 400 steps, up to 100.
        lr
            Highest learning rate of the one-cycle schedule; by default 0.002, or, where a fully connected encoder is
            trained on 5,000 genes or more (each section's counted), 0.012 for batches of 256 or more and in proportion
            for smaller ones, at least 0.002.
        batch_size
            Genes a batch; by default 64 where fewer than 2,000 genes are trained on; 256 where a fully connected
            encoder is trained on 5,000 or more (each section's counted), at up to 65,536 spots; otherwise 128.
        early_stopping
            Keep ``held_out`` of every gene's counts aside (binomial thinning) and stop when their ELBO stops improving.
        held_out
            Share of the counts kept aside for early stopping; not used without it.
        accelerator, devices
            Passed to Lightning; ``"auto"`` takes a GPU where there is one.
        progress
            Show a progress bar.
        plan_kwargs
            Passed to the training plan: ``weight_decay`` (0.1), ``kl_warmup`` (share of the steps over which the KL
            weight rises; 0.3, or 0.45 where a fully connected encoder is trained on 5,000 genes or more), ...
        **trainer_kwargs
            Passed to :class:`scvi.train.Trainer`.

        Raises
        ------
        ValueError
            If a setting is out of range.
        MemoryError
            If parameters and a batch do not fit the free memory.
        """
        n = len(self.trained_samples)
        many = n >= MANY_GENES and self.settings["encoder"] == "mlp"
        if batch_size is None:
            few_spots = self.samples.n_spots <= MANY_SPOTS
            batch_size = BATCH_MANY_GENES if many and few_spots else BATCH if n >= 2000 else BATCH // 2
        if batch_size < 1 or not 0 < held_out < 1:
            raise ValueError(
                f"Expected batch_size of 1 or more and held_out between 0 and 1, found {batch_size} and {held_out}"
            )
        if lr is None:
            lr = max(LR, LR_MANY_GENES * min(batch_size / BATCH_MANY_GENES, 1)) if many else LR
        self._require_memory(batch_size)
        data = GeneDataModule(
            self.samples, self.trained_samples, batch_size, self.settings["seed"], held_out if early_stopping else 0.0
        )
        if max_epochs is None:
            max_epochs = _epochs(n, data.steps_per_epoch)
        if self.settings["smoothing"] == "auto":
            # The search has batches of its own: what counts is how much training there will be, not in which batches.
            self._settle_smoothing(max_epochs * max(data.steps_per_epoch, n // BATCH) // SEARCH)
        small = self.settings["encoder"] == "mlp" and batch_size * self.samples.n_spots <= SMALL
        plan = self._plan(lr, ({"kl_warmup": KL_WARMUP_MANY_GENES} if many else {}) | (plan_kwargs or {}))
        if early_stopping:
            trainer_kwargs.setdefault("early_stopping_patience", 10)
        trainer_kwargs.setdefault("log_every_n_steps", min(10, data.steps_per_epoch))
        trainer_kwargs.setdefault("use_distributed_sampler", False)  # the batches are dealt out as they are made
        self.module.train()  # Lightning leaves modules as they are, and encoding puts them into evaluation mode
        _keep_freed_memory()
        # Data loaders draw from the global generator; what the user has seeded stays as it was.
        with (
            torch.random.fork_rng(devices=[]),
            warnings.catch_warnings(),
            quiet("lightning.pytorch", logging.INFO if progress else logging.ERROR),
            # Where processes share the batches, they share the cores too.
            side_by_side(self.module, small) if trainer_kwargs.get("strategy", "auto") == "auto" else nullcontext(),
        ):
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's own use of torch
            TrainRunner(
                self,
                training_plan=plan,
                data_splitter=data,
                max_epochs=max_epochs,
                accelerator=accelerator,
                devices=devices,
                early_stopping=early_stopping,
                enable_progress_bar=progress,
                **trainer_kwargs,
            )()
        warn_of_strangers(self.section_agreement())

    def _settle_smoothing(self, most_steps: int) -> None:
        """Choose the width of the spatial filter and build the module with it."""
        # Its batches are small, of however large a section: it looks at some of the genes and spots.
        with torch_threads(1 if self.settings["encoder"] == "mlp" else torch.get_num_threads()):
            width, gains = choose_smoothing(
                self.samples,
                self.trained_samples,
                self.frame.coordinates,
                self._trial_module,
                seed=self.settings["seed"],
                steps=most_steps,
            )
        self.settings["smoothing"] = width
        self.module = self._build_module(self.module.depth.cpu())
        logger.info(f"smoothing {width:g} of { ({w: round(g, 5) for w, g in gains.items()}) } nats a held-out count")

    def _require_memory(self, batch_size: int) -> None:
        """Refuse a training that cannot fit: weights, gradients and two moments, and the arrays of a batch."""
        parameters = sum(p.numel() for p in self.module.parameters())
        profile = batch_size * self.samples.n_spots
        require_memory(
            4.0 * (4 * parameters + 5 * profile),
            f"4 x {parameters} parameters and 5 x {batch_size} genes x {self.samples.n_spots} spots, 4 bytes each",
            "lower batch_size, n_hidden or n_seeds, or bin the tissue to fewer spots: stcsm.pp.to_grid",
        )

    def _plan(self, lr: float, plan_kwargs: dict[str, Any]) -> OneCyclePlan:
        return OneCyclePlan(self.module, lr=lr, **plan_kwargs)


def _epochs(n_genes: int, steps_per_epoch: int) -> int:
    """Passes over the genes by default."""
    usual = int(np.clip(round(GENES / n_genes), *EPOCHS))
    return max(usual, min(MOST_EPOCHS, -(-FEWEST_STEPS // steps_per_epoch)))


def _keep_freed_memory() -> None:
    """Let the C library keep what a step frees for the next one.

    glibc hands large blocks back to the system when they are freed, and every step then pays for its pages anew: a
    fifth of the time of a step of some 40 MiB. It stops doing so for blocks as large as one that was freed, 32 MiB at
    most; elsewhere this does nothing.
    """
    torch.empty(31 << 20, dtype=torch.uint8)
