"""scvi-tools' training plan with the learning-rate schedule that gene models want."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from scvi.module.base import LossOutput
from scvi.train import TrainingPlan
from torch import Tensor, nn


def _adamw(params: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW in one call for all parameters, where the device can; steps are short, and it is a quarter of one."""
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
    """

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

    def on_fit_start(self) -> None:
        """Start the noise afresh: the same in every process, each of which takes its own genes' part of it."""
        self.module.reset_noise()

    def on_fit_end(self) -> None:
        """Leave a module that takes batches of any size."""
        self.module.reset_noise()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of a batch; scvi-tools' metric objects, updated at every step, would take longer than the step."""
        if not self.module.training:
            self.module.train()  # a callback that has asked for latents has left it in evaluation mode
        self.loss_kwargs["kl_weight"] = self.kl_weight
        return self._step(batch, "train").loss * batch["weight"]

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Through the loss, and on through members that work on threads of their own."""
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
        # A process may have had no gene at all; those of all processes together make the mean.
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
        """Optimizer with its schedule, stepped after every batch."""
        config = super().configure_optimizers()
        # The trainer knows how many steps this process takes, also where several share the batches.
        steps = int(self.trainer.estimated_stepping_batches)
        self.n_steps_kl_warmup = max(1, round(self.kl_warmup * steps))
        schedule = torch.optim.lr_scheduler.OneCycleLR(config["optimizer"], max_lr=self.lr, total_steps=max(steps, 2))
        config["lr_scheduler"] = {"scheduler": schedule, "interval": "step"}
        return config
