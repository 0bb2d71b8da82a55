"""Analysis steps on AnnData: fetch arrays, compute, write keys.

A step either writes into the AnnData and returns nothing, or it is a query and returns a DataFrame.
"""

from stcsm.tl._combine import combine
from stcsm.tl._concept_map import concept_map
from stcsm.tl._concepts import concepts, embed_genes
from stcsm.tl._differential import differential
from stcsm.tl._gene_sets import MatchedSets, match_gene_sets
from stcsm.tl._gene_umap import gene_umap
from stcsm.tl._published import published_concepts
from stcsm.tl._queries import concept_similarity, concept_table, rank_genes_concept, similar_genes
from stcsm.tl._saliency import decoded, gene_saliency, mean_expression, saliency
from stcsm.tl._sanity import sanity
from stcsm.tl._significance import significance

__all__ = [
    "MatchedSets",
    "combine",
    "concept_map",
    "concept_similarity",
    "concept_table",
    "concepts",
    "decoded",
    "differential",
    "embed_genes",
    "gene_saliency",
    "gene_umap",
    "match_gene_sets",
    "mean_expression",
    "published_concepts",
    "rank_genes_concept",
    "saliency",
    "sanity",
    "significance",
    "similar_genes",
]
