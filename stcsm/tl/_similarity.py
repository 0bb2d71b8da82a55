"""How alike concepts are: as directions, and as maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from stcsm import _keys
from stcsm.concepts import cluster, cosine_similarity, map_correlation
from stcsm.tl._store import read_concepts, write_entry

KINDS = ("cosine", "maps")


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
    maps = None
    if kind == "maps":
        if key not in adata.obsm:
            raise ValueError(f"Expected maps in adata.obsm[{key!r}], found none; run stcsm.tl.saliency(adata, model)")
        maps = pd.DataFrame(adata.obsm[key])
        if concepts is None:
            concepts = [str(name) for name in maps]
    chosen = read_concepts(adata, concepts)
    keys = [c.key for c in chosen]
    if len(keys) < 2:
        raise ValueError(f"Expected two concepts or more to compare, found {len(keys)}")
    if maps is None:
        values = np.mean(
            [cosine_similarity(np.stack([c.vectors[m] for c in chosen])) for m in range(len(chosen[0].vectors))],
            axis=0,
        )
    else:
        lost = [name for name in keys if name not in maps]
        if lost:
            raise ValueError(f"Expected a map of every concept in adata.obsm[{key!r}], found none of {lost[0]!r}")
        values = map_correlation(maps[keys].to_numpy(dtype=np.float64).T, method=correlation)
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
