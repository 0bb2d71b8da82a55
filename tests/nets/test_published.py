"""The published network: its size, Keras's initial weights, a batch of one gene."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from stcsm.nets import HIDDEN, SIZE, BatchNormOfAny, PublishedDecoder, PublishedEncoder, keras_initialise


def test_shapes_and_number_of_parameters():
    encoder, decoder = PublishedEncoder(20).eval(), PublishedDecoder(20).eval()
    mean, log_var = encoder.posterior(torch.rand(3, 1, SIZE, SIZE))
    assert mean.shape == log_var.shape == (3, 20)
    assert decoder(mean).shape == (3, 1, SIZE, SIZE)
    conv = 4 * 4 * (1 * 16 + 16 * 32 + 32 * 64) + 16 + 32 + 64
    dense = 1024 * HIDDEN + HIDDEN + HIDDEN * HIDDEN + HIDDEN + 2 * (HIDDEN * 20 + 20)
    norms = 2 * (16 + 32 + 64 + 2 * HIDDEN)
    assert sum(p.numel() for p in encoder.parameters()) == conv + dense + norms


def test_network_layers_are_flattened_in_the_order_of_tensorflow():
    """Height, width, channel, so that published dense kernels fit."""
    trunk = PublishedEncoder(20).trunk
    flat = next(i for i, layer in enumerate(trunk) if isinstance(layer, nn.Flatten))
    maps = torch.arange(2 * 3 * 4.0).reshape(1, 2, 3, 4)
    expected = [float(maps[0, c, y, x]) for y in range(3) for x in range(4) for c in range(2)]
    assert trunk[flat - 1 : flat + 1](maps)[0].tolist() == expected


@pytest.mark.parametrize("layer", [nn.Linear(300, 50), nn.Conv2d(8, 16, 4), nn.ConvTranspose2d(16, 8, 4)])
def test_initial_weights_are_uniform_after_glorot(layer):
    before = layer.weight.detach().clone()
    keras_initialise(layer, torch.Generator().manual_seed(0))
    reach = layer.weight[0, 0].numel()
    bound = math.sqrt(6 / ((layer.weight.shape[0] + layer.weight.shape[1]) * reach))
    assert (layer.weight != before).any()
    assert layer.weight.abs().max() <= bound
    assert layer.weight.abs().max() > 0.99 * bound
    assert float(layer.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert not layer.bias.any()


def test_a_batch_of_one_gene_is_normalised_by_itself():
    layer = BatchNormOfAny(2, eps=1e-3, momentum=0.01).train()
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([0.5, -1.0]))
    x = torch.tensor([[2.0, 4.0]], requires_grad=True)
    out = layer(x)
    torch.testing.assert_close(out, torch.tensor([[0.5, -1.0]]))  # Keras: (x - x) / sqrt(0 + eps) * 1 + beta
    out.sum().backward()
    torch.testing.assert_close(x.grad, torch.zeros(1, 2))
    torch.testing.assert_close(layer.running_mean, torch.tensor([0.02, 0.04]))
    torch.testing.assert_close(layer.running_var, torch.tensor([0.99, 0.99]))


def test_larger_batches_are_normalised_as_torch_does():
    ours, torchs = BatchNormOfAny(3, eps=1e-3, momentum=0.01), nn.BatchNorm1d(3, eps=1e-3, momentum=0.01)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x), torchs(x))
    torch.testing.assert_close(ours.eval()(x[:1]), torchs.eval()(x[:1]))
