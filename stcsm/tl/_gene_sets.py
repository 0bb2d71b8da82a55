"""Gene sets from whatever the user has (names, files, networks, columns, rankings, labels), matched to the genes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from stcsm import _lazy
from stcsm._text import as_text, by_its_text, did_you_mean, is_missing
from stcsm.concepts import (
    GeneIndex,
    GeneSet,
    GeneSetMatch,
    check_distinct,
    gene_set,
    gene_sets,
    gene_sets_from_network,
    highest,
    marker_scores,
    read_gmt,
)
from stcsm.concepts import match_gene_sets as match_to_index
from stcsm.models import GeneVAE, Setup, counts_of, gene_features, read_setup, spots_on_tissue
from stcsm.space import check_counts, count_totals, label_coherence
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
    coherence
        For each set made from a label, how often neighbours share one (:func:`stcsm.space.label_coherence`).
    """

    gene_names: pd.Index
    sources: tuple[tuple[str, GeneSetMatch], ...]
    coherence: Mapping[str, float] = field(default_factory=dict)

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
        coherence = {**self.coherence, **other.coherence}
        return MatchedSets(self.gene_names, (*self.sources, *other.sources), coherence)

    @property
    def names(self) -> list[str]:
        """Names of the sets, in order."""
        return [name for _, found in self.sources for name in found.names]

    @property
    def genes(self) -> dict[str, list[str]]:
        """Genes of each set that were found, by the names that the AnnData has for them."""
        return {
            name: [as_text(gene) for gene in self.gene_names[found.weights[[k]].indices]]
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
    totals = cache(lambda: _gene_totals(adata, model, setup))
    sources = [] if genes is None else [_given_sets(adata, genes, _gene_index(adata, match, totals))]
    coherence: dict[str, float] = {}
    if groupby is not None:
        labels, depth = _labels_and_depth(adata, groupby, setup)
        markers = _label_markers(adata, groupby, labels, depth, setup, n_markers, groups)
        sources.append(_Source(markers, "label", True, of_rows=True))
        coherence = dict.fromkeys((s.name for s in markers), labels_coherence(adata, labels, setup))
    if rank_genes is not None:
        sources.append(_ranked_sets(adata, rank_genes, n_markers))
    # Before the search, which may take long.
    _check_names([s.name for source in sources for s in source.sets])
    # A model that is not trained will have latents of the genes with counts.
    embedded = model is None and is_embedded(adata)
    usable = np.asarray(np.isfinite(embedding(adata)[0]).all(axis=1)) if embedded else totals() > 0
    matched = []
    for source in sources:
        report = missing == "report" or (missing == "auto" and not source.strict)
        index = GeneIndex(adata.var_names) if source.of_rows else _gene_index(adata, match, totals)
        try:
            found = match_to_index(
                source.sets,
                index,
                usable=usable,
                missing="report" if report else "error",
                unusable="skip" if report else "error",
                ignore_case=ignore_case,
            )
        except ValueError as error:
            raise ValueError(f"{error}{_in_raw_only(adata, source.sets)}") from None
        if report:
            _say_what_was_found(found)
        _say_which_rows(adata, index, found)
        matched.append((source.kind, found))
    return MatchedSets(adata.var_names, tuple(matched), coherence)


def _in_raw_only(adata: AnnData, sets: Sequence[GeneSet]) -> str:
    """What a message about unknown genes says of those that only ``adata.raw`` has; nothing where it has none."""
    if adata.raw is None:
        return ""
    only = set(adata.raw.var_names.astype(str)) - set(adata.var_names.astype(str))
    held = [gene for s in sets for gene in s.genes if gene in only]
    if not held:
        return ""
    return f" In adata.raw only: {first_few(held)}; adata = adata.raw.to_adata() has them."


def _check_names(names: list[str]) -> None:
    check_distinct(names)
    distinct_keys(names)


def _gene_totals(adata: AnnData, model: GeneVAE | None, setup: Setup) -> np.ndarray:
    """Counts (G,) of the genes, of a model's reader or of the AnnData."""
    if model is not None:
        return np.asarray(model.reader.gene_totals)
    return _totals_taken(adata, setup)[1]


def _totals_taken(adata: AnnData, setup: Setup) -> tuple[np.ndarray, np.ndarray]:
    """Counts of each spot (S,) and gene (G,) of those that are taken; zero for the others."""
    taken = spots_on_tissue(adata, setup), gene_features(adata, setup)
    return count_totals(counts_of(adata, setup.layer), *taken)


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


def _say_which_rows(adata: AnnData, index: GeneIndex, found: GeneSetMatch) -> None:
    """Log which genes stand for several rows, and which row is taken."""
    if not found.ambiguous or index.totals is None:
        return
    name, names = found.ambiguous[0], adata.var_names
    first, second, *more = index.rows(name)
    others = f", and {', '.join(map(repr, found.ambiguous[1:4]))}" if len(found.ambiguous) > 1 else ""
    others += f" and {len(found.ambiguous) - 4} more" if len(found.ambiguous) > 4 else ""
    logger.warning(
        f"several rows among the {index.what} belong to {len(found.ambiguous)} of the genes asked for; the row "
        f"with the most counts is taken: for {name!r} it is {names[first]!r} ({index.totals[first]:.0f} counts) and "
        f"not {names[second]!r} ({index.totals[second]:.0f}){f' or {len(more)} more' if more else ''}{others}"
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
    of_rows
        Whether genes are names of rows of this AnnData (markers, modules), which stand for themselves alone.
    """

    sets: list[GeneSet]
    kind: str
    strict: bool
    of_rows: bool = False


def _given_sets(adata: AnnData, genes: Any, index: GeneIndex) -> _Source:
    """Gene sets of what was passed as ``genes``; ``index`` has the names that they are matched to.

    Raises
    ------
    ValueError, TypeError
        If it is none of the forms, or a set is at fault.
    FileNotFoundError, IsADirectoryError
        If a path leads to no file.
    """
    if isinstance(genes, str) and genes in adata.var:
        return _Source(_var_column(_lazy.column(adata.var, genes)), "genes", True, of_rows=True)
    if isinstance(genes, (str, Path)):
        if isinstance(genes, str) and not _looks_like_a_path(genes) and not os.path.isfile(genes):
            raise ValueError(
                f"Expected a column of adata.var or a GMT file, found {genes!r}, which is neither; there are the "
                f"columns {sorted(map(str, adata.var))}"
            )
        return _Source(read_gmt(genes, known_genes=filter(None, index.names)), "genes", False)
    if isinstance(genes, pd.DataFrame):
        return _Source(_network(genes) if {"source", "target"} & set(genes) else _ranking(genes, index), "genes", False)
    if isinstance(genes, np.ndarray) and genes.dtype.names:
        return _Source(_ranking(pd.DataFrame(genes), index), "genes", False)
    hand_made = not isinstance(genes, GeneSet) and not (
        isinstance(genes, Sequence) and any(isinstance(s, GeneSet) for s in genes)
    )
    return _Source(gene_sets(genes), "genes", hand_made)


def _looks_like_a_path(text: str) -> bool:
    return text.startswith("~") or any(mark in text for mark in ("/", os.sep)) or Path(text).suffix in GMT_SUFFIXES


def _ranked_sets(adata: AnnData, key: str, n_markers: int) -> _Source:
    """The top genes of every group of a ``rank_genes_groups`` result in ``.uns``; positive scores only.

    ``scanpy.tl.filter_rank_genes_groups`` writes NaN in place of the genes that it leaves out; the next gene takes the
    place. A group of which it leaves nothing is left out with a warning.

    Raises
    ------
    ValueError
        If there is no such result, or no group has a gene of positive score.
    """
    result = _lazy.in_memory(adata.uns.get(key))
    if result is None or "names" not in result or "scores" not in result:
        raise ValueError(
            f"Expected a result of scanpy.tl.rank_genes_groups in adata.uns[{key!r}], found "
            f"{'none' if result is None else 'something else'}; run it first, or name its key"
        )
    known = set(adata.var_names)
    sets, without = [], []
    for group in result["names"].dtype.names:
        names, scores = (np.asarray(result[part][group]) for part in ("names", "scores"))
        # In a file, NaN among names has become text; a gene of such a name is one.
        there = [as_text(g) for g, s in zip(names, scores, strict=True) if s > 0 and (not is_missing(g) or g in known)]
        if is_missing(group):
            logger.warning(f"group {group!r} of {key!r} is left out: its spots have no label")
        elif there:
            sets.append(gene_set(group, there[:n_markers]))
        else:
            without.append(group)
    if not sets:
        raise ValueError(
            f"Expected genes that stand out in a group of {key!r}, found none of score above 0 in {first_few(without)}"
        )
    if without:
        logger.warning(f"groups of {key!r} without a gene of score above 0 are left out: {first_few(without)}")
    return _Source(sets, "label", False, of_rows=True)


def _gene_index(adata: AnnData, match: str | None, totals: Callable[[], np.ndarray]) -> GeneIndex:
    """Names to match gene sets on: those of the AnnData, or a column of ``.var``.

    Raises
    ------
    ValueError
        If there is no such column or it holds no text.
    """
    if match is None:
        return GeneIndex(adata.var_names, totals=totals)
    if match not in adata.var:
        raise ValueError(f"Expected a column of adata.var to match on, found {match!r}; there are {list(adata.var)}")
    return GeneIndex(_lazy.column(adata.var, match).astype(object), f"entries of adata.var[{match!r}]", totals)


def _ranking(table: pd.DataFrame, index: GeneIndex) -> list[GeneSet]:
    """A gene set a column, as scanpy ranks genes: ``pd.DataFrame(adata.uns["rank_genes_groups"]["names"])``.

    Raises
    ------
    ValueError
        If a column has no gene of the data or names one twice, or all columns hold the same genes in other orders.
    """
    empty = [str(name) for name in table if table[name].isna().all()]
    columns = {as_text(name): table[name].dropna() for name in table if str(name) not in empty}
    known = {name.casefold() for name in filter(None, index.names)}
    if not columns or any(
        c.duplicated().any() or not known & {as_text(g).casefold() for g in c} for c in columns.values()
    ):
        raise ValueError(
            f"Expected a network with the columns source, target and, if it is weighted, weight, or a column of "
            f"distinct genes for each set, found {list(map(str, table))}; rename them"
        )
    if empty:
        logger.warning(f"gene sets of which no name is left are left out: {first_few(empty)}")
    if gaps := int(table.isna().sum().sum()):
        logger.warning(f"{gaps} missing names (NaN) in {table.shape[1]} columns of genes are left out")
    sets = gene_sets({name: column.tolist() for name, column in columns.items()})
    if len(sets) > 1 and len({frozenset(s.genes) for s in sets}) == 1:
        raise ValueError(
            f"Expected another set of genes in every column, found the same {len(sets[0])} in all, in other orders; "
            "take the best of each, as with .head(30), or pass rank_genes= in place of genes="
        )
    return sets


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
    """A gene set of the genes marked True, or one for each module; genes without an entry are in none."""
    name = str(column.name)
    there = column[~column.map(is_missing).astype(bool).to_numpy()]
    values = there.unique()
    fractional = next((v for v in values if isinstance(v, (float, np.floating)) and not float(v).is_integer()), None)
    if fractional is not None or len(values) == 0:
        found = f"fractional numbers (such as {fractional})" if len(values) else "no entry"
        raise ValueError(f"Expected a boolean or categorical column of adata.var, found {found} in {name!r}")
    known = there.astype(object).map(as_text)
    modules = sorted(known.unique())
    if there.dtype.kind == "f" and len(modules) > MOST_NUMBERS:
        raise ValueError(
            f"Expected a boolean or categorical column of adata.var, found {len(modules)} different numbers in "
            f"{name!r}; if they are modules, make them integers: adata.var[{name!r}].astype('Int64')"
        )
    if set(modules) <= {"True", "False"}:  # of booleans beside NaN, which are objects, and categories in a file
        return gene_sets({name: list(known.index[known == "True"])})
    return gene_sets({module: list(known.index[known == module]) for module in modules})


# ---- Marker genes of labels


def label_texts(adata: AnnData, column: str) -> pd.Series:
    """Label of every spot as text; NaN for spots without one, or with a text that says so (``"nan"``, ``"NA"``).

    Such texts are what ``astype(str)`` makes of missing labels; a warning counts them.

    Raises
    ------
    ValueError
        If the column is absent.
    """
    if column not in adata.obs:
        raise ValueError(
            f"Expected a column of adata.obs, found {column!r}; there are {sorted(map(str, adata.obs))}"
            f"{did_you_mean(column, adata.obs)}"
        )
    codes, values = pd.factorize(_lazy.column(adata.obs, column))
    text = np.array([*(None if is_missing(v) else as_text(v) for v in values), None], dtype=object)
    said = {str(value): int((codes == k).sum()) for k, value in enumerate(values) if text[k] is None}
    if said:
        name = next(iter(said))
        logger.warning(
            f"{sum(said.values())} spots of adata.obs[{column!r}] have a text that stands for no label "
            f"({first_few(map(repr, said))}) and count as spots without one; if {name!r} is the name of a label, "
            f"rename it: adata.obs[{column!r}] = adata.obs[{column!r}].astype(object).replace({name!r}, 'another name')"
        )
    return pd.Series(text[codes], index=adata.obs_names, dtype=object)


def group_labels(adata: AnnData, column: str, setup: Setup) -> pd.Series:
    """Label of every spot as text; NaN for spots without a label or a count, beside the tissue, or alone in a label.

    Raises
    ------
    ValueError
        If the column is absent, holds numbers that are no labels, or fewer than two labels with two spots each.
    """
    return _labels_and_depth(adata, column, setup)[0]


def _labels_and_depth(adata: AnnData, column: str, setup: Setup) -> tuple[pd.Series, np.ndarray]:
    """Labels of :func:`group_labels`, and the counts of every spot (S,), zero beside the tissue."""
    labels = label_texts(adata, column)
    check_counts(counts_of(adata, setup.layer), adata.obs_names, adata.var_names)
    depth, _ = _totals_taken(adata, setup)
    text = labels[labels.notna().to_numpy() & (depth > 0)]
    kind = _lazy.column(adata.obs, column).dtype.kind
    if kind == "f":
        fractional = [value for value in text.unique() if not float(value).is_integer()]
        if fractional:
            raise ValueError(
                f"Expected labels in adata.obs[{column!r}], found fractional numbers (such as {fractional[0]}); cut "
                "them into classes first"
            )
    if kind in "iuf" and text.nunique() > MOST_NUMBERS:
        raise ValueError(
            f"Expected labels in adata.obs[{column!r}], found {text.nunique()} different numbers; if they are labels, "
            f"make them text: adata.obs[{column!r}] = adata.obs[{column!r}].astype(str)"
        )
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
    return text[text.isin(kept)].reindex(adata.obs_names), depth


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
    asked = [by_its_text(as_text(g), there) for g in ([groups] if isinstance(groups, str) else groups)]
    unknown = [g for g in asked if g not in there]
    if unknown or not asked:
        found, meant = repr(unknown[0]) if unknown else "none", ""
        if unknown and is_missing(unknown[0]):
            found += ", a text that stands for no label; rename that label"
        elif unknown:
            meant = did_you_mean(unknown[0], there)
        raise ValueError(
            f"Expected groups among the labels of adata.obs[{column!r}], found {found}; there are {there}{meant}"
        )
    return [g for g in there if g in asked]


def labels_coherence(adata: AnnData, labels: pd.Series, setup: Setup) -> float:
    """How often neighbours of a section share a label, beyond chance; the mean over spots of several sections."""
    known = labels.notna().to_numpy()
    coords = np.asarray(adata.obsm[setup.spatial_key], dtype=np.float64)
    key = setup.batch_key
    sections = np.full(adata.n_obs, "") if key is None else _lazy.column(adata.obs, key).astype(str).to_numpy()
    codes = pd.Categorical(labels).codes.astype(np.int64)
    parts = [np.flatnonzero(known & (sections == s)) for s in np.unique(sections)]
    parts = [own for own in parts if len(own) > 1]
    sizes = [len(own) for own in parts]
    return float(np.average([label_coherence(codes[own], coords[own]) for own in parts], weights=sizes))


def _label_markers(
    adata: AnnData,
    column: str,
    labels: pd.Series,
    depth: np.ndarray,
    setup: Setup,
    n_markers: int,
    groups: Sequence[str] | None = None,
) -> list[GeneSet]:
    """The genes that stand out in each label of an ``obs`` column (t-test on log-normalised counts).

    Counts are read in blocks of bounded memory, for the depths and for the test.

    Spots without a label or a count, or beside the tissue, are left out, and so are labels of a single spot, which no
    test can compare, and features that are no genes.

    Parameters
    ----------
    adata
        Spots x genes; not changed.
    column
        Column of ``adata.obs``.
    labels, depth
        Of it (:func:`_labels_and_depth`).
    setup
        Where the counts are, and which spots and features are taken.
    n_markers
        At most so many genes a label: those of highest t statistic, positive ones only.
    groups
        Labels to return genes of; all of them for None. The others stay among what they are compared with.

    Raises
    ------
    ValueError
        If no gene stands out in a label.
    """
    kept = sorted(labels.dropna().unique())
    codes = pd.Categorical(labels, kept).codes
    scores = marker_scores(counts_of(adata, setup.layer), depth, codes, len(kept))
    scores[:, ~gene_features(adata, setup)] = -np.inf
    sets = []
    for name in chosen_groups(labels, groups, column):
        own = scores[kept.index(name)]
        top = highest(own)[:n_markers]
        positive = list(adata.var_names[top[own[top] > 0]].astype(str))
        if not positive:
            raise ValueError(f"Expected genes that stand out in {name!r}, found none; take fewer labels: groups=...")
        sets.append(gene_set(name, positive))
    return sets
