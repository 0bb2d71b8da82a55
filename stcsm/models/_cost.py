"""What a training will take, from a few batches of it: nothing of the model changes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from stcsm.models._batches import GeneDataModule
from stcsm.models._module import side_by_side
from stcsm.models._training import WIDTHS, training_memory

if TYPE_CHECKING:
    from stcsm.models._model import GeneVAE

ENOUGH_SECONDS = 1.0
"""Batches are timed for so long, two at least."""


class TrainingCost(NamedTuple):
    """What a training will take.

    Attributes
    ----------
    steps
        Batches of all epochs together.
    step_seconds
        Seconds that one took, without Lightning's own work around it.
    batch_values
        Genes x spots of a batch.
    memory
        Bytes: weights, gradients, moments and the arrays of a batch.
    """

    steps: int
    step_seconds: float
    batch_values: int
    memory: float


def training_cost(model: GeneVAE) -> TrainingCost:
    """Time batches of the training that ``model.train()`` would do, on a module that is thrown away.

    Parameters
    ----------
    model
        A model; where its filter's width is to be chosen, one of the widths is taken.
    """
    settings, samples, chosen = model.settings, model.samples, model.trained_samples
    schedule = model._make_schedule(settings["encoder"], len(chosen), samples.n_spots, None, None, None)
    width = WIDTHS[len(WIDTHS) // 2] if settings["smoothing"] == "auto" else settings["smoothing"]
    module = model._new_module(model.module.depth.cpu(), smoothing=width)
    if torch.cuda.is_available():
        module.to("cuda")
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    # As many genes as three batches have: the set itself would be made dense.
    some = np.random.default_rng(0).permutation(chosen)[: 3 * schedule.batch_size]
    batches = list(GeneDataModule(samples, some, schedule.batch_size, settings["seed"]).every_gene())
    seconds: list[float] = []
    module.train()
    with side_by_side(module, schedule.small):
        while len(seconds) < 3 or sum(seconds) < ENOUGH_SECONDS:
            started = time.perf_counter()
            batch = batches[len(seconds) % max(len(batches) - 1, 1)]
            _, _, out = module({name: t.to(module.device) for name, t in batch.items() if hasattr(t, "to")})
            out.loss.backward()
            if module.workers is not None:
                module.workers.backward()
            optimizer.step()
            optimizer.zero_grad()
            if module.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
    steps = schedule.max_epochs * -(-len(chosen) // schedule.batch_size)
    values = schedule.batch_size * samples.n_spots
    return TrainingCost(steps, float(np.median(seconds[1:])), values, training_memory(module, values))
