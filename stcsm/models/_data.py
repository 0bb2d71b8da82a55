"""Batches of gene profiles for Lightning."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from stcsm.models._reader import GeneReader

HELD_OUT_GENES = 4096
"""At most so many genes carry the validation score; more would cost time and change little."""


class GeneBatches(Dataset):
    """Dense batches of gene profiles, read when asked for; an item is a whole batch.

    Parameters
    ----------
    reader
        Counts that are encoded.
    genes
        Indices of the genes that belong to this set, (n,).
    target
        Counts that are to be predicted, where they are others.
    """

    def __init__(self, reader: GeneReader, genes: np.ndarray, target: GeneReader | None = None):
        self.reader = reader
        self.genes = genes
        self.target = target

    def __len__(self) -> int:
        return len(self.genes)

    def __getitem__(self, batch: list[int]) -> dict[str, Tensor]:
        genes = self.genes[batch]
        tensors = self._tensors(self.reader.profiles(genes))
        if self.target is not None:
            target = self._tensors(self.target.profiles(genes))
            tensors |= {"target": target["counts"], "target_totals": target["totals"]}
        return tensors

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
        self.n_val = min(len(genes), HELD_OUT_GENES) if held_out else 0

    @property
    def steps_per_epoch(self) -> int:
        """Number of training batches."""
        return -(-self.n_train // self.batch_size)

    def train_dataloader(self) -> DataLoader:
        """Genes in random order."""
        order = torch.Generator().manual_seed(self.seed)
        data = GeneBatches(self.left, self.genes)
        sampler = BatchSampler(RandomSampler(data, generator=order), self.batch_size, drop_last=False)
        return DataLoader(data, sampler=sampler, batch_size=None)

    def val_dataloader(self) -> DataLoader | list:
        """Held-out counts of (at most ``HELD_OUT_GENES`` of) the same genes; nothing where none are held out."""
        if not self.held_out:
            return []
        rng = np.random.default_rng(self.seed)
        genes = np.sort(rng.choice(self.genes, self.n_val, replace=False))
        data = GeneBatches(self.left, genes, self.taken)
        sampler = BatchSampler(SequentialSampler(data), self.batch_size, drop_last=False)
        return DataLoader(data, sampler=sampler, batch_size=None)
