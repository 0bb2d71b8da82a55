"""Maps of single kinds: attribution, decoded, mean expression; and attribution for single genes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from scipy import sparse

from stcsm.attribution import attribute, method_class
from stcsm.concepts import match_genes
from stcsm.models import GeneVAE, counts_of, read_setup, spots_on_tissue
from stcsm.tl._maps import (
    Attribution,
    attribution_maps,
    choose_genes,
    decoded_maps,
    decoded_points,
    scaled_expression_maps,
)
from stcsm.tl._state import check_concepts, embedding, free_key, read_concepts, write_maps


def saliency(
    adata: AnnData,
    model: GeneVAE,
    concepts: Sequence[str] | str | None = None,
    method: str = "saliency",
    genes: Any = "all",
    n_genes: int = 50,
    *,
    key_added: str | None = None,
    progress: bool = False,
    **params: Any,
) -> None:
    """Attribute concept scores to the spots: concept saliency maps (Brocki & Chung 2019, arXiv 1910.13140).

    The map of a concept is the signed mean, over the chosen genes, of the attribution of their concept score to their
    input profile u (:class:`stcsm.models.GeneVAE`). Of several sections, a spot has the mean over its own section's
    profiles of the genes that have counts there.

    For a method that is linear in the concept (saliency, input x gradient, integrated gradients, ...) and genes that
    are the same for all concepts, the latents are attributed, once, at the cost of L concepts. Their maps stay in
    memory while the model has the same weights (the last four combinations of method, parameters and genes), and serve
    further concepts, :func:`concept_map`, :func:`significance`, :func:`differential` and :func:`sanity`.

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
    key_added
        Key of ``.obsm`` to write the maps into, instead of ``"concept_saliency"``.
    progress
        Show a progress bar.
    **params
        Parameters of the method (``percentile=95``, ``steps=50``, ...).

    Writes
    ------
    ``adata.obsm["concept_saliency"]``
        DataFrame (S, K); NaN at spots without a count. Units: change of the concept score for each unit of u (times u
        for the methods that multiply by the input). With several members of the ensemble each map is standardised and
        then averaged. What an earlier call wrote there is replaced, and its p and q values are dropped, with a warning.
    ``adata.uns["stcsm"]["saliency"]``
        Method, its parameters, genes; ``["saliency_<key_added>"]`` for another key.

    Raises
    ------
    ValueError
        If there are no concepts, they come from another model, a name is unknown, or ``key_added`` is taken.
    """
    check_concepts(adata, model)
    chosen = read_concepts(adata, concepts)
    key = free_key(adata, "saliency", key_added)
    how = Attribution(method, genes, n_genes, params)
    rows = choose_genes(adata, model, how, chosen)
    maps = attribution_maps(model, how, chosen, rows, progress)
    record = {
        "method": method,
        "genes": genes if isinstance(genes, str) else np.asarray(list(genes), dtype=object),
        "n_genes": np.asarray([len(r) for r in rows]),
        "params": {name: _plain(value) for name, value in params.items()},
        "fingerprint": model.fingerprint(),
    }
    write_maps(adata, "saliency", key, chosen, model.to_all_spots(maps, counted=True).T, record)


def _plain(value: Any) -> Any:
    """A parameter as an h5ad file can hold it."""
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, (str, int, float, bool)) else f"given {type(value).__name__}"


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
        One of ``stcsm.attribution.METHODS``; by default integrated gradients, the most faithful for single genes in
        ``benchmarks/faithfulness.py``. A gene's map sums to what its profile adds to its score.
    concept
        One concept.
    genes
        Gene names.

    Returns
    -------
    AnnData of genes x spots, since single genes have a map for each of several genes and not for each concept:
    ``.X`` (n, S) attributions of the first member, ``.layers["counts"]`` the genes' counts,
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
        adds_up = method_class(method).times_input
        at_spots[:, own] = (
            model.shares_at_spots(maps, match.index, section) if adds_up else model.maps_to_spots(maps, section)
        )
    latent = embedding(adata, model)[0][match.index]
    out = AnnData(model.to_all_spots(at_spots))
    out.obs_names, out.var_names = adata.var_names[match.index], adata.obs_names
    out.obs["concept_score"] = latent @ vector
    counts = np.zeros(out.shape, dtype=np.float32)
    counts[:, model.spots] = model.reader.profiles(match.index)
    out.layers["counts"] = sparse.csr_matrix(counts)
    out.varm[model.setup.spatial_key] = np.asarray(adata.obsm[model.setup.spatial_key])
    return out


def decoded(
    adata: AnnData,
    model: GeneVAE,
    concepts: Sequence[str] | str | None = None,
    *,
    contrast: bool = True,
    key_added: str | None = None,
) -> None:
    """Decode concepts: where a gene would be found that lies where the concept points.

    Parameters
    ----------
    adata
        With concepts (:func:`stcsm.tl.concepts`).
    model
        The model that the concepts were made with.
    concepts
        Names; None is all of them.
    contrast
        Against the mean gene. False: the decoder at the concept itself, as published; only for concepts of
        ``estimator="mean"``, which are points of the latent space and not directions.
    key_added
        Key of ``.obsm`` to write the maps into, instead of ``"concept_decoded"``.

    Writes
    ------
    ``adata.obsm["concept_decoded"]``
        DataFrame (S, K): f(mean gene + concept) - f(mean gene), in log units, mean zero over spots; NaN at spots
        without a count. The step along the concept's direction is as long as that from the mean gene to the concept's
        genes. With several members of the ensemble each map is standardised and then averaged. Without ``contrast``
        f(concept), or the max-scaled expression itself, between 0 and 1, where the likelihood is Bernoulli.
    ``adata.uns["stcsm"]["decoded"]``
        Whether maps are a contrast; ``["decoded_<key_added>"]`` for another key.

    Raises
    ------
    ValueError
        If there are no concepts, they come from another model, a name is unknown, a concept that is a direction is to
        be decoded by itself, or ``key_added`` is taken.
    """
    check_concepts(adata, model)
    chosen = read_concepts(adata, concepts)
    key = free_key(adata, "decoded", key_added)
    maps = decoded_maps(adata, model, chosen) if contrast else decoded_points(model, chosen)
    record = {"contrast": contrast, "fingerprint": model.fingerprint()}
    write_maps(adata, "decoded", key, chosen, model.to_all_spots(maps, counted=True).T, record)


def mean_expression(
    adata: AnnData, concepts: Sequence[str] | str | None = None, *, key_added: str | None = None
) -> None:
    """Mean expression of each concept's genes, every gene scaled by its largest count (Brocki & Chung 2019).

    Spots with more counts have more of every gene: what this map and the concept's other maps have in common may be
    sequencing depth.

    Parameters
    ----------
    adata
        With concepts (:func:`stcsm.tl.concepts`).
    concepts
        Names; None is all of them.
    key_added
        Key of ``.obsm`` to write the maps into, instead of ``"concept_expression"``.

    Writes
    ------
    ``adata.obsm["concept_expression"]``
        DataFrame (S, K): mean, by the genes' weights, of counts divided by the gene's largest count.
    ``adata.uns["stcsm"]["mean_expression"]``
        The layer of the counts, empty for ``.X``; ``["mean_expression_<key_added>"]`` for another key.

    Raises
    ------
    ValueError
        If there are no concepts, a name is unknown, or ``key_added`` is taken.
    """
    chosen = read_concepts(adata, concepts)
    key = free_key(adata, "mean_expression", key_added)
    setup = read_setup(adata)
    layer, on_tissue = setup.layer, spots_on_tissue(adata, setup)
    maps = scaled_expression_maps(adata, counts_of(adata, layer), chosen, on_tissue).T
    maps[~on_tissue] = np.nan
    write_maps(adata, "mean_expression", key, chosen, maps, {"layer": layer or ""})
