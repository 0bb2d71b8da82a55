"""Genes that may stand in for one another, and the random stand-ins of stored concepts."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from scipy import sparse

from stcsm.concepts import (
    RandomConcepts,
    RandomConceptSampler,
    matching_bins,
    moment_dispersion,
    random_combination,
)
from stcsm.models import GeneVAE, counts_of, read_setup
from stcsm.space import check_counts, row_blocks
from stcsm.tl._store import Concept, member_rows, read_concepts

VALUES_AT_ONCE = 2**22
"""Counts that are dense at once."""


class StandIns:
    """Draws random stand-ins of stored concepts, matched in size, abundance and dispersion.

    Parameters
    ----------
    adata
        With concepts.
    latents
        Gene embedding (G, L) of every member.
    model
        Gives the counts where it is there; otherwise they are read from ``adata``.
    seed
        Of the draws.
    """

    def __init__(self, adata: AnnData, latents: list[np.ndarray], model: GeneVAE | None, seed: int) -> None:
        self.adata, self.latents, self.seed = adata, latents, seed
        self.abundance, dispersion = _of_adata(adata) if model is None else _of_model(model)
        usable = np.isfinite(latents[0]).all(axis=1)
        # A gene without counts in today's AnnData may have had some when the model was trained.
        dispersion = np.where(np.isnan(dispersion), 0.0, dispersion)
        self.bins = [
            matching_bins(self.abundance, dispersion, usable=usable, single=single) for single in (False, True)
        ]
        self._samplers: dict[tuple[str, bool], RandomConceptSampler] = {}
        self.stored = {c.key: c for c in read_concepts(adata)}

    def sampler(self, estimator: str, single: bool) -> RandomConceptSampler:
        """The sampler for concepts of that estimator, and of a single gene or of more."""
        key = (estimator, single)
        if key not in self._samplers:
            self._samplers[key] = RandomConceptSampler(self.latents, self.bins[int(single)], estimator, self.seed)
        return self._samplers[key]

    def draw(self, concept: Concept, n_random: int) -> RandomConcepts:
        """A concept with its random stand-ins.

        Raises
        ------
        ValueError
            If it has no genes to match (an encoded layer profile), or covers all of them.
        """
        if concept.source == "combination":
            plus, minus = ([self.stored[str(key)] for key in concept.info[side]] for side in ("plus", "minus"))
            parts = [self.draw(c, n_random) for c in plus]
            excluded = np.stack([np.concatenate(c.vectors) for c in minus]) if minus else None
            return random_combination(parts, excluded, [z.shape[1] for z in self.latents])
        if not len(concept.members):
            raise ValueError(
                f"Expected a concept made of genes, found {concept.label!r}, the encoded profile of a layer, which no "
                "random genes stand in for; test the layer's marker genes: estimator='contrast'"
            )
        weights = np.zeros(self.adata.n_vars)
        rows, values = member_rows(concept, self.adata.var_names)
        weights[rows] = values
        usable = np.count_nonzero(weights[self.bins[0] >= 0])
        try:
            return self.sampler(concept.estimator, bool(usable == 1)).sample(weights, n_random)
        except ValueError as error:
            raise ValueError(f"Concept {concept.label!r}: {error}") from None

    def testable(self, concept: Concept) -> bool:
        """Whether random genes can stand in for the concept."""
        if concept.source == "combination":
            return all(self.testable(self.stored[str(key)]) for key in concept.info["plus"])
        return len(concept.members) > 0


def _of_adata(adata: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Abundance and dispersion of every gene from the counts of an AnnData, a block of spots at a time."""
    matrix = counts_of(adata, read_setup(adata).layer)
    check_counts(matrix, adata.obs_names, adata.var_names)
    total, square, cross = (np.zeros(adata.n_vars) for _ in range(3))
    depth_square = 0.0
    for _, block in row_blocks(matrix):
        counts = sparse.csr_array(block).astype(np.float64)
        depth = np.asarray(counts.sum(axis=1)).ravel()
        total += np.asarray(counts.sum(axis=0)).ravel()
        square += np.asarray(counts.multiply(counts).sum(axis=0)).ravel()
        cross += counts.T @ depth
        depth_square += float(np.sum(depth**2))
    whole = total.sum()
    return total, moment_dispersion(total, square, cross / whole, depth_square / whole**2)


def _of_model(model: GeneVAE) -> tuple[np.ndarray, np.ndarray]:
    """The same from the model's own copy of the counts, some genes at a time."""
    reader = model.reader
    step = max(1, VALUES_AT_ONCE // reader.n_spots)
    total, square, cross = (np.zeros(reader.n_genes) for _ in range(3))
    for start in range(0, reader.n_genes, step):
        counts = reader.profiles(np.arange(start, min(start + step, reader.n_genes)))
        some = slice(start, start + step)
        total[some] = counts.sum(axis=1, dtype=np.float64)
        square[some] = np.einsum("gs,gs->g", counts, counts, dtype=np.float64)
        cross[some] = counts @ reader.depth
    return total, moment_dispersion(total, square, cross, float(np.sum(reader.depth**2)))
