"""AnnData to AnnData: grids, spot graphs."""

from stcsm.pp._spot_graph import make_spot_graph, same_spots, spot_graph

__all__ = ["make_spot_graph", "same_spots", "spot_graph"]
