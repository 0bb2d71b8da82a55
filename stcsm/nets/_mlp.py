"""Fully connected encoder and decoder over spots, with an optional fixed spatial filter."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn


class SpatialFilter(nn.Module):
    """Multiply each row of the input by a fixed sparse matrix.

    Parameters
    ----------
    weights
        Filter (S, S): output spot ``i`` is the sum of ``weights[i, j]`` times input spot ``j``.
    """

    indices: Tensor
    values: Tensor

    def __init__(self, weights: sparse.csr_array):
        super().__init__()
        coo = weights.tocoo()
        self.shape = coo.shape
        indices = np.stack([coo.row, coo.col]).astype(np.int64)
        self.register_buffer("indices", torch.from_numpy(indices), persistent=False)
        self.register_buffer("values", torch.from_numpy(coo.data.astype(np.float32)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Filter a batch (N, S) to (N, S); in float32 at least, since sparse products know no bfloat16."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            matrix = torch.sparse_coo_tensor(
                self.indices,
                self.values.to(x.dtype),
                self.shape,
                device=x.device,
                is_coalesced=True,
                check_invariants=False,
            )
            return torch.sparse.mm(matrix, x.T).T


class SpotEncoder(nn.Module):
    """Profile over spots to the mean and log-variance of a Gaussian in latent space.

    One hidden network layer with layer norm and softplus: with smooth activations, maps of different seeds are alike.

    Parameters
    ----------
    n_spots, n_hidden, n_latent
        Sizes S, H and L.
    spatial_filter
        Applied to the input first, where given.
    """

    def __init__(self, n_spots: int, n_hidden: int, n_latent: int, spatial_filter: SpatialFilter | None = None):
        super().__init__()
        self.spatial_filter = spatial_filter
        self.hidden = nn.Linear(n_spots, n_hidden)
        self.norm = nn.LayerNorm(n_hidden)
        self.mean = nn.Linear(n_hidden, n_latent)
        self.log_var = nn.Linear(n_hidden, n_latent)

    def posterior(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, (N, L) each, of inputs (N, S)."""
        if self.spatial_filter is not None:
            u = self.spatial_filter(u)
        h = nn.functional.softplus(self.norm(self.hidden(u)))
        return self.mean(h), self.log_var(h)

    def forward(self, u: Tensor) -> Tensor:
        """Posterior mean (N, L) of inputs (N, S)."""
        return self.posterior(u)[0]


class SpotDecoder(nn.Module):
    """Latent (N, L) to one real number a spot (N, S)."""

    def __init__(self, n_latent: int, n_hidden: int, n_spots: int, spatial_filter: SpatialFilter | None = None):
        super().__init__()
        self.hidden = nn.Linear(n_latent, n_hidden)
        self.norm = nn.LayerNorm(n_hidden)
        self.out = nn.Linear(n_hidden, n_spots)
        self.spatial_filter = spatial_filter

    def forward(self, z: Tensor) -> Tensor:
        """Decode latents."""
        f = self.out(nn.functional.softplus(self.norm(self.hidden(z))))
        return f if self.spatial_filter is None else self.spatial_filter(f)
