"""How far a map can be trusted: faithfulness, sanity, stability. Arrays in, numbers out."""

from stcsm.evaluation._captum import infidelity, multiplies_by_input, sensitivity_max
from stcsm.evaluation._completeness import Completeness, completeness
from stcsm.evaluation._curves import Curves, patches, perturbation_curves
from stcsm.evaluation._layers import layers_from_top, randomised
from stcsm.evaluation._mean_map import mean_map
from stcsm.evaluation._randomisation import (
    LayerRandomisation,
    agreement,
    cross_concept,
    input_randomisation,
    layer_randomisation,
    paired_similarity,
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
    "mean_map",
    "multiplies_by_input",
    "paired_similarity",
    "patches",
    "perturbation_curves",
    "randomised",
    "sensitivity_max",
    "verdict",
]
