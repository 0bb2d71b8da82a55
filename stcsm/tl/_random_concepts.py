"""Maps against those of concepts made from random genes: the stand-ins, their maps, and the test.

:func:`against_random` serves :func:`stcsm.tl.significance` and :func:`stcsm.tl.differential`; the stand-ins serve
:func:`stcsm.tl.rank_genes_concept` too.
"""

from __future__ import annotations

import logging
import time
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
from anndata import AnnData
from scipy import sparse
from tqdm.auto import tqdm

from stcsm import _keys
from stcsm.concepts import (
    RandomConcepts,
    RandomConceptSampler,
    Significance,
    benjamini_hochberg,
    concepts_against_random,
    map_test,
    matching_bins,
    moment_dispersion,
    random_combination,
)
from stcsm.models import GeneVAE, counts_of, gene_features, read_setup, spots_on_tissue
from stcsm.space import check_counts, count_totals, stored_blocks
from stcsm.tl._maps import Attribution, choose_genes, latent_maps, member_maps
from stcsm.tl._state import COMBINATION, Concept, embedding, entry, gene_rows, read_concepts

logger = logging.getLogger(__name__)

N_RANDOM = 1000
"""Random concepts for each concept where they cost next to nothing."""
TRIED = 3
"""Random concepts whose maps are timed before the cost of many is told."""
VALUES_AT_ONCE = 2**22
"""Counts that are dense at once."""


def recorded_attribution(adata: AnnData, model: GeneVAE, key: str) -> Attribution:
    """How the saliency maps in ``.obsm[key]`` were made.

    Raises
    ------
    ValueError
        If there are none, they come from another model, or with parameters that cannot be stored.
    """
    record = entry(adata, _keys.record("saliency", key))
    if key not in adata.obsm or not record:
        raise ValueError(
            f"Expected saliency maps to test in adata.obsm[{key!r}], found none; run stcsm.tl.saliency(adata, model) "
            "first"
        )
    if record["fingerprint"] != model.fingerprint():
        raise ValueError(
            "Expected maps made with this model, found maps of another one; run stcsm.tl.saliency(adata, model) again"
        )
    params = dict(record.get("params", {}))
    given = [name for name, value in params.items() if isinstance(value, str) and value.startswith("given ")]
    if given:
        raise ValueError(
            f"Expected parameters that could be stored with the maps, found {given[0]!r} given as an array; run "
            "stcsm.tl.saliency without it"
        )
    return Attribution(str(record["method"]), record["genes"], int(np.max(record["n_genes"])), params)


def against_random(
    adata: AnnData,
    model: GeneVAE,
    how: Attribution,
    concepts: list[Concept],
    n_random: int | None,
    *,
    seed: int,
    onto: np.ndarray | None = None,
    alternative: str = "two-sided",
    statistic: str = "energy",
    progress: bool = False,
) -> tuple[Significance | None, np.ndarray]:
    """Test maps of concepts against those of random concepts, mapped in the same way.

    Parameters
    ----------
    adata, model, how
        With concepts, the model that they were made with, and how maps are made.
    concepts
        K concepts.
    n_random
        Random concepts of each; None where maps are linear in the concept, which cost next to nothing.
    seed
        Of the random genes.
    onto
        (S', C) sums over spots that are tested in place of the spots themselves.
    alternative, statistic
        See :func:`stcsm.concepts.map_test`.
    progress
        Show a progress bar.

    Returns
    -------
    The tests of the concepts that random genes can stand in for (None where there are none), and for each concept its
    row there, -1 for the others.

    Raises
    ------
    ValueError
        If ``n_random`` is below 1, or has to be given.
    """
    if n_random is not None and n_random < 1:
        raise ValueError(f"Expected n_random of 1 or more, found {n_random}")
    stand_ins = StandIns(adata, embedding(adata, model), model, seed)
    tested = [c for c in concepts if stand_ins.testable(c)]
    rows = {c.key: i for i, c in enumerate(tested)}
    where = np.array([rows.get(c.key, -1) for c in concepts])
    if not tested:
        return None, where
    if how.linear:
        many = N_RANDOM if n_random is None else n_random
        found = concepts_against_random(
            (stand_ins.draw(c, many) for c in tested), len(tested), latent_maps(adata, model, how), onto=onto,
            alternative=alternative, statistic=statistic, progress=progress,
        )  # fmt: skip
        return found, where
    mapper = _RandomMaps(adata, model, stand_ins, how)
    many = mapper.checked_number(tested, n_random)
    tests, floors = [], []
    for c in tqdm(tested, desc="concepts against random", disable=not progress):
        drawn = stand_ins.draw(c, many)
        maps = mapper.averaged(c, drawn)
        maps = maps if onto is None else maps @ onto
        tests.append(map_test(maps[0], maps[1:], alternative=alternative, statistic=statistic))
        floors.append(drawn.smallest_p)
    stacked = {f.name: np.stack([getattr(t, f.name) for t in tests]) for f in fields(tests[0])}
    concept_q = benjamini_hochberg(stacked["concept_p"])
    return Significance(**stacked, concept_q=concept_q, smallest_p=np.array(floors), n_random=many), where


def at_rows(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Rows of ``values``; NaN where the row is -1."""
    out = np.asarray(values, dtype=np.float64)[where]
    out[where < 0] = np.nan
    return out


class StandIns:
    """Samples random stand-ins of stored concepts, matched in size, abundance and dispersion.

    Parameters
    ----------
    adata
        With concepts.
    latents
        Gene embedding (G, L) of every member.
    model
        Gives the counts where it is there; otherwise they are read from ``adata``.
    seed
        Of the random genes.
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
            If it has no genes to match (an encoded label profile), or covers all of them.
        """
        if concept.source == COMBINATION:
            plus, minus = ([self.stored[str(key)] for key in concept.info[side]] for side in ("plus", "minus"))
            parts = [self.draw(c, n_random) for c in plus]
            excluded = np.stack([np.concatenate(c.vectors) for c in minus]) if minus else None
            return random_combination(parts, excluded, [z.shape[1] for z in self.latents])
        if not len(concept.genes):
            raise ValueError(
                f"Expected a concept made of genes, found {concept.label!r}, the encoded profile of a label, which no "
                "random genes stand in for; test the label's marker genes: estimator='contrast'"
            )
        weights = np.zeros(self.adata.n_vars)
        rows, values = gene_rows(concept, self.adata.var_names)
        weights[rows] = values
        usable = np.count_nonzero(weights[self.bins[0] >= 0])
        try:
            return self.sampler(concept.estimator, bool(usable == 1)).sample(weights, n_random)
        except ValueError as error:
            raise ValueError(f"Concept {concept.label!r}: {error}") from None

    def testable(self, concept: Concept) -> bool:
        """Whether random genes can stand in for the concept."""
        if concept.source == COMBINATION:
            return all(self.testable(self.stored[str(key)]) for key in concept.info["plus"])
        return len(concept.genes) > 0


class _RandomMaps:
    """Maps of random concepts one by one, for methods or genes that depend on the concept."""

    def __init__(self, adata: AnnData, model: GeneVAE, stand_ins: StandIns, how: Attribution) -> None:
        self.adata, self.model, self.stand_ins, self.how = adata, model, stand_ins, how
        self.ends = np.cumsum([0, *(z.shape[1] for z in stand_ins.latents)])

    def checked_number(self, concepts: list[Concept], n_random: int | None) -> int:
        """The number of random concepts that was asked for; say what the maps cost before any are made.

        Raises
        ------
        ValueError
            If no number was given.
        """
        drawn = self.stand_ins.draw(concepts[0], TRIED)
        self.maps(concepts[0], drawn, 1)  # what is slow only once
        started = time.perf_counter()
        self.maps(concepts[0], drawn, 1 + TRIED)
        each = (time.perf_counter() - started) / (1 + TRIED)
        genes = self.how.genes if isinstance(self.how.genes, str) else "given"
        what = f"method {self.how.method!r} with genes={genes!r}"
        if n_random is None:
            raise ValueError(
                f"Expected n_random for {what}, where every random concept is mapped by itself, found none; "
                f"{len(concepts)} concepts take about {each * len(concepts):.2g} s for each random concept, "
                f"{_minutes(each * len(concepts) * N_RANDOM)} for n_random={N_RANDOM}"
            )
        logger.warning(
            f"{what} maps every random concept by itself: {len(concepts)} concepts x {n_random} random concepts take "
            f"about {_minutes(each * len(concepts) * n_random)}"
        )
        return n_random

    def maps(self, concept: Concept, drawn: RandomConcepts, n: int) -> list[np.ndarray]:
        """Maps (n, S') of the concept (row 0) and of its first random stand-ins, of every member."""
        names = self.adata.var_names
        alike = [
            replace(
                concept,
                genes=names[genes].to_numpy(dtype=object),
                weights=np.ones(len(genes)),
                vectors=np.stack([joined[start:stop] for start, stop in pairwise(self.ends)]),
            )
            for genes, joined in zip([drawn.own, *drawn.genes[: n - 1]], drawn.joined()[:n], strict=True)
        ]
        return member_maps(self.model, self.how, alike, choose_genes(self.adata, self.model, self.how, alike))

    def averaged(self, concept: Concept, drawn: RandomConcepts) -> np.ndarray:
        """Maps (1 + N, S') of the concept (row 0) and of its random stand-ins, members averaged."""
        by_member = self.maps(concept, drawn, 1 + len(drawn.vectors))
        if len(by_member) == 1:
            return by_member[0]
        sizes = [np.sqrt(np.mean((m - m.mean(axis=0)) ** 2)) for m in by_member]
        return np.asarray(np.mean([m / (size or 1.0) for m, size in zip(by_member, sizes, strict=True)], axis=0))


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _of_adata(adata: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Abundance and dispersion of every gene from the counts of an AnnData, read twice in blocks."""
    setup = read_setup(adata)
    on_tissue, genes = spots_on_tissue(adata, setup), gene_features(adata, setup)
    matrix = counts_of(adata, setup.layer)
    check_counts(matrix, adata.obs_names, adata.var_names)
    depth, total = count_totals(matrix, on_tissue, genes)
    square, cross = np.zeros(adata.n_vars), np.zeros(adata.n_vars)
    for row, column, block in stored_blocks(matrix):
        counts = sparse.csr_array(block).astype(np.float64)
        own, some = slice(row, row + counts.shape[0]), slice(column, column + counts.shape[1])
        square[some] += counts.multiply(counts).T @ on_tissue[own]
        cross[some] += counts.T @ depth[own]
    square[~genes], cross[~genes] = 0, 0
    whole = total.sum()
    return total, moment_dispersion(total, square, cross / whole, float(np.sum(depth**2)) / whole**2)


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
