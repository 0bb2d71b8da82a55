"""The published spatial model's own weights give the published code's latents, maps and images."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from stcsm.attribution import attribute
from stcsm.nets import Conv2dSame

from .golden import FlattenChannelsLast


def _load(layer, weight, bias):
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


class Weights:
    """Layers of one half of the model, by their published names."""

    def __init__(self, held, half):
        self.held, self.half = held, half

    def __getitem__(self, name):
        return torch.from_numpy(self.held[f"{self.half}__{name}"])

    def conv(self, name, stride):
        kernel = self[f"{name}__kernel"].permute(3, 2, 0, 1)
        return _load(Conv2dSame(kernel.shape[1], kernel.shape[0], 4, stride), kernel, self[f"{name}__bias"])

    def transposed(self, name):
        kernel = self[f"{name}__kernel"].permute(3, 2, 0, 1)
        layer = nn.ConvTranspose2d(kernel.shape[0], kernel.shape[1], 4, 2, padding=1)
        return _load(layer, kernel, self[f"{name}__bias"])

    def dense(self, name):
        kernel = self[f"{name}__kernel"]
        return _load(nn.Linear(*kernel.shape), kernel.T, self[f"{name}__bias"])

    def norm(self, number, cls=nn.BatchNorm2d):
        name = "batch_normalization" + (f"_{number}" if number else "")
        layer = cls(len(self[f"{name}__gamma"]), eps=1e-3)
        _load(layer, self[f"{name}__gamma"], self[f"{name}__beta"])
        layer.running_mean.copy_(self[f"{name}__moving_mean"])
        layer.running_var.copy_(self[f"{name}__moving_variance"])
        return layer


@pytest.fixture(scope="module")
def reference(golden_dir):
    with np.load(golden_dir / "st_reference_seed0.npz", allow_pickle=False) as held:
        return dict(held)


@pytest.fixture(scope="module")
def weights(golden_dir):
    with np.load(golden_dir / "st_weights_seed0.npz", allow_pickle=False) as held:
        return dict(held)


@pytest.fixture(scope="module")
def encoder(weights):
    w = Weights(weights, "enc")
    names = ("conv2d", "conv2d_1", "conv2d_2")
    convolutions = [layer for i, n in enumerate(names) for layer in (w.conv(n, 2), nn.ReLU(), w.norm(i))]
    dense = [
        layer
        for i, n in enumerate(("dense", "dense_1"))
        for layer in (w.dense(n), nn.ReLU(), w.norm(i + 3, nn.BatchNorm1d))
    ]
    return nn.Sequential(*convolutions, FlattenChannelsLast(), *dense, w.dense("dense_2"))


@pytest.fixture(scope="module")
def decoder(weights):
    w = Weights(weights, "dec")
    names = ("conv2d_transpose", "conv2d_transpose_1", "conv2d_transpose_2")
    up = [layer for i, n in enumerate(names) for layer in (w.transposed(n), nn.ReLU(), w.norm(i + 6))]
    channels_first = nn.Sequential(nn.Unflatten(1, (4, 4, 64)), Permute(0, 3, 1, 2))
    head = [w.dense("dense_4"), nn.ReLU(), channels_first, w.norm(5)]
    return nn.Sequential(*head, *up, w.conv("conv2d_3", 1), nn.Sigmoid()).eval()


class Permute(nn.Module):
    def __init__(self, *order):
        super().__init__()
        self.order = order

    def forward(self, x):
        return x.permute(*self.order)


@pytest.fixture(scope="module")
def genes(data_dir, reference):
    """Every gene of replicate 11 on the grid, scaled by its own maximum, (16218, 1, 32, 32)."""
    counts = pd.read_csv(data_dir / "mob" / "Rep11_MOB_count_matrix-1.tsv.gz", sep="\t", index_col=0)
    counts = counts.loc[list(reference["spots"]), list(reference["genes"])].to_numpy(np.float32)
    images = np.zeros((counts.shape[1], 1, 32, 32), np.float32)
    images[:, 0, reference["grid_y"], reference["grid_x"]] = (counts / counts.max(axis=0)).T
    return torch.from_numpy(images)


def relative(found, expected):
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


def test_latents_of_every_gene(encoder, genes, reference):
    with torch.no_grad():
        latents = encoder.eval()(genes)
    assert latents.shape == (16218, 20)
    assert relative(latents, reference["seed0_latent_mean"]) < 1e-5


@pytest.mark.parametrize("method", ["rectgrad", "guided_backprop"])
def test_maps_of_the_concepts_genes(encoder, genes, reference, method):
    key = {"rectgrad": "seed0_attr_rectgrad_mean", "guided_backprop": "seed0_attr_guidedbp_mean"}[method]
    expected = reference[key]
    assert expected.shape == (3, 50, 32, 32)
    for c in range(3):
        members = genes[reference["seed0_top50_idx"][c]]
        found = attribute(encoder, members, reference["seed0_concept_vectors"][c], method, published=True)
        assert relative(found[:, 0], expected[c]) < 1e-5


def test_decoded_concepts(decoder, reference):
    with torch.no_grad():
        found = decoder(torch.from_numpy(reference["seed0_concept_vectors"]))
    assert relative(found[:, 0], reference["seed0_decoded"]) < 1e-5
