"""Maps of random concepts, made as the stored maps were."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from stcsm import _keys
from stcsm.attribution import method_class
from stcsm.concepts import RandomConcepts, concept_scores
from stcsm.models import GeneVAE
from stcsm.tl._ensemble import average_members
from stcsm.tl._maps import choose_genes, mean_maps
from stcsm.tl._matching import StandIns
from stcsm.tl._store import Concept, entry

logger = logging.getLogger(__name__)

N_RANDOM = 1000
TRIED = 3
"""Random concepts whose maps are timed before the cost of many is told."""


@dataclass(frozen=True)
class MapRecipe:
    """How the maps in ``.obsm["concept_saliency"]`` were made.

    Attributes
    ----------
    method, params
        Of :func:`stcsm.attribution.attribute`.
    genes, n_genes
        As for :func:`stcsm.tl.saliency`.
    """

    method: str
    genes: Any
    n_genes: int
    params: dict[str, Any]

    @property
    def linear(self) -> bool:
        """Whether a map is linear in the concept's vector, so that random concepts cost next to nothing."""
        fixed = not (isinstance(self.genes, str) and self.genes in ("nearest", "concept"))
        return fixed and method_class(self.method).linear

    def bases(self, adata: AnnData, model: GeneVAE, concept: Concept) -> list[np.ndarray]:
        """Maps (L, S') of the latents, of every member; the genes are those of any concept."""
        rows = choose_genes(adata, model, [concept], None, self.genes, self.n_genes)[0]
        unit = np.eye(model.settings["n_latent"])
        return [mean_maps(model, encoder, rows, unit, self.method, self.params) for encoder in model.encoders]


def how_maps_were_made(adata: AnnData, model: GeneVAE) -> tuple[pd.DataFrame, MapRecipe]:
    """The table of maps, and how they were made.

    Raises
    ------
    ValueError
        If there are none, they come from another model, or with parameters that cannot be stored.
    """
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
    recipe = MapRecipe(str(record["method"]), record["genes"], int(np.max(record["n_genes"])), params)
    return adata.obsm[_keys.CONCEPT_SALIENCY], recipe


class RandomMaps:
    """Maps of random concepts one by one, for methods or genes that depend on the concept.

    Parameters
    ----------
    adata, model
        With concepts, and the model that they were made with.
    latents
        Gene embedding (G, L) of every member.
    recipe
        How the maps are made.
    """

    def __init__(self, adata: AnnData, model: GeneVAE, latents: list[np.ndarray], recipe: MapRecipe) -> None:
        self.adata, self.model, self.latents = adata, model, latents
        self.method, self.genes, self.n_genes, self.params = recipe.method, recipe.genes, recipe.n_genes, recipe.params
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

    def together(self, concept: Concept, drawn: RandomConcepts) -> np.ndarray:
        """Maps (1 + N, S') of the concept (row 0) and of its random stand-ins, members averaged."""
        by_member = self.maps(concept, drawn, 1 + len(drawn.vectors))
        if len(by_member) == 1:
            return by_member[0]
        sizes = [np.sqrt(np.mean((m - m.mean(axis=0)) ** 2)) for m in by_member]
        return np.asarray(np.mean([m / (size or 1.0) for m, size in zip(by_member, sizes, strict=True)], axis=0))


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
