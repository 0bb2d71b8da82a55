"""What tl keeps in an AnnData: concepts, the gene embedding, the model that made both, and how each result was made.

Other modules of tl name an entry of ``.uns["stcsm"]`` and read or write it here; which model made an embedding, and
what is dropped when a concept changes, is known here alone.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from stcsm import _keys
from stcsm._lazy import in_memory
from stcsm._text import by_its_text, did_you_mean
from stcsm.concepts import concept_scores, standardise
from stcsm.models import GeneVAE

logger = logging.getLogger(__name__)

COMBINATION = "combination"
"""Source and estimator of a concept that was made of other concepts."""
CONCEPTS_AT_ONCE = 256
"""Concepts whose scores are in memory at once, in double precision."""


@dataclass(frozen=True)
class Concept:
    """A named vector in latent space, a direction or (``estimator="mean"``) a point, as it is stored.

    Attributes
    ----------
    key
        Column name in ``.obsm`` and ``.varm``; the label with what HDF5 cannot hold replaced.
    label
        The name as the user gave it.
    source
        ``"genes"``, ``"label"`` or ``"combination"``.
    estimator
        How the vector was made.
    genes, weights
        Genes of its definition that are in the data, and their weights, (n,); none for an encoded label profile.
    vectors
        One vector for each member of the ensemble, (M, L).
    info
        About the estimate: numbers (genes given, genes found, ...), and names of what it was made of.
    """

    key: str
    label: str
    source: str
    estimator: str
    genes: np.ndarray
    weights: np.ndarray
    vectors: np.ndarray
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, float]:
        """What of ``info`` is a number."""
        return {name: float(v) for name, v in self.info.items() if np.ndim(v) == 0 and not isinstance(v, str)}


# ---- Names


def concept_key(label: str) -> str:
    """Column name of a concept: its label, with ``/`` (a path in HDF5 and zarr) and backslash (in zarr) as ``_``.

    Raises
    ------
    ValueError
        If the label is blank, a path (``.``, ``..``), a name that the file reserves (``_index``), or not Unicode text.
    """
    text = str(label)
    held = text.isascii() or not any(0xD800 <= ord(c) <= 0xDFFF for c in text)
    if not text.strip() or text.strip() in (".", "..", "_index") or "\0" in text or not held:
        raise ValueError(f"Expected a concept name that a column and a file can hold, found {text!r}; give it a name")
    return text.strip().replace("/", "_").replace("\\", "_")


def distinct_keys(labels: Iterable[str]) -> dict[str, str]:
    """Label to key, for all labels.

    Raises
    ------
    ValueError
        If two labels get one key.
    """
    taken: dict[str, str] = {}
    for label in labels:
        _check_key(concept_key(label), label, taken.setdefault(concept_key(label), label))
    return {label: key for key, label in taken.items()}


def _check_key(key: str, label: str, other: str) -> None:
    if other != label:
        raise ValueError(
            f"Expected concept names that stay apart in a file, found {label!r} beside {other!r}, which are both "
            f"stored as {key!r}; rename one of them"
        )


def first_few(names: Iterable[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


# ---- Entries of .uns["stcsm"]


def entry(adata: AnnData, name: str) -> dict[str, Any]:
    """Copy of one entry of our ``.uns`` dictionary; empty where it is absent."""
    found: dict[str, Any] = in_memory(dict(adata.uns.get(_keys.UNS, {}).get(name, {})))
    return found


def write_entry(adata: AnnData, name: str, value: dict[str, Any] | pd.DataFrame) -> None:
    """Write one entry of our ``.uns`` dictionary and leave the others alone."""
    adata.uns[_keys.UNS] = {**adata.uns.get(_keys.UNS, {}), name: value}


def _drop_entry(adata: AnnData, name: str) -> bool:
    """Remove an entry; whether it was there."""
    own = adata.uns.get(_keys.UNS, {})
    if name in own:
        adata.uns[_keys.UNS] = {k: v for k, v in own.items() if k != name}
    return name in own


# ---- The model and its gene embedding


def check_fits(adata: AnnData, model: GeneVAE) -> None:
    """Refuse a model that is not trained or does not belong to this AnnData.

    Raises
    ------
    TypeError
        If ``model`` is no GeneVAE.
    ValueError
        As above.
    """
    if not isinstance(model, GeneVAE):
        raise TypeError(f"Expected a stcsm.models.GeneVAE, found {type(model).__name__}")
    if not model.is_trained:
        raise ValueError("Expected a trained model, found one that is not; call model.train() first")
    for axis, mine, theirs in (
        ("spots", adata.obs_names, model.spot_names),
        ("genes", adata.var_names, model.gene_names),
    ):
        if mine.equals(theirs):
            continue
        common = len(mine.intersection(theirs))
        if common == len(mine) == len(theirs):
            found = f"the same {axis} in another order; put them back: adata[model.spot_names, model.gene_names]"
        else:
            found = (
                f"{len(mine)} {axis}, {common} of them the model's; the AnnData was subset or renamed after the "
                "model was made: take the whole one, or train a model on this one"
                + ("" if common else '; for another section on the same grid: GeneVAE.load(..., match="positions")')
            )
        raise ValueError(f"Expected the model's {len(theirs)} {axis}, found {found}")


def check_concepts(adata: AnnData, model: GeneVAE) -> None:
    """Refuse a model that does not belong to ``adata`` or to its concepts.

    Raises
    ------
    TypeError, ValueError
        As :func:`check_fits`; or if the stored concepts come from another model.
    """
    check_fits(adata, model)
    found = entry(adata, "concepts_model").get("fingerprint")
    if found is not None and found != model.fingerprint():
        raise ValueError(
            "Expected concepts made with this model, found concepts of another one (latent spaces differ between "
            "models); name them again: stcsm.tl.concepts(adata, model, ...)"
        )


def embedding(adata: AnnData, model: GeneVAE | None = None) -> list[np.ndarray]:
    """Gene embedding (G, L) of every member of the ensemble.

    It is read where it is stored; with ``model``, genes are encoded where what is stored was made by another model or
    from other counts.

    Raises
    ------
    ValueError
        If there is none, and no model to encode genes with.
    """
    if model is not None:
        if is_embedded(adata, model):
            return [np.asarray(adata.varm[_keys.embedding(m)]) for m in range(model.n_members)]
        return [model.get_latent_representation(member=m) for m in range(model.n_members)]
    if not is_embedded(adata):
        raise ValueError(
            f"Expected a gene embedding in adata.varm[{_keys.EMBEDDING!r}], found none; "
            "call stcsm.tl.embed_genes(adata, model) first, or pass model="
        )
    latents, member = [], 0
    while _keys.embedding(member) in adata.varm:
        latents.append(np.asarray(adata.varm[_keys.embedding(member)]))
        member += 1
    return latents


def is_embedded(adata: AnnData, model: GeneVAE | None = None) -> bool:
    """Whether an embedding is stored, and is what the model would give."""
    if model is None:
        return _keys.EMBEDDING in adata.varm
    made = entry(adata, "embedding_model")
    return (
        made.get("fingerprint") == model.fingerprint()
        and made.get("counts") == _counts_hash(model)
        and all(_keys.embedding(m) in adata.varm for m in range(model.n_members))
    )


def encode_genes(model: GeneVAE) -> list[tuple[np.ndarray, np.ndarray]]:
    """Posterior mean and variance (G, L) of all genes, of every member."""
    return [model.get_latent_representation(give_var=True, member=m) for m in range(model.n_members)]


def write_embedding(adata: AnnData, model: GeneVAE, encoded: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Store what :func:`encode_genes` returned, and which model it was."""
    arrays: dict[str, np.ndarray] = {}
    for m, (mean, var) in enumerate(encoded):
        arrays |= {_keys.embedding(m): mean, _keys.embedding_var(m): var}
    for key, array in arrays.items():
        adata.varm[key] = array
    # Members that an earlier, larger ensemble left behind, and a layout; other keys that begin alike are the user's.
    ours = rf"{_keys.EMBEDDING}(_\d+)?(_var)?|{_keys.GENE_UMAP}"
    for key in [k for k in adata.varm if re.fullmatch(ours, k) and k not in arrays]:
        del adata.varm[key]
    write_entry(adata, "model", {**model.describe(), "stcsm": version("stcsm"), "scvi-tools": version("scvi-tools")})
    write_entry(adata, "embedding_model", {"fingerprint": model.fingerprint(), "counts": _counts_hash(model)})


def embedding_fingerprint(adata: AnnData) -> str:
    """Fingerprint of the model that made the stored embedding."""
    return str(entry(adata, "embedding_model")["fingerprint"])


def _counts_hash(model: GeneVAE) -> str:
    """Short hash of the counts that a model reads; it may be loaded on others than it was trained on."""
    digest = hashlib.sha256(np.asarray(model.reader.gene_totals, dtype=np.float64).tobytes())
    digest.update(np.asarray(model.reader.depth, dtype=np.float32).tobytes())
    return digest.hexdigest()[:16]


# ---- Concepts and their scores


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
    names = [by_its_text(str(n), map(str, by_name)) for n in names]
    unknown = [n for n in names if n not in by_name]
    if unknown:
        raise ValueError(
            f"Expected concepts among {sorted(stored)}, found {unknown[0]!r}{did_you_mean(unknown[0], by_name)}"
        )
    if len(names) == 0:
        raise ValueError("Expected at least one concept, found an empty list")
    return [stored[key] for key in dict.fromkeys(by_name[n] for n in names)]


def write_concepts(
    adata: AnnData, concepts: Sequence[Concept], latents: list[np.ndarray], fingerprint: str, keep: bool = True
) -> None:
    """Store concepts beside those that are there, and the scores of all genes on all of them.

    A concept of the same name is replaced. Concepts of another model are dropped, since latent spaces differ between
    models. What was made of a concept that is replaced or dropped is dropped too; a warning names it.

    Raises
    ------
    ValueError
        If a concept of another name is stored under the same key.
    """
    records = entry(adata, "concepts")
    stored = _stored(adata) if keep else {}  # what is dropped need not be readable
    known = entry(adata, "concepts_model").get("fingerprint")
    gone: dict[str, str] = {}
    if known is not None and known != fingerprint:
        gone |= dict.fromkeys(records, "they were made by another model")
    elif not keep:
        new = {c.key for c in concepts}
        gone |= dict.fromkeys((key for key in records if key not in new), "keep=False")
    stored = {key: c for key, c in stored.items() if key not in gone}
    for c in concepts:
        _check_key(c.key, c.label, stored.get(c.key, c).label)
    changed = [c.key for c in concepts if c.key in records and not np.array_equal(records[c.key]["vectors"], c.vectors)]
    parts = _made_of(stored, set(changed)) - {c.key for c in concepts}
    gone |= dict.fromkeys(sorted(parts), "they were combined from a concept that has changed; combine them again")
    stored = {key: c for key, c in stored.items() if key not in gone} | {c.key: c for c in concepts}
    for why in dict.fromkeys(gone.values()):
        logger.warning(f"concepts are dropped: {first_few(k for k, w in gone.items() if w == why)} ({why})")
    _drop_results(adata, [*gone, *changed])
    write_entry(adata, "concepts", {key: _record(c) for key, c in stored.items()})
    # HDF5 gives the keys of a group back in alphabetical order; the table beside them keeps the user's order. Numbers
    # are in the table because every value of a dictionary is an object of the file, which thousands of concepts feel.
    info = pd.DataFrame([{"source": c.source, **c.numbers} for c in stored.values()], index=pd.Index(stored))
    write_entry(adata, _keys.CONCEPT_INFO, info)
    write_entry(adata, "concepts_model", {"fingerprint": fingerprint})
    every = list(stored.values())
    adata.varm[_keys.CONCEPT_SCORE] = _columns(every, score_genes(latents, every), adata.var_names)


def concept_info(adata: AnnData) -> pd.DataFrame:
    """What is known of the concepts; no rows where nothing is."""
    table = pd.DataFrame(in_memory(adata.uns.get(_keys.UNS, {}).get(_keys.CONCEPT_INFO, {})))
    return table.set_axis(table.index.astype(str))


def gene_rows(concept: Concept, gene_names: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a concept's genes, and their weights, both (n,); genes that are not there are left out.

    Raises
    ------
    ValueError
        If none is there.
    """
    names = gene_names.astype(str) if pd.api.types.is_numeric_dtype(gene_names) else gene_names
    rows = names.get_indexer(pd.Index(concept.genes, dtype=object))
    found = rows >= 0
    if not found.any():
        raise ValueError(
            f"Expected genes of concept {concept.key!r} in the data, found none of {len(rows)} (such as "
            f"{concept.genes[0]!r}); the genes were subset or renamed: run stcsm.tl.concepts again"
        )
    return rows[found], concept.weights[found]


def score_genes(latents: list[np.ndarray], concepts: Sequence[Concept]) -> np.ndarray:
    """Concept scores (G, K), averaged over the members of the ensemble, float32 as the latents are."""
    scores = np.empty((len(latents[0]), len(concepts)), dtype=np.float32)
    for first in range(0, len(concepts), CONCEPTS_AT_ONCE):
        few = concepts[first : first + CONCEPTS_AT_ONCE]
        scores[:, first : first + CONCEPTS_AT_ONCE] = average_members(
            [concept_scores(z, np.stack([c.vectors[m] for c in few])) for m, z in enumerate(latents)]
        )
    return scores


def average_members(values: Sequence[np.ndarray]) -> np.ndarray:
    """Average tables (n, K) of the members of an ensemble, column by column.

    Latent spaces of different seeds are neither aligned nor of one scale, so each column is brought to mean 0 and
    standard deviation 1 first. A single member is returned as it is, in its own units.
    """
    if len(values) == 1:
        return np.asarray(values[0], dtype=np.float64)
    return np.mean([standardise(v) for v in values], axis=0)


def _record(concept: Concept) -> dict[str, Any]:
    """What is stored of a concept beside its numbers."""
    names = {name: v for name, v in concept.info.items() if name not in concept.numbers}
    return {
        "label": concept.label,
        "estimator": concept.estimator,
        "genes": np.asarray(concept.genes, dtype=object),
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
        if "genes" not in record or "source" not in about:
            raise ValueError(
                f"Expected concepts as this version of stcsm stores them, found a record of {key!r} that it cannot "
                "read; replace them: stcsm.tl.concepts(adata, model, ..., keep=False)"
            )
        numbers = {name: float(v) for name, v in about.items() if name != "source" and np.isfinite(v)}
        info = {**numbers, **record.pop("info", {})}
        found[key] = Concept(key=key, source=str(about["source"]), info=info, **record)
    return found


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


# ---- Maps, and how they were made and tested


def free_key(adata: AnnData, step: str, key_added: str | None) -> str:
    """Key of ``.obsm`` that a step writes its maps into.

    Raises
    ------
    ValueError
        If ``key_added`` cannot be a key, is the standard key of another step, or holds something that is not ours.
    """
    if key_added is None:
        return _keys.MAPS[step]
    key = str(key_added)
    if not key.strip() or "/" in key:
        raise ValueError(f"Expected key_added to be a key of .obsm without '/', found {key_added!r}")
    reserved = set(_keys.CONCEPT_TABLES) - {_keys.MAPS[step]}
    if key in reserved or (key in adata.obsm and key not in map_keys(adata)):
        of = "the standard key of another step" if key in reserved else "which holds something else"
        raise ValueError(f"Expected key_added to be free, found {key!r}, {of}; choose another")
    return key


def map_keys(adata: AnnData) -> list[str]:
    """Keys of ``.obsm`` that are for maps: the standard ones, and those that steps were given (``key_added``)."""
    added = [
        name.removeprefix(f"{step}_")
        for name in adata.uns.get(_keys.UNS, {})
        for step in _keys.MAPS
        if name.startswith(f"{step}_")
    ]
    return [*_keys.MAPS.values(), *added]


def write_maps(
    adata: AnnData, step: str, key: str, concepts: Sequence[Concept], maps: np.ndarray, record: dict[str, Any]
) -> None:
    """Write maps (S, K) and how they were made; what was found out about earlier maps of that key is dropped."""
    _drop_significance(adata, key)
    for other in _keys.MAPS:
        if other != step and key != _keys.MAPS[other] and _drop_entry(adata, _keys.record(other, key)):
            logger.warning(f"maps of stcsm.tl.{other} in .obsm[{key!r}] are replaced")
    adata.obsm[key] = _columns(concepts, maps, adata.obs_names)
    write_entry(adata, _keys.record(step, key), record)


def read_maps(adata: AnnData, key: str, concepts: Sequence[str] | str | None) -> tuple[list[Concept], np.ndarray]:
    """Concepts, and their maps (K, S) in ``.obsm[key]``; all that have one for None.

    Raises
    ------
    ValueError
        If there are no maps, a concept is unknown, or has none.
    """
    if key not in adata.obsm:
        raise ValueError(f"Expected maps in adata.obsm[{key!r}], found none; run stcsm.tl.saliency(adata, model) first")
    table = pd.DataFrame(in_memory(adata.obsm[key]))
    chosen = read_concepts(adata, [str(name) for name in table] if concepts is None else concepts)
    lost = [c.label for c in chosen if c.key not in table]
    if lost:
        raise ValueError(
            f"Expected a map of every concept in adata.obsm[{key!r}], found none of {lost[0]!r}; run "
            "stcsm.tl.saliency(adata, model) again"
        )
    return chosen, table[[c.key for c in chosen]].to_numpy(dtype=np.float64).T


def write_significance(
    adata: AnnData, key: str, concepts: Sequence[Concept], p: np.ndarray, q: np.ndarray, record: dict[str, Any]
) -> None:
    """Write p and q values (S, K) of the maps in ``.obsm[key]``, and how they were tested."""
    for name, values in ((_keys.pval(key), p), (_keys.qval(key), q)):
        adata.obsm[name] = _columns(concepts, values, adata.obs_names)
    write_entry(adata, _keys.record("significance", key), record)


def _drop_significance(adata: AnnData, key: str) -> None:
    """Remove p and q values of maps that are recomputed."""
    if not _drop_entry(adata, _keys.record("significance", key)):
        return
    for name in (_keys.pval(key), _keys.qval(key)):
        if name in adata.obsm:
            del adata.obsm[name]
    own = "" if key == _keys.CONCEPT_SALIENCY else f", key={key!r}"
    logger.warning(
        f"p and q of earlier maps are dropped (.obsm[{key!r}]); test the new ones: "
        f"stcsm.tl.significance(adata, model{own})"
    )


def _drop_results(adata: AnnData, keys: Sequence[str]) -> None:
    """Remove what was made of concepts that are no longer what they were: maps, tests of maps, the check of sanity."""
    lost, gone = [], set(keys)
    for key in map_keys(adata):
        for name in (key, _keys.pval(key), _keys.qval(key)):
            if name in adata.obsm and gone & set(adata.obsm[name]):
                lost.append(f".obsm[{name!r}]")
                left = in_memory(adata.obsm[name]).drop(columns=list(keys), errors="ignore")
                if left.shape[1]:
                    adata.obsm[name] = left
                    continue
                del adata.obsm[name]
                for step in _keys.MAPS if name == key else ():
                    _drop_entry(adata, _keys.record(step, key))
        test = _keys.record("significance", key)
        tested = entry(adata, test)
        if tested and gone & set(tested["table"].index):
            lost.append(f".uns['stcsm'][{test!r}]")
            left = tested["table"].drop(index=list(keys), errors="ignore")
            if len(left):
                write_entry(adata, test, {**tested, "table": left})
            else:
                _drop_entry(adata, test)
    if gone & set(entry(adata, "sanity").get("concepts", ())):
        lost.append(".uns['stcsm']['sanity']")
        _drop_entry(adata, "sanity")
    if lost:
        names = first_few(dict.fromkeys(keys))
        logger.warning(f"results of concepts that have changed ({names}) are dropped: {first_few(lost, 12)}")


def _columns(concepts: Sequence[Concept], values: np.ndarray, index: pd.Index) -> pd.DataFrame:
    """Table of one column a concept; ``values`` is (n, K)."""
    # A named index is a column in h5ad, and may clash with a concept's name.
    return pd.DataFrame(np.asarray(values), index=index.rename(None), columns=[c.key for c in concepts])
