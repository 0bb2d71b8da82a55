"""How far a map can be trusted: faithfulness, sanity, stability. Arrays in, numbers out."""

from stcsm.evaluation._captum import infidelity, multiplies_by_input, sensitivity_max
from stcsm.evaluation._faithfulness import Completeness, Curves, completeness, patches, perturbation_curves
from stcsm.evaluation._randomisation import (
    LayerRandomisation,
    agreement,
    cross_concept,
    input_randomisation,
    layer_randomisation,
    layers_from_top,
    paired_similarity,
    randomised,
)
from stcsm.evaluation._verdict import Checks, Verdict, verdict

__all__ = [
    "Checks",
    "Completeness",
    "Curves",
    "LayerRandomisation",
    "Verdict",
    "agreement",
    "completeness",
    "cross_concept",
    "infidelity",
    "input_randomisation",
    "layer_randomisation",
    "layers_from_top",
    "multiplies_by_input",
    "paired_similarity",
    "patches",
    "perturbation_curves",
    "randomised",
    "sensitivity_max",
    "verdict",
]
