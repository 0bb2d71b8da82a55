"""The map of a concept that a biologist should look at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from anndata import AnnData

from stcsm import _keys
from stcsm._lazy import in_memory
from stcsm._text import did_you_mean
from stcsm.models import GeneVAE
from stcsm.pp import SCALES, make_spot_graph, same_spots
from stcsm.space import LABELS_TOGETHER, diffuse, smooth, smooth_regions
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
from stcsm.tl._regions import graph_among, regions_are_wide
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
WEIGHTS = {"saliency": 1.0, "linear": 1.0, "expression": 3.0, "nearest": 3.0, "decoded": 1.0}
"""Weight of each part; how it was found: benchmarks/RECOVERY.md."""
DEFAULT_PARTS = ("saliency", "decoded", "expression", "nearest")


def concept_map(
    adata: AnnData,
    model: GeneVAE,
    concepts: Sequence[str] | str | None = None,
    parts: Sequence[str] | str | Mapping[str, float] = DEFAULT_PARTS,
    graph: bool = True,
    *,
    scale: str = "auto",
    key_added: str | None = None,
    progress: bool = False,
) -> None:
    """Map where each concept lives: the recommended map, made of several views of the concept.

    Each part is brought to mean 0 and standard deviation 1 over the spots (of several sections, over those of each:
    maps compare the spots of a section, not sections). The parts are averaged, expression (``"expression"``,
    ``"nearest"``) with three times the weight of the others, and diffused over the spot graph, so that similar spots
    get similar values. Where regions are wide (smoothing leaves modules of genes apart), a map is then smoothed over
    space as far as its own neighbours explain it; thin layers stay as they are. Attribution says what the encoder
    looks at, the decoder what the model expects of the concept. The expression of the concept's own genes ties both
    to the counts, and the genes that the model finds nearest to the concept add counts where its own genes are few.
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
        Any of ``"saliency"`` (gradient averaged over a fixed random 1500 genes), ``"decoded"``
        (:func:`stcsm.tl.decoded`), ``"expression"`` (mean standardised log-normalised expression of the concept's
        genes, smoothed over space with the graph's width; not smoothed without a graph of known width), ``"nearest"``
        (the same of these genes together with the ten trained genes of highest concept score) and ``"linear"`` (the
        saliency of a linear encoder: principal components of the genes, as many as predict held-out counts best); or a
        mapping of these to weights of your own.
    graph
        Diffuse the map over the spot graph (:func:`stcsm.pp.spot_graph`), which is computed with its defaults where
        ``adata.obsp["stcsm_spot_graph"]`` is absent.
    scale
        ``"region"``: which region does a spot belong to? ``"spot"``: which spots (cells) are meant? ``"auto"``: the
        graph that you computed with :func:`stcsm.pp.spot_graph`, if any. Otherwise labels decide for concepts made from
        them: regions where neighbours share a label (60% more often than chance), spots where they do not. For other
        concepts ``"auto"`` of :func:`stcsm.pp.spot_graph` decides, by the counts.
    key_added
        Key of ``.obsm`` to write the maps into, instead of ``"concept_map"``; maps of both scales can stand side by
        side.
    progress
        Show a progress bar while the graph is computed, which takes most of the time.

    Writes
    ------
    ``adata.obsm["concept_map"]``
        DataFrame (S, K) in standard deviations; NaN at spots without a count. It is for display: statistics and
        completeness belong to ``.obsm["concept_saliency"]``.
    ``adata.uns["stcsm"]["concept_map"]``
        The parts, their weights, the scale (empty where concepts have different ones), and for each concept the scale
        (``"scales"``), why it was taken (empty: you asked for it), the steps over the graph (0: none) and the width of
        the last smoothing (the widest of several sections), in nearest-neighbour distances; for another key
        ``["concept_map_<key_added>"]``.
    ``adata.obsp["stcsm_spot_graph"]``
        Where it was absent, or (with a warning) replaced because it was made for other spots, another layer, other
        coordinates or sections; its settings in ``.uns["stcsm"]["spot_graph"]``. A graph of another scale than the one
        that is there is not stored.

    Raises
    ------
    ValueError
        If there are no concepts, they come from another model, a name, a part or the scale is unknown, a weight is not
        above zero, ``key_added`` is taken, or rows of a spot graph that stcsm did not make do not sum to one.
    TypeError
        If ``model`` is no :class:`stcsm.models.GeneVAE`.
    """
    check_concepts(adata, model)
    chosen = read_concepts(adata, concepts)
    weights = _weights(parts)
    if scale not in SCALES:
        raise ValueError(f"Expected scale to be one of {SCALES}, found {scale!r}")
    key = free_key(adata, "concept_map", key_added)
    graphs = _Graphs(adata, model, progress) if graph else None
    asked = [("", "") if graphs is None else graphs.ask(concept, scale) for concept in chosen]
    # The counts' own choice first: it is the one that is stored.
    wanted = sorted(dict(asked).items(), key=lambda item: item[0] != "auto")
    found = {name: (None, {}) if graphs is None else graphs.find(name, why) for name, why in wanted}
    views = {p: PARTS[p](adata, model, chosen).T for p in weights}
    maps, widths = np.empty((len(model.spots), len(chosen))), np.zeros(len(chosen))
    for name, (made, settings) in found.items():
        some = [k for k, (other, _) in enumerate(asked) if other == name]
        own = {part: view[:, some] for part, view in views.items()}
        maps[:, some], widths[some] = _joined(adata, model, own, list(weights.values()), made, settings)
    if graphs is not None:
        graphs.write()
    of = [found[name][1] for name, _ in asked]
    reasons = [why or (s.get("reason", "") if scale == "auto" else "") for (_, why), s in zip(asked, of, strict=True)]
    scales = [str(s.get("scale", "")) for s in of]
    record = {
        "parts": np.asarray(list(weights), dtype=object),
        "weights": np.asarray(list(weights.values())),
        "scale": scales[0] if len(set(scales)) == 1 else "",
        "scales": np.asarray(scales, dtype=object),
        "reason": np.asarray(reasons, dtype=object),
        "steps": np.asarray([int(s.get("steps", 0)) for s in of]),
        "smoothing": widths,
    }
    write_maps(adata, "concept_map", key, chosen, model.to_all_spots(maps.T, counted=True).T, record)


def _joined(
    adata: AnnData,
    model: GeneVAE,
    views: dict[str, np.ndarray],
    weights: list[float],
    graph: Any,
    settings: dict[str, Any],
) -> tuple[np.ndarray, np.ndarray]:
    """Maps (S', K) of parts (S', K), put together over a graph, and the width of their last smoothing (K,)."""
    coords = np.asarray(adata.obsm[model.setup.spatial_key], dtype=float)[model.spots]
    sections = [own for own in counted_spots(model) if len(own) > 1]
    some = [views[part] for part in EXPRESSION_PARTS if part in views]
    if some and settings.get("width"):
        for own in sections:
            smoothed, _ = smooth(np.hstack([view[own] for view in some]), coords[own], settings["width"])
            for view, values in zip(some, np.hsplit(smoothed, len(some)), strict=True):
                view[own] = values
    scaled = [standardise_sections(model, view) for view in views.values()]
    maps: Any = standardise_sections(model, np.average(scaled, axis=0, weights=weights))
    widths = np.zeros(maps.shape[1])
    if graph is None:
        return maps, widths
    among = graph_among(graph, model.spots)
    maps = diffuse(among, maps, int(settings["steps"]))
    if settings.get("best_width"):
        for own in sections:
            if regions_are_wide(adata, model, own, coords, among, settings):
                maps[own], reach = smooth_regions(maps[own], coords[own], settings["best_width"])
                widths = np.maximum(widths, reach)
    return standardise_sections(model, maps), widths


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


class _Graphs:
    """Spot graphs by the scale that is asked for: the one that is there, where it fits, and new ones."""

    def __init__(self, adata: AnnData, model: GeneVAE, progress: bool) -> None:
        self.adata, self.progress, self.seed = adata, progress, model.settings["seed"]
        setup = model.setup
        self.where: Any = {"layer": setup.layer, "spatial_key": setup.spatial_key}
        if model.sections is not None:
            self.where["batch_key"] = setup.batch_key
        self.made: dict[str, tuple[Any, dict[str, Any]]] = {}
        self.there = self._read()

    def ask(self, concept: Concept, scale: str) -> tuple[str, str]:
        """The scale to ask for, and why, for a concept: labels decide where the user did not."""
        coherence = concept.info.get("coherence")
        users = self.there is not None and "reason" not in self.there[1]
        if scale != "auto" or coherence is None or users:
            return scale, ""
        wide = coherence >= LABELS_TOGETHER
        return ("region" if wide else "spot"), f"neighbours share a label {coherence:.0%} more often than chance"

    def _read(self) -> tuple[Any, dict[str, Any]] | None:
        settings, there = entry(self.adata, "spot_graph"), in_memory(self.adata.obsp.get(_keys.SPOT_GRAPH))
        if there is None:
            return None
        if settings:
            if same_spots(self.adata, settings, **self.where):
                return there, settings
            logger.warning(
                "the spot graph was computed for other spots, another layer, other coordinates or sections; it is "
                "recomputed"
            )
            return None
        if not np.allclose(np.asarray(there.sum(axis=1)), 1, atol=1e-3):
            raise ValueError(
                f"Expected rows of adata.obsp[{_keys.SPOT_GRAPH!r}] that sum to one, found others; compute it with "
                "stcsm.pp.spot_graph(adata)"
            )
        return there, {"steps": 1}  # a graph of the user's own has no known width: expression is not smoothed

    def find(self, scale: str, why: str) -> tuple[Any, dict[str, Any]]:
        """Graph and settings for a scale; "auto" is the user's graph, or the scale that the counts choose."""
        for graph, settings in [*([self.there] if self.there else []), *self.made.values()]:
            if settings.get("scale") == scale or (scale == "auto" and settings.get("asked", scale) == scale):
                return graph, settings
        graph, settings = make_spot_graph(self.adata, scale, seed=self.seed, progress=self.progress, **self.where)
        # A graph without a reason is one that the user chose.
        self.made[scale] = graph, {"asked": scale, "reason": why or f"scale={scale!r} of tl.concept_map", **settings}
        return self.made[scale]

    def write(self) -> None:
        """Store the first new graph where none was there."""
        if self.there is None and self.made:
            graph, settings = next(iter(self.made.values()))
            self.adata.obsp[_keys.SPOT_GRAPH] = graph
            write_entry(self.adata, "spot_graph", settings)
