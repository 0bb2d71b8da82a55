"""Maps of concepts and of genes on the tissue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.collections import EllipseCollection

from stcsm import _keys
from stcsm._layers import counts_matrix
from stcsm._lazy import in_memory
from stcsm.pl._figure import Panels, plot
from stcsm.pl._read import entry, label, panels, stored, table, verdict
from stcsm.pl._spots import (
    Marks,
    TissueOptions,
    draw_image,
    draw_panels,
    draw_tissue,
    frame,
    spacing,
    tissue_of,
    write_title,
)

UNITS = {
    _keys.CONCEPT_SALIENCY: "saliency",
    _keys.CONCEPT_MAP: "s.d.",
    _keys.CONCEPT_DECODED: "decoder output",
    _keys.CONCEPT_EXPRESSION: "mean scaled counts",
}
COUNTS = "counts"
"""Column of :func:`concept_panel` for the counts of a concept's only gene, or the mean expression of its genes."""
NAMES = {
    COUNTS: "counts",
    _keys.CONCEPT_SALIENCY: "saliency",
    _keys.CONCEPT_DECODED: "decoded",
    _keys.CONCEPT_MAP: "map",
    _keys.CONCEPT_EXPRESSION: "expression",
}


@plot
def concept_map(
    adata: AnnData, concepts: Sequence[str] | str | None = None, key: str = _keys.CONCEPT_MAP, *, look: TissueOptions
) -> Panels:
    """Show concept maps on the tissue, one panel a concept, on the image of the section where there is one.

    The line under the title gives the verdict on a concept that was tested against random concepts
    (:func:`stcsm.tl.significance`).

    Parameters
    ----------
    adata
        With maps (:func:`stcsm.tl.concept_map`, :func:`stcsm.tl.saliency` or :func:`stcsm.tl.decoded`).
    concepts
        Names; None is all of them, but of more than 24 only the most significant (or the first) 24.
    key
        Table of ``.obsm`` to draw: ``"concept_map"``, ``"concept_saliency"``, ``"concept_decoded"`` or
        ``"concept_expression"``.

    Raises
    ------
    ValueError
        If the maps have not been computed, or a concept or the image is unknown.

    Examples
    --------
    >>> stcsm.pl.concept_map(adata, "granule", groupby="layer", significance="contour")
    >>> fig, axes = plt.subplots(1, 2)
    >>> stcsm.pl.concept_map(adata, ["granule", "nerve"], ax=axes)
    """
    return _maps(adata, concepts, key, look)


@plot
def saliency(
    adata: AnnData,
    concepts: Sequence[str] | str | None = None,
    key: str = _keys.CONCEPT_SALIENCY,
    *,
    look: TissueOptions,
) -> Panels:
    """Show concept saliency maps on the tissue: :func:`concept_map` of ``.obsm["concept_saliency"]``.

    Parameters
    ----------
    adata, concepts, key
        As for :func:`concept_map`.

    Raises
    ------
    ValueError
        As for :func:`concept_map`.
    """
    return _maps(adata, concepts, key, look)


def _maps(adata: AnnData, concepts: Sequence[str] | str | None, key: str, look: TissueOptions) -> Panels:
    values = panels(adata, table(adata, key, concepts), concepts)
    titles = [(label(adata, str(c)), verdict(adata, str(c), key)) for c in values]
    return draw_panels(adata, values, titles, UNITS.get(key, key), look, key)


@plot
def gene_saliency(adata: AnnData, genes: AnnData, *, look: TissueOptions) -> Panels:
    """Show the saliency maps of single genes, one panel a gene.

    Parameters
    ----------
    adata
        The tissue.
    genes
        What :func:`stcsm.tl.gene_saliency` returned: genes x spots.

    Raises
    ------
    ValueError
        If the spots of ``genes`` are not those of ``adata``.
    """
    if not isinstance(genes, AnnData):
        raise TypeError(
            f"Expected what stcsm.tl.gene_saliency(adata, model, concept, genes) returned, found {type(genes).__name__}"
        )
    if not genes.var_names.equals(adata.obs_names):
        raise ValueError(
            f"Expected genes x spots as stcsm.tl.gene_saliency returns it for this AnnData ({adata.n_obs} spots), "
            f"found {genes.n_vars} spots with other names"
        )
    values = pd.DataFrame(genes.X.T, index=adata.obs_names, columns=genes.obs_names)
    titles = [(str(name), f"concept score {score:.2g}") for name, score in genes.obs["concept_score"].items()]
    return draw_panels(adata, values, titles, "saliency", look, _keys.CONCEPT_SALIENCY)


@plot
def concept_panel(
    adata: AnnData,
    concepts: Sequence[str] | str | None = None,
    keys: Sequence[str] | None = None,
    *,
    look: TissueOptions,
) -> Panels:
    """Show several maps of a concept side by side, a row a concept: its counts, saliency, decoded map and concept map.

    Maps of several settings are compared in the same way: each under a key of its own (``key_added``).

    Parameters
    ----------
    adata
        With maps.
    concepts
        Names; None is all of them, but of more than 24 only the most significant (or the first) 24.
    keys
        Columns: tables of ``.obsm``, or ``"counts"``, the counts of a concept made from one gene, or else the mean
        expression of its genes (:func:`stcsm.tl.mean_expression`). None is the counts and all of saliency, decoded map
        and concept map that are there.

    Raises
    ------
    ValueError
        If maps have not been computed, or a concept or the image is unknown.

    Examples
    --------
    >>> stcsm.pl.concept_panel(adata, ["Penk", "Doc2g"])
    >>> stcsm.pp.spot_graph(adata, scale="spot")
    >>> stcsm.tl.concept_map(adata, model, scale="spot", key_added="map_spot")
    >>> stcsm.pl.concept_panel(adata, "granule", keys=["concept_map", "map_spot"])
    """
    tables = list(keys) if keys is not None else [k for k in NAMES if k in adata.obsm and k != _keys.CONCEPT_EXPRESSION]
    if not any(key != COUNTS for key in tables):
        raise ValueError("Expected maps in adata.obsm, found none; run stcsm.tl.concept_map(adata, model) first")
    first = next(key for key in tables if key != COUNTS)
    names = [str(c) for c in panels(adata, table(adata, first, concepts), concepts)]
    held = {key: table(adata, key, names) for key in tables if key != COUNTS}
    counts: dict[str, Any] = {name: _counts(adata, name) for name in names}
    if keys is None and any(values is not None for values in counts.values()):
        tables = [COUNTS, *tables]
    headings = _headings(adata, list(held))
    tissue = tissue_of(adata, look)
    drawn = Panels(len(names) * len(tables), look, tissue.size, ncols=len(tables), even=False)
    for row, name in enumerate(names):
        for at, key in enumerate(tables):
            k = row * len(tables) + at
            ax = drawn.axes[k]
            if key == COUNTS and counts[name] is None:
                ax.set_axis_off()
                continue
            if key == COUNTS:
                values, units, heading = counts[name]
            else:
                values = held[key][name].to_numpy(dtype=float)
                units, heading = UNITS.get(key, _unit(adata, key)), headings[key]
            marks = Marks(adata, tissue, look, key if key != COUNTS else _keys.CONCEPT_SALIENCY)
            draw_tissue(ax, tissue, values, units, look, k, None if key == COUNTS else marks.alpha(name))
            marks.draw(ax, name, significant=key != COUNTS)
            usual = f"{label(adata, name)}: {heading}"
            told = verdict(adata, name, key) if key == _keys.CONCEPT_SALIENCY else ""
            write_title(ax, usual if drawn.titles is None else drawn.titles[k], told if drawn.titles is None else "")
    return drawn


def _headings(adata: AnnData, keys: list[str]) -> dict[str, str]:
    """What the maps of each key are called; of several concept maps, by the scale of their graphs where they differ."""
    scales = {key: str(entry(adata, _keys.record("concept_map", key)).get("scale", "")) for key in keys}
    known = [scale for scale in scales.values() if scale]
    if len(known) > 1 and len(set(known)) == len(known):
        return {key: f"map, {scales[key]} scale" if scales[key] else NAMES.get(key, key) for key in keys}
    return {key: NAMES.get(key, key) for key in keys}


def _unit(adata: AnnData, key: str) -> str:
    of = next((standard for step, standard in _keys.MAPS.items() if entry(adata, f"{step}_{key}")), None)
    return UNITS.get(of, key) if of else key


def _counts(adata: AnnData, concept: str) -> tuple[np.ndarray, str, str] | None:
    """Counts of a concept's only gene, or the mean expression of its genes where it has been computed."""
    genes = [str(g) for g in stored(adata).get(concept, {}).get("genes", ())]
    if len(genes) == 1 and genes[0] in adata.var_names:
        matrix = counts_matrix(adata, entry(adata, "setup").get("layer") or None)
        column: Any = in_memory(matrix[:, [int(adata.var_names.get_loc(genes[0]))]])
        values: Any = column.toarray() if hasattr(column, "toarray") else np.asarray(column)
        return np.ravel(values).astype(float), "counts", "counts" if genes[0] == concept else f"{genes[0]} counts"
    expression = adata.obsm.get(_keys.CONCEPT_EXPRESSION)
    if expression is None or concept not in (found := pd.DataFrame(in_memory(expression))):
        return None
    return found[concept].to_numpy(dtype=float), UNITS[_keys.CONCEPT_EXPRESSION], NAMES[_keys.CONCEPT_EXPRESSION]


@plot
def section(adata: AnnData, *, look: TissueOptions) -> Panels:
    """Show the image of the section with the outlines of its spots.

    Parameters
    ----------
    adata
        With an image in ``.uns["spatial"]`` (:func:`find_image`).

    Raises
    ------
    ValueError
        If there is no image.
    """
    tissue = tissue_of(adata, look, required=True)
    panels = Panels(1, look, tissue.size)
    (ax,) = panels.axes
    draw_image(ax, tissue)
    across = np.full(len(tissue.xy), tissue.diameter)
    ax.add_collection(
        EllipseCollection(
            across, across, np.zeros(len(across)), units="xy", offsets=tissue.xy, offset_transform=ax.transData,
            facecolors="none", edgecolors="black", linewidths=0.3, alpha=look.alpha,
        ),
        autolim=False,
    )  # fmt: skip
    Marks(adata, tissue, look, _keys.CONCEPT_SALIENCY).draw(ax, "")
    frame(ax, tissue.xy, spacing(tissue.xy))
    write_title(ax, panels.title(0, ""))
    return panels
