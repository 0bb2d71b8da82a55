"""Batches of gene profiles for Lightning, and how well a module predicts the counts that they hold out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from stcsm.models._counts import GeneReader
from stcsm.models._module import GeneVAEModule

HELD_OUT_GENES = 4096
"""At most so many genes are in the validation score; more would cost time and change little."""
DENSE_VALUES = 2**24
"""Genes x spots of a set up to which all its profiles stay dense: 64 MB, read once instead of in every epoch."""


class Deal(NamedTuple):
    """The part of a batch that one process gets.

    Attributes
    ----------
    genes
        Numbers of its genes in the set.
    rows
        Their rows in the whole batch.
    size
        Number of genes of the whole batch.
    weight
        Factor of the mean over ``genes`` with which the mean over processes is the mean over the whole batch; zero
        where a process got nothing.
    """

    genes: list[int]
    rows: list[int]
    size: int
    weight: float


class DealtBatches(Sampler[Deal]):
    """Batches of a set, dealt out among processes: together they see the batches that one process would see.

    A process for which a small last batch has nothing left is given its first gene with weight zero, so that every
    process takes every step.

    Parameters
    ----------
    n
        Size of the set.
    batch_size
        Size of a whole batch.
    rank, n_ranks
        Number of this process, and how many there are.
    order
        Generator of the shuffling, the same in every process; None keeps the order.
    """

    def __init__(self, n: int, batch_size: int, rank: int = 0, n_ranks: int = 1, order: torch.Generator | None = None):
        self.n, self.batch_size, self.rank, self.n_ranks, self.order = n, batch_size, rank, n_ranks, order

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[Deal]:
        order = (torch.arange(self.n) if self.order is None else torch.randperm(self.n, generator=self.order)).tolist()
        for start in range(0, self.n, self.batch_size):
            batch = order[start : start + self.batch_size]
            mine = range(self.rank, len(batch), self.n_ranks)
            rows = list(mine) or [0]
            yield Deal([batch[r] for r in rows], rows, len(batch), len(mine) * self.n_ranks / len(batch))


class GeneBatches(Dataset):
    """Dense batches of gene profiles, read when they are needed; an item is one process's part of a batch.

    Parameters
    ----------
    reader
        Counts that are encoded.
    genes
        Indices of the genes that belong to this set, (n,).
    target
        Counts to predict, where they are not those that are encoded.
    """

    def __init__(self, reader: GeneReader, genes: np.ndarray, target: GeneReader | None = None):
        self.reader = reader
        self.genes = genes
        self.target = target
        self._dense: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.genes)

    def __getitem__(self, deal: Deal) -> dict[str, Any]:
        tensors: dict[str, Any] = self._tensors(self._profiles(self.reader, deal.genes))
        tensors |= {"rows": torch.tensor(deal.rows), "size": deal.size, "weight": deal.weight}
        section = self.reader.section(self.genes[deal.genes])
        if section is not None:
            tensors["section"] = torch.from_numpy(section)
        if self.target is not None:
            target = self._tensors(self._profiles(self.target, deal.genes))
            tensors |= {"target": target["counts"], "target_totals": target["totals"]}
        return tensors

    def _profiles(self, reader: GeneReader, some: list[int]) -> np.ndarray:
        if len(self.genes) * reader.n_spots > DENSE_VALUES:
            return reader.profiles(self.genes[some])
        if id(reader) not in self._dense:
            self._dense[id(reader)] = reader.profiles(self.genes)
        return self._dense[id(reader)][some]

    @staticmethod
    def _tensors(counts: np.ndarray) -> dict[str, Tensor]:
        # A thinned gene may have lost all its counts; a total of one keeps the logarithm finite and adds nothing.
        totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        return {"counts": torch.from_numpy(counts), "totals": torch.from_numpy(totals)}


class GeneDataModule(pl.LightningDataModule):
    """Training (and, with ``held_out``, validation) batches of gene profiles; no gene is ever held out.

    Parameters
    ----------
    reader
        Where the counts are.
    genes
        Indices of the genes to train on, (n,).
    batch_size
        Genes in a batch.
    seed
        Seed of the order of the genes and of the thinning.
    held_out
        Share of every gene's counts kept aside for validation.

    Attributes
    ----------
    order
        Generator of the order of the genes, as far as the epochs have come.
    """

    def __init__(self, reader: GeneReader, genes: np.ndarray, batch_size: int, seed: int, held_out: float = 0.0):
        super().__init__()
        self.genes = genes
        self.batch_size = batch_size
        self.seed = seed
        self.held_out = held_out
        self.left: GeneReader = reader
        self.taken: GeneReader | None = None
        if held_out:
            self.left, self.taken = reader.thinned(genes, held_out, seed)
        self.n_train = len(genes)
        self.order = torch.Generator()
        self.n_val = min(len(genes), HELD_OUT_GENES) if held_out else 0

    @property
    def steps_per_epoch(self) -> int:
        """Number of training batches."""
        return -(-self.n_train // self.batch_size)

    def train_dataloader(self) -> DataLoader:
        """Genes in random order."""
        self.order = torch.Generator().manual_seed(self.seed)
        return self._loader(GeneBatches(self.left, self.genes), self.order)

    def val_dataloader(self) -> DataLoader | list:
        """Held-out counts of (at most ``HELD_OUT_GENES`` of) the same genes; nothing where none are held out."""
        if not self.held_out:
            return []
        rng = np.random.default_rng(self.seed)
        genes = np.sort(rng.choice(self.genes, self.n_val, replace=False))
        return self._loader(GeneBatches(self.left, genes, self.taken))

    def every_gene(self) -> Iterator[dict[str, Any]]:
        """Batches of all genes in their order, held-out counts as the target where some are held out."""
        batches = GeneBatches(self.left, self.genes, self.taken)
        return (batches[deal] for deal in DealtBatches(len(batches), self.batch_size))

    def _loader(self, data: GeneBatches, order: torch.Generator | None = None) -> DataLoader:
        rank, n_ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = DealtBatches(len(data), self.batch_size, rank, n_ranks, order)
        return DataLoader(data, sampler=sampler, batch_size=None)


def most_counted(reader: GeneReader, genes: np.ndarray, most: int) -> np.ndarray:
    """Genes or samples of most counts among (n,), sorted; as many of each section, lest a deep one dominate."""
    found = reader.section(genes)
    section = np.zeros(len(genes), dtype=np.int64) if found is None else found
    names = np.unique(section)
    order = np.argsort(-reader.gene_totals[genes], kind="stable")
    return np.sort(np.concatenate([genes[order[section[order] == b][: most // len(names)]] for b in names]))


@torch.inference_mode()
def gain_over_depth(module: GeneVAEModule, data: GeneDataModule) -> float:
    """Log-likelihood of held-out counts under the first member, minus that under depth alone, in nats a count.

    ``data`` has the counts that are encoded, and those that were held out as targets.
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


@torch.inference_mode()
def losses(module: GeneVAEModule, data: GeneDataModule) -> tuple[np.ndarray, np.ndarray]:
    """Reconstruction loss and divergence of each gene of ``data``, (n,) each: nats, means over the members."""
    module.eval()
    found = []
    for batch in data.every_gene():
        batch = {name: t.to(module.device) if hasattr(t, "to") else t for name, t in batch.items()}
        _, _, out = module(batch)
        # scvi-tools keeps losses by name, here one each.
        both = [t for named in (out.reconstruction_loss, out.kl_local) for t in named.values()]
        found.append(torch.stack(both).cpu().numpy())
    reconstruction, divergence = np.concatenate(found, axis=1).astype(np.float64)
    return reconstruction, divergence
