"""Questions about genes and concepts that are answered with a table: the steps that return a DataFrame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from stcsm import _keys
from stcsm._lazy import column
from stcsm._verdict import by_q, together
from stcsm.concepts import (
    benjamini_hochberg,
    cluster,
    correlation_p,
    cosine_similarity,
    discovery,
    map_correlation,
    match_genes,
    nearest_genes,
    ranks,
)
from stcsm.models import GeneVAE
from stcsm.tl._random_concepts import StandIns
from stcsm.tl._state import check_concepts, concept_info, embedding, entry, read_concepts, read_maps, write_entry

KINDS = ("cosine", "maps")


def similar_genes(adata: AnnData, gene: str, n: int = 50) -> pd.DataFrame:
    """Find the genes whose embedding correlates most with a seed gene's.

    Parameters
    ----------
    adata
        With a gene embedding (:func:`stcsm.tl.embed_genes`); not changed.
    gene
        The seed gene.
    n
        Number of genes, the seed included (50 in Brocki & Chung 2019).

    Returns
    -------
    DataFrame indexed by gene, the seed first, with the columns ``r`` (Pearson correlation over the L latents),
    ``p_of_latents`` (two-sided, t distribution with L - 2 degrees of freedom) and ``q_of_latents`` (Benjamini-Hochberg
    over all genes). Both are those of the published pipeline, which takes the latents for independent samples: they
    rank genes and are no evidence. With several members of an ensemble, the r of each is averaged on Fisher's scale,
    and p and q belong to that average as if to one member.

    Raises
    ------
    ValueError
        If there is no embedding, the gene is unknown (close names are suggested) or has no counts, or n < 1.
    """
    if not isinstance(gene, str):
        raise TypeError(f"Expected the name of one gene, found {type(gene).__name__}; call it once for each gene")
    latents = embedding(adata)
    index = int(match_genes([gene], adata.var_names, missing="error").index[0])
    if len(latents) == 1:
        near = nearest_genes(latents[0], index, n)
        columns = {"r": near.r, "p_of_latents": near.p, "q_of_latents": near.q}
        table = pd.DataFrame(columns, index=adata.var_names[near.index])
    else:
        table = _consensus(latents, index, n, adata.var_names)
    table.index.name = "gene"
    return table


def _consensus(latents: list[np.ndarray], index: int, n: int, var_names: pd.Index) -> pd.DataFrame:
    if n < 1:
        raise ValueError(f"Expected n of at least 1, found {n}")
    fisher = np.zeros(len(var_names))
    for z in latents:
        near = nearest_genes(z, index, len(var_names))
        r = np.full(len(var_names), np.nan)
        r[near.index] = near.r
        fisher += np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)) / len(latents)
    r = np.tanh(fisher)
    r[index] = np.nan
    tested = np.flatnonzero(np.isfinite(r))
    p = correlation_p(r[tested], latents[0].shape[1])
    q = benjamini_hochberg(p)
    order = np.argsort(-r[tested], kind="stable")[: n - 1]
    rows = np.concatenate([[index], tested[order]])
    return pd.DataFrame(
        {
            "r": np.concatenate([[1.0], r[tested][order]]),
            "p_of_latents": np.concatenate([[np.nan], p[order]]),
            "q_of_latents": np.concatenate([[np.nan], q[order]]),
        },
        index=var_names[rows],
    )


def rank_genes_concept(
    adata: AnnData,
    concept: str,
    model: GeneVAE | None = None,
    *,
    n_random: int = 10_000,
    include_own: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank the genes outside a concept's set by how strongly they carry the concept.

    Every gene's score on the concept is compared with its scores on concepts made from random genes that match the
    concept's in abundance and dispersion, and that do not contain the gene: does it lie further along this concept than
    along similar concepts?

    Parameters
    ----------
    adata
        With concepts (:func:`stcsm.tl.concepts`) and counts; not changed.
    concept
        One concept.
    model
        The model, whose counts are then used; without it those of ``adata``, which must still be counts.
    n_random
        Random concepts. With thousands of genes tested, q values need small p values, hence many.
    include_own
        Keep the concept's own genes in the table. The concept was made of them, so they have no p and no q.
    seed
        Of the random genes.

    Returns
    -------
    DataFrame indexed by gene, of all genes with counts, smallest q first and highest score first within a q:
    ``score`` (``.varm["concept_score"]``); ``rank`` among all genes, its own included; ``z``, standard deviations above
    the gene's mean score on random concepts; ``p``, one-sided; ``q``, Benjamini-Hochberg over the genes tested;
    ``own``, whether the concept was made of it; ``counts``, the gene's total.

    Raises
    ------
    ValueError
        If the concept is unknown or an encoded label profile, which no random genes stand in for, or ``adata`` no
        longer holds counts.
    """
    if model is not None:
        check_concepts(adata, model)
    (chosen,) = read_concepts(adata, concept)
    if n_random < 1:
        raise ValueError(f"Expected n_random of 1 or more, found {n_random}")
    stand_ins = StandIns(adata, embedding(adata, model), model, seed)
    drawn = stand_ins.draw(chosen, n_random)
    found = discovery(stand_ins.sampler("contrast", False), drawn)
    score = column(adata.varm[_keys.CONCEPT_SCORE], chosen.key).to_numpy(dtype=np.float64)
    own = np.asarray(adata.var_names.isin(chosen.genes))
    table = pd.DataFrame(
        {
            "score": score,
            "rank": ranks(score),
            "z": found.z,
            "p": found.p,
            "q": found.q,
            "own": own,
            "counts": stand_ins.abundance,
        },
        index=adata.var_names.rename("gene"),
    )
    table = table[table["score"].notna()]
    table["rank"] = table["rank"].astype(int)
    if not include_own:
        table = table[~table["own"]]
    return table.sort_values(["own", "q", "score"], ascending=[False, True, False], kind="stable")


def concept_table(adata: AnnData, *, key: str = _keys.CONCEPT_SALIENCY) -> pd.DataFrame:
    """What is known of every concept: where it came from, how much of it was found, how it did.

    Parameters
    ----------
    adata
        With concepts (:func:`stcsm.tl.concepts`); not changed.
    key
        Table of ``.obsm`` whose test is told (``key_added`` of :func:`stcsm.tl.saliency`).

    Returns
    -------
    DataFrame with a row for each concept, in the user's order, indexed by key: ``label``, ``source``, ``estimator``;
    genes ``n_given``, ``n_found``, ``n_usable``, ``n_ambiguous`` (several rows are called so; the one with most counts
    is taken) and the ``fraction`` found; ``cv_accuracy`` and ``cv_auroc`` of ``"cav"`` concepts (0.5 is chance). After
    :func:`significance`, the columns of its table, p and q rounded to three digits, and ``verdict``, what q says; after
    :func:`sanity`, ``sanity``, what it found in one line. After both, ``meaning``: what the two say together.

    Raises
    ------
    ValueError
        If there are no concepts.
    """
    stored = read_concepts(adata)
    rows = []
    for c in stored:
        numbers = c.numbers
        share = numbers["n_found"] / numbers["n_given"] if "n_given" in numbers else np.nan
        rows.append({"label": c.label, "source": c.source, "estimator": c.estimator, **numbers, "fraction": share})
    table = pd.DataFrame(rows, index=pd.Index([c.key for c in stored], name="concept"))
    # A column stays where no concept has a number: a classifier of single genes has no accuracy.
    known = [*dict.fromkeys([*table.columns.drop("fraction"), *concept_info(adata)]), "fraction"]
    table = table.reindex(columns=known)
    table = table.astype({name: "Int64" for name in table if str(name).startswith("n_")})
    tested, checked = entry(adata, _keys.record("significance", key)), entry(adata, "sanity")
    if tested:
        table = table.join(pd.DataFrame(tested["table"]).drop(columns="n_genes"))
        table["verdict"] = [by_q(q) for q in table["q"]]
        for name in ("p", "q", "smallest_p"):
            table[name] = [float(f"{value:.3g}") for value in table[name]]
    if checked:
        table["sanity"] = checked["summary"]["line"].reindex(table.index)
    if tested and checked:
        warned = checked["summary"]["warning"].reindex(table.index)
        table["meaning"] = [
            together(q, None if pd.isna(text) else bool(text)) for q, text in zip(table["q"], warned, strict=True)
        ]
    return table


def concept_similarity(
    adata: AnnData,
    concepts: Sequence[str] | str | None = None,
    kind: str = "cosine",
    key: str = _keys.CONCEPT_SALIENCY,
    correlation: str = "spearman",
) -> pd.DataFrame:
    """Compare concepts with one another, as directions in latent space or as maps on the tissue.

    Parameters
    ----------
    adata
        With concepts (:func:`stcsm.tl.concepts`).
    concepts
        Names; None is all of them (with ``kind="maps"``: all that have a map).
    kind
        ``"cosine"``: of the angle between their vectors, averaged over the members of an ensemble; ``"maps"``:
        correlation of their maps over the spots.
    key
        With ``kind="maps"``: table of ``.obsm``.
    correlation
        With ``kind="maps"``: ``"spearman"`` or ``"pearson"``.

    Returns
    -------
    DataFrame (K, K) under the concepts' keys; NaN for a constant map.

    Writes
    ------
    ``adata.uns["stcsm"]["similarity"]``
        ``"concepts"``, ``"values"`` (K, K), ``"order"`` and ``"linkage"`` (average linkage on 1 - similarity), and how
        it was made: what :func:`stcsm.pl.concept_similarity` draws.

    Raises
    ------
    ValueError
        If there are fewer than two concepts, a name is unknown, or there are no maps.
    """
    if kind not in KINDS:
        raise ValueError(f"Expected kind to be one of {KINDS}, found {kind!r}")
    chosen, maps = read_maps(adata, key, concepts) if kind == "maps" else (read_concepts(adata, concepts), None)
    keys = [c.key for c in chosen]
    if len(keys) < 2:
        raise ValueError(f"Expected two concepts or more to compare, found {len(keys)}")
    if maps is None:
        values = np.mean(
            [cosine_similarity(np.stack([c.vectors[m] for c in chosen])) for m in range(len(chosen[0].vectors))],
            axis=0,
        )
    else:
        values = map_correlation(maps, method=correlation)
    tree = cluster(values)
    write_entry(
        adata,
        "similarity",
        {
            "concepts": np.array(keys, dtype=object),
            "values": values,
            "order": tree.order,
            "linkage": tree.linkage,
            "kind": kind,
            "key": key if kind == "maps" else "",
            "correlation": correlation if kind == "maps" else "",
        },
    )
    return pd.DataFrame(values, index=keys, columns=keys)
