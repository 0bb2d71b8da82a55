"""Saliency maps against those of random concepts."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm.auto import tqdm

from stcsm import _keys
from stcsm.attribution import LINEAR_METHODS
from stcsm.concepts import (
    MapTest,
    RandomConcepts,
    benjamini_hochberg,
    concept_scores,
    concepts_against_random,
    map_test,
)
from stcsm.models import GeneVAE
from stcsm.tl._concepts import check_concepts
from stcsm.tl._ensemble import average_members
from stcsm.tl._maps import choose_genes, mean_maps
from stcsm.tl._matching import StandIns
from stcsm.tl._moran import morans_i
from stcsm.tl._store import Concept, columns, entry, read_concepts, write_entry

logger = logging.getLogger(__name__)

N_RANDOM = 1000
TRIED = 3
"""Random concepts whose maps are timed before the cost of many is told."""
LEVEL = 0.05


def significance(
    adata: AnnData,
    model: GeneVAE,
    n_random: int | None = None,
    concepts: Sequence[str] | str | None = None,
    *,
    alternative: str = "two-sided",
    statistic: str = "energy",
    seed: int = 0,
    progress: bool = False,
) -> None:
    """Test saliency maps against those of concepts made from random genes.

    A map always looks like something. For each concept, random sets of genes are drawn that match it gene by gene in
    abundance and dispersion (and so in size, weights and signs), made into concepts and mapped in the very same way.
    p is the share of maps, the concept's own among them, that are at least as extreme: at a spot, as far from the
    random maps' mean; of a whole map, by ``statistic``. It is exact where the concept's genes were themselves picked at
    random (Phipson & Smyth 2010).

    Parameters
    ----------
    adata
        With ``.obsm["concept_saliency"]`` (:func:`stcsm.tl.saliency`); the same method, genes and parameters are used.
    model
        The model that the concepts were made with.
    n_random
        Random concepts for each concept: the smallest p is ``1 / (1 + n_random)``. By default 1000 for methods that are
        linear in the concept, where they cost well under a second; other methods map each random concept by itself, and
        the number has to be given (without it, the error says what it would cost).
    concepts
        Names; None is all that have a map. Encoded layer profiles have no genes that others could stand in for; they
        get NaN.
    alternative
        At a spot, ``"two-sided"``: far from the random maps' mean in either direction; ``"greater"``: above it.
    statistic
        Of a whole map: ``"energy"``, mean squared deviation; ``"max"``, the largest.
    seed
        Of the random genes. The same seed gives a concept the same p values, whatever is tested beside it.
    progress
        Show a progress bar.

    Writes
    ------
    ``adata.obsm["concept_saliency_pval"]``, ``adata.obsm["concept_saliency_qval"]``
        DataFrames (S, K): p of every spot, and its Benjamini-Hochberg q over the spots of that concept; NaN at spots
        without a count.
    ``adata.uns["stcsm"]["significance"]``
        ``"table"``, a DataFrame with a row for each concept: ``p`` of the whole map; ``q`` over the concepts tested
        together; ``strength``, the statistic over the median of its random concepts' (1: like any other);
        ``smallest_p`` that was possible; ``n_genes``; ``spots_q05``, the share of spots with q below 0.05;
        ``morans_i``, spatial coherence of the map (squidpy). Beside it the settings.

    With several members of an ensemble, the same random genes make maps in each; each member's maps are divided by
    their typical size and averaged. A combination with several included concepts tests whether they are together
    stronger than random concepts together; its excluded concepts stay as they are.

    Raises
    ------
    ValueError
        If there are no maps, they come from another model or with parameters that cannot be stored, a name is unknown,
        or ``n_random`` has to be given.
    """
    check_concepts(adata, model)
    made, method, genes, n_genes, params = _how_maps_were_made(adata, model)
    chosen = read_concepts(adata, [str(key) for key in made] if concepts is None else concepts)
    without = [c.label for c in chosen if c.key not in made]
    if without:
        raise ValueError(
            f"Expected a map of every concept, found none of {without[0]!r}; run stcsm.tl.saliency(adata, model) again"
        )
    if n_random is not None and n_random < 1:
        raise ValueError(f"Expected n_random of 1 or more, found {n_random}")
    latents = [model.get_latent_representation(member=m) for m in range(model.n_members)]
    stand_ins = StandIns(adata, latents, model, seed)
    tested = [c for c in chosen if stand_ins.testable(c)]
    if not tested:
        raise ValueError(
            "Expected a concept made of genes, found encoded layer profiles alone, which no random genes stand in for; "
            "test the layers' marker genes: estimator='contrast'"
        )
    if len(tested) < len(chosen):
        logger.warning(f"{len(chosen) - len(tested)} encoded layer profiles are not tested: they have no genes")
    fixed = not (isinstance(genes, str) and genes in ("nearest", "members"))
    if fixed and method in LINEAR_METHODS:
        n_random = N_RANDOM if n_random is None else n_random
        rows = choose_genes(adata, model, tested[:1], None, genes, n_genes)[0]
        unit = np.eye(model.settings["n_latent"])
        bases = [mean_maps(model, encoder, rows, unit, method, params) for encoder in model.encoders]
        found = concepts_against_random(
            (stand_ins.draw(c, n_random) for c in tested), len(tested), bases, alternative=alternative,
            statistic=statistic, progress=progress,
        )  # fmt: skip
        p, q, concept_p = found.p, found.q, found.concept_p
        strength, smallest_p = found.strength, found.smallest_p
    else:
        task = _Mapper(adata, model, latents, method, genes, n_genes, params)
        n_random = task.agreed(stand_ins, tested, n_random)
        tests, floors = [], []
        for c in tqdm(tested, desc="concepts against random", disable=not progress):
            drawn = stand_ins.draw(c, n_random)
            tests.append(task.test(c, drawn, alternative, statistic))
            floors.append(drawn.smallest_p)
        p, q = (np.stack([getattr(t, name) for t in tests]) for name in ("p", "q"))
        concept_p, strength = (np.array([getattr(t, name) for t in tests]) for name in ("concept_p", "strength"))
        smallest_p = np.array(floors)
    maps = adata.obsm[_keys.CONCEPT_SALIENCY]
    place = {c.key: i for i, c in enumerate(tested)}
    where = np.array([place.get(c.key, -1) for c in chosen])
    raw = maps[[c.key for c in chosen]].to_numpy(dtype=np.float64)[model.spots]
    coords = np.asarray(adata.obsm[model.setup.spatial_key], dtype=np.float64)[model.spots]
    table = pd.DataFrame(
        {
            "p": _at(concept_p, where),
            "q": _at(benjamini_hochberg(concept_p), where),
            "strength": _at(strength, where),
            "smallest_p": _at(smallest_p, where),
            "n_genes": [len(c.members) for c in chosen],
            "spots_q05": _at(np.nanmean(np.where(np.isnan(q), np.nan, q < LEVEL), axis=1), where),
            "morans_i": morans_i(coords, raw, [own for _, own in model.parts()]),
        },
        index=pd.Index([c.key for c in chosen], dtype=object),
    )
    for key, values in ((_keys.CONCEPT_SALIENCY_PVAL, p), (_keys.CONCEPT_SALIENCY_QVAL, q)):
        adata.obsm[key] = columns(chosen, model.to_all_spots(_at(values, where)).T, adata.obs_names)
    write_entry(
        adata,
        "significance",
        {
            "table": table,
            "n_random": n_random,
            "alternative": alternative,
            "statistic": statistic,
            "seed": seed,
            "method": method,
            "fingerprint": model.fingerprint(),
        },
    )


def _at(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Rows of ``values``; NaN where the row is -1."""
    out = np.asarray(values, dtype=np.float64)[where]
    out[where < 0] = np.nan
    return out


def _how_maps_were_made(adata: AnnData, model: GeneVAE) -> tuple[pd.DataFrame, str, Any, int, dict[str, Any]]:
    record = entry(adata, "saliency")
    if _keys.CONCEPT_SALIENCY not in adata.obsm or not record:
        raise ValueError("Expected maps to test, found none; run stcsm.tl.saliency(adata, model) first")
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
    genes = record["genes"]
    n_genes = int(np.max(record["n_genes"]))
    return adata.obsm[_keys.CONCEPT_SALIENCY], str(record["method"]), genes, n_genes, params


class _Mapper:
    """Maps of random concepts one by one, for methods or genes that depend on the concept."""

    def __init__(
        self,
        adata: AnnData,
        model: GeneVAE,
        latents: list[np.ndarray],
        method: str,
        genes: Any,
        n_genes: int,
        params: dict[str, Any],
    ) -> None:
        self.adata, self.model, self.latents = adata, model, latents
        self.method, self.genes, self.n_genes, self.params = method, genes, n_genes, params
        self.ends = np.cumsum([0, *(z.shape[1] for z in latents)])

    def agreed(self, stand_ins: StandIns, concepts: list[Concept], n_random: int | None) -> int:
        """Tell what the maps will cost, before any are made; refuse to choose their number."""
        drawn = stand_ins.draw(concepts[0], TRIED)
        self.maps(concepts[0], drawn, 1)  # what is slow only once
        started = time.perf_counter()
        self.maps(concepts[0], drawn, 1 + TRIED)
        each = (time.perf_counter() - started) / (1 + TRIED)
        how = f"method {self.method!r} with genes={self.genes if isinstance(self.genes, str) else 'given'!r}"
        if n_random is None:
            raise ValueError(
                f"Expected n_random for {how}, where every random concept is mapped by itself, found none; "
                f"{len(concepts)} concepts take about {each * len(concepts):.2g} s for each random concept, "
                f"{_minutes(each * len(concepts) * N_RANDOM)} for n_random={N_RANDOM}"
            )
        logger.warning(
            f"{how} maps every random concept by itself: {len(concepts)} concepts x {n_random} random concepts take "
            f"about {_minutes(each * len(concepts) * n_random)}"
        )
        return n_random

    def maps(self, concept: Concept, drawn: RandomConcepts, n: int) -> list[np.ndarray]:
        """Maps (n, S') of the concept (row 0) and of its first random stand-ins, of every member."""
        joined = drawn.joined()[:n]
        by_member = [joined[:, start:stop] for start, stop in pairwise(self.ends)]
        sets = [drawn.own, *drawn.members[: n - 1]]
        names = self.adata.var_names
        as_concepts = [
            replace(concept, members=names[genes].to_numpy(dtype=object), weights=np.ones(len(genes))) for genes in sets
        ]
        scores = None
        if isinstance(self.genes, str) and self.genes == "nearest":
            scores = average_members([concept_scores(z, v) for z, v in zip(self.latents, by_member, strict=True)])
        rows = choose_genes(self.adata, self.model, as_concepts, scores, self.genes, self.n_genes)
        shared = all(r is rows[0] for r in rows)
        out = []
        for encoder, vectors in zip(self.model.encoders, by_member, strict=True):
            if shared:
                out.append(mean_maps(self.model, encoder, rows[0], vectors, self.method, self.params))
            else:
                out.append(
                    np.concatenate(
                        [
                            mean_maps(self.model, encoder, r, v[None], self.method, self.params)
                            for r, v in zip(rows, vectors, strict=True)
                        ]
                    )
                )
        return out

    def test(self, concept: Concept, drawn: RandomConcepts, alternative: str, statistic: str) -> MapTest:
        """Test the concept's map against those of its random stand-ins, members averaged."""
        by_member = self.maps(concept, drawn, 1 + len(drawn.vectors))
        if len(by_member) == 1:
            together = by_member[0]
        else:
            sizes = [np.sqrt(np.mean((m - m.mean(axis=0)) ** 2)) for m in by_member]
            together = np.mean([m / (size or 1.0) for m, size in zip(by_member, sizes, strict=True)], axis=0)
        return map_test(together[0], together[1:], alternative=alternative, statistic=statistic)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
