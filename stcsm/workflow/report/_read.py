"""What a report says, read from the keys that tl wrote."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from stcsm import _keys, pl
from stcsm._verdict import by_q, stronger, together

TOP_GENES = 12
MOST_OWN = 12
"""Genes of a concept that are named."""


def concept_rows(adata: AnnData, most: int) -> tuple[list[dict[str, Any]], int]:
    """What is known of each concept, and how many concepts were left out because there are too many."""
    own = dict(adata.uns[_keys.UNS])
    stored = own["concepts"]
    about = pd.DataFrame(own.get(_keys.CONCEPT_INFO, {}))
    sources = dict(zip(map(str, about.index), about.get("source", ()), strict=True))
    keys = [*(k for k in sources if k in stored), *(k for k in stored if k not in sources)]
    tests = pd.DataFrame(own["significance"]["table"]) if "significance" in own else pd.DataFrame()
    checks = pd.DataFrame(own["sanity"]["summary"]) if "sanity" in own else pd.DataFrame()
    if len(keys) > most and len(tests):
        rank = tests.sort_values(["p", "strength"], ascending=[True, False], kind="stable").index.astype(str)
        keys = [k for k in rank if k in stored] + [k for k in keys if k not in set(rank)]
    rows = [
        _row(adata, k, {**stored[k], "source": sources.get(k, stored[k].get("source", "genes"))}, tests, checks)
        for k in keys[:most]
    ]
    return rows, max(0, len(keys) - most)


def _row(adata: AnnData, key: str, record: dict[str, Any], tests: pd.DataFrame, checks: pd.DataFrame) -> dict[str, Any]:
    own = [str(g) for g in record.get("genes", ())]
    test: Any = tests.loc[key] if key in tests.index else None
    check: Any = checks.loc[key] if key in checks.index else None
    q = float("nan") if test is None else float(test["q"])
    return {
        "key": key,
        "label": str(record.get("label", key)),
        "source": {"genes": "genes", "label": "marker genes of a label"}.get(
            str(record.get("source")), str(record.get("source"))
        ),
        "estimator": str(record.get("estimator")),
        "n_own": len(own),
        "own": own[:MOST_OWN],
        "genes": _top_genes(adata, key),
        "p": _number(test, "p"),
        "q": _number(test, "q"),
        "stronger": stronger(q),
        "verdict": "" if test is None else by_q(q),
        "meaning": together(q, None if check is None else bool(check["warning"])),
        "strength": _number(test, "strength"),
        "morans_i": _number(test, "morans_i"),
        "spots": _share(test),
        "line": "" if check is None else str(check["line"]),
        "words": "" if check is None else str(check["words"]),
        "warning": "" if check is None else str(check["warning"]),
        "checked": check is not None,
        "images": {},
    }


def _top_genes(adata: AnnData, key: str) -> list[dict[str, Any]]:
    if key not in pd.DataFrame(adata.varm.get(_keys.CONCEPT_SCORE, {})):
        return []
    found = pl.highest_genes(adata, key, TOP_GENES)
    longest = float(found["score"].iloc[:TOP_GENES].abs().max()) or 1.0
    return [
        {
            "name": name,
            "score": f"{score:.2f}",
            "share": round(100 * max(score, 0) / longest),
            "in_set": bool(in_set),
            "rank": f"{rank:,}" if rank > TOP_GENES else "",
        }
        for name, score, rank, in_set in zip(
            found.index, found["score"].tolist(), found["rank"].tolist(), found["in_set"], strict=True
        )
    ]


def overview(rows: list[dict[str, Any]]) -> dict[str, bool]:
    """Which columns the table of all concepts has."""
    return {
        "tested": any(row["p"] for row in rows),
        "checked": any(row["checked"] for row in rows),
    }


def glance(adata: AnnData) -> list[tuple[str, str]]:
    """The tissue in a few numbers."""
    own = dict(adata.uns[_keys.UNS])
    model = dict(own.get("model", {}))
    concepts = own["concepts"]
    facts = [("spots", f"{adata.n_obs:,}"), ("genes", f"{adata.n_vars:,}"), ("concepts", f"{len(concepts):,}")]
    if "n_seeds" in model:
        facts.append(("models averaged", str(model["n_seeds"])))
    if "saliency" in own:
        facts.append(("attribution", str(own["saliency"].get("method", ""))))
    return facts


def settings_tables(adata: AnnData) -> list[tuple[str, list[tuple[str, str]]]]:
    """Settings of every step, as text."""
    own = dict(adata.uns[_keys.UNS])
    names = {
        "setup": "Data", "model": "Model and versions", "saliency": "Saliency", "concept_map": "Concept map",
        "spot_graph": "Spot graph", "significance": "Random-concept test", "sanity": "Sanity",
    }  # fmt: skip
    tables = []
    for key, heading in names.items():
        lines = [
            (str(name), text) for name, value in dict(own.get(key, {})).items() if (text := _text(value)) is not None
        ]
        if lines:
            tables.append((heading, lines))
    return tables


def _text(value: Any) -> str | None:
    """A setting as text; None for what is a result."""
    if isinstance(value, dict):
        parts = [f"{k}={v}" for k, v in ((k, _text(v)) for k, v in value.items()) if v is not None]
        return ", ".join(parts) if parts else None
    if isinstance(value, (pd.DataFrame, pd.Series)):
        return None
    if isinstance(value, np.ndarray):
        if value.ndim == 0:
            return str(value.item())
        if value.ndim > 1 or value.size > 12:
            return None
        return ", ".join(str(v) for v in value)
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.4g}"
    return str(value)


def _number(row: pd.Series | None, name: str) -> str:
    if row is None or name not in row or not np.isfinite(row[name]):
        return ""
    return f"{float(row[name]):.2g}"


def _share(row: pd.Series | None) -> str:
    if row is None or "spots_q05" not in row or not np.isfinite(row["spots_q05"]):
        return ""
    return f"{100 * float(row['spots_q05']):.0f}%"
