"""How much better than depth alone a module predicts held-out counts, and the genes that are asked."""

from __future__ import annotations

import numpy as np
import torch

from stcsm.models._data import GeneDataModule
from stcsm.models._module import GeneVAEModule
from stcsm.models._reader import GeneReader


def most_counted(reader: GeneReader, genes: np.ndarray, most: int) -> np.ndarray:
    """Those of most counts among genes or samples (n,), sorted; of each section as many, lest the deepest choose."""
    found = reader.section(genes)
    section = np.zeros(len(genes), dtype=np.int64) if found is None else found
    names = np.unique(section)
    order = np.argsort(-reader.gene_totals[genes], kind="stable")
    return np.sort(np.concatenate([genes[order[section[order] == b][: most // len(names)]] for b in names]))


@torch.inference_mode()
def gain_over_depth(module: GeneVAEModule, data: GeneDataModule) -> float:
    """Nats a held-out count by which the decoder's shares of the spots (first member) beat those of depth alone.

    ``data`` holds the counts that are encoded, and those that were held out as targets.
    """
    module.eval()
    gained = total = 0.0
    for batch in data.val_dataloader():
        section = batch.get("section")
        z = module.inference(batch["counts"], batch["totals"], section)["z"]
        log_depth = module.of_section(module.log_depth, section)
        share = torch.log_softmax(module.generative(z)["f"][0] + log_depth, dim=-1)
        gained += float((batch["target"] * (share - log_depth)).sum())
        total += float(batch["target"].sum())
    return gained / max(total, 1.0)
