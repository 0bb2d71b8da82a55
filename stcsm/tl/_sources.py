"""Gene sets from whatever the user has: names, files, networks, columns, rankings, layers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from stcsm._files import existing_file
from stcsm.concepts import GeneIndex, GeneSet, gene_set, gene_sets, gene_sets_from_network, read_gmt

WEIGHTS = ("weight", "mor")
"""Columns of a network that may hold its weights: decoupler 2's name and decoupler 1's."""

GMT_SUFFIXES = (".gmt", ".gz", ".txt")


@dataclass(frozen=True)
class Source:
    """Gene sets of one origin.

    Attributes
    ----------
    sets
        The sets.
    kind
        ``"genes"`` or ``"layer"``, as it is stored with each concept.
    strict
        Whether every gene has to be there (names typed by hand) or may be missing (collections made for other data).
    """

    sets: list[GeneSet]
    kind: str
    strict: bool


def given_sets(adata: AnnData, genes: Any) -> Source:
    """Gene sets of what was passed as ``genes``.

    Raises
    ------
    ValueError, TypeError
        If it is none of the forms, or a set is at fault.
    FileNotFoundError, IsADirectoryError
        If a path leads to no file.
    """
    if isinstance(genes, str) and genes in adata.var:
        return Source(_var_column(adata.var[genes]), "genes", True)
    if isinstance(genes, (str, Path)):
        if isinstance(genes, str) and not _looks_like_a_path(genes) and not os.path.isfile(genes):
            raise ValueError(
                f"Expected a column of adata.var or a GMT file, found {genes!r}, which is neither; there are the "
                f"columns {sorted(map(str, adata.var))}"
            )
        return Source(read_gmt(existing_file(genes, "a GMT file")), "genes", False)
    if isinstance(genes, pd.DataFrame):
        return Source(_network(genes), "genes", False)
    hand_made = not isinstance(genes, GeneSet) and not (
        isinstance(genes, Sequence) and any(isinstance(s, GeneSet) for s in genes)
    )
    return Source(gene_sets(genes), "genes", hand_made)


def _looks_like_a_path(text: str) -> bool:
    return text.startswith("~") or any(mark in text for mark in ("/", os.sep)) or Path(text).suffix in GMT_SUFFIXES


def ranked_sets(adata: AnnData, key: str, n_markers: int) -> Source:
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
    return Source(sets, "layer", False)


def gene_index(adata: AnnData, match: str | None) -> GeneIndex:
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
