"""Which width of the spatial filter is chosen, what whole trainings say of it, and what the choice costs.

    python benchmarks/width.py --data FILE [FILE ...] [--trainings] --json RECORD
    python benchmarks/width.py --places 20000 100000 --json RECORD

For each section: the gain of components with each width of the menu (nats a held-out count), the width chosen, the
processor time of the choice, and that of the training as a multiple of an epoch of two members with the width chosen.
``--trainings``: one network with each width, trained on 70% of the counts for as long as ``GeneVAE.train`` does, and
its gain on the other 30%. Sections that are in the record already keep what is not measured again: ``short_trainings``
is the gain of the 300 steps by which versions up to commit 7054ca1 chose, and ``recovery`` the difference in AUROC at
1, 3, 5 and 10 genes (benchmarks/recovery.py, one split) of the two widths that are named.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import warnings
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from lightning.pytorch import Trainer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.filter import Job, section
from stcsm import io
from stcsm.models import GeneVAE, _training
from stcsm.models._batches import GeneDataModule, gain_over_depth
from stcsm.models._counts import GeneReader
from stcsm.models._module import build_module
from stcsm.models._training import WIDTHS, OneCyclePlan, choose_smoothing
from stcsm.space import HeldOutCounts

SETTINGS = {"likelihood": "nb", "n_latent": 20, "n_hidden": 128, "seed": 0}


def chosen(reader: GeneReader, genes: np.ndarray, xy: np.ndarray) -> dict[str, object]:
    """The choice, its processor time, and the gain of each width."""
    choose = {"n_latent": SETTINGS["n_latent"], "seed": 0}
    started = time.process_time()
    width = choose_smoothing(reader, genes, xy, **choose)
    cpu = time.process_time() - started
    gains: list[float] = []
    own = HeldOutCounts.gain_of_components

    def kept(*given):
        found = own(*given)
        gains.append(round(found[0], 5))
        return found

    # No width is too bad to go on.
    with (
        patch.object(HeldOutCounts, "gain_of_components", kept),
        patch.object(_training, "TOLERANCE", np.inf),
    ):
        choose_smoothing(reader, genes, xy, **choose)
    return {"gains": dict(zip(map(str, WIDTHS), gains, strict=True)), "width": width, "search_cpu_s": round(cpu, 2)}


def cost(reader: GeneReader, genes: np.ndarray, xy: np.ndarray, width: float, batch: int, epochs: int) -> float:
    """Processor time of a training of two members: the faster of two epochs, times their number."""
    depth = torch.from_numpy(reader.depth.astype(np.float32))
    module = build_module({**SETTINGS, "n_seeds": 2, "smoothing": width}, depth, xy, None)
    job = Job(module, GeneDataModule(reader, genes, batch, 0), batch * reader.n_spots <= _training.SMALL, False)
    _training._keep_freed_memory()
    for _ in range(2):
        job.epoch()
    return round(min(job.cpu) * epochs, 1)


def trained_gain(model: GeneVAE, width: float, batch: int, epochs: int, plan: dict) -> float:
    """Gain of one network, trained on 70% of the counts."""
    data = GeneDataModule(model.samples, model.trained_samples, batch, 0, 0.3)
    settings = {**SETTINGS, "n_seeds": 1, "smoothing": width}
    module = build_module(settings, model.module.depth, model._tissue.frame.coordinates, None)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", devices=1, limit_val_batches=0, **quiet)
    trainer.fit(OneCyclePlan(module, **plan), data)
    return round(gain_over_depth(module, data), 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=[])
    parser.add_argument("--places", type=int, nargs="*", default=[])
    parser.add_argument("--genes", type=int, default=500)
    parser.add_argument("--trainings", action="store_true")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    record = json.loads(args.json.read_text()) if args.json.exists() else {}

    def add(name: str, found: dict[str, object]) -> None:
        if "training_cpu_s" in found:
            found["share"] = round(found["search_cpu_s"] / found["training_cpu_s"], 3)
        record[name] = record.get(name, {}) | found
        print(name, json.dumps(record[name]), flush=True)
        args.json.write_text(json.dumps(record, indent=1) + "\n")

    for path in args.data:
        adata = io.read(path)
        GeneVAE.setup_anndata(adata)
        model = GeneVAE(adata)
        genes, xy = model.trained_samples, model._tissue.frame.coordinates
        schedule = model._make_schedule("mlp", len(genes), model.samples.n_spots, None, None, None)
        found = chosen(model.samples, genes, xy)
        size = schedule.batch_size, schedule.max_epochs
        found["training_cpu_s"] = cost(model.samples, genes, xy, found["width"], *size)
        if args.trainings:
            found["trainings"] = {str(w): trained_gain(model, w, *size, schedule.plan_kwargs) for w in WIDTHS}
        add(Path(path).name.split(".")[0], found)
    for places in args.places:
        reader, xy = section(places, args.genes)
        genes, xy = np.arange(args.genes), xy[reader.spots]
        found = chosen(reader, genes, xy)
        found["training_cpu_s"] = cost(reader, genes, xy, found["width"], 64, 50)
        add(f"simulated {places} x {args.genes}", found)


if __name__ == "__main__":
    main()
