"""Pictures of what the analysis steps wrote."""

from stcsm.pl._saliency import concept_map, gene_saliency, saliency
from stcsm.pl._sanity import sanity
from stcsm.pl._scores import concept_scores, embedding
from stcsm.pl._similarity import concept_similarity

__all__ = ["concept_map", "concept_scores", "concept_similarity", "embedding", "gene_saliency", "saliency", "sanity"]
