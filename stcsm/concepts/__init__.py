"""Concept vectors, scores and their statistics: arrays in, arrays out."""

from ._estimators import ESTIMATORS, Estimator
from ._fdr import benjamini_hochberg
from ._gene_names import GeneIndex, GeneMatch, match_genes
from ._gene_sets import GeneSet, check_distinct, gene_set, gene_sets, gene_sets_from_network, pair_signs
from ._gmt import read_gmt
from ._membership import Membership, membership
from ._neighbours import Neighbours, correlation_p, nearest_genes
from ._scores import concept_scores, ranks, standardise
from ._vectors import ConceptVector, combine, concept_vector, concept_vectors

__all__ = [
    "ESTIMATORS",
    "ConceptVector",
    "Estimator",
    "GeneIndex",
    "GeneMatch",
    "GeneSet",
    "Membership",
    "Neighbours",
    "benjamini_hochberg",
    "check_distinct",
    "combine",
    "concept_scores",
    "concept_vector",
    "concept_vectors",
    "correlation_p",
    "gene_set",
    "gene_sets",
    "gene_sets_from_network",
    "match_genes",
    "membership",
    "nearest_genes",
    "pair_signs",
    "ranks",
    "read_gmt",
    "standardise",
]
