"""Every AnnData key that stcsm reads or writes, in one place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

UNS: Final = "stcsm"
"""``.uns``: concepts, methods and their parameters, model settings, versions, seeds, sanity results."""

SPATIAL: Final = "spatial"
"""``.obsm``: pixel (or array) coordinates of the spots; ``.uns``: images, the way squidpy expects them."""
SPATIAL_ARRAY: Final = "spatial_array"
"""``.obsm``: array coordinates of ST spots, kept beside pixel coordinates."""
IN_TISSUE: Final = "in_tissue"
"""``.obs``: 1 for spots on tissue, 0 for spots beside it, as Space Ranger writes it."""
FEATURE_TYPES: Final = "feature_types"
"""``.var``: what 10x calls a feature (Gene Expression, Antibody Capture, ...)."""
SECTION: Final = "section"
"""``.obs``: name of the section, where several were read at once."""
SPATIALDATA: Final = "spatialdata_attrs"
"""``.uns``: what the rows of a SpatialData table annotate; read only."""
ARRAY_ROW: Final = "array_row"
ARRAY_COL: Final = "array_col"
LAYER: Final = "layer"
"""``.obs``: the tissue label of a spot (granule cell layer, L2/3, tumour core)."""

EMBEDDING: Final = "X_stcsm"
"""``.varm``: gene embedding (G, L); NaN for genes without a count."""
GENE_UMAP: Final = "X_stcsm_umap"
"""``.varm``: the gene embedding in two dimensions (G, 2); NaN for genes without a count."""
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
MAPS: Final = {
    "saliency": CONCEPT_SALIENCY,
    "concept_map": CONCEPT_MAP,
    "decoded": CONCEPT_DECODED,
    "mean_expression": CONCEPT_EXPRESSION,
}
"""Steps of ``tl`` that write maps, and the key of ``.obsm`` that each writes unless it is given ``key_added``."""
CONCEPT_TABLES: Final = (
    CONCEPT_SALIENCY,
    CONCEPT_SALIENCY_PVAL,
    CONCEPT_SALIENCY_QVAL,
    CONCEPT_MAP,
    CONCEPT_DECODED,
    CONCEPT_EXPRESSION,
)
"""``.obsm``: the standard tables with a column a concept."""
CONCEPT_INFO: Final = "concept_info"
"""``.uns["stcsm"]``: DataFrame with a row a concept: where it comes from, numbers of its genes."""
SPOT_GRAPH: Final = "stcsm_spot_graph"
"""``.obsp``: sparse spot graph whose rows sum to one."""


def layer_names(layers: Iterable[str | None]) -> list[str]:
    """Names of an AnnData's layers, sorted; from anndata 0.13 on ``.X`` is among them, under None."""
    return sorted(str(name) for name in layers if name is not None)


def pval(key: str) -> str:
    """Key in ``.obsm`` of the p values of the maps in ``.obsm[key]``."""
    return f"{key}_pval"


def qval(key: str) -> str:
    """Key in ``.obsm`` of the q values of the maps in ``.obsm[key]``."""
    return f"{key}_qval"


def record(step: str, key: str | None = None) -> str:
    """Entry of ``.uns["stcsm"]`` that says how a step (``"saliency"``, ``"significance"``, ...) made or tested a table.

    Of the standard table it has the step's name; of a table that was given another key (``key_added``), both.
    """
    standard = MAPS["saliency" if step == "significance" else step]
    return step if key is None or key == standard else f"{step}_{key}"


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


def holds_bins(adata: Any) -> bool:
    """Whether array positions are bins, which may hold several spots each, and say nothing about an array."""
    return bool(adata.uns.get(UNS, {}).get("grid", {}).get("kind") == "bins")
