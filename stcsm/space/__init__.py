"""Grid, neighbour and filter arithmetic on plain arrays."""

from stcsm.space._components import COMPONENTS, choose_components, principal_axes, spot_components
from stcsm.space._counts import (
    check_counts,
    count_totals,
    depth_factors,
    log_normalise,
    selected_blocks,
    stored_blocks,
    stored_by_columns,
    thin_counts,
)
from stcsm.space._filter import check_coords, nearest_neighbour_distance, spatial_filter
from stcsm.space._graph import (
    NEIGHBOURS,
    SPOT_WIDTHS,
    STEPS,
    GraphSetting,
    choose_graph,
    diffuse,
    nearest_spots,
    similarity_graph,
    some_spots,
)
from stcsm.space._grid import (
    IMAGES,
    ArrayPositions,
    Lattice,
    array_coordinates,
    bin_positions,
    check_grid_size,
    find_lattice,
    fold_hexagonal,
    lattice_positions,
    shared_lattice_positions,
    whole_positions,
)
from stcsm.space._heldout import HeldOutCounts
from stcsm.space._memory import available_memory, require_memory
from stcsm.space._region import irregularity, region_width
from stcsm.space._scratch import ScratchFile, ScratchMatrix, gather

__all__ = [
    "COMPONENTS",
    "IMAGES",
    "NEIGHBOURS",
    "SPOT_WIDTHS",
    "STEPS",
    "ArrayPositions",
    "GraphSetting",
    "HeldOutCounts",
    "Lattice",
    "ScratchFile",
    "ScratchMatrix",
    "array_coordinates",
    "available_memory",
    "bin_positions",
    "check_coords",
    "check_counts",
    "check_grid_size",
    "choose_components",
    "choose_graph",
    "count_totals",
    "depth_factors",
    "diffuse",
    "find_lattice",
    "fold_hexagonal",
    "gather",
    "irregularity",
    "lattice_positions",
    "log_normalise",
    "nearest_neighbour_distance",
    "nearest_spots",
    "principal_axes",
    "region_width",
    "require_memory",
    "selected_blocks",
    "shared_lattice_positions",
    "similarity_graph",
    "some_spots",
    "spatial_filter",
    "spot_components",
    "stored_blocks",
    "stored_by_columns",
    "thin_counts",
    "whole_positions",
]
