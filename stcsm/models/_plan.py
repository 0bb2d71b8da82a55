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
        self._sums: dict[str, Tensor] = {}
        self._n_seen = 0

    def on_fit_start(self) -> None:
        """Give every process noise of its own."""
        self.module.reset_noise(self.global_rank)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of a batch; scvi-tools' metric objects, updated at every step, would take longer than the step."""
        self.loss_kwargs["kl_weight"] = self.kl_weight
        _, _, out = self.forward(batch, loss_kwargs=self.loss_kwargs)
        self._add(out)
        return out.loss

    def _add(self, out: LossOutput) -> None:
        n = out.n_obs_minibatch
        for name, value in (
            ("reconstruction_loss_train", out.reconstruction_loss_sum),
            ("kl_local_train", out.kl_local_sum),
        ):
            self._sums[name] = self._sums.get(name, 0) + value
        self._n_seen += n

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means over genes and members, under scvi-tools' names."""
        means = {name: value / self._n_seen for name, value in self._sums.items()}
        means["elbo_train"] = means["reconstruction_loss_train"] + means["kl_local_train"]
        kl_weight = means["kl_weight"] = torch.as_tensor(self.loss_kwargs["kl_weight"])
        loss = means["reconstruction_loss_train"] + kl_weight * means["kl_local_train"]
        self.log("train_loss", loss, prog_bar=True, sync_dist=self.use_sync_dist)
        self.log_dict(means, sync_dist=self.use_sync_dist)
        self._sums, self._n_seen = {}, 0

    def configure_optimizers(self) -> dict[str, Any]:
        """Optimizer with its schedule, stepped after every batch."""
        config = super().configure_optimizers()
        # The trainer knows how many steps this process takes, also where several share the batches.
        steps = int(self.trainer.estimated_stepping_batches)
        self.n_steps_kl_warmup = max(1, round(self.kl_warmup * steps))
        schedule = torch.optim.lr_scheduler.OneCycleLR(config["optimizer"], max_lr=self.lr, total_steps=max(steps, 2))
        config["lr_scheduler"] = {"scheduler": schedule, "interval": "step"}
        return config
