"""What the members of a concept show by themselves, as the paper shows it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData
from scipy import sparse

from stcsm import _keys
from stcsm.models import counts_of, read_setup
from stcsm.tl._store import columns, member_rows, read_concepts


def mean_expression(adata: AnnData, concepts: Sequence[str] | str | None = None) -> None:
    """Mean expression of each concept's genes, every gene scaled by its largest count (Brocki & Chung 2019).

    Spots with more counts show more of every gene: what this map and the concept's other maps have in common may be
    sequencing depth.

    Parameters
    ----------
    adata
        With concepts (:func:`stcsm.tl.concepts`).
    concepts
        Names; None is all of them.

    Writes
    ------
    ``adata.obsm["concept_expression"]``
        DataFrame (S, K): mean, by the members' weights, of counts divided by the gene's largest count.

    Raises
    ------
    ValueError
        If there are no concepts or a name is unknown.
    """
    chosen = read_concepts(adata, concepts)
    counts = counts_of(adata, read_setup(adata).layer)
    maps = np.zeros((adata.n_obs, len(chosen)))
    for k, concept in enumerate(chosen):
        rows, weights = member_rows(concept, adata.var_names)
        order = np.argsort(rows)  # files give their columns in order only
        block = counts[:, rows[order]]
        dense = np.array(sparse.csr_array(block).toarray(), dtype=np.float64)
        dense /= np.maximum(dense.max(axis=0), 1)
        maps[:, k] = dense @ weights[order] / max(float(np.abs(weights).sum()), 1e-12)
    adata.obsm[_keys.CONCEPT_EXPRESSION] = columns(chosen, maps, adata.obs_names)
