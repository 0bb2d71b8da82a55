"""TensorFlow's SAME padding: as many cells as it gives, and an odd zero goes after."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from stcsm.nets import Conv2dSame, ConvTranspose2dSame, conv2d_same


def test_an_odd_zero_goes_after():
    """Four cells, a kernel of four and step 2: one zero before and one after; step 1: one before, two after."""
    image, kernel = torch.tensor([[[[1.0, 2, 3, 4]]]]), torch.ones(1, 1, 1, 4)
    assert conv2d_same(image, kernel, stride=(1, 2))[0, 0, 0].tolist() == [1 + 2 + 3, 2 + 3 + 4]
    assert conv2d_same(image, kernel)[0, 0, 0].tolist() == [1 + 2 + 3, 1 + 2 + 3 + 4, 2 + 3 + 4, 3 + 4]


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
)
def test_output_has_a_cell_for_every_step(size, kernel, stride, dilation):
    out = Conv2dSame(2, 3, kernel, stride=stride, dilation=dilation)(torch.rand(2, 2, *size))
    assert out.shape == (2, 3, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("kernel", [1, 3, (5, 3)])
def test_odd_kernels_without_steps_are_torchs_same(kernel):
    layer = Conv2dSame(2, 3, kernel)
    x = torch.rand(2, 2, 7, 9)
    torch.testing.assert_close(layer(x), functional.conv2d(x, layer.weight, layer.bias, padding="same"))


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (3, 2), (3, 1), ((4, 3), (2, 3))])
def test_transposed_convolution_is_the_gradient_of_the_convolution(kernel, stride):
    layer = ConvTranspose2dSame(3, 2, kernel, stride=stride, bias=False).double()
    small = torch.rand(2, 3, 4, 5, dtype=torch.double)
    found = layer(small)
    image = torch.zeros_like(found, requires_grad=True)
    out = conv2d_same(image, layer.weight, stride=layer.stride)
    assert out.shape == small.shape
    torch.testing.assert_close(found, torch.autograd.grad(out, image, small)[0])


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, (1, 2, 3)])
def test_steps_are_positive_whole_numbers(bad):
    with pytest.raises(ValueError, match="positive integer"):
        Conv2dSame(1, 1, 3, stride=bad)


def test_a_transposed_step_larger_than_the_kernel_is_refused():
    with pytest.raises(ValueError, match="at most the kernel's size"):
        ConvTranspose2dSame(1, 1, 2, stride=3)(torch.rand(1, 1, 4, 4))


def test_transposed_convolution_keeps_channels_last_through_its_gradient():
    layer = ConvTranspose2dSame(8, 4, 4, stride=2).to(memory_format=torch.channels_last)
    images = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    out = layer(images)
    # A slice, even one that cuts nothing off, fills a new tensor in the backward pass.
    assert "Slice" not in type(out.grad_fn).__name__
    out.sum().backward()
    assert images.grad.is_contiguous(memory_format=torch.channels_last)
