"""Concepts from gene names or from layers, into ``.uns`` and ``.varm``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from stcsm import _keys
from stcsm.concepts import (
    ESTIMATORS,
    GeneSet,
    check_distinct,
    concept_scores,
    concept_vector,
    gene_sets,
    membership,
    read_gmt,
)
from stcsm.models import GeneVAE, read_setup
from stcsm.tl._embed import check_fits, embed_genes
from stcsm.tl._ensemble import average_members
from stcsm.tl._markers import layer_markers
from stcsm.tl._store import (
    Concept,
    check_model,
    columns,
    distinct_keys,
    entry,
    read_concepts,
    write_concepts,
)


def concepts(
    adata: AnnData,
    model: GeneVAE | None = None,
    *,
    genes: Mapping[str, Any] | str | Path | None = None,
    layers: str | None = None,
    estimator: str = "contrast",
    n_markers: int = 30,
    keep: bool = True,
) -> None:
    """Turn named gene sets, or the layers of a tissue, into directions in latent space, and score every gene on them.

    Concepts that are there already stay; one of the same name is replaced, and its maps are dropped. Concepts of
    another model are dropped with their maps, since latent spaces differ between models.

    Parameters
    ----------
    adata
        Spots x genes with a gene embedding, or without one if ``model`` is given.
    model
        A trained model; embeds the genes first where ``.varm["X_stcsm"]`` is absent.
    genes
        ``{name: gene}``, ``{name: [genes]}`` or ``{name: {gene: weight}}`` (negative: down in the concept); the path of
        a GMT file; or the name of a ``.var`` column (boolean: one concept; otherwise one concept a category).
    layers
        Column of ``adata.obs`` with a label for each spot: the marker genes of each label make a concept (scanpy's
        t-test on log-normalised counts). Spots without a label are left out.
    estimator
        ``"contrast"``: members' mean latent minus the mean of all genes; ``"mean"``: members' mean (Brocki & Chung
        2019); ``"cav"``: normal of a linear classifier of members against the rest (Kim et al. 2018).
    n_markers
        Marker genes a layer.
    keep
        Keep the concepts that are there; False drops them and their maps.

    Writes
    ------
    ``adata.uns["stcsm"]["concepts"]``
        For each concept its label, members, weights, estimator and vectors (M, L). A ``/`` in a name becomes ``_`` in
        the key, since HDF5 takes it as a path; the label keeps it.
    ``adata.varm["concept_score"]``
        DataFrame (G, K) of z . v; NaN for genes without a count. With several members, the mean of their standardised
        scores.

    Raises
    ------
    ValueError
        If neither genes nor layers are given, a gene is unknown (the closest names are suggested), no member of a
        concept has counts, names clash, or the embedding comes from another model.
    """
    if genes is None and layers is None:
        raise ValueError("Expected genes={name: [genes]} or layers='obs column', found neither")
    if estimator not in ESTIMATORS:
        raise ValueError(f"Expected estimator to be one of {sorted(ESTIMATORS)}, found {estimator!r}")
    if n_markers < 1:
        raise ValueError(f"Expected n_markers of 1 or more, found {n_markers}")
    if model is not None:
        check_fits(adata, model)
    sets, strict = ([], False) if genes is None else _gene_sets(adata, genes)
    count_layer = read_setup(adata).layer if model is None else model.setup.layer
    by_layer = [] if layers is None else layer_markers(adata, layers, count_layer, n_markers)
    check_distinct([s.name for s in (*sets, *by_layer)])
    keys = distinct_keys([s.name for s in (*sets, *by_layer)])

    new = model is not None and (
        _keys.EMBEDDING not in adata.varm or entry(adata, "embedding_model").get("fingerprint") != model.fingerprint()
    )
    if model is not None and new:
        latents = [model.get_latent_representation(member=m) for m in range(model.n_members)]
    else:
        latents = read_embedding(adata)
    usable = np.asarray(np.isfinite(latents[0]).all(axis=1))
    made = [
        concept
        for group, source, missing in ((sets, "genes", "error" if strict else "report"), (by_layer, "layer", "error"))
        if group
        for concept in _make(group, source, missing, adata.var_names, usable, latents, estimator, keys)
    ]
    if model is not None and new:
        embed_genes(adata, model)
    write_concepts(adata, made, entry(adata, "embedding_model")["fingerprint"], keep)
    stored = read_concepts(adata)
    adata.varm[_keys.CONCEPT_SCORE] = columns(stored, score_genes(latents, stored), adata.var_names)


def score_genes(latents: list[np.ndarray], stored: list[Concept]) -> np.ndarray:
    """Concept scores (G, K), averaged over the members of the ensemble."""
    return average_members([concept_scores(z, np.stack([c.vectors[m] for c in stored])) for m, z in enumerate(latents)])


def read_embedding(adata: AnnData) -> list[np.ndarray]:
    """Gene embedding (G, L) of every member.

    Raises
    ------
    ValueError
        If there is none.
    """
    if _keys.EMBEDDING not in adata.varm:
        raise ValueError(
            f"Expected a gene embedding in adata.varm[{_keys.EMBEDDING!r}], found none; "
            "call stcsm.tl.embed_genes(adata, model) first, or pass model="
        )
    latents, member = [], 0
    while _keys.embedding(member) in adata.varm:
        latents.append(np.asarray(adata.varm[_keys.embedding(member)]))
        member += 1
    return latents


def _make(
    sets: list[GeneSet],
    source: str,
    missing: str,
    var_names: pd.Index,
    usable: np.ndarray,
    latents: list[np.ndarray],
    estimator: str,
    keys: dict[str, str],
) -> list[Concept]:
    found = membership(sets, var_names, usable=usable, missing=missing)
    rows = sparse.csr_array(found.weights)
    made = []
    for k, label in enumerate(found.names):
        start, stop = rows.indptr[k], rows.indptr[k + 1]
        weights = np.zeros(len(var_names))
        weights[rows.indices[start:stop]] = rows.data[start:stop]
        vectors = [concept_vector(z, weights, estimator) for z in latents]
        made.append(
            Concept(
                key=keys[label],
                label=label,
                source=source,
                estimator=estimator,
                members=np.asarray(var_names[rows.indices[start:stop]], dtype=object),
                weights=rows.data[start:stop],
                vectors=np.stack([v.vector for v in vectors]),
                info={
                    "n_given": int(found.n_given[k]),
                    "n_found": int(found.n_found[k]),
                    "n_usable": int(found.n_usable[k]),
                },
            )
        )
    return made


def _gene_sets(adata: AnnData, genes: Any) -> tuple[list[GeneSet], bool]:
    """Gene sets of whatever the user passed, and whether every gene has to be there."""
    if isinstance(genes, str) and genes in adata.var:
        return _var_column(adata.var[genes]), True
    if isinstance(genes, (str, Path)):
        if not os.path.isfile(genes):
            raise ValueError(
                f"Expected a column of adata.var or a GMT file, found {str(genes)!r}, which is neither; there are the "
                f"columns {sorted(map(str, adata.var))}"
            )
        return read_gmt(genes), False
    return gene_sets(genes), True


def _var_column(column: pd.Series) -> list[GeneSet]:
    name = str(column.name)
    if column.dtype == bool or column.dtype == "boolean":
        return [gene_sets({name: list(column.index[column.fillna(False).astype(bool)])})[0]]
    if column.dtype.kind == "f":
        raise ValueError(f"Expected a boolean or categorical column of adata.var, found numbers in {name!r}")
    known = column.dropna().astype(str)
    return gene_sets({str(value): list(known.index[known == value]) for value in sorted(known.unique())})


def check_concepts(adata: AnnData, model: GeneVAE) -> None:
    """Refuse a model that does not belong to ``adata`` or to its concepts."""
    check_fits(adata, model)
    check_model(adata, model.fingerprint(), "concepts")
