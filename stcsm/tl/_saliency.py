"""Concept saliency on the tissue: attribution alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from scipy import sparse

from stcsm import _keys
from stcsm.attribution import attribute
from stcsm.concepts import match_genes
from stcsm.models import GeneVAE
from stcsm.tl._concepts import check_concepts, score_genes
from stcsm.tl._ensemble import average_members
from stcsm.tl._maps import choose_genes, mean_maps
from stcsm.tl._store import Concept, columns, drop_significance, read_concepts, write_entry


def saliency(
    adata: AnnData,
    model: GeneVAE,
    concepts: Sequence[str] | str | None = None,
    method: str = "saliency",
    genes: Any = "all",
    n_genes: int = 50,
    *,
    progress: bool = False,
    **params: Any,
) -> None:
    """Attribute concept scores to the spots: concept saliency maps (Brocki & Chung 2019, arXiv 1910.13140).

    The map of a concept is the signed mean, over the chosen genes, of the attribution of their concept score to their
    input profile u (:class:`stcsm.models.GeneVAE`). Of several sections, a spot has the mean over its own section's
    profiles of the genes that have counts there.

    Parameters
    ----------
    adata
        With concepts (:func:`stcsm.tl.concepts`).
    model
        The model that the concepts were made with.
    concepts
        Names; None is all of them.
    method
        One of ``stcsm.attribution.METHODS``; by default the plain gradient, whose mean map is as faithful as any other
        method's on the default model, at a fraction of the cost (``docs/sanity.md``).
    genes
        ``"all"``: a fixed random 1500 of the genes trained on; ``"nearest"``: the ``n_genes`` of highest concept score;
        ``"concept"``: the concept's own genes; or a list of gene names.
    n_genes
        For ``"nearest"``.
    progress
        Show a progress bar.
    **params
        Parameters of the method (``percentile=95``, ``n_steps=50``, ...).

    Writes
    ------
    ``adata.obsm["concept_saliency"]``
        DataFrame (S, K); NaN at spots without a count. Units: change of the concept score for each unit of u (times u
        for the methods that multiply by the input). With several members of the ensemble each map is standardised and
        then averaged. What an earlier call wrote there is replaced, and p and q values of it are dropped.
    ``adata.uns["stcsm"]["saliency"]``
        Method, its parameters, genes.

    Raises
    ------
    ValueError
        If there are no concepts, they come from another model, or a name is unknown.
    """
    check_concepts(adata, model)
    chosen = read_concepts(adata, concepts)
    scores = None
    if isinstance(genes, str) and genes == "nearest":
        scores = score_genes([model.get_latent_representation(member=m) for m in range(model.n_members)], chosen)
    rows = choose_genes(adata, model, chosen, scores, genes, n_genes)
    maps = saliency_maps(model, chosen, rows, method, params, progress)
    drop_significance(adata)
    adata.obsm[_keys.CONCEPT_SALIENCY] = columns(chosen, model.to_all_spots(maps, counted=True).T, adata.obs_names)
    write_entry(
        adata,
        "saliency",
        {
            "method": method,
            "genes": genes if isinstance(genes, str) else np.asarray(list(genes), dtype=object),
            "n_genes": np.asarray([len(r) for r in rows]),
            "params": {name: _plain(value) for name, value in params.items()},
            "fingerprint": model.fingerprint(),
        },
    )


def _plain(value: Any) -> Any:
    """A parameter as an h5ad file can hold it."""
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, (str, int, float, bool)) else f"given {type(value).__name__}"


def saliency_maps(
    model: GeneVAE,
    concepts: list[Concept],
    genes: list[np.ndarray],
    method: str = "saliency",
    params: dict[str, Any] | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Saliency maps (K, S') of concepts, averaged over genes and members; concepts of the same genes share the work."""
    shared = all(g is genes[0] for g in genes)
    groups = [list(range(len(concepts)))] if shared else [[k] for k in range(len(concepts))]
    by_member = []
    for m, encoder in enumerate(model.encoders):
        maps = np.empty((len(concepts), len(model.spots)))
        for group in groups:
            vectors = np.stack([concepts[k].vectors[m] for k in group])
            maps[group] = mean_maps(model, encoder, genes[group[0]], vectors, method, params or {}, progress)
        by_member.append(maps.T)
    return average_members(by_member).T


def gene_saliency(
    adata: AnnData,
    model: GeneVAE,
    concept: str,
    genes: Sequence[str] | str,
    method: str = "integrated_gradients",
    **params: Any,
) -> AnnData:
    """Attribute the concept score of single genes: where in the tissue does it come from.

    Parameters
    ----------
    adata, model, params
        As for :func:`saliency`.
    method
        One of ``stcsm.attribution.METHODS``; by default integrated gradients, first in ``benchmarks/faithfulness.py``
        where a gene is explained by a map of its own; a gene's map sums to what its profile adds to its score.
    concept
        One concept.
    genes
        Gene names.

    Returns
    -------
    AnnData of genes x spots: ``.X`` (n, S) attributions of the first member, ``.layers["counts"]`` the genes' counts,
    ``.obs["concept_score"]`` their score, ``.varm["spatial"]`` the coordinates. ``adata`` is not changed. Of several
    sections, spots have the attribution to the gene's profile in their own section.

    Raises
    ------
    ValueError
        As for :func:`saliency`.
    """
    check_concepts(adata, model)
    (chosen,) = read_concepts(adata, concept)
    names = [genes] if isinstance(genes, str) else list(genes)
    match = match_genes(names, adata.var_names, missing="error")
    vector = chosen.vectors[0].astype(np.float32)
    at_spots = np.empty((len(match.index), len(model.spots)), dtype=np.float32)
    for section, own in model.parts():
        inputs = model.inputs(match.index, section).to(model.device)
        maps = attribute(model.encoder, inputs, vector, method, **params).cpu().numpy()
        at_spots[:, own] = model.maps_to_spots(maps, section)
    latent = model.get_latent_representation()[match.index]
    out = AnnData(model.to_all_spots(at_spots))
    out.obs_names, out.var_names = adata.var_names[match.index], adata.obs_names
    out.obs["concept_score"] = latent @ vector
    counts = np.zeros(out.shape, dtype=np.float32)
    counts[:, model.spots] = model.reader.profiles(match.index)
    out.layers["counts"] = sparse.csr_matrix(counts)
    out.varm[model.setup.spatial_key] = np.asarray(adata.obsm[model.setup.spatial_key])
    return out
