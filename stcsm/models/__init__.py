"""Gene models: each gene is a sample, the spots are its features."""

from stcsm._files import holds_only_a_model
from stcsm.models._cost import TrainingCost, training_cost
from stcsm.models._model import GeneVAE, PublishedVAE
from stcsm.models._saved import differs_from_saved
from stcsm.models._setup import Setup, gene_features, quiet, read_setup, spots_on_tissue
from stcsm.models._setup import counts_matrix as counts_of
from stcsm.models.published import published_cells
from stcsm.nets import Conv2dSame

__all__ = [
    "Conv2dSame",
    "GeneVAE",
    "PublishedVAE",
    "Setup",
    "TrainingCost",
    "counts_of",
    "differs_from_saved",
    "gene_features",
    "holds_only_a_model",
    "published_cells",
    "quiet",
    "read_setup",
    "spots_on_tissue",
    "training_cost",
]
