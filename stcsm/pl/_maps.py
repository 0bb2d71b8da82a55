"""Maps of concepts and of genes on the tissue."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from anndata import AnnData
from matplotlib.figure import Figure

from stcsm import _keys
from stcsm.pl._read import label, p_and_q, panels, table
from stcsm.pl._tissue import draw_panels

UNITS = {
    _keys.CONCEPT_SALIENCY: "saliency",
    _keys.CONCEPT_MAP: "s.d.",
    _keys.CONCEPT_DECODED: "decoder output",
    _keys.CONCEPT_EXPRESSION: "mean scaled counts",
}


def concept_map(
    adata: AnnData,
    concepts: Sequence[str] | str | None = None,
    key: str = _keys.CONCEPT_MAP,
    *,
    img: bool = True,
    size: float | None = None,
    cmap: str | None = None,
    percentile: float = 99,
    symmetric: bool = True,
    ncols: int = 4,
    spatial_key: str = _keys.SPATIAL,
    library_id: str | None = None,
) -> Figure:
    """Show concept maps on the tissue, one panel a concept, on the image of the section where there is one.

    The title gives p and q where the concept was tested against random concepts (:func:`stcsm.tl.significance`).

    Parameters
    ----------
    adata
        With maps (:func:`stcsm.tl.concept_map`, :func:`stcsm.tl.saliency` or :func:`stcsm.tl.decoded`).
    concepts
        Names; None is all of them, but of more than 24 only the most significant (or the first) 24.
    key
        Table of ``.obsm`` to draw: ``"concept_map"``, ``"concept_saliency"``, ``"concept_decoded"`` or
        ``"concept_expression"``.
    img
        Show the image under the spots.
    size
        Size of the spots: a factor of the true diameter where there is an image, otherwise the marker's area in
        points; by default the true diameter, or so large that neighbours touch.
    cmap
        Matplotlib colour map; diverging around zero by default.
    percentile
        Colour limits lie at this percentile of the absolute values, so that single spots do not set them.
    symmetric
        Limits symmetric about zero; otherwise from the ``100 - percentile`` to the ``percentile`` of the values.
    ncols
        Most panels in a row.
    spatial_key
        Key of the coordinates in ``.obsm``.
    library_id
        Name of the image in ``.uns["spatial"]``; by default the one that belongs to these spots, and none, with a
        message in the log, where that cannot be known (:func:`find_image`).

    Returns
    -------
    The figure; ``adata`` is not changed.

    Raises
    ------
    ValueError
        If the maps have not been computed, or a concept or the image is unknown.
    """
    values = panels(adata, table(adata, key, concepts), concepts)
    titles = ["\n".join(filter(None, (label(adata, str(c)), p_and_q(adata, str(c), key)))) for c in values]
    return draw_panels(
        adata, values, titles, spatial_key=spatial_key, library_id=library_id, img=img, size=size, cmap=cmap,
        percentile=percentile, symmetric=symmetric, ncols=ncols, colorbar_label=UNITS.get(key, key),
    )  # fmt: skip


def saliency(
    adata: AnnData,
    concepts: Sequence[str] | str | None = None,
    key: str = _keys.CONCEPT_SALIENCY,
    *,
    img: bool = True,
    size: float | None = None,
    cmap: str | None = None,
    percentile: float = 99,
    symmetric: bool = True,
    ncols: int = 4,
    spatial_key: str = _keys.SPATIAL,
    library_id: str | None = None,
) -> Figure:
    """Show concept saliency maps on the tissue: :func:`concept_map` of ``.obsm["concept_saliency"]``.

    Parameters
    ----------
    adata, concepts, key, img, size, cmap, percentile, symmetric, ncols, spatial_key, library_id
        As for :func:`concept_map`.

    Returns
    -------
    The figure; ``adata`` is not changed.

    Raises
    ------
    ValueError
        As for :func:`concept_map`.
    """
    return concept_map(
        adata, concepts, key, img=img, size=size, cmap=cmap, percentile=percentile, symmetric=symmetric, ncols=ncols,
        spatial_key=spatial_key, library_id=library_id,
    )  # fmt: skip


def gene_saliency(
    adata: AnnData,
    genes: AnnData,
    *,
    img: bool = True,
    size: float | None = None,
    cmap: str | None = None,
    percentile: float = 99,
    ncols: int = 4,
    spatial_key: str = _keys.SPATIAL,
    library_id: str | None = None,
) -> Figure:
    """Show the saliency maps of single genes, one panel a gene.

    Parameters
    ----------
    adata
        The tissue.
    genes
        What :func:`stcsm.tl.gene_saliency` returned: genes x spots.
    img, size, cmap, percentile, ncols, spatial_key, library_id
        As for :func:`concept_map`.

    Returns
    -------
    The figure.

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
    titles = [f"{name} (score {score:.2g})" for name, score in genes.obs["concept_score"].items()]
    return draw_panels(
        adata, values, titles, spatial_key=spatial_key, library_id=library_id, img=img, size=size, cmap=cmap,
        percentile=percentile,
        symmetric=True, ncols=ncols, colorbar_label="saliency",
    )  # fmt: skip
