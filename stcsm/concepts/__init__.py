"""Concept vectors, scores and their statistics: arrays in, arrays out."""

from ._blocks import neighbour_block_correlation, spatial_blocks
from ._combine import combine
from ._differential import Differential, differential_concepts, region_contrast
from ._discovery import Discovery, discovery
from ._estimators import ESTIMATORS, Estimator
from ._fdr import benjamini_hochberg
from ._gene_names import GeneIndex, GeneMatch, match_genes
from ._gene_sets import GeneSet, check_distinct, gene_set, gene_sets, gene_sets_from_network, pair_signs
from ._gmt import read_gmt
from ._map_test import MapTest, map_test
from ._matching import gene_abundance_dispersion, matching_bins, moment_dispersion
from ._membership import Membership, membership
from ._neighbours import Neighbours, correlation_p, nearest_genes
from ._profiles import LayerProfiles, layer_profiles
from ._random_concepts import RandomConcepts, RandomConceptSampler, balanced, check_latents, random_combination
from ._random_sets import MatchedSampler
from ._scores import concept_scores, ranks, standardise
from ._significance import Significance, check_bases, concepts_against_random, significance
from ._similarity import ConceptTree, cluster, cosine_similarity, map_correlation
from ._vectors import ConceptVector, concept_info, concept_vector, concept_vectors

__all__ = [
    "ESTIMATORS",
    "ConceptTree",
    "ConceptVector",
    "Differential",
    "Discovery",
    "Estimator",
    "GeneIndex",
    "GeneMatch",
    "GeneSet",
    "LayerProfiles",
    "MapTest",
    "MatchedSampler",
    "Membership",
    "Neighbours",
    "RandomConceptSampler",
    "RandomConcepts",
    "Significance",
    "balanced",
    "benjamini_hochberg",
    "check_bases",
    "check_distinct",
    "check_latents",
    "cluster",
    "combine",
    "concept_info",
    "concept_scores",
    "concept_vector",
    "concept_vectors",
    "concepts_against_random",
    "correlation_p",
    "cosine_similarity",
    "differential_concepts",
    "discovery",
    "gene_abundance_dispersion",
    "gene_set",
    "gene_sets",
    "gene_sets_from_network",
    "layer_profiles",
    "map_correlation",
    "map_test",
    "match_genes",
    "matching_bins",
    "membership",
    "moment_dispersion",
    "nearest_genes",
    "neighbour_block_correlation",
    "pair_signs",
    "random_combination",
    "ranks",
    "read_gmt",
    "region_contrast",
    "significance",
    "spatial_blocks",
    "standardise",
]
