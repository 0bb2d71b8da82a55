"""Reading what tl wrote, for plots."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from anndata import AnnData

from stcsm import _keys

logger = logging.getLogger(__name__)

MAKERS = {
    _keys.CONCEPT_SALIENCY: "stcsm.tl.saliency(adata, model)",
    _keys.CONCEPT_MAP: "stcsm.tl.concept_map(adata, model)",
    _keys.CONCEPT_DECODED: "stcsm.tl.decoded(adata, model)",
    _keys.CONCEPT_EXPRESSION: "stcsm.tl.mean_expression(adata)",
    _keys.CONCEPT_SCORE: "stcsm.tl.concepts(adata, model, genes={...})",
    _keys.EMBEDDING: "stcsm.tl.embed_genes(adata, model)",
}


def stored(adata: AnnData) -> dict[str, Any]:
    """Concepts as they stand in ``.uns``."""
    return dict(adata.uns.get(_keys.UNS, {}).get("concepts", {}))


def highest(scores: pd.Series, concept: dict[str, Any], n: int) -> list[tuple[str, float, int]]:
    """Genes to show of a concept: (name, score, rank from 1), the ``n`` highest.

    Where none of the concept's own genes is among them, the highest that speaks for it follows; genes that count
    against it (of negative weight) belong at the other end.
    """
    ordered = scores.dropna().sort_values(ascending=False, kind="stable")
    names = list(map(str, ordered.index))
    rows = [(name, float(s), i + 1) for i, (name, s) in enumerate(zip(names[:n], ordered, strict=False))]
    members = list(map(str, concept.get("genes", ())))
    weights = concept.get("weights", [1.0] * len(members))
    own = {name for name, weight in zip(members, weights, strict=True) if weight > 0}
    best = next((i for i, name in enumerate(names) if name in own), 0)
    return [*rows, (names[best], float(ordered.iloc[best]), best + 1)] if best >= n else rows


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
    whole = pd.DataFrame(holder[key])
    if concepts is None:
        return whole
    by_label = {record["label"]: name for name, record in stored(adata).items()}
    wanted = [concepts] if isinstance(concepts, str) else list(concepts)
    names = [name if name in whole else by_label.get(name, name) for name in wanted]
    unknown = [name for name in names if name not in whole]
    if unknown or not names:
        raise ValueError(
            f"Expected concepts among {list(whole)}, found {unknown[0] if unknown else 'none'!r}; "
            f"if it is new, run {MAKERS.get(key, 'the step that writes it')} again"
        )
    return whole[names]


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
    record = dict(adata.uns.get(_keys.UNS, {}).get("sanity", {}))
    if not record:
        raise ValueError("Expected adata.uns['stcsm']['sanity'], found none; run stcsm.tl.sanity(adata, model) first")
    keys = [str(key) for key in record["concepts"]]
    if concepts is None:
        return record, list(range(len(keys)))
    wanted = [concepts] if isinstance(concepts, str) else list(concepts)
    by_label = {label(adata, key): key for key in keys}
    names = [name if name in keys else by_label.get(name, name) for name in wanted]
    unknown = [name for name in names if name not in keys]
    if unknown or not names:
        raise ValueError(
            f"Expected concepts among {keys}, found {unknown[0] if unknown else 'none'!r}; if it is new, run "
            "stcsm.tl.sanity(adata, model) again"
        )
    return record, [keys.index(name) for name in names]


def p_and_q(adata: AnnData, key: str, shown: str) -> str:
    """Second line of a concept's title: p and q of its saliency map; empty where it was not tested.

    ``shown`` is the key of the maps that are drawn: of others than the saliency it is said which map was tested.
    """
    tested = adata.uns.get(_keys.UNS, {}).get("significance")
    if not tested or key not in tested["table"].index:
        return ""
    p, q = (float(tested["table"].loc[key, name]) for name in ("p", "q"))
    of = "" if shown == _keys.CONCEPT_SALIENCY else "saliency: "
    return "" if math.isnan(p) else f"{of}p = {p:.2g}, q = {q:.2g}"


def some(adata: AnnData, values: pd.DataFrame, concepts: Sequence[str] | str | None, most: int) -> pd.DataFrame:
    """At most so many concepts for a figure of all of them, the most significant ones where they were tested.

    Concepts that were asked for by name are shown however many they are.
    """
    if concepts is not None or values.shape[1] <= most:
        return values
    tested = adata.uns.get(_keys.UNS, {}).get("significance")
    names, which = list(values), "first"
    if tested:
        rank = tested["table"].sort_values(["p", "strength"], ascending=[True, False], kind="stable").index
        known = set(names)
        names, which = [*(k for k in rank if k in known), *(k for k in names if k not in set(rank))], "most significant"
    logger.warning(f"{values.shape[1]} concepts: the {most} {which} are shown; name others with concepts=[...]")
    return values[names[:most]]
