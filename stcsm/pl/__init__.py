"""Plots of what the analysis steps wrote. They read keys and compute nothing."""

from stcsm.pl._maps import concept_map, gene_saliency, saliency
from stcsm.pl._sanity import sanity
from stcsm.pl._scores import concept_scores, embedding, highest_genes
from stcsm.pl._similarity import concept_similarity
from stcsm.pl._tissue import find_image, section

__all__ = [
    "concept_map",
    "concept_scores",
    "concept_similarity",
    "embedding",
    "find_image",
    "gene_saliency",
    "highest_genes",
    "saliency",
    "sanity",
    "section",
]
