"""Concept vectors, scores and their statistics: arrays in, arrays out."""

from ._estimators import ESTIMATORS, Estimator
from ._fdr import benjamini_hochberg
from ._gene_names import GeneIndex, GeneMatch, match_genes
from ._gene_sets import GeneSet, check_distinct, gene_set, gene_sets, gene_sets_from_network, pair_signs
from ._gmt import read_gmt
from ._map_test import MapTest, map_test
from ._matching import gene_abundance_dispersion, matching_bins
from ._membership import Membership, membership
from ._neighbours import Neighbours, correlation_p, nearest_genes
from ._random_concepts import RandomConcepts, RandomConceptSampler
from ._random_sets import MatchedSampler
from ._scores import concept_scores, ranks, standardise
from ._significance import Significance, significance
from ._vectors import ConceptVector, combine, concept_vector, concept_vectors

__all__ = [
    "ESTIMATORS",
    "ConceptVector",
    "Estimator",
    "GeneIndex",
    "GeneMatch",
    "GeneSet",
    "MapTest",
    "MatchedSampler",
    "Membership",
    "Neighbours",
    "RandomConceptSampler",
    "RandomConcepts",
    "Significance",
    "benjamini_hochberg",
    "check_distinct",
    "combine",
    "concept_scores",
    "concept_vector",
    "concept_vectors",
    "correlation_p",
    "gene_abundance_dispersion",
    "gene_set",
    "gene_sets",
    "gene_sets_from_network",
    "map_test",
    "match_genes",
    "matching_bins",
    "membership",
    "nearest_genes",
    "pair_signs",
    "ranks",
    "read_gmt",
    "significance",
    "standardise",
]
