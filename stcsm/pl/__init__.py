"""Plots of what the analysis steps wrote. They read keys and compute nothing."""

from stcsm.pl._embedding import embedding
from stcsm.pl._history import history
from stcsm.pl._maps import concept_map, concept_panel, gene_saliency, saliency, section
from stcsm.pl._sanity import sanity
from stcsm.pl._scores import concept_scores, highest_genes
from stcsm.pl._similarity import concept_similarity
from stcsm.pl._tissue import find_image

__all__ = [
    "concept_map",
    "concept_panel",
    "concept_scores",
    "concept_similarity",
    "embedding",
    "find_image",
    "gene_saliency",
    "highest_genes",
    "history",
    "saliency",
    "sanity",
    "section",
]
