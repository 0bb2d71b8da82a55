"""Mean attribution maps over genes: the piece that saliency, concept maps and their statistics share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from anndata import AnnData
from torch import nn
from tqdm.auto import tqdm

from stcsm.attribution import attribute, method_class
from stcsm.concepts import match_genes
from stcsm.models import GeneVAE
from stcsm.tl._store import Concept, member_rows

N_RANDOM_GENES = 1500
"""Genes that stand for all genes; a gradient averaged over more of them changes little."""
CHUNK_VALUES = 2**25
"""Values of attributions held at once."""


def mean_maps(
    model: GeneVAE,
    encoder: nn.Module,
    genes: np.ndarray,
    vectors: np.ndarray,
    method: str,
    params: dict[str, Any],
    progress: bool = False,
) -> np.ndarray:
    """Signed mean over genes of their saliency maps.

    Parameters
    ----------
    model
        Gives the inputs.
    encoder
        One member's encoder.
    genes
        Indices (n,).
    vectors
        Concept vectors (K, L).
    method, params
        Of :func:`stcsm.attribution.attribute`.
    progress
        Show a progress bar.

    Returns
    -------
    (K, S') over the model's spots, float64. Of several sections, each has the mean over its own samples of the genes.
    """
    if not len(genes):
        raise ValueError("Expected genes to average over, found none")
    if "batch_size" in params:
        raise TypeError(f"Expected parameters of {method}, found batch_size, which is set here to bound the memory")
    n_latent = model.settings["n_latent"]
    if method_class(method).linear and len(vectors) > n_latent:
        # The latents' own maps make those of any number of concepts.
        basis = mean_maps(model, encoder, genes, np.eye(n_latent), method, params, progress)
        return np.asarray(vectors, dtype=np.float64) @ basis
    step = int(np.clip(CHUNK_VALUES // (len(vectors) * np.prod(model.input_shape)), 1, 256))
    total = np.zeros((len(vectors), len(model.spots)))
    concepts = torch.as_tensor(vectors, dtype=torch.float32, device=model.device)
    for section, own in model.parts():
        seen = genes_seen(model, genes, section)
        starts = range(0, len(seen), step)
        said = method if section is None else f"{method}, {section}"
        for start in tqdm(starts, desc=said, disable=not progress, leave=False):
            inputs = model.inputs(seen[start : start + step], section).to(model.device)
            # The noise of a gene depends on its place among all genes, not among those of the chunk.
            first: dict[str, Any] = {"first": start} if method == "smoothgrad" else {}
            maps = attribute(encoder, inputs, concepts, method, batch_size=step, **first, **params)
            total[:, own] += model.maps_to_spots(maps.cpu().double().sum(dim=0).numpy(), section)
        total[:, own] /= len(seen)
    return total


def all_inputs(model: GeneVAE, genes: np.ndarray) -> torch.Tensor:
    """Encoder inputs of genes in every section that has counts of them, section after section, (n, ...)."""
    return torch.cat([model.inputs(genes_seen(model, genes, section), section) for section, _ in model.parts()])


def genes_seen(model: GeneVAE, genes: np.ndarray, section: str | None) -> np.ndarray:
    """Those of the genes that have a count in the section; all where none has, whose input is zero then."""
    if section is None:
        return genes
    seen = genes[model.section_totals(section)[genes] > 0]
    return seen if len(seen) else genes


def choose_genes(
    adata: AnnData, model: GeneVAE, concepts: list[Concept], scores: np.ndarray | None, genes: Any, n_genes: int
) -> list[np.ndarray]:
    """Indices of the genes whose maps are averaged, for each concept.

    Parameters
    ----------
    adata, model
        Genes and which of them were trained on.
    concepts, scores
        K concepts and, for ``"nearest"``, the scores (G, K) of all genes on them.
    genes
        ``"all"``: a fixed random 1500 of the genes trained on, the same for every concept; ``"nearest"``: the
        ``n_genes`` with the highest score among them; ``"concept"``: the concept's own genes; or gene names.
    n_genes
        For ``"nearest"``.

    Raises
    ------
    ValueError
        If a name is unknown or has no counts, or ``genes`` is none of these.
    """
    if isinstance(genes, str):
        if genes == "all":
            return [random_genes(model)] * len(concepts)
        if genes == "nearest":
            if n_genes < 1:
                raise ValueError(f"Expected n_genes of 1 or more, found {n_genes}")
            if scores is None:
                raise ValueError("Expected scores to find the nearest genes by, found none")
            return list(highest_scoring(model, scores, n_genes))
        if genes == "concept":
            return [_usable(model, member_rows(c, adata.var_names)[0], f"concept {c.key!r}") for c in concepts]
        if genes not in adata.var_names:
            raise ValueError(f"Expected genes to be 'all', 'nearest', 'concept' or gene names, found {genes!r}")
        genes = [genes]
    index = match_genes(list(genes), adata.var_names, missing="error").index
    without = index[model.reader.gene_totals[index] == 0]
    if len(without):
        raise ValueError(f"Expected genes with counts, found {adata.var_names[without[0]]!r} without any; leave it out")
    return [np.sort(index)] * len(concepts)


def highest_scoring(model: GeneVAE, scores: np.ndarray, n: int) -> np.ndarray:
    """Trained genes of highest score on each concept, ascending (K, n), by the scores (G, K) of all genes."""
    # A loaded model may have been trained on genes that have no count here, and no score.
    trained = model.trained_genes[model.reader.gene_totals[model.trained_genes] > 0]
    n = min(n, len(trained))
    if n == 0:
        return np.empty((scores.shape[1], 0), dtype=trained.dtype)
    best_last = np.argpartition(np.ascontiguousarray(scores[trained].T), len(trained) - n, axis=1)
    return np.sort(trained[best_last[:, len(trained) - n :]], axis=1)


def random_genes(model: GeneVAE) -> np.ndarray:
    """Draw the fixed random genes that stand for all genes: the same for every concept and call."""
    rng = np.random.default_rng(model.settings["seed"])
    n = min(N_RANDOM_GENES, len(model.trained_genes))
    return np.sort(rng.choice(model.trained_genes, n, replace=False))


def _usable(model: GeneVAE, index: np.ndarray, what: str) -> np.ndarray:
    kept = np.sort(index[model.reader.gene_totals[index] > 0])
    if not len(kept):
        raise ValueError(f"Expected a gene with counts in {what}, found that its {len(index)} genes have none")
    return kept
