"""Gene models: each gene is a sample, the spots are its features."""

from stcsm.models._model import GeneVAE
from stcsm.models._setup import counts_matrix as counts_of
from stcsm.models._setup import read_setup
from stcsm.nets import Conv2dSame

__all__ = ["Conv2dSame", "GeneVAE", "counts_of", "read_setup"]
