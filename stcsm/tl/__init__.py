"""Analysis steps on AnnData: fetch arrays, compute, write keys."""

from stcsm.tl._concept_map import concept_map
from stcsm.tl._concepts import concepts
from stcsm.tl._decoded import decoded
from stcsm.tl._embed import embed_genes
from stcsm.tl._saliency import gene_saliency, saliency
from stcsm.tl._sanity import sanity
from stcsm.tl._similar import similar_genes

__all__ = [
    "concept_map",
    "concepts",
    "decoded",
    "embed_genes",
    "gene_saliency",
    "saliency",
    "sanity",
    "similar_genes",
]
