"""The attribution engine: concept saliency of any torch module."""

from stcsm.attribution._attribute import attribute
from stcsm.attribution._percentile import percentile_threshold
from stcsm.attribution._score import ConceptScore
from stcsm.attribution._table import LINEAR_METHODS, METHODS

__all__ = ["LINEAR_METHODS", "METHODS", "ConceptScore", "attribute", "percentile_threshold"]
