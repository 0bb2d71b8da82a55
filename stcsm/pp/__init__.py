"""AnnData to AnnData: grids, spot graphs."""

from stcsm.pp._bins import bin_spots, from_bins
from stcsm.pp._spot_graph import SCALES, make_spot_graph, same_spots, spot_graph
from stcsm.pp._to_grid import to_grid

__all__ = ["SCALES", "bin_spots", "from_bins", "make_spot_graph", "same_spots", "spot_graph", "to_grid"]
