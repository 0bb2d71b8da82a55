"""Gene sets from whatever the user has (names, files, networks, columns, rankings, labels), matched to the genes."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from scipy import sparse

from stcsm._files import existing_file
from stcsm.concepts import (
    GeneIndex,
    GeneSet,
    GeneSetMatch,
    check_distinct,
    gene_set,
    gene_sets,
    gene_sets_from_network,
    read_gmt,
)
from stcsm.concepts import match_gene_sets as match_to_index
from stcsm.models import GeneVAE, Setup, counts_of, gene_features, read_setup, spots_on_tissue
from stcsm.space import check_counts, row_blocks
from stcsm.tl._state import distinct_keys, embedding, first_few, is_embedded

logger = logging.getLogger(__name__)

WEIGHTS = ("weight", "mor")
"""Columns of a network that may hold its weights: decoupler 2's name and decoupler 1's."""
GMT_SUFFIXES = (".gmt", ".gz", ".txt")
MOST_NUMBERS = 50
"""A column with more different numbers than this is a measurement, not labels."""


@dataclass(frozen=True)
class MatchedSets:
    """Gene sets, matched to the genes of an AnnData: what concepts are made of.

    ``+`` joins those of several sources; names have to differ.

    Attributes
    ----------
    gene_names
        (G,) genes that they were matched to.
    sources
        For each collection, ``"genes"`` or ``"label"`` (marker genes), and its sets over these genes.
    """

    gene_names: pd.Index
    sources: tuple[tuple[str, GeneSetMatch], ...]

    def __post_init__(self) -> None:
        """Refuse names that cannot stand side by side.

        Raises
        ------
        ValueError
            If two sets have one name, or names that are one in a file.
        """
        _check_names(self.names)

    def __len__(self) -> int:
        """Number of sets."""
        return len(self.names)

    def __add__(self, other: MatchedSets) -> MatchedSets:
        """Sets of both."""
        if not self.gene_names.equals(other.gene_names):
            raise ValueError("Expected gene sets matched to the same genes, found others; match them to one AnnData")
        return MatchedSets(self.gene_names, (*self.sources, *other.sources))

    @property
    def names(self) -> list[str]:
        """Names of the sets, in order."""
        return [name for _, found in self.sources for name in found.names]

    @property
    def genes(self) -> dict[str, list[str]]:
        """Genes of each set that were found, by the names that the AnnData has for them."""
        return {
            name: list(self.gene_names[found.weights[[k]].indices])
            for _, found in self.sources
            for k, name in enumerate(found.names)
        }


def match_gene_sets(
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
    n_markers: int = 30,
) -> MatchedSets:
    """Find the genes of gene sets, and the marker genes of labels, before a model is trained.

    What is wrong with them is said now and not after the training; :func:`stcsm.tl.concepts` takes the result in place
    of gene sets and does not search again.

    Parameters
    ----------
    adata
        Spots x genes, set up (:meth:`stcsm.models.GeneVAE.setup_anndata`); not changed.
    model
        A model of ``adata``, trained or not, which knows which genes have counts.
    genes, groupby, groups, rank_genes, match, ignore_case, missing, n_markers
        As for :func:`stcsm.tl.concepts`.

    Returns
    -------
    MatchedSets
        ``names`` of the sets, ``genes`` of each that were found, and their weights.

    Raises
    ------
    ValueError, FileNotFoundError, IsADirectoryError
        As for :func:`stcsm.tl.concepts`.

    Examples
    --------
    >>> sets = stcsm.tl.match_gene_sets(adata, model, genes="hallmark.gmt", match="symbol")
    >>> model.train()
    >>> stcsm.tl.concepts(adata, model, genes=sets)
    """
    if genes is None and groupby is None and rank_genes is None:
        raise ValueError("Expected genes={name: [genes]}, groupby='obs column' or rank_genes='uns key', found neither")
    if missing not in ("auto", "error", "report"):
        raise ValueError(f"Expected missing to be 'auto', 'error' or 'report', found {missing!r}")
    if n_markers < 1:
        raise ValueError(f"Expected n_markers of 1 or more, found {n_markers}")
    setup = read_setup(adata) if model is None else model.setup
    sources = [] if genes is None else [_given_sets(adata, genes)]
    if groupby is not None:
        sources.append(_Source(_label_markers(adata, groupby, setup, n_markers, groups), "label", True))
    if rank_genes is not None:
        sources.append(_ranked_sets(adata, rank_genes, n_markers))
    # Before the search, which may take long.
    _check_names([s.name for source in sources for s in source.sets])
    usable = _usable_genes(adata, model, setup)
    matched = []
    for source in sources:
        report = missing == "report" or (missing == "auto" and not source.strict)
        found = match_to_index(
            source.sets,
            _gene_index(adata, match if source.kind == "genes" else None),
            usable=usable,
            missing="report" if report else "error",
            unusable="skip" if report else "error",
            ignore_case=ignore_case,
        )
        if report:
            _say_what_was_found(found)
        matched.append((source.kind, found))
    return MatchedSets(adata.var_names, tuple(matched))


def _check_names(names: list[str]) -> None:
    check_distinct(names)
    distinct_keys(names)


def _usable_genes(adata: AnnData, model: GeneVAE | None, setup: Setup) -> np.ndarray:
    """Genes (G,) that have a latent, or will have one when a model is trained: those with counts."""
    if model is not None:
        return np.asarray(model.reader.gene_totals) > 0
    if is_embedded(adata):
        return np.asarray(np.isfinite(embedding(adata)[0]).all(axis=1))
    total, on_tissue = np.zeros(adata.n_vars), spots_on_tissue(adata, setup)
    for start, block in row_blocks(counts_of(adata, setup.layer)):
        total += np.asarray(block[on_tissue[start : start + block.shape[0]]].sum(axis=0)).ravel()
    return (total > 0) & gene_features(adata, setup)


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


# ---- Gene sets as they are given


@dataclass(frozen=True)
class _Source:
    """Gene sets of one origin.

    Attributes
    ----------
    sets
        The sets.
    kind
        ``"genes"`` or ``"label"``, as it is stored with each concept.
    strict
        Whether every gene has to be there (names typed by hand) or may be missing (collections made for other data).
    """

    sets: list[GeneSet]
    kind: str
    strict: bool


def _given_sets(adata: AnnData, genes: Any) -> _Source:
    """Gene sets of what was passed as ``genes``.

    Raises
    ------
    ValueError, TypeError
        If it is none of the forms, or a set is at fault.
    FileNotFoundError, IsADirectoryError
        If a path leads to no file.
    """
    if isinstance(genes, str) and genes in adata.var:
        return _Source(_var_column(adata.var[genes]), "genes", True)
    if isinstance(genes, (str, Path)):
        if isinstance(genes, str) and not _looks_like_a_path(genes) and not os.path.isfile(genes):
            raise ValueError(
                f"Expected a column of adata.var or a GMT file, found {genes!r}, which is neither; there are the "
                f"columns {sorted(map(str, adata.var))}"
            )
        return _Source(read_gmt(existing_file(genes, "a GMT file")), "genes", False)
    if isinstance(genes, pd.DataFrame):
        return _Source(_network(genes), "genes", False)
    hand_made = not isinstance(genes, GeneSet) and not (
        isinstance(genes, Sequence) and any(isinstance(s, GeneSet) for s in genes)
    )
    return _Source(gene_sets(genes), "genes", hand_made)


def _looks_like_a_path(text: str) -> bool:
    return text.startswith("~") or any(mark in text for mark in ("/", os.sep)) or Path(text).suffix in GMT_SUFFIXES


def _ranked_sets(adata: AnnData, key: str, n_markers: int) -> _Source:
    """The top genes of every group of a ``rank_genes_groups`` result in ``.uns``; positive scores only.

    Raises
    ------
    ValueError
        If there is no such result, or a group has no gene of positive score.
    """
    result = adata.uns.get(key)
    if result is None or "names" not in result or "scores" not in result:
        raise ValueError(
            f"Expected a result of scanpy.tl.rank_genes_groups in adata.uns[{key!r}], found "
            f"{'none' if result is None else 'something else'}; run it first, or name its key"
        )
    sets = []
    for group in result["names"].dtype.names:
        names, scores = (np.asarray(result[part][group])[:n_markers] for part in ("names", "scores"))
        positive = [str(g) for g, s in zip(names, scores, strict=True) if s > 0]
        if not positive:
            raise ValueError(
                f"Expected genes that stand out in group {group!r} of {key!r}, found none of score above 0"
            )
        sets.append(gene_set(group, positive))
    return _Source(sets, "label", False)


def _gene_index(adata: AnnData, match: str | None) -> GeneIndex:
    """Names to match gene sets on: those of the AnnData, or a column of ``.var``.

    Raises
    ------
    ValueError
        If there is no such column or it holds no text.
    """
    if match is None:
        return GeneIndex(adata.var_names)
    if match not in adata.var:
        raise ValueError(f"Expected a column of adata.var to match on, found {match!r}; there are {list(adata.var)}")
    return GeneIndex(adata.var[match].astype(object), f"entries of adata.var[{match!r}]")


def _network(table: pd.DataFrame) -> list[GeneSet]:
    missing = [c for c in ("source", "target") if c not in table]
    if missing:
        raise ValueError(
            f"Expected a network with the columns source, target and, if it is weighted, weight, found "
            f"{list(map(str, table))}; rename them"
        )
    weight = next((c for c in WEIGHTS if c in table), None)
    return gene_sets_from_network(
        table["source"].astype(object).to_numpy(),
        table["target"].astype(object).to_numpy(),
        None if weight is None else table[weight].to_numpy(),
    )


def _var_column(column: pd.Series) -> list[GeneSet]:
    name = str(column.name)
    if column.dtype == bool or column.dtype == "boolean":
        return [gene_sets({name: list(column.index[column.fillna(False).astype(bool)])})[0]]
    if column.dtype.kind == "f":
        raise ValueError(f"Expected a boolean or categorical column of adata.var, found numbers in {name!r}")
    known = column.dropna().astype(str)
    return gene_sets({str(value): list(known.index[known == value]) for value in sorted(known.unique())})


# ---- Marker genes of labels


def group_labels(adata: AnnData, column: str, setup: Setup) -> pd.Series:
    """Label of every spot as text; NaN for spots without a label or a count, beside the tissue, or alone in a label.

    Raises
    ------
    ValueError
        If the column is absent, holds numbers that are no labels, or fewer than two labels with two spots each.
    """
    if column not in adata.obs:
        alike = [c for c in map(str, adata.obs) if c.casefold() == str(column).casefold()]
        meant = f"did you mean {alike[0]!r}? " if alike else ""
        raise ValueError(
            f"Expected a column of adata.obs, found {column!r}; {meant}there are {sorted(map(str, adata.obs))}"
        )
    matrix = counts_of(adata, setup.layer)
    check_counts(matrix, adata.obs_names, adata.var_names)
    labels = adata.obs[column]
    seen = np.concatenate([np.asarray(block.sum(axis=1)).ravel() for _, block in row_blocks(matrix)]) > 0
    known = labels[labels.notna().to_numpy() & seen & spots_on_tissue(adata, setup)]
    if known.dtype.kind == "f":
        # Whole numbers beside NaN are floats in pandas.
        if not (known % 1 == 0).all():
            raise ValueError(
                f"Expected labels in adata.obs[{column!r}], found fractional numbers (such as "
                f"{known[known % 1 != 0].iloc[0]}); cut them into classes first"
            )
        known = known.astype(int)
    if known.dtype.kind in "iu" and known.nunique() > MOST_NUMBERS:
        raise ValueError(
            f"Expected labels in adata.obs[{column!r}], found {known.nunique()} different numbers; if they are labels, "
            f"make them text: adata.obs[{column!r}] = adata.obs[{column!r}].astype(str)"
        )
    text = known.astype(str)
    text = text[text.str.strip() != ""]
    sizes = text.value_counts()
    single = sorted(sizes.index[sizes < 2])
    if single:
        logger.warning(f"labels of a single spot are left out, no test can compare them: {first_few(single)}")
    kept = sorted(sizes.index[sizes >= 2])
    if len(kept) < 2:
        raise ValueError(
            f"Expected at least two labels with two spots or more in adata.obs[{column!r}], found {len(kept)} of "
            f"{len(sizes)}; the marker genes of a label stand out against the spots of other labels"
        )
    return text[text.isin(kept)].astype(object).reindex(adata.obs_names)


def chosen_groups(labels: pd.Series, groups: Sequence[str] | str | None, column: str) -> list[str]:
    """Those of the labels that were asked for, sorted; all of them for None.

    Raises
    ------
    ValueError
        If a group is none of the labels, or none is given.
    """
    there = sorted(labels.dropna().unique())
    if groups is None:
        return there
    asked = [groups] if isinstance(groups, str) else [str(g) for g in groups]
    unknown = [g for g in asked if g not in there]
    if unknown or not asked:
        found = repr(unknown[0]) if unknown else "none"
        raise ValueError(f"Expected groups among the labels of adata.obs[{column!r}], found {found}; there are {there}")
    return [g for g in there if g in asked]


def _label_markers(
    adata: AnnData, column: str, setup: Setup, n_markers: int, groups: Sequence[str] | None = None
) -> list[GeneSet]:
    """The genes that stand out in each label of an ``obs`` column (t-test on log-normalised counts).

    Spots without a label or a count, or beside the tissue, are left out, and so are labels of a single spot, which no
    test can compare, and features that are no genes.

    Parameters
    ----------
    adata
        Spots x genes; not changed.
    column
        Column of ``adata.obs``.
    setup
        Where the counts are, and which spots and features are taken.
    n_markers
        At most so many genes a label: those of highest t statistic, positive ones only.
    groups
        Labels to return genes of; all of them for None. The others stay among what they are compared with.

    Raises
    ------
    ValueError
        If the column is at fault (see :func:`group_labels`), or no gene stands out in a label.
    """
    labels = group_labels(adata, column, setup)
    text = labels.dropna()
    kept = sorted(text.unique())
    matrix = counts_of(adata, setup.layer)
    rows = np.flatnonzero(labels.notna().to_numpy())
    genes = gene_features(adata, setup)
    counts = matrix[rows]
    if not genes.all():
        counts = counts[:, genes]
    subset = ad.AnnData(
        sparse.csr_matrix(counts, dtype=np.float32),
        obs=pd.DataFrame({"label": pd.Categorical(text.to_numpy(), kept)}, index=text.index),
        var=pd.DataFrame(index=adata.var_names[genes]),
    )
    sc.pp.normalize_total(subset, target_sum=1e4)
    sc.pp.log1p(subset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.PerformanceWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        sc.tl.rank_genes_groups(subset, "label", method="t-test")
    result = subset.uns["rank_genes_groups"]
    sets = []
    for name in chosen_groups(text, groups, column):
        genes, scores = result["names"][name][:n_markers], result["scores"][name][:n_markers]
        positive = [str(g) for g, s in zip(genes, scores, strict=True) if s > 0]
        if not positive:
            raise ValueError(f"Expected genes that stand out in {name!r}, found none; take fewer labels: groups=...")
        sets.append(gene_set(name, positive))
    return sets
