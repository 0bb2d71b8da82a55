"""Random traits of simulated faces: every number that a drawing needs, one row per image.

Lengths are in pixels of CelebA's aligned 178 x 218 images, in the head's frame: ``u`` to the right and ``v`` down from
the middle of the face, before the head is scaled, rolled and shifted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ATTRIBUTES", "Scene", "draw_scenes"]

Floats = NDArray[Any]

#: Simulated attributes, in the order of the tables and masks.
ATTRIBUTES = ("Wearing_Hat", "Eyeglasses", "Smiling", "Beard", "Wearing_Earrings")

_N_UNIFORM = 160  # uniform numbers reserved per image, so that a new trait does not change the existing ones

SKIN = np.array(
    [
        [1.0, 0.87, 0.77],
        [0.96, 0.80, 0.67],
        [0.89, 0.69, 0.53],
        [0.77, 0.56, 0.40],
        [0.60, 0.41, 0.28],
        [0.44, 0.29, 0.20],
    ],
    dtype=np.float32,
)
HAIR = np.array(
    [
        [0.09, 0.07, 0.06],
        [0.24, 0.15, 0.09],
        [0.42, 0.26, 0.14],
        [0.80, 0.64, 0.34],
        [0.60, 0.25, 0.11],
        [0.66, 0.65, 0.64],
    ],
    dtype=np.float32,
)
IRIS = np.array([[0.25, 0.15, 0.08], [0.33, 0.45, 0.25], [0.25, 0.42, 0.65], [0.40, 0.42, 0.44]], dtype=np.float32)
METAL = np.array([[0.93, 0.76, 0.28], [0.88, 0.89, 0.92], [0.80, 0.20, 0.25], [0.20, 0.65, 0.55]], dtype=np.float32)


@dataclass
class Scene:
    """Traits of a batch of faces: attribute name -> array of shape (n,), or (n, 3) for colours."""

    has: NDArray[np.bool_]
    traits: dict[str, Floats] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Floats:
        """Read a trait by name."""
        try:
            return self.__dict__["traits"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __len__(self) -> int:
        return len(self.has)

    def face(self, row: int) -> SimpleNamespace:
        """Return the traits of one face: plain numbers, colours as (3,) arrays, and ``has``."""
        traits = {k: v[row] if v.ndim == 2 else float(v[row]) for k, v in self.traits.items()}
        return SimpleNamespace(has=self.has[row], **traits)


class _Uniform:
    """Returns the uniform numbers of each image, column by column."""

    def __init__(self, numbers: Floats) -> None:
        self._numbers, self._next = numbers, 0

    def column(self) -> Floats:
        self._next += 1
        return self._numbers[:, self._next - 1]

    def between(self, low: float, high: float) -> Floats:
        return (low + (high - low) * self.column()).astype(np.float32)

    def chance(self, p: float) -> Floats:
        return (self.column() < p).astype(np.float32)

    def kind(self, *weights: float) -> Floats:
        edges = np.cumsum(np.asarray(weights) / np.sum(weights))[:-1]
        return np.searchsorted(edges, self.column(), side="right").astype(np.float32)

    def colour(self, saturation: tuple[float, float] = (0.2, 0.9), value: tuple[float, float] = (0.2, 0.95)) -> Floats:
        hue, sat, val = self.column(), self.between(*saturation), self.between(*value)
        wheel = np.stack([np.abs((hue * 6 + shift) % 6 - 3) - 1 for shift in (0.0, 4.0, 2.0)], axis=1).clip(0, 1)
        return (val[:, None] * (1 - sat[:, None] * (1 - wheel))).astype(np.float32)

    def palette(self, colours: Floats, spread: float) -> Floats:
        """Return a colour between two neighbours of a palette, lightened or darkened by up to ``spread``."""
        place = self.column() * (len(colours) - 1)
        low = np.minimum(place.astype(np.intp), len(colours) - 2)
        part = (place - low)[:, None]
        return (
            (colours[low] * (1 - part) + colours[low + 1] * part) * (1 + self.between(-spread, spread)[:, None])
        ).astype(np.float32)


def draw_scenes(indices: NDArray[np.intp], seed: int, prevalence: float) -> Scene:
    """Sample the traits of the images ``indices``.

    Image i does not depend on the others: its numbers come from a generator seeded by (``seed``, i).
    """
    numbers = np.stack([np.random.default_rng([seed, int(i)]).random(_N_UNIFORM) for i in indices]).astype(np.float32)
    draw = _Uniform(numbers)
    has = np.stack([draw.column() < prevalence for _ in ATTRIBUTES], axis=1)
    t: dict[str, Floats] = {}
    # pose
    t["x"], t["y"] = 88 + draw.between(-5, 5), 124 + draw.between(-5, 5)
    t["scale"], t["roll"], t["yaw"] = draw.between(0.85, 1.14), draw.between(-0.21, 0.21), draw.between(-1, 1)
    # head
    t["head_rx"], t["head_ry"], t["jaw"] = draw.between(37, 45), draw.between(52, 60), draw.between(0.0, 0.5)
    t["skin"], t["blush"] = draw.palette(SKIN, 0.06), draw.between(0.0, 0.35)
    t["ear"] = draw.between(8, 12)
    # light
    t["light_x"], t["light_y"] = draw.between(-0.9, 0.9), draw.between(-0.9, 0.3)
    t["contrast"], t["gain"], t["warmth"] = (
        draw.between(0.15, 0.45),
        draw.between(0.78, 1.12),
        draw.between(-0.06, 0.06),
    )
    # behind
    t["back_a"], other, part = (
        draw.colour((0.0, 0.5), (0.3, 1.0)),
        draw.colour((0.0, 0.5), (0.3, 1.0)),
        draw.between(0.1, 0.6),
    )
    t["back_b"] = t["back_a"] + part[:, None] * (other - t["back_a"])
    t["back_angle"], t["blob_x"], t["blob_y"] = draw.between(0, 2 * np.pi), draw.between(0, 178), draw.between(0, 218)
    t["blob_r"], t["blob"] = draw.between(10, 50), draw.colour((0.0, 0.5), (0.3, 1.0))
    t["cloth"], t["neckline"] = draw.colour(), draw.between(0, 10)
    # hair
    t["hair"], t["hair_kind"] = draw.palette(HAIR, 0.15), draw.kind(0.08, 0.42, 0.35, 0.15)  # bald, short, long, full
    t["hair_volume"], t["hair_length"] = draw.between(2, 8), draw.between(10, 75)
    t["hairline"], t["parting"], t["strands"] = draw.between(-40, -27), draw.between(-0.22, 0.22), draw.between(0, 6.28)
    # features
    t["eye_u"], t["eye_v"] = draw.between(17, 20.5), draw.between(-15, -11)
    t["eye_rx"], t["eye_open"] = draw.between(6.2, 8.2), draw.between(2.8, 4.8)
    t["iris"], t["gaze"] = draw.palette(IRIS, 0.1), draw.between(-2, 2)
    t["brow_v"], t["brow_tilt"], t["brow_width"] = draw.between(9, 13), draw.between(-2.5, 2.5), draw.between(1.0, 2.4)
    t["nose_v"], t["nose_w"] = draw.between(10, 15), draw.between(4.5, 7.5)
    t["mouth_v"], t["mouth_w"] = draw.between(28, 33), draw.between(11, 15)
    t["lip"], t["lip_red"], t["mouth_bend"] = draw.between(2.0, 4.0), draw.between(0.1, 0.6), draw.between(-1.0, 2.5)
    t["smile_bend"], t["smile_open"], t["smile_wide"] = draw.between(6, 9), draw.between(4, 9), draw.between(1.2, 1.5)
    # hat
    t["hat_kind"], t["hat"], t["band"] = draw.kind(0.35, 0.35, 0.3), draw.colour((0.0, 0.9), (0.1, 0.95)), draw.colour()
    t["hat_v"], t["hat_height"], t["hat_wide"] = draw.between(-33, -24), draw.between(36, 54), draw.between(4, 9)
    t["brim"], t["hat_tilt"] = draw.between(14, 28), draw.between(-0.12, 0.12)
    # glasses
    t["lens_rx"], t["lens_ry"], t["lens_round"] = draw.between(11, 14.5), draw.between(8, 11.5), draw.between(0.35, 1.0)
    t["frame_width"], t["frame"] = draw.between(1.1, 2.6), draw.colour((0.0, 0.8), (0.02, 0.4))
    t["sun"], t["tint"], t["lens"] = draw.chance(0.4), draw.between(0.6, 0.92), draw.colour((0.0, 0.6), (0.03, 0.3))
    # beard
    t["beard_kind"], t["beard_cover"], t["beard_length"] = (
        draw.kind(0.65, 0.35),
        draw.between(0.6, 0.95),
        draw.between(0, 13),
    )
    t["moustache"], t["beard_shade"] = draw.chance(0.8), draw.between(0.5, 0.9)
    # earrings
    t["ring_kind"], t["ring_size"], t["metal"] = draw.kind(0.5, 0.2, 0.3), draw.between(4, 8), draw.palette(METAL, 0.1)
    t["temples"] = draw.between(-4, 16)
    t["noise"] = draw.between(0.0, 0.02)
    return Scene(has, t)
