"""Genes into latent space, and gene sets or tissue labels into directions there, on which all genes are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse

from stcsm._text import as_text, did_you_mean
from stcsm.concepts import ESTIMATORS, GeneSetMatch, GroupProfiles, concept_info, concept_vectors, group_profiles
from stcsm.models import GeneVAE
from stcsm.tl._gene_sets import MatchedSets, chosen_groups, group_labels, labels_coherence, match_gene_sets
from stcsm.tl._state import (
    Concept,
    check_fits,
    distinct_keys,
    embedding,
    embedding_fingerprint,
    encode_genes,
    is_embedded,
    write_concepts,
    write_embedding,
)

PROFILE = "profile"
COUNTS_A_SPOT = 20
"""Counts of an ideal gene at a mean spot: many against the model's pseudo-count of 1/2."""


def embed_genes(adata: AnnData, model: GeneVAE) -> None:
    """Embed every gene with a trained model.

    Parameters
    ----------
    adata
        The AnnData that the model was trained on, or one with the same spots and genes.
    model
        A trained :class:`stcsm.models.GeneVAE`.

    Writes
    ------
    ``adata.varm["X_stcsm"]``, ``adata.varm["X_stcsm_var"]``
        Posterior mean and variance, (G, L); NaN for genes without a count. Further members of the ensemble:
        ``X_stcsm_1``, ``X_stcsm_1_var``, ...
    ``adata.uns["stcsm"]["model"]``
        Settings of the model, versions, numbers of genes.

    Raises
    ------
    ValueError
        If the model is not trained, or was trained on other spots or genes.
    """
    check_fits(adata, model)
    write_embedding(adata, model, encode_genes(model))


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
    """Turn named gene sets, or the labels of a tissue, into directions in latent space, and score every gene on them.

    Concepts that are there already stay; one of the same name is replaced. Concepts of another model are dropped, since
    latent spaces differ between models. What was made of a concept that is replaced or dropped (maps, tests, the check
    of sanity) is dropped with it, and a warning names it.

    Parameters
    ----------
    adata
        Spots x genes with a gene embedding, or without one if ``model`` is given.
    model
        A trained model; embeds the genes first where ``.varm["X_stcsm"]`` is absent or another model's.
    genes
        ``{name: gene}``, ``{name: [genes]}`` or ``{name: {gene: weight}}`` (negative, or ``"-"``: down in the concept);
        the path of a GMT file (plain or gzip; with or without descriptions) or of a list of genes; a network as
        decoupler has them, a DataFrame with the columns ``source``, ``target`` and ``weight``; ranked genes, a
        DataFrame (or record array of scanpy) with a column of names for each set, where NaN is left out;
        :class:`stcsm.concepts.GeneSet` objects; the name of a ``.var`` column (boolean: one concept; otherwise one
        concept a category or number; genes without an entry are in none); or what :func:`match_gene_sets` returned.
    groupby
        Column of ``adata.obs`` with a label for each spot: the marker genes of each label make a concept (scanpy's
        t-test on log-normalised counts). Spots without a label are left out, and so are those with a text that says so
        (``"nan"``, ``"NA"``, ``"None"``, ``"null"``, blank, in any case); a warning counts them.
    groups
        Values of that column to make concepts of; by default all. Each is still compared with all others.
    rank_genes
        Key in ``.uns`` of a result of ``scanpy.tl.rank_genes_groups``, filtered or not: the top genes of each group
        make a concept.
    match
        Column of ``adata.var`` to match ``genes`` on (symbols where names are Ensembl identifiers, or the other way
        round); by default the gene names. Where several rows have the name of a gene, or were renamed ``Gene-1``,
        ``Gene-2`` by ``var_names_make_unique``, the one with the most counts is taken, and a warning says which.
    ignore_case
        Match names that differ in case only (human and mouse symbols); of several such genes the one with the most
        counts is taken, and a warning says which.
    missing
        What to do about genes that are not there: ``"error"``; ``"report"``, go on with the rest and leave out, with a
        warning, sets of which nothing is left or that cover all genes; ``"auto"``: error for names typed by hand and
        ``.var`` columns, report for files, networks, GeneSet objects and rankings.
    estimator
        ``"contrast"``: mean latent of the set's genes minus the mean of all genes; ``"mean"``: mean latent of the set's
        genes (Brocki & Chung 2019); ``"cav"``: normal of a linear classifier of the set's genes against the rest, its
        cross-validated accuracy reported (Kim et al. 2018); ``"profile"`` (for ``groupby``, with ``model``): the
        encoded profile of an ideal gene, expressed where the label is and nowhere else, minus that of a gene expressed
        everywhere alike.
    n_markers
        Marker genes of a label or group, at most.
    keep
        Keep the concepts that are there; False drops them and what was made of them.

    Writes
    ------
    ``adata.uns["stcsm"]["concepts"]``
        For each concept its label, estimator, genes, weights and vectors (M, L). A ``/`` in a name becomes ``_`` in
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
        line is named), a gene is unknown (the closest names are suggested, differences in case named), no gene of a
        concept has counts, a set covers all genes, names clash, or the embedding comes from another model.
    FileNotFoundError, IsADirectoryError
        If the path of a GMT file leads to none.

    Examples
    --------
    >>> stcsm.tl.concepts(adata, model, genes={"granule": ["Penk", "Nrgn"], "up and down": {"Penk": 1, "Doc2g": -1}})
    >>> stcsm.tl.concepts(adata, model, genes="hallmark.gmt", match="symbol")
    >>> stcsm.tl.concepts(adata, model, genes=decoupler.op.progeny(organism="mouse"))
    """
    if isinstance(genes, MatchedSets):
        given = {"groupby": groupby, "groups": groups, "rank_genes": rank_genes, "match": match}
        more = [name for name, value in given.items() if value is not None]
        if more:
            raise ValueError(
                f"Expected nothing beside matched gene sets, found {more[0]}=; give it to stcsm.tl.match_gene_sets"
            )
        if not genes.gene_names.equals(adata.var_names):
            raise ValueError("Expected gene sets matched to the genes of adata, found others; match them again")
    _check_estimator(estimator, model, groupby, genes is not None or rank_genes is not None)
    if model is not None:
        check_fits(adata, model)
    sets, labels = genes, None
    if estimator == PROFILE and model is not None:
        labels = group_labels(adata, str(groupby), model.setup)
        labels = labels.where(labels.isin(chosen_groups(labels, groups, str(groupby))))
    elif not isinstance(sets, MatchedSets):
        sets = match_gene_sets(
            adata, model, genes=genes, groupby=groupby, groups=groups, rank_genes=rank_genes, match=match,
            ignore_case=ignore_case, missing=missing, n_markers=n_markers,
        )  # fmt: skip
    encoded = None if model is None or is_embedded(adata, model) else encode_genes(model)
    latents = embedding(adata) if encoded is None else [mean for mean, _ in encoded]
    if labels is not None and model is not None:
        made = _from_profiles(model, labels, labels_coherence(adata, labels, model.setup))
    else:
        made, keys = [], distinct_keys(sets.names)
        for kind, found in sets.sources:
            made += _from_genes(found, kind, adata.var_names, latents, estimator, keys, sets.coherence)
    if model is not None and encoded is not None:
        write_embedding(adata, model, encoded)
    write_concepts(adata, made, latents, embedding_fingerprint(adata), keep)


def _check_estimator(estimator: str, model: GeneVAE | None, groupby: str | None, other_sources: bool) -> None:
    if estimator == PROFILE:
        if groupby is None or model is None or other_sources:
            raise ValueError(
                "Expected groupby='obs column' and model= alone with estimator='profile', which encodes the labels "
                "themselves; gene sets need estimator='contrast', 'mean' or 'cav' and a call of their own"
            )
    elif estimator not in ESTIMATORS:
        there = [*sorted(ESTIMATORS), PROFILE]
        raise ValueError(
            f"Expected estimator to be one of {there}, found {estimator!r}{did_you_mean(estimator, there)}"
        )


# ---- Gene sets


def _from_genes(
    found: GeneSetMatch,
    kind: str,
    var_names: pd.Index,
    latents: list[np.ndarray],
    estimator: str,
    keys: dict[str, str],
    coherence: Mapping[str, float],
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
                genes=np.array([as_text(g) for g in var_names[rows.indices[own]]], dtype=object),
                weights=rows.data[own],
                vectors=vectors[k],
                info={
                    "n_given": int(found.n_given[k]),
                    "n_found": int(found.n_found[k]),
                    "n_usable": int(found.n_usable[k]),
                    "n_ambiguous": int(found.n_ambiguous[k]),
                    **({"coherence": coherence[label]} if label in coherence else {}),
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


# ---- Labels as ideal genes


def _from_profiles(model: GeneVAE, labels: pd.Series, coherence: float) -> list[Concept]:
    """A concept for each label: an ideal gene that is expressed where the label is and nowhere else."""
    keys = distinct_keys(sorted(labels.dropna().unique()))
    profiles, vectors = _encoded_profiles(model, labels)
    nothing, sizes = np.array([], dtype=object), labels.value_counts()
    about = [{"n_spots": int(sizes[name]), "coherence": coherence} for name in profiles.names]
    return [
        Concept(keys[name], name, "label", PROFILE, nothing, np.array([]), vectors[k], about[k])
        for k, name in enumerate(profiles.names)
    ]


def _encoded_profiles(model: GeneVAE, labels: pd.Series) -> tuple[GroupProfiles, np.ndarray]:
    """Latents of ideal genes minus that of a gene expressed everywhere alike.

    Parameters
    ----------
    model
        Trained; its encoder takes depth-corrected counts over the spots.
    labels
        Label of every spot of the AnnData (text), NaN where there is none.

    Returns
    -------
    The K profiles, and concept vectors (K, M, L) for M members of the ensemble.

    Raises
    ------
    ValueError
        If labels are at fault (see :func:`stcsm.concepts.group_profiles`), or the model's input is another.
    """
    if model.sections is not None:
        raise ValueError(
            "Expected a model of one section, on the spots that it was trained on, for estimator='profile', found one "
            f"over the array positions of {len(model.section_names)} section(s); use estimator='contrast', which takes "
            "the label's marker genes"
        )
    profiles = group_profiles(
        labels.to_numpy(dtype=object)[model.spots],
        model.reader.depth,
        total=float(COUNTS_A_SPOT * len(model.spots)),
    )
    some = model.trained_genes[:1]
    theirs, ours = model.inputs(some), _inputs(model, model.samples.profiles(some))
    if theirs.shape != ours.shape or not torch.allclose(theirs, ours, atol=1e-5):
        raise ValueError(
            "Expected a model over spots with depth-corrected counts as input for estimator='profile', found another "
            "(a grid, or max-scaled counts); use estimator='contrast', which takes the label's marker genes"
        )
    inputs = _inputs(model, model.to_features(np.concatenate([profiles.background[None], profiles.counts])))
    vectors = []
    with torch.inference_mode():
        for encoder in model.encoders:
            z = encoder(inputs.to(model.device)).cpu().numpy().astype(np.float64)
            vectors.append(z[1:] - z[0])
    return profiles, np.stack(vectors, axis=1)


def _inputs(model: GeneVAE, counts: np.ndarray) -> torch.Tensor:
    """The model's input u for profiles (n, F) over its features that are no genes of the data."""
    expected = counts.sum(axis=1, keepdims=True) * model.samples.depth
    return torch.from_numpy(np.log1p(counts / (expected + 0.5)).astype(np.float32))
