"""Analysis steps on AnnData: fetch arrays, compute, write keys."""

from stcsm.tl._combine import combine
from stcsm.tl._concept_map import concept_map
from stcsm.tl._concepts import concepts
from stcsm.tl._decoded import decoded
from stcsm.tl._differential import differential
from stcsm.tl._embed import embed_genes
from stcsm.tl._mean_expression import mean_expression
from stcsm.tl._published import published_concepts
from stcsm.tl._rank_genes import concept_table, rank_genes_concept
from stcsm.tl._saliency import gene_saliency, saliency
from stcsm.tl._sanity import sanity
from stcsm.tl._significance import significance
from stcsm.tl._similar import similar_genes
from stcsm.tl._similarity import concept_similarity

__all__ = [
    "combine",
    "concept_map",
    "concept_similarity",
    "concept_table",
    "concepts",
    "decoded",
    "differential",
    "embed_genes",
    "gene_saliency",
    "mean_expression",
    "published_concepts",
    "rank_genes_concept",
    "saliency",
    "sanity",
    "significance",
    "similar_genes",
]
