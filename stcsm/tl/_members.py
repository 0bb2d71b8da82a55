"""Members of many concepts at once, as one sparse table of weights."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from stcsm.models import GeneVAE
from stcsm.tl._store import Concept, member_rows

BLOCK, VALUES = 256, 2**22
"""Genes that are dense at once at most, and values of them: fewer genes of a large section."""


def member_shares(model: GeneVAE, concepts: list[Concept]) -> sparse.csc_array:
    """Weights (K, G) of the members that have counts.

    Absolute weights of a concept sum to one; the row of a concept without members is empty.
    """
    totals = model.reader.gene_totals
    shape = (len(concepts), len(totals))
    rows, columns, weights = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0)]
    for k, concept in enumerate(concepts):
        if len(concept.members):
            genes, w = member_rows(concept, model.gene_names)
            seen = totals[genes] > 0
            rows.append(np.full(int(seen.sum()), k))
            columns.append(genes[seen])
            weights.append(w[seen] / max(float(np.abs(w[seen]).sum()), 1e-12))
    places = (np.concatenate(rows), np.concatenate(columns))
    return sparse.csc_array((np.concatenate(weights), places), shape=shape)


def gene_blocks(share: sparse.csc_array, n_spots: int) -> list[np.ndarray]:
    """Genes that any concept uses, in blocks."""
    used = np.flatnonzero(np.diff(share.indptr))
    step = int(np.clip(VALUES // max(n_spots, 1), 1, BLOCK))
    return [used[start : start + step] for start in range(0, len(used), step)]
