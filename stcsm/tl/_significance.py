"""Saliency maps against those of random concepts."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm.auto import tqdm

from stcsm import _keys
from stcsm.concepts import (
    benjamini_hochberg,
    concepts_against_random,
    map_test,
)
from stcsm.models import GeneVAE
from stcsm.tl._concepts import check_concepts
from stcsm.tl._matching import StandIns
from stcsm.tl._moran import morans_i
from stcsm.tl._random_maps import N_RANDOM, RandomMaps, how_maps_were_made
from stcsm.tl._store import columns, read_concepts, write_entry

logger = logging.getLogger(__name__)

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
    made, recipe = how_maps_were_made(adata, model)
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
    if recipe.linear:
        n_random = N_RANDOM if n_random is None else n_random
        found = concepts_against_random(
            (stand_ins.draw(c, n_random) for c in tested), len(tested), recipe.bases(adata, model, tested[0]),
            alternative=alternative, statistic=statistic, progress=progress,
        )  # fmt: skip
        p, q, concept_p = found.p, found.q, found.concept_p
        strength, smallest_p = found.strength, found.smallest_p
    else:
        task = RandomMaps(adata, model, latents, recipe)
        n_random = task.agreed(stand_ins, tested, n_random)
        tests, floors = [], []
        for c in tqdm(tested, desc="concepts against random", disable=not progress):
            drawn = stand_ins.draw(c, n_random)
            maps = task.together(c, drawn)
            tests.append(map_test(maps[0], maps[1:], alternative=alternative, statistic=statistic))
            floors.append(drawn.smallest_p)
        p, q = (np.stack([getattr(t, name) for t in tests]) for name in ("p", "q"))
        concept_p, strength = (np.array([getattr(t, name) for t in tests]) for name in ("concept_p", "strength"))
        smallest_p = np.array(floors)
    place = {c.key: i for i, c in enumerate(tested)}
    where = np.array([place.get(c.key, -1) for c in chosen])
    raw = made[[c.key for c in chosen]].to_numpy(dtype=np.float64)[model.spots]
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
        index=pd.Index([c.key for c in chosen]),
    )
    for key, values in ((_keys.CONCEPT_SALIENCY_PVAL, p), (_keys.CONCEPT_SALIENCY_QVAL, q)):
        adata.obsm[key] = columns(chosen, model.to_all_spots(_at(values, where), counted=True).T, adata.obs_names)
    write_entry(
        adata,
        "significance",
        {
            "table": table,
            "n_random": n_random,
            "alternative": alternative,
            "statistic": statistic,
            "seed": seed,
            "method": recipe.method,
            "fingerprint": model.fingerprint(),
        },
    )


def _at(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Rows of ``values``; NaN where the row is -1."""
    out = np.asarray(values, dtype=np.float64)[where]
    out[where < 0] = np.nan
    return out
