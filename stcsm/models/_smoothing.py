"""Width of the spatial filter, chosen by held-out counts in short trainings."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from stcsm.models._data import GeneDataModule
from stcsm.models._gain import gain_over_depth, most_counted
from stcsm.models._logging import quiet
from stcsm.models._module import GeneVAEModule
from stcsm.models._plan import OneCyclePlan
from stcsm.models._reader import GeneReader
from stcsm.space import some_spots

WIDTHS = (0.0, 0.5, 1.0, 2.0)
"""Widths that are tried, the narrowest first, in nearest-neighbour distances."""
STEPS = 300
GENES = 1500
SPOTS = 5000
"""A width is chosen on at most so many genes, those of most counts, and (in whole patches) spots."""
LR = 6e-3
"""Highest learning rate of the short trainings: they have to get somewhere in the steps that they have."""
HELD_OUT = 0.3
TOLERANCE = 5e-4
"""Nats a held-out count by which a wider filter must be better than a narrower one."""
BATCH = 64


def choose_smoothing(
    reader: GeneReader,
    genes: np.ndarray,
    coordinates: np.ndarray,
    build: Callable[[Tensor, np.ndarray, float], GeneVAEModule],
    *,
    seed: int,
    steps: int = STEPS,
    widths: Sequence[float] = WIDTHS,
) -> tuple[float, dict[float, float]]:
    """Take the width whose short training predicts held-out counts best.

    Counts of the genes that have most are thinned 70/30: in a short training the others are noise, which a wide filter
    takes away, whatever the tissue (benchmarks/RECOVERY.md). For each width, the narrowest first, a module is trained
    on the 70% for about 300 steps and scored by the log-likelihood of the 30% under its decoder's shares of the spots,
    in nats a held-out count over the depth profile. A wider filter is taken only if it is better by more than the
    tolerance; the search ends when wider gets worse. No label is looked at.

    Parameters
    ----------
    reader
        Counts; of several sections, of samples over places.
    genes
        Genes (n,), or samples, that the model will be trained on.
    coordinates
        Of the model's spots, (S', 2 or 3).
    build
        Makes the module for depths (S'',), coordinates (S'', 2 or 3) and a width.
    seed
        Of the spots, the thinning and the trainings.
    steps
        Of a training at most; never more than 300.
    widths
        Candidates.

    Returns
    -------
    The width, and the gain of each width that was tried.
    """
    some = most_counted(reader, genes, GENES)
    spots = some_spots(coordinates, SPOTS, seed)
    part = reader.part(some, spots)
    usable = np.flatnonzero(part.gene_totals >= 2)
    if len(usable) < 2:
        return widths[0], {}
    places = coordinates[spots][part.spots]
    if len(np.unique(places, axis=0)) < 2:
        return widths[0], {}
    data = GeneDataModule(part, usable, BATCH, seed, HELD_OUT)
    gains: dict[float, float] = {}
    best = widths[0]
    for width in widths:
        module = build(torch.from_numpy(part.depth.astype(np.float32)), places, width)
        _train(module, data, min(steps, STEPS))
        gains[width] = gain_over_depth(module, data)
        if gains[width] > gains[best] + TOLERANCE:
            best = width
        elif gains[width] < gains[best] - TOLERANCE:
            break
    return best, gains


def _train(module: GeneVAEModule, data: GeneDataModule, steps: int) -> None:
    """Short training; what the user has seeded stays as it was."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), quiet("lightning.pytorch", logging.ERROR):
        warnings.simplefilter("ignore")
        trainer = Trainer(
            max_epochs=max(1, round(steps / data.steps_per_epoch)),
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        trainer.fit(OneCyclePlan(module, lr=LR), data)
