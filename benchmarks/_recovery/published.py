"""The published model (Brocki & Chung 2019) as a contender."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from tqdm.auto import tqdm

from benchmarks._recovery.protocol import Task
from benchmarks._recovery.rivals import Section
from stcsm import pp
from stcsm.attribution import attribute
from stcsm.concepts import nearest_genes
from stcsm.models import GeneVAE, PublishedVAE, published_cells
from stcsm.nets import SIZE

N_GENES = 50
PERCENTILE = 95.0
EPOCHS, BATCH = 10, 64
STEPS = EPOCHS * -(-16218 // BATCH)
"""Optimisation steps of the published training on replicate 11. Sections with fewer genes are trained for the same
number of steps, since the published number of epochs would leave them undertrained."""


def published(s: Section) -> NDArray[np.float64]:
    """RectGrad of the published model on half B, its concept extended to k genes, (draws, spots).

    The published concept is the mean latent of the 50 genes that correlate most with a seed gene. For k genes it is the
    mean latent of the 50 genes that correlate most with their mean, which is the same for k = 1. Latents are posterior
    means; the samples of the posterior in the published code add noise. The map is the mean of RectGrad (95th
    percentile, the numbers of the published code) over the 50 genes.
    """
    adata, rows = on_published_grid(s.half)
    return maps(s.task, train(adata, s.seed))[:, rows]


def on_published_grid(half: AnnData) -> tuple[AnnData, NDArray[np.intp]]:
    """The half if its array fits the published 32 x 32 cells, else its counts in 32 x 32 bins; row of each spot."""
    spots = half.copy()
    try:
        published_cells(spots, np.arange(spots.n_obs))
    except ValueError:
        spots.obsm = {"spatial": np.asarray(half.obsm["spatial"])[:, :2]}
        pp.to_grid(spots, n_bins=SIZE, spatial_key="spatial")
        bins = pp.bin_spots(spots)
        names = [f"bin_{r}_{c}" for r, c in spots.obs[["array_row", "array_col"]].to_numpy()]
        return bins, bins.obs_names.get_indexer(names)
    return spots, np.arange(half.n_obs)


def train(adata: AnnData, seed: int) -> PublishedVAE:
    """Train the published model for the published number of epochs, or of steps if that is more."""
    model = GeneVAE.published(adata, seed=seed)
    steps = -(-len(model.trained_genes) // BATCH)
    model.train(max_epochs=max(EPOCHS, -(-STEPS // steps)), progress=False)
    return model


def maps(task: Task, model: PublishedVAE) -> NDArray[np.float64]:
    """Maps (draws, spots of the model's AnnData) of every draw; 0 at spots without a count."""
    latent = model.get_latent_representation()
    number = {gene: i for i, gene in enumerate(model.gene_names.astype(str))}
    out = np.zeros((len(task.draws), model.adata.n_obs))
    known: dict[tuple[str, ...], int] = {}
    for i, draw in enumerate(tqdm(task.draws, desc="published", leave=False, mininterval=5)):
        key = tuple(sorted(draw.genes))
        if key in known:
            out[i] = out[known[key]]
            continue
        known[key] = i
        mean = latent[[number[g] for g in draw.genes]].mean(axis=0)
        near = nearest_genes(np.vstack([latent, mean]), len(latent), N_GENES + 1).index[1:]
        vector = latent[near].mean(axis=0)
        found = attribute(
            model.encoder, model.inputs(near), vector, "rectgrad", percentile=PERCENTILE, published=True
        ).numpy()
        out[i, model.spots] = model.maps_to_spots(found.mean(axis=0, dtype=np.float64))
    return out
