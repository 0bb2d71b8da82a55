"""Paints shapes, given by signed distances to their edge, over each other and tracks where attributes stay visible."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["HEIGHT", "WIDTH", "YAW", "Canvas", "box", "ellipse", "stroke"]

Floats = NDArray[Any]

WIDTH, HEIGHT = 178, 218  # of CelebA's aligned images
YAW = 7.0  # pixels by which a fully turned head moves its features


def ellipse(u: Floats, v: Floats, ru: float, rv: float) -> Floats:
    """Distance to an ellipse, exact to first order at its edge, negative inside."""
    a, b = u / ru, v / rv
    a2, b2 = a * a, b * b
    radius2 = a2 + b2
    radius = np.sqrt(radius2)
    slope = np.sqrt(a2 / (ru * ru) + b2 / (rv * rv))
    return (radius2 - radius) / np.maximum(slope, 1e-6)


def box(u: Floats, v: Floats, hu: float, hv: float, corner: float) -> Floats:
    """Distance to a rectangle with round corners, negative inside."""
    a, b = np.abs(u) - (hu - corner), np.abs(v) - (hv - corner)
    inside = np.minimum(np.maximum(a, b), 0)
    return np.sqrt(np.maximum(a, 0) ** 2 + np.maximum(b, 0) ** 2) + inside - corner


def stroke(u: Floats, v: Floats, half: float, bend: float, width: Floats | float, tilt: float = 0.0) -> Floats:
    """Distance to a bent stroke ``v = bend t^2 + tilt t``, ``t = u / half`` in [-1, 1], of half width ``width``.

    Positive ``bend`` lowers its ends.
    """
    t = u / half
    slope = (2 * bend / half) * t + tilt / half
    away = np.abs(v - (bend * t + tilt) * t) / np.sqrt(1 + slope * slope)
    return np.maximum(away - width, np.abs(u) - half)


class Canvas:
    """The image of one face, or a window of it.

    Attributes
    ----------
    face
        Its traits.
    x, y
        Pixel centres, (1, width) and (height, 1).
    u, v
        The same in the head's frame, (height, width).
    face_u
        ``u`` relative to the middle of the features, which move when the head turns; its outline hardly moves.
    rgb
        (3, height, width), 0 to 1.
    """

    def __init__(self, face: SimpleNamespace) -> None:
        self.face = face
        self.x = np.arange(WIDTH, dtype=np.float32)[None] + 0.5
        self.y = np.arange(HEIGHT, dtype=np.float32)[:, None] + 0.5
        self._cos, self._sin = float(np.cos(face.roll)) * face.scale, float(np.sin(face.roll)) * face.scale
        cos, sin = self._cos / face.scale**2, self._sin / face.scale**2
        dx, dy = self.x - face.x, self.y - face.y
        self.u, self.v = cos * dx + sin * dy, cos * dy - sin * dx
        self.face_u = self.u - YAW * face.yaw
        self.rgb = np.zeros((3, HEIGHT, WIDTH), np.float32)
        self._window = slice(0, HEIGHT), slice(0, WIDTH)
        self._masks: dict[int, Floats] = {}  # attribute -> share of each pixel, in the whole image

    def near(self, low_u: float, high_u: float, low_v: float, high_v: float) -> Canvas:
        """Return the window around part of the head; painting there paints on this canvas."""
        u, v = np.array([low_u, high_u] * 2), np.repeat([low_v, high_v], 2)
        x = self.face.x + self._cos * u - self._sin * v
        y = self.face.y + self._sin * u + self._cos * v
        return self.window(x.min(), x.max(), y.min(), y.max())

    def window(self, left: float, right: float, top: float, bottom: float) -> Canvas:
        """Return the window between two columns and two rows of the whole image."""
        (r, c), part = self._window, object.__new__(Canvas)
        rows = slice(max(int(top) - r.start, 0), max(int(bottom) + 2 - r.start, 0))
        cols = slice(max(int(left) - c.start, 0), max(int(right) + 2 - c.start, 0))
        part.__dict__.update(self.__dict__)
        part.x, part.y = self.x[:, cols], self.y[rows]
        part.u, part.v, part.face_u = self.u[rows, cols], self.v[rows, cols], self.face_u[rows, cols]
        part.rgb = self.rgb[:, rows, cols]
        height, width = part.u.shape
        part._window = (
            slice(r.start + rows.start, r.start + rows.start + height),
            slice(c.start + cols.start, c.start + cols.start + width),
        )
        return part

    def cover(self, distance: Floats, soft: float = 1.0) -> Floats:
        """Share of each pixel that is inside an edge, blurred over ``soft`` pixels."""
        return np.clip(0.5 - distance * (self.face.scale / soft), 0.0, 1.0)

    def paint(self, alpha: Floats, colour: Floats, attribute: int | None = None) -> None:
        """Paint a colour, (3,) or (3, height, width), over the pixels with opacity ``alpha``."""
        colour = colour.reshape(3, 1, 1) if colour.ndim == 1 else colour
        self.rgb += alpha * (colour - self.rgb)
        for mask in self._masks.values():
            mask[self._window] *= 1 - alpha
        if attribute is not None:
            whole = self._masks.setdefault(attribute, np.zeros((HEIGHT, WIDTH), np.float32))
            whole[self._window] += alpha

    def masks(self, attributes: Iterable[int]) -> NDArray[np.bool_]:
        """Where an attribute makes up at least half of a pixel, (attributes, height, width)."""
        none = np.zeros((HEIGHT, WIDTH), np.float32)
        return np.stack([self._masks.get(k, none) >= 0.5 for k in attributes])
