"""The published model, trained through the public API of stcsm.

    python ours.py COUNTS.h5ad EPOCHS [PRECISION]

Prints one line of JSON: loss, CPU seconds and wall seconds of each epoch.
"""

import json
import logging
import os
import sys
import time
import warnings

import torch
from anndata import read_h5ad
from lightning.pytorch import Callback

from stcsm import __version__
from stcsm.models import GeneVAE


class Clock(Callback):
    """Record the start of every epoch, so that the time between epochs is included."""

    def __init__(self):
        self.cpu, self.wall = [], []

    def on_train_epoch_start(self, trainer, module):
        self.cpu.append(time.process_time())
        self.wall.append(time.perf_counter())

    on_train_end = on_train_epoch_start


def main():
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    clock = Clock()
    model = GeneVAE.published(read_h5ad(sys.argv[1]), seed=0)
    extra = {"precision": sys.argv[3]} if len(sys.argv) > 3 else {}
    model.train(max_epochs=int(sys.argv[2]), progress=False, callbacks=[clock], **extra)
    print(
        json.dumps(
            {
                "loss": model.history["train_loss"].iloc[:, 0].astype(float).tolist(),
                "cpu_s": [b - a for a, b in zip(clock.cpu, clock.cpu[1:], strict=False)],
                "wall_s": [b - a for a, b in zip(clock.wall, clock.wall[1:], strict=False)],
                "version": f"stcsm {__version__}, torch {torch.__version__}",
                "n_parameters": sum(p.numel() for p in model.module.parameters()),
            }
        )
    )


if __name__ == "__main__":
    main()
