"""What plots read of what tl wrote."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from anndata import AnnData

from stcsm import _keys
from stcsm._lazy import in_memory
from stcsm._text import by_its_text, did_you_mean
from stcsm._verdict import by_q

logger = logging.getLogger(__name__)

MAKERS = {
    _keys.CONCEPT_SALIENCY: "stcsm.tl.saliency(adata, model)",
    _keys.CONCEPT_MAP: "stcsm.tl.concept_map(adata, model)",
    _keys.CONCEPT_DECODED: "stcsm.tl.decoded(adata, model)",
    _keys.CONCEPT_EXPRESSION: "stcsm.tl.mean_expression(adata)",
    _keys.CONCEPT_SCORE: "stcsm.tl.concepts(adata, model, genes={...})",
    _keys.EMBEDDING: "stcsm.tl.embed_genes(adata, model)",
}
"""The step that writes each table."""
MOST_PANELS = 24
"""Panels of a figure that names no concepts."""


def entry(adata: AnnData, name: str) -> dict[str, Any]:
    """Entry of ``.uns["stcsm"]``; empty where it is absent."""
    found: dict[str, Any] = in_memory(dict(adata.uns.get(_keys.UNS, {}).get(name, {})))
    return found


def stored(adata: AnnData) -> dict[str, Any]:
    """Records of the concepts in ``.uns``."""
    return entry(adata, "concepts")


def table(adata: AnnData, key: str, concepts: Sequence[str] | str | None, where: str = "obsm") -> pd.DataFrame:
    """Table of concepts, restricted to some of them; columns are keys.

    Raises
    ------
    ValueError
        If the step that writes it has not run, or if a concept is unknown.
    """
    holder = getattr(adata, where)
    if key not in holder:
        if key in MAKERS:
            raise ValueError(f"Expected adata.{where}[{key!r}], found none; run {MAKERS[key]} first")
        there = sorted(k for k in map(str, holder) if k in MAKERS and k != _keys.EMBEDDING)
        raise ValueError(f"Expected key to be a table of concepts in adata.{where}, found {key!r}; there are {there}")
    whole = pd.DataFrame(in_memory(holder[key]))
    if concepts is None:
        return whole
    return whole[_chosen(adata, concepts, [str(c) for c in whole], MAKERS.get(key, "the step that writes it"))]


def _chosen(adata: AnnData, concepts: Sequence[str] | str, known: list[str], maker: str) -> list[str]:
    """Keys of the concepts asked for, by key or by the user's name."""
    records = stored(adata)
    by_label = {records.get(key, {}).get("label", key): key for key in known}
    wanted = [concepts] if isinstance(concepts, str) else list(concepts)
    meant = [by_its_text(str(name), [*known, *map(str, by_label)]) for name in wanted]
    names = [name if name in known else by_label.get(name, name) for name in meant]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(
            f"Expected concepts among {known}, found {unknown[0] if unknown else 'none'!r}; if it is new, run {maker} "
            f"again{did_you_mean(unknown[0], [*known, *by_label]) if unknown else ''}"
        )
    return names


def label(adata: AnnData, key: str) -> str:
    """The concept's name as the user gave it."""
    return stored(adata).get(key, {}).get("label", key)


def sanity_record(adata: AnnData, concepts: Sequence[str] | str | None = None) -> tuple[dict[str, Any], list[int]]:
    """What :func:`stcsm.tl.sanity` wrote, and the rows of some concepts in it.

    Raises
    ------
    ValueError
        If it has not run, or a concept is unknown.
    """
    record = entry(adata, "sanity")
    if not record:
        raise ValueError("Expected adata.uns['stcsm']['sanity'], found none; run stcsm.tl.sanity(adata, model) first")
    keys = [str(key) for key in record["concepts"]]
    if concepts is None:
        return record, list(range(len(keys)))
    names = _chosen(adata, concepts, keys, "stcsm.tl.sanity(adata, model)")
    return record, [keys.index(name) for name in names]


def verdict(adata: AnnData, key: str, shown: str) -> str:
    """Second line of a concept's title: what the test of its saliency map says; empty where it was not tested.

    ``shown`` is the key of the maps that are drawn. Saliency maps under a key of their own have their own test; above
    other maps the line says that the saliency was tested.
    """
    saliency = tested_key(adata, shown)
    tested = entry(adata, _keys.record("significance", saliency))
    if not tested or key not in tested["table"].index:
        return ""
    q = float(tested["table"].loc[key, "q"])
    return "" if math.isnan(q) else ("" if shown == saliency else "saliency ") + by_q(q)


def tested_key(adata: AnnData, shown: str) -> str:
    """Key of the saliency maps whose test belongs to the maps that are drawn."""
    recorded = entry(adata, _keys.record("saliency", shown)) if shown not in _keys.MAPS.values() else {}
    return shown if recorded else _keys.CONCEPT_SALIENCY


def panels(adata: AnnData, values: pd.DataFrame, concepts: Sequence[str] | str | None) -> pd.DataFrame:
    """At most 24 concepts for a figure of all of them, the most significant ones where they were tested.

    Concepts that were asked for by name are all shown.
    """
    if concepts is not None or values.shape[1] <= MOST_PANELS:
        return values
    tested = entry(adata, "significance")
    names, which = list(values), "first"
    if tested:
        rank = tested["table"].sort_values(["p", "strength"], ascending=[True, False], kind="stable").index
        known = set(names)
        names, which = [*(k for k in rank if k in known), *(k for k in names if k not in set(rank))], "most significant"
    logger.warning(f"{values.shape[1]} concepts: the {MOST_PANELS} {which} are shown; name others with concepts=[...]")
    return values[names[:MOST_PANELS]]
