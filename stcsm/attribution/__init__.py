"""The attribution engine: concept saliency of any torch module."""

from stcsm.attribution._arguments import Arguments, like_inputs, read_samples
from stcsm.attribution._attribute import (
    METHODS,
    TABLE,
    attribute,
    make_method,
    method_class,
    methods_table,
)
from stcsm.attribution._evaluating import evaluation_mode
from stcsm.attribution._forward import Site
from stcsm.attribution._mean import mean_attribution
from stcsm.attribution._methods import Method
from stcsm.attribution._rectgrad import percentile_threshold
from stcsm.attribution._rules import RuleMethod
from stcsm.attribution._score import ConceptScore

__all__ = [
    "METHODS",
    "TABLE",
    "Arguments",
    "ConceptScore",
    "Method",
    "RuleMethod",
    "Site",
    "attribute",
    "evaluation_mode",
    "like_inputs",
    "make_method",
    "mean_attribution",
    "method_class",
    "methods_table",
    "percentile_threshold",
    "read_samples",
]
