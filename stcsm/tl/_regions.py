"""Whether a section's regions are wide enough for finished maps to be smoothed over space."""

from __future__ import annotations

from typing import Any

import numpy as np
from anndata import AnnData
from scipy.sparse import csr_array, diags_array

from stcsm.concepts import standardise
from stcsm.models import GeneVAE
from stcsm.space import diffuse, distance_kept, log_normalise, some_spots, spatial_filter
from stcsm.tl._maps import Attribution, latent_maps
from stcsm.tl._state import embedding

STAY_APART = 0.93
"""Share of their distance that gene modules must keep when their maps are smoothed by one nearest-neighbour distance
(measured: tumours, a heart and cortices 0.94 to 0.99; a heart of noisy counts 0.89; bulbs 0.75 to 0.81; simulated
layers with sharp borders 0.81 to 0.94; benchmarks/RECOVERY.md)."""
GENES, STRUCTURED = 1500, 300
"""Genes with most counts, and how many of them, those that vary most over the graph, modules are made of."""
SPOTS = 2500
"""Modules are compared on at most so many spots, in whole patches."""


def regions_are_wide(
    adata: AnnData,
    model: GeneVAE,
    own: np.ndarray,
    coords: np.ndarray,
    graph: csr_array,
    settings: dict[str, Any],
) -> bool:
    """Whether modules of genes stay apart when their maps are smoothed, by the counts and by the model.

    Counts alone are too faint on some sections, the model alone is wrong on others, so both have to say so: genes' maps
    of expression and of saliency.

    Parameters
    ----------
    adata, model
        The tissue and its model.
    own
        Numbers of the section's spots among the model's.
    coords
        Coordinates of the model's spots (S', 2 or 3).
    graph, settings
        The spot graph among the model's spots, and its settings.
    """
    spots = own[some_spots(coords[own], SPOTS, model.settings["seed"])]
    part, place = graph_among(graph, spots), coords[spots]
    smoother = spatial_filter(place, 1.0)
    totals = np.asarray(model.reader.gene_totals)
    genes = np.sort(np.argsort(-totals, kind="stable")[: min(GENES, int((totals > 0).sum()))])
    expression = standardise(log_normalise(model.reader.counts(genes, spots)).toarray())
    if settings["width"]:
        expression = spatial_filter(place, settings["width"]) @ expression
    if distance_kept(_structured(diffuse(part, expression, settings["steps"])), smoother) < STAY_APART:
        return False
    kept = []
    for z, maps in zip(embedding(adata, model), latent_maps(adata, model, Attribution("saliency")), strict=True):
        latents = z[model.trained_genes]
        latents = latents[np.isfinite(latents).all(axis=1)]
        saliency = maps[:, spots].T @ (latents - latents.mean(axis=0)).T
        kept.append(distance_kept(diffuse(part, standardise(_structured(saliency)), settings["steps"]), smoother))
    return float(np.mean(kept)) >= STAY_APART


def _structured(maps: np.ndarray) -> np.ndarray:
    """Maps (S, n) of the genes that vary most over the spots."""
    most = np.argsort(-maps.std(axis=0), kind="stable")
    return maps[:, most[: min(STRUCTURED, max(len(most) // 2, 2))]]


def graph_among(graph: Any, spots: np.ndarray) -> csr_array:
    """The graph among some spots, rows summing to one again; a spot that is joined to none of them stays by itself."""
    part = csr_array(csr_array(graph)[spots][:, spots])
    total = np.asarray(part.sum(axis=1, dtype=np.float64)).ravel()
    if (np.abs(total - 1) <= 1e-3).all():
        return part
    alone = total <= 0
    return csr_array(diags_array(1 / np.where(alone, 1, total)) @ part + diags_array(alone.astype(np.float64)))
