"""Torch layers that both halves (tissues and faces) use."""

from stcsm.nets._conv import Conv2dSame, conv2d_same

__all__ = ["Conv2dSame", "conv2d_same"]
