"""Concepts from gene names or from layers, into ``.uns`` and ``.varm``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from stcsm import _keys
from stcsm.concepts import (
    ESTIMATORS,
    GeneSetMatch,
    check_distinct,
    concept_info,
    concept_scores,
    concept_vectors,
    match_gene_sets,
)
from stcsm.models import GeneVAE, read_setup
from stcsm.tl._embed import check_fits, embed_genes
from stcsm.tl._ensemble import average_members
from stcsm.tl._markers import chosen_groups, layer_labels, layer_markers
from stcsm.tl._profile import encoded_profiles
from stcsm.tl._sources import Source, gene_index, given_sets, ranked_sets
from stcsm.tl._store import (
    Concept,
    check_model,
    columns,
    distinct_keys,
    entry,
    read_concepts,
    write_concepts,
)

logger = logging.getLogger(__name__)

PROFILE = "profile"
CONCEPTS_AT_ONCE = 256


def concepts(
    adata: AnnData,
    model: GeneVAE | None = None,
    *,
    genes: Any = None,
    groupby: str | None = None,
    groups: Sequence[str] | None = None,
    rank_genes: str | None = None,
    match: str | None = None,
    ignore_case: bool = False,
    missing: str = "auto",
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
        ``{name: gene}``, ``{name: [genes]}`` or ``{name: {gene: weight}}`` (negative, or ``"-"``: down in the concept);
        the path of a GMT file (plain or gzip); a network as decoupler has them, a DataFrame with the columns
        ``source``, ``target`` and ``weight``; :class:`stcsm.concepts.GeneSet` objects; or the name of a ``.var`` column
        (boolean: one concept; otherwise one concept a category).
    groupby
        Column of ``adata.obs`` with a label for each spot: the marker genes of each label make a concept (scanpy's
        t-test on log-normalised counts). Spots without a label are left out.
    groups
        Values of that column to make concepts of; by default all. Each is still compared with all others.
    rank_genes
        Key in ``.uns`` of a result of ``scanpy.tl.rank_genes_groups``: the top genes of each group make a concept.
    match
        Column of ``adata.var`` to match ``genes`` on (symbols where names are Ensembl identifiers, or the other way
        round); by default the gene names.
    ignore_case
        Match names that differ in case only (human and mouse symbols), where exactly one gene does.
    missing
        What to do about genes that are not there: ``"error"``; ``"report"``, go on with the rest and leave out, with a
        warning, sets of which nothing is left or that cover all genes; ``"auto"``: error for names typed by hand and
        ``.var`` columns, report for files, networks, GeneSet objects and rankings.
    estimator
        ``"contrast"``: members' mean latent minus the mean of all genes; ``"mean"``: members' mean (Brocki & Chung
        2019); ``"cav"``: normal of a linear classifier of members against the rest, its cross-validated accuracy
        reported (Kim et al. 2018); ``"profile"`` (for ``groupby``, with ``model``): the encoded profile of an ideal
        gene, expressed in the layer and nowhere else, minus that of a gene expressed everywhere alike.
    n_markers
        Marker genes a layer or group.
    keep
        Keep the concepts that are there; False drops them and their maps.

    Writes
    ------
    ``adata.uns["stcsm"]["concepts"]``
        For each concept its label, estimator, members, weights and vectors (M, L). A ``/`` in a name becomes ``_`` in
        the key, since HDF5 takes it as a path; the label keeps it.
    ``adata.uns["stcsm"]["concept_info"]``
        DataFrame (K rows, in the order in which the concepts were made): where each comes from, genes given, found
        among those of the data, and usable (with counts); for ``"cav"`` its accuracy, see :func:`concept_table`.
    ``adata.varm["concept_score"]``
        DataFrame (G, K) of z . v, float32; NaN for genes without a count. With several members, the mean of their
        standardised scores.

    Raises
    ------
    ValueError
        If nothing is given, a set is at fault (empty, weights that are no numbers, two sets of one name; a GMT file's
        line is named), a gene is unknown (the closest names are suggested, differences in case named), no member of a
        concept has counts, a set covers all genes, names clash, or the embedding comes from another model.
    FileNotFoundError, IsADirectoryError
        If the path of a GMT file leads to none.

    Examples
    --------
    >>> stcsm.tl.concepts(adata, model, genes={"granule": ["Penk", "Nrgn"], "up and down": {"Penk": 1, "Doc2g": -1}})
    >>> stcsm.tl.concepts(adata, model, genes="hallmark.gmt", match="symbol")
    >>> stcsm.tl.concepts(adata, model, genes=decoupler.op.progeny(organism="mouse"))
    """
    if genes is None and groupby is None and rank_genes is None:
        raise ValueError("Expected genes={name: [genes]}, groupby='obs column' or rank_genes='uns key', found neither")
    if missing not in ("auto", "error", "report"):
        raise ValueError(f"Expected missing to be 'auto', 'error' or 'report', found {missing!r}")
    if n_markers < 1:
        raise ValueError(f"Expected n_markers of 1 or more, found {n_markers}")
    _check_estimator(estimator, model, groupby, genes is not None or rank_genes is not None)
    if model is not None:
        check_fits(adata, model)
    count_layer = read_setup(adata).layer if model is None else model.setup.layer
    sources = [] if genes is None else [given_sets(adata, genes)]
    profile_of = None
    if estimator == PROFILE:
        profile_of = layer_labels(adata, str(groupby), count_layer)
        profile_of = profile_of.where(profile_of.isin(chosen_groups(profile_of, groups, str(groupby))))
    elif groupby is not None:
        sources.append(Source(layer_markers(adata, groupby, count_layer, n_markers, groups), "layer", True))
    if rank_genes is not None:
        sources.append(ranked_sets(adata, rank_genes, n_markers))
    names = [s.name for source in sources for s in source.sets]
    if profile_of is not None:
        names += sorted(profile_of.dropna().unique())
    check_distinct(names)
    keys = distinct_keys(names)

    new = model is not None and (
        _keys.EMBEDDING not in adata.varm or entry(adata, "embedding_model").get("fingerprint") != model.fingerprint()
    )
    if model is not None and new:
        latents = [model.get_latent_representation(member=m) for m in range(model.n_members)]
    else:
        latents = read_embedding(adata)
    usable = np.asarray(np.isfinite(latents[0]).all(axis=1))
    made: list[Concept] = []
    for source in sources:
        report = missing == "report" or (missing == "auto" and not source.strict)
        found = match_gene_sets(
            source.sets,
            gene_index(adata, match if source.kind == "genes" else None),
            usable=usable,
            missing="report" if report else "error",
            unusable="skip" if report else "error",
            ignore_case=ignore_case,
        )
        if report:
            _say_what_was_found(found)
        made += _from_genes(found, source.kind, adata.var_names, latents, estimator, keys)
    if profile_of is not None and model is not None:
        made += _from_profiles(model, profile_of, keys)
    if model is not None and new:
        embed_genes(adata, model)
    write_concepts(adata, made, entry(adata, "embedding_model")["fingerprint"], keep)
    write_scores(adata, latents)


def write_scores(adata: AnnData, latents: list[np.ndarray]) -> None:
    """Write the scores of all genes on all stored concepts."""
    stored = read_concepts(adata)
    adata.varm[_keys.CONCEPT_SCORE] = columns(stored, score_genes(latents, stored), adata.var_names)


def score_genes(latents: list[np.ndarray], stored: list[Concept]) -> np.ndarray:
    """Concept scores (G, K), averaged over the members of the ensemble, float32 as the latents are."""
    scores = np.empty((len(latents[0]), len(stored)), dtype=np.float32)
    for first in range(0, len(stored), CONCEPTS_AT_ONCE):
        some = stored[first : first + CONCEPTS_AT_ONCE]
        scores[:, first : first + CONCEPTS_AT_ONCE] = average_members(
            [concept_scores(z, np.stack([c.vectors[m] for c in some])) for m, z in enumerate(latents)]
        )
    return scores


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


def _check_estimator(estimator: str, model: GeneVAE | None, groupby: str | None, other_sources: bool) -> None:
    if estimator == PROFILE:
        if groupby is None or model is None or other_sources:
            raise ValueError(
                "Expected groupby='obs column' and model= alone with estimator='profile', which encodes the layers "
                "themselves; gene sets need estimator='contrast', 'mean' or 'cav' and a call of their own"
            )
    elif estimator not in ESTIMATORS:
        raise ValueError(f"Expected estimator to be one of {[*sorted(ESTIMATORS), PROFILE]}, found {estimator!r}")


def _say_what_was_found(found: GeneSetMatch) -> None:
    """Log how much of a collection is there, so that a wrong species or identifier is seen."""
    n, share = len(found.names), found.fraction
    logger.info(f"{n} gene sets: {np.median(share):.0%} of a set's genes found (median), {share.min():.0%} at least")
    if found.skipped:
        name, reason = next(iter(found.skipped.items()))
        logger.warning(f"{len(found.skipped)} of {n + len(found.skipped)} gene sets are left out; {name!r}: {reason}")
    few = np.flatnonzero(share < 0.5)
    if few.size:
        logger.warning(
            f"fewer than half of the genes were found for {few.size} of {n} gene sets, such as "
            f"{found.names[few[0]]!r} ({found.n_found[few[0]]} of {found.n_given[few[0]]}; "
            f"{', '.join(found.missing[few[0]][:3])} are not there)"
        )


def _from_genes(
    found: GeneSetMatch,
    kind: str,
    var_names: pd.Index,
    latents: list[np.ndarray],
    estimator: str,
    keys: dict[str, str],
) -> list[Concept]:
    rows = sparse.csr_array(found.weights)
    try:
        vectors = np.stack([concept_vectors(z, rows, estimator) for z in latents], axis=1)
    except ValueError:
        _name_the_culprit(found, rows, latents, estimator)
        raise
    reports = [concept_info(z, rows, estimator) for z in latents]
    made = []
    for k, label in enumerate(found.names):
        own = slice(rows.indptr[k], rows.indptr[k + 1])
        own_reports = [report[k] for report in reports]
        made.append(
            Concept(
                key=keys[label],
                label=label,
                source=kind,
                estimator=estimator,
                members=np.asarray(var_names[rows.indices[own]], dtype=object),
                weights=rows.data[own],
                vectors=vectors[k],
                info={
                    "n_given": int(found.n_given[k]),
                    "n_found": int(found.n_found[k]),
                    "n_usable": int(found.n_usable[k]),
                    **{name: float(np.mean([r[name] for r in own_reports])) for name in own_reports[0]},
                },
            )
        )
    return made


def _name_the_culprit(found: GeneSetMatch, rows: sparse.csr_array, latents: list[np.ndarray], estimator: str) -> None:
    """Many concepts are made at once; an error names the one at fault by its row. Name it by its name."""
    for k, label in enumerate(found.names):
        for z in latents:
            try:
                concept_vectors(z, rows[[k]], estimator)
            except ValueError as error:
                raise ValueError(f"Concept {label!r}: {error}") from None


def _from_profiles(model: GeneVAE, labels: pd.Series, keys: dict[str, str]) -> list[Concept]:
    profiles, vectors = encoded_profiles(model, labels)
    nothing = np.array([], dtype=object)
    return [
        Concept(keys[name], name, "layer", PROFILE, nothing, np.array([]), vectors[k], {"n_spots": int(n)})
        for k, (name, n) in enumerate(zip(profiles.names, _sizes(profiles.names, labels), strict=True))
    ]


def _sizes(names: tuple[str, ...], labels: pd.Series) -> list[int]:
    counts = labels.value_counts()
    return [int(counts[name]) for name in names]


def check_concepts(adata: AnnData, model: GeneVAE) -> None:
    """Refuse a model that does not belong to ``adata`` or to its concepts."""
    check_fits(adata, model)
    check_model(adata, model.fingerprint(), "concepts")
