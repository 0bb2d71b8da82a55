"""stcsm with default settings, called through its public functions."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

import stcsm
from benchmarks._recovery.protocol import Task
from stcsm.models import GeneVAE


def trained(half: AnnData, seed: int, n_seeds: int, encoder: str = "auto") -> tuple[AnnData, GeneVAE]:
    """A copy of the half, and a model trained on it."""
    adata = half.copy()
    GeneVAE.setup_anndata(adata)
    model = GeneVAE(adata, encoder=encoder, n_seeds=n_seeds, seed=seed)
    model.train(progress=False)
    return adata, model


def named(task: Task) -> dict[str, list[str]]:
    """One concept per draw."""
    return {f"draw{i:06d}": list(d.genes) for i, d in enumerate(task.draws)}


def our_maps(task: Task, adata: AnnData, model: GeneVAE, name: str = "stcsm") -> dict[str, NDArray[np.float64]]:
    """Maps of every draw, (draws, spots), by contender: the concept map, and the saliency alone."""
    names = named(task)
    stcsm.tl.concepts(adata, model, genes=names)
    stcsm.tl.saliency(adata, model)
    stcsm.tl.concept_map(adata, model)
    return {
        name: adata.obsm["concept_map"][list(names)].to_numpy().T,
        f"{name} saliency alone": adata.obsm["concept_saliency"][list(names)].to_numpy().T,
    }
