"""Which encoder and decoder a member of the ensemble has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse

from stcsm.models._module import GeneMember
from stcsm.nets import GridDecoder, GridEncoder, SpatialFilter, SpotDecoder, SpotEncoder, SpotGrid
from stcsm.space import spatial_filter


def member_maker(settings: dict[str, Any], coordinates: np.ndarray, grid: SpotGrid | None) -> Callable[[], GeneMember]:
    """What makes a member with new weights; the fixed filters are made once and shared.

    Parameters
    ----------
    settings
        Of the model.
    coordinates
        Of its spots, (S', 2 or 3).
    grid
        Their cells, for a convolutional model.
    """
    n_spots, n_hidden, n_latent = len(coordinates), settings["n_hidden"], settings["n_latent"]
    n_dispersions = n_spots if settings["likelihood"] == "nb" else 0
    width = 0.0 if settings["smoothing"] == "auto" else settings["smoothing"]
    over_spots = SpatialFilter(spatial_filter(coordinates, width)) if width else None
    if grid is None:
        return lambda: GeneMember(
            SpotEncoder(n_spots, n_hidden, n_latent, over_spots),
            SpotDecoder(n_latent, n_hidden, n_spots, over_spots),
            n_dispersions,
        )
    over_cells = SpatialFilter(_cell_filter(coordinates, width, grid)) if width else None
    return lambda: GeneMember(
        GridEncoder(grid, n_hidden, n_latent, over_cells),
        GridDecoder(n_latent, n_hidden, grid, over_spots),
        n_dispersions,
    )


def _cell_filter(coordinates: np.ndarray, width: float, grid: SpotGrid) -> sparse.csr_array:
    """Filter (H * W, H * W) between cells with spots, which lie where their spots lie on average; zero elsewhere."""
    cells, of_spot = np.unique(grid.cells.numpy(), return_inverse=True)
    n = np.bincount(of_spot)[:, None]
    centres = np.column_stack([np.bincount(of_spot, weights=c) for c in coordinates.T.astype(float)]) / n
    inner = spatial_filter(centres, width).tocoo()
    return sparse.csr_array((inner.data, (cells[inner.row], cells[inner.col])), shape=(grid.n_cells, grid.n_cells))
