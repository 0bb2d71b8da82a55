"""The last convolution of the published decoder is TensorFlow's SAME convolution, in training as in evaluation."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from stcsm.nets import Conv2dSameToOne


@pytest.mark.parametrize(("kernel", "size"), [(4, (32, 32)), (3, (5, 7)), ((2, 5), (6, 4)), (4, (2, 1))])
def test_same_numbers_and_gradients_as_a_padded_convolution(kernel, size):
    layer = Conv2dSameToOne(6, kernel).double().train()
    images = torch.randn(3, 6, *size, dtype=torch.double, requires_grad=True)
    h, w = layer.kernel_size
    padded = functional.pad(images, ((w - 1) // 2, w // 2, (h - 1) // 2, h // 2))
    expected = functional.conv2d(padded, layer.weight, layer.bias)
    found = layer(images)
    torch.testing.assert_close(found, expected)
    gradient = torch.randn_like(found)
    wanted = (images, layer.weight, layer.bias)
    for a, b in zip(
        torch.autograd.grad(found, wanted, gradient), torch.autograd.grad(expected, wanted, gradient), strict=True
    ):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(layer.eval()(images), expected)


def test_mixed_precision_takes_the_plain_convolution():
    layer = Conv2dSameToOne(6, 4).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(torch.randn(2, 6, 8, 8))
    assert found.dtype == torch.bfloat16
    found.float().sum().backward()
    assert torch.isfinite(layer.weight.grad).all()
