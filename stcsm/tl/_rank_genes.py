"""Which genes carry a concept that were not in its definition, and what is known of every concept."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from stcsm import _keys
from stcsm.concepts import discovery, ranks
from stcsm.models import GeneVAE
from stcsm.tl._concepts import check_concepts, read_embedding
from stcsm.tl._matching import StandIns
from stcsm.tl._store import concept_info, concept_numbers, entry, read_concepts


def rank_genes_concept(
    adata: AnnData,
    concept: str,
    model: GeneVAE | None = None,
    *,
    n_random: int = 10_000,
    members: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Find the genes that carry a concept and were not in its definition.

    Every gene's score on the concept is compared with its scores on concepts made from random genes that match the
    concept's in abundance and dispersion, and that do not contain the gene: does it lie further along this concept than
    along concepts like it?

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
    members
        Keep the concept's own genes in the table. They made the concept, so they have no p and no q.
    seed
        Of the random genes.

    Returns
    -------
    DataFrame indexed by gene, of all genes with counts, smallest q first and highest score first within a q:
    ``score`` (``.varm["concept_score"]``); ``rank`` among all genes, members included; ``z``, standard deviations above
    the gene's mean score on random concepts; ``p``, one-sided; ``q``, Benjamini-Hochberg over the genes tested;
    ``member``; ``counts``, the gene's total.

    Raises
    ------
    ValueError
        If the concept is unknown or an encoded layer profile, which no random genes stand in for, or ``adata`` no
        longer holds counts.
    """
    if model is not None:
        check_concepts(adata, model)
    (chosen,) = read_concepts(adata, concept)
    if n_random < 1:
        raise ValueError(f"Expected n_random of 1 or more, found {n_random}")
    stand_ins = StandIns(adata, read_embedding(adata), model, seed)
    drawn = stand_ins.draw(chosen, n_random)
    found = discovery(stand_ins.sampler("contrast", False), drawn)
    score = np.asarray(adata.varm[_keys.CONCEPT_SCORE][chosen.key], dtype=np.float64)
    member = np.asarray(adata.var_names.isin(chosen.members))
    table = pd.DataFrame(
        {
            "score": score,
            "rank": ranks(score),
            "z": found.z,
            "p": found.p,
            "q": found.q,
            "member": member,
            "counts": stand_ins.abundance,
        },
        index=adata.var_names.rename("gene"),
    )
    table = table[table["score"].notna()]
    table["rank"] = table["rank"].astype(int)
    if not members:
        table = table[~table["member"]]
    return table.sort_values(["member", "q", "score"], ascending=[False, True, False], kind="stable")


def concept_table(adata: AnnData) -> pd.DataFrame:
    """What is known of every concept: where it came from, how much of it was found, how it did.

    Parameters
    ----------
    adata
        With concepts (:func:`stcsm.tl.concepts`); not changed.

    Returns
    -------
    DataFrame with a row for each concept, in the user's order, indexed by key: ``label``, ``source``, ``estimator``;
    genes ``n_given``, ``n_found``, ``n_usable`` and the ``fraction`` found; ``cv_accuracy`` and ``cv_auroc`` of
    ``"cav"`` concepts (0.5 is chance); and, after :func:`significance`, the columns of its table.

    Raises
    ------
    ValueError
        If there are no concepts.
    """
    stored = read_concepts(adata)
    rows = []
    for c in stored:
        numbers = concept_numbers(c)
        share = numbers["n_found"] / numbers["n_given"] if "n_given" in numbers else np.nan
        rows.append({"label": c.label, "source": c.source, "estimator": c.estimator, **numbers, "fraction": share})
    table = pd.DataFrame(rows, index=pd.Index([c.key for c in stored], name="concept"))
    # A column stays where no concept has a number: a classifier of single genes has no accuracy.
    known = [*dict.fromkeys([*table.columns.drop("fraction"), *concept_info(adata)]), "fraction"]
    table = table.reindex(columns=known)
    tested = entry(adata, "significance")
    if tested:
        table = table.join(pd.DataFrame(tested["table"]).drop(columns="n_genes"))
    return table
