"""Every AnnData key that stcsm reads or writes, in one place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

UNS: Final = "stcsm"
"""``.uns``: concepts, methods and their parameters, model settings, versions, seeds, sanity results."""

SPATIAL: Final = "spatial"
"""``.obsm``: pixel (or array) coordinates of the spots; ``.uns``: pictures, the way squidpy expects them."""
SPATIAL_ARRAY: Final = "spatial_array"
"""``.obsm``: array coordinates of ST spots, kept beside pixel coordinates."""
SPATIALDATA: Final = "spatialdata_attrs"
"""``.uns``: what the rows of a SpatialData table annotate; read only."""
ARRAY_ROW: Final = "array_row"
ARRAY_COL: Final = "array_col"
LAYER: Final = "layer"
"""``.obs``: the label of a spot (granule cell layer, L2/3, tumour core)."""

EMBEDDING: Final = "X_stcsm"
"""``.varm``: gene embedding (G, L); NaN for genes without a count."""
CONCEPT_SCORE: Final = "concept_score"
"""``.varm``: DataFrame genes x concepts."""
CONCEPT_SALIENCY: Final = "concept_saliency"
"""``.obsm``: DataFrame spots x concepts, attribution of one method and nothing else."""
CONCEPT_SALIENCY_PVAL: Final = "concept_saliency_pval"
CONCEPT_SALIENCY_QVAL: Final = "concept_saliency_qval"
CONCEPT_MAP: Final = "concept_map"
"""``.obsm``: DataFrame spots x concepts, the recommended map."""
CONCEPT_DECODED: Final = "concept_decoded"
"""``.obsm``: DataFrame spots x concepts, decoder at the concept minus decoder at the mean gene."""
CONCEPT_EXPRESSION: Final = "concept_expression"
"""``.obsm``: DataFrame spots x concepts, mean max-scaled expression of the concept's genes."""
CONCEPT_INFO: Final = "concept_info"
"""What is known of each concept, in ``.uns["stcsm"]``."""
CONCEPT_TABLES: Final = (
    CONCEPT_SALIENCY,
    CONCEPT_SALIENCY_PVAL,
    CONCEPT_SALIENCY_QVAL,
    CONCEPT_MAP,
    CONCEPT_DECODED,
    CONCEPT_EXPRESSION,
)
"""``.obsm``: all tables with a column a concept."""
SPOT_GRAPH: Final = "stcsm_spot_graph"
"""``.obsp``: sparse spot graph whose rows sum to one."""


def layer_names(layers: Iterable[str | None]) -> list[str]:
    """Names of an AnnData's layers, sorted; from anndata 0.13 on ``.X`` is among them, under None."""
    return sorted(str(name) for name in layers if name is not None)


def embedding(member: int = 0) -> str:
    """Key of the gene embedding of one ensemble member in ``.varm``."""
    return EMBEDDING if member == 0 else f"{EMBEDDING}_{member}"


def embedding_var(member: int = 0) -> str:
    """Key of the posterior variance of the gene embedding of one ensemble member in ``.varm``."""
    return f"{embedding(member)}_var"


def sections_key(adata: Any) -> str | None:
    """Column of ``.obs`` that names the sections, where the AnnData was set up with one."""
    key = adata.uns.get(UNS, {}).get("setup", {}).get("batch_key")
    return key if key in adata.obs else None
