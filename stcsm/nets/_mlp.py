"""Fully connected encoder and decoder over spots, with an optional fixed spatial filter."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from stcsm.nets._affine import AffineFunction


class SpatialFilter(nn.Module):
    """Multiply each row of the input by a fixed sparse matrix.

    A spot's value is the weighted sum of a bag of spots, which is what ``embedding_bag`` computes, many times faster
    than torch's sparse products; the gradient is the same with the transposed matrix.

    Parameters
    ----------
    weights
        Filter (S, S): output spot ``i`` is the sum of ``weights[i, j]`` times input spot ``j``.
    order
        Order (S,) in which the output spots are computed; the result does not depend on it. Where spots that follow one
        another share their neighbours (:func:`stcsm.space.spatial_order`), these are in the processor's cache.
    """

    columns: Tensor
    pointers: Tensor
    values: Tensor
    back_columns: Tensor
    back_pointers: Tensor
    back_values: Tensor
    back_to_place: Tensor

    def __init__(self, weights: sparse.csr_array, order: np.ndarray | None = None):
        super().__init__()
        order = np.arange(weights.shape[0]) if order is None else order
        there, back = (_bags(matrix, order) for matrix in (weights, weights.T))
        if all(np.array_equal(a, b) for a, b in zip(there[:2], back[:2], strict=True)):
            back = (*there[:2], back[2])  # a symmetric neighbourhood is held once
        names = ("columns", "pointers", "values")
        for name, array in zip([*names, *(f"back_{n}" for n in names)], [*there, *back], strict=True):
            self.register_buffer(name, torch.from_numpy(array), persistent=False)
        self.register_buffer("back_to_place", torch.from_numpy(np.argsort(order)), persistent=False)

    def matrix(self) -> sparse.csr_array:
        """Return the filter (S, S)."""
        n = len(self.back_to_place)
        parts = (t.cpu().numpy() for t in (self.values, self.columns, self.pointers))
        return sparse.csr_array(tuple(parts), shape=(n, n))[self.back_to_place.cpu().numpy()]

    def forward(self, x: Tensor) -> Tensor:
        """Filter a batch (N, S) to (N, S), of which each spot lies together in memory; in float32 at least."""
        with torch.autocast(x.device.type, enabled=False):
            return _Filtered.apply(x.to(torch.promote_types(x.dtype, torch.float32)), self, False)

    def product(self, x: Tensor, transposed: bool) -> Tensor:
        """Product of the filter, or of its transpose, with each row of ``x``, (N, S)."""
        columns, pointers, values = (
            (self.back_columns, self.back_pointers, self.back_values)
            if transposed
            else (self.columns, self.pointers, self.values)
        )
        bags = nn.functional.embedding_bag(
            columns,
            x.T.contiguous(),
            pointers,
            mode="sum",
            per_sample_weights=values.to(x.dtype),
            include_last_offset=True,
        )
        return bags.index_select(0, self.back_to_place).T


class _Filtered(AffineFunction):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: SpatialFilter, transposed: bool) -> Tensor:
        ctx.layer, ctx.transposed = layer, transposed
        return layer.product(x, transposed)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Filtered.apply(grad, ctx.layer, not ctx.transposed), None, None


def _bags(matrix: Any, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns, pointers and values of the rows of a sparse matrix, in this order."""
    rows = sparse.csr_array(sparse.csr_array(matrix)[order])
    rows.sort_indices()
    index = np.int32 if rows.nnz <= np.iinfo(np.int32).max else np.int64
    return rows.indices.astype(index), rows.indptr.astype(index), rows.data.astype(np.float32)


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

    def filtered(self, u: Tensor) -> Tensor:
        """Inputs (N, S) after the filter."""
        return u if self.spatial_filter is None else self.spatial_filter(u)

    def posterior_of_filtered(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, (N, L) each, of filtered inputs (N, S)."""
        h = nn.functional.softplus(self.norm(self.hidden(u)))
        return self.mean(h), self.log_var(h)

    def posterior(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, (N, L) each, of inputs (N, S)."""
        return self.posterior_of_filtered(self.filtered(u))

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
        h = nn.functional.softplus(self.norm(self.hidden(z)))
        if self.spatial_filter is None:
            return self.out(h)
        # The filter wants each spot's values together in memory, so the product is made that way round.
        f = torch.addmm(self.out.bias[:, None], self.out.weight, h.T).T
        return self.spatial_filter(f).contiguous()
