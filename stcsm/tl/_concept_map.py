"""The map of a concept that a biologist should look at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from scipy.sparse import csr_array, diags_array

from stcsm import _keys
from stcsm.models import GeneVAE
from stcsm.pp import make_spot_graph, same_spots
from stcsm.space import diffuse, spatial_filter
from stcsm.tl._concepts import check_concepts
from stcsm.tl._decoded import decoded_maps
from stcsm.tl._ensemble import counted_spots, standardise_sections
from stcsm.tl._expression import member_expression, nearest_expression
from stcsm.tl._linear import linear_maps
from stcsm.tl._maps import random_genes
from stcsm.tl._saliency import saliency_maps
from stcsm.tl._store import Concept, columns, entry, read_concepts, write_entry

logger = logging.getLogger(__name__)


def _gradient(model: GeneVAE, concepts: list[Concept]) -> np.ndarray:
    return saliency_maps(model, concepts, [random_genes(model)] * len(concepts))


PARTS: dict[str, Callable[[GeneVAE, list[Concept]], np.ndarray]] = {
    "saliency": _gradient,
    "linear": linear_maps,
    "expression": member_expression,
    "nearest": nearest_expression,
    "decoded": decoded_maps,
}
"""What a concept map can be made of; each gives (K, S')."""
SHOWN = ("expression", "nearest")
"""Parts that genes show by themselves: smoothed over space first."""
WEIGHTS = {"saliency": 1.0, "linear": 1.0, "expression": 1.5, "nearest": 1.5, "decoded": 1.0}
"""What each part counts; how it was found: benchmarks/RECOVERY.md."""
DEFAULT_PARTS = ("saliency", "linear", "expression", "nearest")


def concept_map(
    adata: AnnData,
    model: GeneVAE,
    concepts: Sequence[str] | str | None = None,
    parts: Sequence[str] | str | Mapping[str, float] = DEFAULT_PARTS,
    graph: bool = True,
    *,
    progress: bool = False,
) -> None:
    """Map where each concept lives: the recommended map, made of several views of the concept.

    Each part is brought to mean 0 and standard deviation 1 over the spots (of several sections, over those of each:
    maps compare the places of a section, not sections); the parts are averaged, those that genes show by themselves
    (``"expression"``, ``"nearest"``) with 1.5 times the weight of the others, and carried over the spot graph, so that
    spots that look alike get alike values. Attribution says what the encoder looks at, a linear encoder is the steadier
    witness where genes are few or faint, the members' own expression keeps both honest, and genes that the model finds
    nearest to the concept steady it where the members are few. ``benchmarks/RECOVERY.md`` has what each part is worth.

    Parameters
    ----------
    adata
        With concepts (:func:`stcsm.tl.concepts`).
    model
        The model that the concepts were made with.
    concepts
        Names; None is all of them.
    parts
        Any of ``"saliency"`` (gradient averaged over a fixed random 1500 genes), ``"linear"`` (the same for a linear
        encoder: principal components of the genes, as many as predict held-out counts best), ``"expression"`` (mean
        standardised log-normalised expression of the members, smoothed over space with the graph's width),
        ``"nearest"`` (the same of the members together with the ten trained genes of highest concept score) and
        ``"decoded"`` (:func:`stcsm.tl.decoded`); or a mapping of these to weights of your own.
    graph
        Carry the map over the spot graph (:func:`stcsm.pp.spot_graph`), which is made with its defaults where
        ``adata.obsp["stcsm_spot_graph"]`` is absent.
    progress
        Show a progress bar while the graph is made, which takes most of the time.

    Writes
    ------
    ``adata.obsm["concept_map"]``
        DataFrame (S, K) in standard deviations; NaN at spots without a count. It is made for looking at: statistics
        and completeness belong to ``.obsm["concept_saliency"]``.
    ``adata.uns["stcsm"]["concept_map"]``
        The parts, their weights, and the steps over the graph (0: none).
    ``adata.obsp["stcsm_spot_graph"]``
        Where it was absent, or made for other spots, and is used.

    Raises
    ------
    ValueError
        If there are no concepts, they come from another model, a name is unknown, a part is, or a weight is not above
        zero.
    """
    check_concepts(adata, model)
    chosen = read_concepts(adata, concepts)
    weights = _weights(parts)
    made, settings = _graph(adata, model, progress) if graph else (None, {})
    views = {p: PARTS[p](model, chosen).T for p in weights}
    shown = [p for p in SHOWN if p in views]
    if shown and settings.get("width"):
        coords = np.asarray(adata.obsm[model.setup.spatial_key], dtype=float)[model.spots]
        for own in counted_spots(model):
            if len(own) > 1:
                smoother = spatial_filter(coords[own], settings["width"])
                for part in shown:
                    views[part][own] = smoother @ views[part][own]
    scaled = [standardise_sections(model, view) for view in views.values()]
    maps: Any = standardise_sections(model, np.average(scaled, axis=0, weights=list(weights.values())))
    steps = int(settings["steps"]) if graph else 0
    if made is not None:
        maps = standardise_sections(model, diffuse(_among(made, model.spots), maps, steps))
    if made is not None and made is not adata.obsp.get(_keys.SPOT_GRAPH):
        adata.obsp[_keys.SPOT_GRAPH] = made
        write_entry(adata, "spot_graph", settings)
    adata.obsm[_keys.CONCEPT_MAP] = columns(chosen, model.to_all_spots(maps.T, counted=True).T, adata.obs_names)
    write_entry(
        adata,
        "concept_map",
        {
            "parts": np.asarray(list(weights), dtype=object),
            "weights": np.asarray(list(weights.values())),
            "steps": steps,
        },
    )


def _weights(parts: Sequence[str] | str | Mapping[str, float]) -> dict[str, float]:
    """What each part counts: the usual weights, or those that were given."""
    names = [parts] if isinstance(parts, str) else parts
    given = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names)
    unknown = [p for p in given if p not in PARTS]
    if unknown or not given:
        raise ValueError(f"Expected parts among {tuple(PARTS)}, found {unknown[0] if unknown else 'none'!r}")
    weights = {p: WEIGHTS[p] if w is None else float(w) for p, w in given.items()}
    for part, weight in weights.items():
        if not (np.isfinite(weight) and weight > 0):
            raise ValueError(f"Expected weights above zero, found {weight:g} for {part!r}; leave that part out")
    return weights


def _among(graph: Any, spots: np.ndarray) -> csr_array:
    """The graph among some spots, rows summing to one again; a spot that is joined to none of them stays by itself."""
    part = csr_array(csr_array(graph)[spots][:, spots])
    total = np.asarray(part.sum(axis=1, dtype=np.float64)).ravel()
    if (np.abs(total - 1) <= 1e-3).all():
        return part
    alone = total <= 0
    return csr_array(diags_array(1 / np.where(alone, 1, total)) @ part + diags_array(alone.astype(np.float64)))


def _graph(adata: AnnData, model: GeneVAE, progress: bool) -> tuple[Any, dict[str, Any]]:
    """The spot graph to use, and its settings: what is there if it was made for these spots, otherwise a new one."""
    setup = model.setup
    where: Any = {"layer": setup.layer, "spatial_key": setup.spatial_key}
    if model.sections is not None:
        where["batch_key"] = setup.batch_key
    settings = entry(adata, "spot_graph")
    there = adata.obsp.get(_keys.SPOT_GRAPH)
    if there is not None and settings and same_spots(adata, settings, **where):
        return there, settings
    if there is not None and settings:
        logger.warning(
            "the spot graph was made for other spots, another layer, other coordinates or sections; it is made anew"
        )
    elif there is not None:
        if not np.allclose(np.asarray(there.sum(axis=1)), 1, atol=1e-3):
            raise ValueError(
                f"Expected rows of adata.obsp[{_keys.SPOT_GRAPH!r}] that sum to one, found others; make it with "
                "stcsm.pp.spot_graph(adata)"
            )
        return there, {"steps": 1}
    return make_spot_graph(adata, seed=model.settings["seed"], progress=progress, **where)
