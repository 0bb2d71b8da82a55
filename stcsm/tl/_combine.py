"""Combinations of concepts: "A and B, but not C"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData

from stcsm.concepts import combine as combine_vectors
from stcsm.tl._state import (
    COMBINATION,
    Concept,
    concept_key,
    embedding,
    embedding_fingerprint,
    read_concepts,
    write_concepts,
)


def combine(adata: AnnData, name: str, plus: Sequence[str] | str, minus: Sequence[str] | str = ()) -> None:
    """Combine concepts: "A and B", "A and not B", "A and B, but neither C nor D".

    The vectors of ``plus``, each scaled to length one, are averaged (a single one keeps its length); the part of the
    average that lies in the span of ``minus`` is taken out, so the new concept's score is blind to them.

    Parameters
    ----------
    adata
        With concepts (:func:`stcsm.tl.concepts`).
    name
        Name of the new concept.
    plus
        Concepts that it follows.
    minus
        Concepts that it is blind to.

    Writes
    ------
    ``adata.uns["stcsm"]["concepts"]``, ``adata.uns["stcsm"]["concept_info"]``, ``adata.varm["concept_score"]``
        As :func:`stcsm.tl.concepts` does. Its genes are those of all concepts, with the weights whose sum the
        combined vector is: positive where genes count for it, negative where they count against it. A combination is
        dropped when a concept that it was made from changes.

    Raises
    ------
    ValueError
        If a concept is unknown, or in both ``plus`` and ``minus``; the name is taken by a concept that is no
        combination, or cannot be stored; or nothing is left, since ``plus`` lies within ``minus``.

    Examples
    --------
    >>> stcsm.tl.combine(adata, "granule, not mitral", plus="granule", minus="mitral")
    """
    key = concept_key(name)
    included = read_concepts(adata, plus)
    excluded = read_concepts(adata, minus) if len(minus) else []
    both = {c.key for c in included} & {c.key for c in excluded}
    if both:
        raise ValueError(f"Expected a concept in plus or in minus, found {sorted(both)[0]!r} in both")
    if key in {c.key for c in (*included, *excluded)}:
        raise ValueError(f"Expected a new name for the combination, found {name!r}, which it is made from")
    there = {c.key: c for c in read_concepts(adata)}.get(key)
    if there is not None and there.source != COMBINATION:
        raise ValueError(f"Expected a new name for the combination, found {name!r}, which another concept has")
    latents = embedding(adata)
    vectors = np.stack(
        [
            combine_vectors(
                np.stack([c.vectors[m] for c in included]),
                np.stack([c.vectors[m] for c in excluded]) if excluded else None,
            )
            for m in range(len(latents))
        ]
    )
    genes, weights = _weighted_genes(included, excluded, vectors)
    made = Concept(
        key=key,
        label=str(name).strip(),
        source=COMBINATION,
        estimator=COMBINATION,
        genes=genes,
        weights=weights,
        vectors=vectors,
        info={
            "plus": np.array([c.key for c in included], dtype=object),
            "minus": np.array([c.key for c in excluded], dtype=object),
        },
    )
    write_concepts(adata, [made], latents, embedding_fingerprint(adata))


def _weighted_genes(
    included: list[Concept], excluded: list[Concept], vectors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Genes of all parts, weighted as the vector is made of theirs (least squares, averaged over the ensemble).

    The parts' vectors are means over their genes, so the combination of vectors is that combination of weights.
    """
    parts = [*included, *excluded]
    share = np.mean(
        [
            np.linalg.lstsq(np.stack([c.vectors[m] for c in parts]).T, vectors[m], rcond=None)[0]
            for m in range(len(vectors))
        ],
        axis=0,
    )
    total: dict[str, float] = {}
    for c, factor in zip(parts, share, strict=True):
        size = float(np.abs(c.weights).sum())
        for gene, weight in zip(c.genes, c.weights, strict=True):
            total[gene] = total.get(gene, 0.0) + factor * weight / size
    kept = {gene: weight for gene, weight in total.items() if abs(weight) > 1e-9}
    return np.array(list(kept), dtype=object), np.fromiter(kept.values(), float, len(kept))
