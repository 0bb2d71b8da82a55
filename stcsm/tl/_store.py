"""What tl keeps in ``.uns["stcsm"]``: concepts, the model that made them, and how each result was made."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from stcsm import _keys

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Concept:
    """A named direction in latent space, as it is stored.

    Attributes
    ----------
    key
        Column name in ``.obsm`` and ``.varm``; the label with what HDF5 cannot hold replaced.
    label
        The name as the user gave it.
    source
        ``"genes"``, ``"layer"`` or ``"combination"``.
    estimator
        How the vector was made.
    members, weights
        Genes of its definition that are in the data, and their weights, (n,); none for an encoded layer profile.
    vectors
        One vector for each member of the ensemble, (M, L).
    info
        About the estimate: numbers (genes given, genes found, ...), and names of what it was made of.
    """

    key: str
    label: str
    source: str
    estimator: str
    members: np.ndarray
    weights: np.ndarray
    vectors: np.ndarray
    info: dict[str, Any] = field(default_factory=dict)


def concept_key(label: str) -> str:
    """Column name of a concept: its label, with ``/`` (a path in HDF5 and zarr) and backslash (in zarr) as ``_``.

    Raises
    ------
    ValueError
        If the label is blank, a path (``.``, ``..``) or a reserved name (``_index``) in the file whatever is done, or
        not Unicode text.
    """
    text = str(label)
    held = text.isascii() or not any(0xD800 <= ord(c) <= 0xDFFF for c in text)
    if not text.strip() or text.strip() in (".", "..", "_index") or "\0" in text or not held:
        raise ValueError(f"Expected a concept name that a column and a file can hold, found {text!r}; give it a name")
    return text.strip().replace("/", "_").replace("\\", "_")


def distinct_keys(labels: Sequence[str]) -> dict[str, str]:
    """Label to key, for all labels.

    Raises
    ------
    ValueError
        If two labels get one key.
    """
    taken: dict[str, str] = {}
    for label in labels:
        key = concept_key(label)
        other = taken.setdefault(key, label)
        if other != label:
            raise ValueError(
                f"Expected concept names that stay apart in a file, found {other!r} and {label!r}, which are both "
                f"stored as {key!r}; rename one of them"
            )
    return {label: key for key, label in taken.items()}


def entry(adata: AnnData, name: str) -> dict[str, Any]:
    """Copy of one entry of our ``.uns`` dictionary; empty where it is absent."""
    return dict(adata.uns.get(_keys.UNS, {}).get(name, {}))


def write_entry(adata: AnnData, name: str, value: dict[str, Any] | pd.DataFrame) -> None:
    """Write one entry of our ``.uns`` dictionary and leave the others alone."""
    adata.uns[_keys.UNS] = {**adata.uns.get(_keys.UNS, {}), name: value}


def write_concepts(adata: AnnData, concepts: Sequence[Concept], fingerprint: str, keep: bool = True) -> None:
    """Store concepts beside those that are there; one of the same name is replaced, and its old maps go with it.

    Concepts of another model, and their maps, are dropped: latent spaces differ between models.

    Raises
    ------
    ValueError
        If a concept of another name is stored under the same key.
    """
    stored = _stored(adata)
    known = entry(adata, "concepts_model").get("fingerprint")
    if known is not None and known != fingerprint:
        logger.warning(f"{len(stored)} concepts of another model and their maps are dropped: {', '.join(stored)}")
        _drop_maps(adata, list(stored))
        stored = {}
    if not keep:
        new = {c.key for c in concepts}
        _drop_maps(adata, [key for key in stored if key not in new])
        stored = {key: c for key, c in stored.items() if key in new}
    for c in concepts:
        other = stored.get(c.key, c).label
        if other != c.label:
            raise ValueError(
                f"Expected concept names that stay apart in a file, found {c.label!r} beside {other!r}, which are both "
                f"stored as {c.key!r}; rename one of them"
            )
    changed = [c.key for c in concepts if c.key in stored and not np.array_equal(stored[c.key].vectors, c.vectors)]
    for key in _made_of(stored, set(changed)) - {c.key for c in concepts}:
        logger.warning(f"{key!r} is dropped: it was combined from a concept that has changed; combine it again")
        changed.append(key)
        del stored[key]
    stored |= {c.key: c for c in concepts}
    _drop_maps(adata, changed)
    write_entry(adata, "concepts", {key: _record(c) for key, c in stored.items()})
    # HDF5 gives the keys of a group back in alphabetical order; the table beside them keeps the user's order. Numbers
    # are in the table because every value of a dictionary is an object of the file, which thousands of concepts feel.
    info = pd.DataFrame([{"source": c.source, **concept_numbers(c)} for c in stored.values()], index=pd.Index(stored))
    write_entry(adata, _keys.CONCEPT_INFO, info)
    write_entry(adata, "concepts_model", {"fingerprint": fingerprint})


def concept_numbers(concept: Concept) -> dict[str, float]:
    """What of a concept's ``info`` is a number."""
    return {name: float(v) for name, v in concept.info.items() if np.ndim(v) == 0 and not isinstance(v, str)}


def _record(concept: Concept) -> dict[str, Any]:
    """What is stored of a concept beside its numbers."""
    numbers = concept_numbers(concept)
    names = {name: v for name, v in concept.info.items() if name not in numbers}
    return {
        "label": concept.label,
        "estimator": concept.estimator,
        "genes": np.asarray(concept.members, dtype=object),
        "weights": np.asarray(concept.weights, dtype=np.float64),
        "vectors": np.asarray(concept.vectors, dtype=np.float64),
    } | ({"info": names} if names else {})


def _stored(adata: AnnData) -> dict[str, Concept]:
    """The concepts that are there, by key, in the user's order."""
    records = entry(adata, "concepts")
    rows: dict[str, Any] = {str(key): row for key, row in concept_info(adata).to_dict("index").items()}
    found: dict[str, Concept] = {}
    for key in [*(k for k in rows if k in records), *(k for k in records if k not in rows)]:
        record, about = dict(records[key]), rows.get(key, {})
        # Files from before there was a table have all of it in the record.
        source = str(about.get("source", record.pop("source", "genes")))
        numbers = {name: float(v) for name, v in about.items() if name != "source" and np.isfinite(v)}
        record["members"] = record.pop("genes")
        found[key] = Concept(key=key, source=source, info={**numbers, **record.pop("info", {})}, **record)
    return found


def concept_info(adata: AnnData) -> pd.DataFrame:
    """What is known of the concepts; no rows where nothing is."""
    table = pd.DataFrame(adata.uns.get(_keys.UNS, {}).get(_keys.CONCEPT_INFO, {}))
    return table.set_axis(table.index.astype(str))


def _made_of(stored: dict[str, Concept], keys: set[str]) -> set[str]:
    """Combinations of some of these concepts, and combinations of those in turn."""
    found: set[str] = set()
    while True:
        more = {
            key for key, c in stored.items() if (keys | found) & {*c.info.get("plus", ()), *c.info.get("minus", ())}
        }
        if more <= found:
            return found
        found |= more


def _drop_maps(adata: AnnData, keys: Sequence[str]) -> None:
    """Take the maps of concepts that no longer are what they were out of ``.obsm``, and the check of their sanity."""
    if set(keys) & set(entry(adata, "sanity").get("concepts", ())):
        _drop_entry(adata, "sanity")
    for table in _keys.CONCEPT_TABLES:
        if table in adata.obsm and set(keys) & set(adata.obsm[table]):
            left = adata.obsm[table].drop(columns=list(keys), errors="ignore")
            if left.shape[1]:
                adata.obsm[table] = left
            else:
                del adata.obsm[table]
    tested = entry(adata, "significance")
    if tested and set(keys) & set(tested["table"].index):
        left = tested["table"].drop(index=list(keys), errors="ignore")
        if len(left):
            write_entry(adata, "significance", {**tested, "table": left})
        else:
            _drop_entry(adata, "significance")


def drop_significance(adata: AnnData) -> None:
    """Take p and q values away: they belong to maps that are made anew."""
    for key in (_keys.CONCEPT_SALIENCY_PVAL, _keys.CONCEPT_SALIENCY_QVAL):
        if key in adata.obsm:
            del adata.obsm[key]
    if "significance" in adata.uns.get(_keys.UNS, {}):
        logger.warning("p and q of earlier maps are dropped; test the new ones: stcsm.tl.significance(adata, model)")
        _drop_entry(adata, "significance")


def _drop_entry(adata: AnnData, name: str) -> None:
    adata.uns[_keys.UNS] = {k: v for k, v in adata.uns[_keys.UNS].items() if k != name}


def read_concepts(adata: AnnData, names: Sequence[str] | str | None = None) -> list[Concept]:
    """Concepts by key or label; all of them for None.

    Raises
    ------
    ValueError
        If there are none, or if a name is unknown.
    """
    stored = _stored(adata)
    if not stored:
        raise ValueError("Expected concepts, found none; name some first: stcsm.tl.concepts(adata, model, genes={...})")
    by_name = {**{c.label: k for k, c in stored.items()}, **{k: k for k in stored}}
    if names is None:
        names = list(stored)
    elif isinstance(names, str):
        names = [names]
    unknown = [n for n in names if n not in by_name]
    if unknown:
        close = difflib.get_close_matches(str(unknown[0]), [str(n) for n in by_name], n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Expected concepts among {sorted(stored)}, found {unknown[0]!r}{meant}")
    if len(names) == 0:
        raise ValueError("Expected at least one concept, found an empty list")
    return [stored[key] for key in dict.fromkeys(by_name[n] for n in names)]


def member_rows(concept: Concept, gene_names: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a concept's members, and their weights, both (n,); members that are not there are left out.

    Raises
    ------
    ValueError
        If none is there.
    """
    rows = gene_names.get_indexer(pd.Index(concept.members, dtype=object))
    found = rows >= 0
    if not found.any():
        raise ValueError(
            f"Expected members of concept {concept.key!r} among the genes, found none of {len(rows)} (such as "
            f"{concept.members[0]!r}); the genes were subset or renamed: run stcsm.tl.concepts again"
        )
    return rows[found], concept.weights[found]


def check_model(adata: AnnData, fingerprint: str, what: str = "concepts") -> None:
    """Refuse to mix what two models made.

    Raises
    ------
    ValueError
        If the stored concepts (or embedding) come from another model.
    """
    found = entry(adata, f"{what}_model").get("fingerprint")
    if found is not None and found != fingerprint:
        fix = "stcsm.tl.concepts(adata, model, ...)" if what == "concepts" else "stcsm.tl.embed_genes(adata, model)"
        raise ValueError(
            f"Expected {what} made with this model, found {what} of another one (latent spaces differ between models); "
            f"make them again: {fix}"
        )


def columns(concepts: Sequence[Concept], values: np.ndarray, index: pd.Index) -> pd.DataFrame:
    """Table of one column a concept; ``values`` is (n, K)."""
    # A named index is a column in h5ad, and may clash with a concept's name.
    return pd.DataFrame(np.asarray(values), index=index.rename(None), columns=[c.key for c in concepts])
