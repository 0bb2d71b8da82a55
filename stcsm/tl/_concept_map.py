"""The map of a concept that a biologist should look at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from scipy.sparse import csr_array, diags_array

from stcsm import _keys
from stcsm._lazy import in_memory
from stcsm._text import did_you_mean
from stcsm.models import GeneVAE
from stcsm.pp import make_spot_graph, same_spots
from stcsm.space import diffuse, spatial_filter
from stcsm.tl._maps import (
    Attribution,
    attribution_maps,
    choose_genes,
    counted_spots,
    decoded_maps,
    expression_maps,
    linear_maps,
    nearest_maps,
    standardise_sections,
)
from stcsm.tl._state import Concept, check_concepts, entry, free_key, read_concepts, write_entry, write_maps

logger = logging.getLogger(__name__)


def _gradient(adata: AnnData, model: GeneVAE, concepts: list[Concept]) -> np.ndarray:
    how = Attribution("saliency")
    return attribution_maps(model, how, concepts, choose_genes(adata, model, how, concepts))


PARTS: dict[str, Callable[[AnnData, GeneVAE, list[Concept]], np.ndarray]] = {
    "saliency": _gradient,
    "linear": linear_maps,
    "expression": expression_maps,
    "nearest": nearest_maps,
    "decoded": decoded_maps,
}
"""What a concept map can be made of; each gives (K, S')."""
EXPRESSION_PARTS = ("expression", "nearest")
"""Parts that are expression of genes: smoothed over space first."""
WEIGHTS = {"saliency": 1.0, "linear": 1.0, "expression": 1.5, "nearest": 1.5, "decoded": 1.0}
"""Weight of each part; how it was found: benchmarks/RECOVERY.md."""
DEFAULT_PARTS = ("saliency", "linear", "expression", "nearest")


def concept_map(
    adata: AnnData,
    model: GeneVAE,
    concepts: Sequence[str] | str | None = None,
    parts: Sequence[str] | str | Mapping[str, float] = DEFAULT_PARTS,
    graph: bool = True,
    *,
    key_added: str | None = None,
    progress: bool = False,
) -> None:
    """Map where each concept lives: the recommended map, made of several views of the concept.

    Each part is brought to mean 0 and standard deviation 1 over the spots (of several sections, over those of each:
    maps compare the spots of a section, not sections). The parts are averaged, expression (``"expression"``,
    ``"nearest"``) with 1.5 times the weight of the others, and diffused over the spot graph, so that similar spots get
    similar values. Attribution says what the encoder looks at. Maps of a linear encoder vary less between trainings
    where the genes are few or have few counts. The expression of the concept's own genes ties both to the counts, and
    the genes that the model finds nearest to the concept add counts where its own genes are few.
    ``benchmarks/RECOVERY.md`` measures what each part contributes.

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
        standardised log-normalised expression of the concept's genes, smoothed over space with the graph's width; not
        smoothed without a graph of known width),
        ``"nearest"`` (the same of these genes together with the ten trained genes of highest concept score) and
        ``"decoded"`` (:func:`stcsm.tl.decoded`); or a mapping of these to weights of your own.
    graph
        Diffuse the map over the spot graph (:func:`stcsm.pp.spot_graph`), which is computed with its defaults where
        ``adata.obsp["stcsm_spot_graph"]`` is absent.
    key_added
        Key of ``.obsm`` to write the maps into, instead of ``"concept_map"``.
    progress
        Show a progress bar while the graph is computed, which takes most of the time.

    Writes
    ------
    ``adata.obsm["concept_map"]``
        DataFrame (S, K) in standard deviations; NaN at spots without a count. It is for display: statistics and
        completeness belong to ``.obsm["concept_saliency"]``.
    ``adata.uns["stcsm"]["concept_map"]``
        The parts, their weights, the steps over the graph (0: none) and its scale; for another key
        ``["concept_map_<key_added>"]``.
    ``adata.obsp["stcsm_spot_graph"]``
        Where it was absent, or (with a warning) replaced because it was made for other spots, another layer, other
        coordinates or sections; its settings in ``.uns["stcsm"]["spot_graph"]``.

    Raises
    ------
    ValueError
        If there are no concepts, they come from another model, a name or a part is unknown, a weight is not above zero,
        ``key_added`` is taken, or rows of a spot graph that stcsm did not make do not sum to one.
    TypeError
        If ``model`` is no :class:`stcsm.models.GeneVAE`.
    """
    check_concepts(adata, model)
    chosen = read_concepts(adata, concepts)
    weights = _weights(parts)
    key = free_key(adata, "concept_map", key_added)
    made, settings, is_new = _graph(adata, model, progress) if graph else (None, {}, False)
    views = {p: PARTS[p](adata, model, chosen).T for p in weights}
    smoothed = [p for p in EXPRESSION_PARTS if p in views]
    if smoothed and settings.get("width"):
        coords = np.asarray(adata.obsm[model.setup.spatial_key], dtype=float)[model.spots]
        for own in counted_spots(model):
            if len(own) > 1:
                smoother = spatial_filter(coords[own], settings["width"])
                for part in smoothed:
                    views[part][own] = smoother @ views[part][own]
    scaled = [standardise_sections(model, view) for view in views.values()]
    maps: Any = standardise_sections(model, np.average(scaled, axis=0, weights=list(weights.values())))
    steps = int(settings["steps"]) if graph else 0
    if made is not None:
        maps = standardise_sections(model, diffuse(_among(made, model.spots), maps, steps))
    if is_new:
        adata.obsp[_keys.SPOT_GRAPH] = made
        write_entry(adata, "spot_graph", settings)
    record = {
        "parts": np.asarray(list(weights), dtype=object),
        "weights": np.asarray(list(weights.values())),
        "steps": steps,
        "scale": str(settings.get("scale", "")),
    }
    write_maps(adata, "concept_map", key, chosen, model.to_all_spots(maps.T, counted=True).T, record)


def _weights(parts: Sequence[str] | str | Mapping[str, float]) -> dict[str, float]:
    """Weight of each part: the default, or what was given."""
    names = [parts] if isinstance(parts, str) else parts
    given = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names)
    unknown = [p for p in given if p not in PARTS]
    if unknown or not given:
        meant = did_you_mean(unknown[0], PARTS) if unknown else ""
        raise ValueError(f"Expected parts among {tuple(PARTS)}, found {unknown[0] if unknown else 'none'!r}{meant}")
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


def _graph(adata: AnnData, model: GeneVAE, progress: bool) -> tuple[Any, dict[str, Any], bool]:
    """The spot graph to use, its settings, and whether it is new: one that is there is used for the same spots."""
    setup = model.setup
    where: Any = {"layer": setup.layer, "spatial_key": setup.spatial_key}
    if model.sections is not None:
        where["batch_key"] = setup.batch_key
    settings = entry(adata, "spot_graph")
    there = in_memory(adata.obsp.get(_keys.SPOT_GRAPH))
    if there is not None and settings and same_spots(adata, settings, **where):
        return there, settings, False
    if there is not None and settings:
        logger.warning(
            "the spot graph was computed for other spots, another layer, other coordinates or sections; it is "
            "recomputed"
        )
    elif there is not None:
        if not np.allclose(np.asarray(there.sum(axis=1)), 1, atol=1e-3):
            raise ValueError(
                f"Expected rows of adata.obsp[{_keys.SPOT_GRAPH!r}] that sum to one, found others; compute it with "
                "stcsm.pp.spot_graph(adata)"
            )
        return there, {"steps": 1}, False  # a graph of the user's own has no known width: expression is not smoothed
    return *make_spot_graph(adata, seed=model.settings["seed"], progress=progress, **where), True
