"""Marker genes of spot labels, through scanpy."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse

from stcsm.concepts import GeneSet, gene_set
from stcsm.models import counts_of
from stcsm.space import check_counts, row_blocks

logger = logging.getLogger(__name__)


MOST_NUMBERS = 50
"""A column with more different numbers than this is a measurement, not labels."""


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def layer_labels(adata: ad.AnnData, column: str, layer: str | None) -> pd.Series:
    """Label of every spot as text; NaN for spots without a label or a count, and for layers of a single spot.

    Raises
    ------
    ValueError
        If the column is absent, holds numbers that are no labels, or fewer than two layers with two spots each.
    """
    if column not in adata.obs:
        alike = [c for c in map(str, adata.obs) if c.casefold() == str(column).casefold()]
        meant = f"did you mean {alike[0]!r}? " if alike else ""
        raise ValueError(
            f"Expected a column of adata.obs, found {column!r}; {meant}there are {sorted(map(str, adata.obs))}"
        )
    matrix = counts_of(adata, layer)
    check_counts(matrix, adata.obs_names, adata.var_names)
    labels = adata.obs[column]
    seen = np.concatenate([np.asarray(block.sum(axis=1)).ravel() for _, block in row_blocks(matrix)]) > 0
    known = labels[labels.notna().to_numpy() & seen]
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
        logger.warning(f"layers of a single spot are left out, no test can compare them: {_some(single)}")
    kept = sorted(sizes.index[sizes >= 2])
    if len(kept) < 2:
        raise ValueError(
            f"Expected at least two layers with two spots or more in adata.obs[{column!r}], found {len(kept)} "
            f"({len(sizes)} labels); a layer's markers stand out against other layers"
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


def layer_markers(
    adata: ad.AnnData, column: str, layer: str | None, n_markers: int, groups: Sequence[str] | None = None
) -> list[GeneSet]:
    """The genes that stand out in each layer of an ``obs`` column (t-test on log-normalised counts).

    Spots without a label or a count are left out, and so are layers of a single spot, which no test can compare.

    Parameters
    ----------
    adata
        Spots x genes; not changed.
    column
        Column of ``adata.obs``.
    layer
        Layer of the counts; None is ``.X``.
    n_markers
        At most so many genes a layer: those of highest t statistic, positive ones only.
    groups
        Labels to return genes of; all of them for None. The others stay among what they are compared with.

    Raises
    ------
    ValueError
        If the column is at fault (see :func:`layer_labels`), or no gene stands out in a layer.
    """
    labels = layer_labels(adata, column, layer)
    text = labels.dropna()
    kept = sorted(text.unique())
    matrix = counts_of(adata, layer)
    rows = np.flatnonzero(labels.notna().to_numpy())
    counts = matrix[rows]
    subset = ad.AnnData(
        sparse.csr_matrix(counts, dtype=np.float32),
        obs=pd.DataFrame({"label": pd.Categorical(text.to_numpy(), kept)}, index=text.index),
        var=pd.DataFrame(index=adata.var_names),
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
            raise ValueError(f"Expected genes that stand out in layer {name!r}, found none")
        sets.append(gene_set(name, positive))
    return sets
