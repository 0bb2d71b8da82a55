"""Grids of any size: profiles to images and back, and networks over them."""

from __future__ import annotations

import pytest
import torch

from stcsm.nets import GridDecoder, GridEncoder, SpotGrid, halvings, padded_side


@pytest.mark.parametrize("side", range(1, 70))
def test_padding_is_what_halving_needs_and_no_more(side):
    padded, step = padded_side(side), 2 ** halvings(side)
    assert padded % step == 0
    assert 0 <= padded - side < step
    assert padded_side(padded) == padded
    assert padded // step <= 7


def test_encoder_knows_where_tissue_is():
    cells = torch.tensor([0, 1, 8, 9, 27])
    grid, moved = SpotGrid(cells, (8, 8)), SpotGrid(cells + 30, (8, 8))
    torch.manual_seed(0)
    here = GridEncoder(grid, 8, 3)
    there = GridEncoder(moved, 8, 3)
    there.load_state_dict(here.state_dict())
    empty = torch.zeros(1, 1, 8, 8)
    assert not torch.allclose(here(empty), there(empty))


def test_gradient_is_not_checkered():
    torch.manual_seed(0)
    grid = SpotGrid(torch.arange(32 * 32), (32, 32))
    encoder = GridEncoder(grid, 32, 4)
    u = torch.rand(16, 1, 32, 32, requires_grad=True)
    encoder(u).sum().backward()
    g = u.grad.abs().mean(dim=0)[0, 4:-4, 4:-4]
    phases = torch.stack([g[i::2, j::2].mean() for i in (0, 1) for j in (0, 1)])
    assert phases.max() / phases.min() < 1.35


@pytest.mark.parametrize("shape", [(1, 1), (1, 20), (20, 1), (5, 5), (16, 24), (40, 8)])
def test_any_shape_of_grid(shape):
    shape = tuple(map(padded_side, shape))
    grid = SpotGrid(torch.arange(shape[0] * shape[1]), shape)
    mean, log_var = GridEncoder(grid, 8, 3).posterior(torch.rand(2, 1, *shape))
    assert mean.shape == log_var.shape == (2, 3)
    assert GridDecoder(3, 8, grid)(mean).shape == (2, shape[0] * shape[1])


def test_cells_have_the_sum_of_their_spots_and_spots_the_value_of_their_cell():
    grid = SpotGrid(torch.tensor([5, 0, 5]), (2, 3))
    values = torch.tensor([[1.0, 2.0, 4.0]])
    image = grid.images(grid.sums(values))
    torch.testing.assert_close(image, torch.tensor([[[[2.0, 0, 0], [0, 0, 5.0]]]]))
    torch.testing.assert_close(grid.spots(image[:, 0]), torch.tensor([[5.0, 2.0, 5.0]]))
    torch.testing.assert_close(grid.tissue()[0, 0], torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]))
    with pytest.raises(ValueError, match="cells from 0 to 5 on a grid of 2 x 3, found 0 to 6"):
        SpotGrid(torch.tensor([0, 6]), (2, 3))
