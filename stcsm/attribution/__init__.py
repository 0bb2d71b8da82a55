"""The attribution engine: concept saliency of any torch module."""

from stcsm.attribution._attribute import attribute, mean_attribution
from stcsm.attribution._percentile import percentile_threshold
from stcsm.attribution._score import ConceptScore
from stcsm.attribution._table import LINEAR_METHODS, METHODS, TABLE, method_class

__all__ = [
    "LINEAR_METHODS",
    "METHODS",
    "TABLE",
    "ConceptScore",
    "attribute",
    "mean_attribution",
    "method_class",
    "percentile_threshold",
]
