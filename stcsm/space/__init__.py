"""Grid, neighbour and filter arithmetic on plain arrays."""

from stcsm.space._coords import check_coords, nearest_neighbour_distance
from stcsm.space._filter import spatial_filter

__all__ = ["check_coords", "nearest_neighbour_distance", "spatial_filter"]
