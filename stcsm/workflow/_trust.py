"""The sanity of maps at the end of a run: checked, said at the terminal, written as JSON."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from rich.console import Console
from rich.markup import escape

from stcsm import _keys, tl
from stcsm._verdict import LEVEL, stronger
from stcsm.attribution import method_class
from stcsm.models import GeneVAE

MOST_CHECKED = {True: 100, False: 30}
"""Concepts that are checked, for methods linear in the concept and for others: a few seconds."""
MOST_SAID = 12
MEANING = (
    "Spearman correlations over the spots between the map of a concept and: maps of random genes (median), the map of "
    "the opposite concept, the closest other concept, the map of an encoder whose top network layer or whose network "
    "layers are all re-initialised, the map of genes whose spots are shuffled, and the map of another seed (lowest; "
    "null: one model)."
)


def check_trust(adata: AnnData, model: GeneVAE, method: str, seed: int, console: Console) -> None:
    """Check the sanity of the maps of a run, and say what was found."""
    keys = list(adata.obsm[_keys.CONCEPT_SALIENCY])
    most = MOST_CHECKED[method_class(method).linear]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tl.sanity(adata, model, keys[:most], method, seed=seed)
    summary = adata.uns[_keys.UNS]["sanity"]["summary"]
    meaning = tl.concept_table(adata).get("meaning", pd.Series(dtype=object))
    said = 0
    for warning in caught:  # what warns comes even where all else is to be quiet
        warnings.warn(str(warning.message), warning.category, stacklevel=2)
    for key, row in summary.iterrows():
        if not row["warning"] and said < MOST_SAID:
            told = f"{row['line']} {meaning.get(key, '')}".rstrip()
            console.print(f"[bold]{escape(row['concept'])}[/]: {escape(told)}", soft_wrap=True, highlight=False)
            said += 1
    bad = int((summary["warning"] != "").sum())
    console.print(
        f"sanity of the maps: {len(summary) - bad} of {len(summary)} show what the model learned about their concept"
        + (f", {bad} with a warning" if bad else "")
        + (f"; the first {most} of {len(keys)} concepts were checked" if len(keys) > most else "")
        + _strong(adata),
        highlight=False,
    )


def _strong(adata: AnnData) -> str:
    """That a map may be sound and still no stronger than those of random genes; empty where no map was tested."""
    tested = adata.uns[_keys.UNS].get("significance")
    if not tested:
        return ""
    q = tested["table"]["q"].dropna()
    return f"; {sum(map(stronger, q))} of {len(q)} are stronger than random genes (q < {LEVEL:g})"


def write_trust(adata: AnnData, path: Path) -> None:
    """Write what was found as JSON, concepts under the names that the user gave them."""
    record = adata.uns[_keys.UNS]["sanity"]
    concepts = {
        str(row["concept"]): {name: _plain(value) for name, value in row.items() if name != "concept"}
        for _, row in record["summary"].iterrows()
    }
    settings = {name: record[name] for name in ("method", "genes", "n_random", "n_draws", "most_genes", "seed")}
    whole = {
        "meaning": MEANING,
        "settings": {name: _plain(value) for name, value in settings.items()},
        "layers": [str(name) for name in record["layers"]],
        "concepts": concepts,
    }
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, 4) if np.isfinite(value) else None
    return value
