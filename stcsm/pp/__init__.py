"""AnnData to AnnData: grids, spot graphs."""

from stcsm.pp._spot_graph import spot_graph

__all__ = ["spot_graph"]
