"""Draws simulated faces: shapes as signed distances, so that edges are anti-aliased at any size.

Painted from back to front.

Every shape is a formula over all pixels of a batch at once; what a later shape covers is taken out of the masks of
the earlier ones, so a mask
holds the pixels where its attribute is what one sees.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ._faces_scene import ATTRIBUTES, Floats, Scene

__all__ = ["HEIGHT", "WIDTH", "draw", "landmarks"]

WIDTH, HEIGHT = 178, 218  # of CelebA's aligned pictures
_HAT, _GLASSES, _SMILE, _BEARD, _EARRINGS = range(len(ATTRIBUTES))
_YAW = 7.0  # pixels by which a fully turned head moves its features


def landmarks(scene: Scene) -> NDArray[np.int64]:
    """Return CelebA's ten landmark numbers (x, y of left eye, right eye, nose, left and right mouth corner).

    Shape (n, 10).
    """
    shift = scene.yaw * _YAW
    wide = np.where(scene.has[:, _SMILE], scene.smile_wide, 1.0) * scene.mouth_w
    lift = np.where(scene.has[:, _SMILE], -scene.smile_bend, scene.mouth_bend)
    local = [
        (-scene.eye_u + shift, scene.eye_v),
        (scene.eye_u + shift, scene.eye_v),
        (1.3 * shift, scene.nose_v),
        (shift - wide, scene.mouth_v + lift),
        (shift + wide, scene.mouth_v + lift),
    ]
    cos, sin = np.cos(scene.roll) * scene.scale, np.sin(scene.roll) * scene.scale
    points = [(scene.x + cos * u - sin * v, scene.y + sin * u + cos * v) for u, v in local]
    return np.rint(np.stack([value for point in points for value in point], axis=1)).astype(np.int64)


def draw(
    scene: Scene, boxes: Floats, size: tuple[int, int], noise: Floats | None = None, masks: bool = True
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Draw the part of each picture that lies in its box.

    Parameters
    ----------
    scene
        Traits of n faces.
    boxes
        (n, 4): top, bottom, left, right, in pixels of the whole 178 x 218 picture.
    size
        Height and width of what is drawn.
    noise
        (n, height, width, 3) standard normal numbers, scaled here by each picture's own noise level.

    Returns
    -------
    Pixels (n, height, width, 3), 0 to 255, and masks (n, attributes, height, width), true where at least half of
    what is seen is the attribute;
    None in their place with ``masks=False``, which is faster.
    """
    return _Painter(scene, boxes, size, masks).paint_all(noise)


def _ellipse(u: Floats, v: Floats, ru: Floats | float, rv: Floats | float) -> Floats:
    """Distance to an ellipse, exact to first order at its edge, negative inside."""
    a, b = u / ru, v / rv
    radius = np.sqrt(a * a + b * b)
    slope = np.sqrt((a / ru) ** 2 + (b / rv) ** 2)
    return radius * (radius - 1) / np.maximum(slope, 1e-6)


def _box(u: Floats, v: Floats, hu: Floats | float, hv: Floats | float, corner: Floats | float) -> Floats:
    """Distance to a rectangle with round corners."""
    a, b = np.abs(u) - hu + corner, np.abs(v) - hv + corner
    return np.sqrt(np.maximum(a, 0) ** 2 + np.maximum(b, 0) ** 2) + np.minimum(np.maximum(a, b), 0) - corner


def _stroke(
    u: Floats, v: Floats, half: Floats | float, bend: Floats | float, width: Floats | float, tilt: Floats | float = 0.0
) -> Floats:
    """Distance to a bent stroke ``v = bend (u / half)^2 + tilt u / half`` of a width, ``u`` within ``half``.

    Positive bend lifts no end.
    """
    t = u / half
    curve = bend * t * t + tilt * t
    slope = (2 * bend * t + tilt) / half
    return np.maximum(np.abs(v - curve) / np.sqrt(1 + slope * slope) - width, np.abs(u) - half)


class _Painter:
    def __init__(self, scene: Scene, boxes: Floats, size: tuple[int, int], masks: bool) -> None:
        self.scene, n = scene, len(scene)
        top, bottom, left, right = (boxes[:, k].reshape(-1, 1, 1).astype(np.float32) for k in range(4))
        height, width = size
        row = ((np.arange(height, dtype=np.float32) + 0.5) / height).reshape(1, -1, 1)
        col = ((np.arange(width, dtype=np.float32) + 0.5) / width).reshape(1, 1, -1)
        self.y, self.x = (
            np.broadcast_to(top + (bottom - top) * row, (n, height, width)),
            np.broadcast_to(left + (right - left) * col, (n, height, width)),
        )
        s = scene.column
        dx, dy = (self.x - s("x")) / s("scale"), (self.y - s("y")) / s("scale")
        cos, sin = np.cos(s("roll")), np.sin(s("roll"))
        self.u, self.v = cos * dx + sin * dy, cos * dy - sin * dx
        self.pixel = np.maximum((bottom - top) / height, (right - left) / width) / s(
            "scale"
        )  # one pixel in the head's units
        self.face_u = self.u - _YAW * s("yaw")  # features turn with the head, its outline hardly
        self.rgb = np.zeros((n, height, width, 3), np.float32)
        self.masks = np.zeros((n, len(ATTRIBUTES), height, width), np.float32) if masks else None

    # ---------------------------------------------------------------- painting

    def _view(self, which: NDArray[np.intp] | slice, r: slice = slice(None), c: slice = slice(None)) -> _Painter:
        part = object.__new__(_Painter)
        part.scene = self.scene if isinstance(which, slice) else self.scene.rows(which)
        part.pixel = self.pixel[which]
        for name in ("u", "v", "x", "y", "face_u"):
            setattr(part, name, getattr(self, name)[which, r, c])
        part.rgb = self.rgb[which, r, c]
        part.masks = None if self.masks is None else self.masks[which, :, r, c]
        return part

    def _only(self, which: NDArray[np.bool_], paint: Callable[[_Painter], None]) -> None:
        """Paint some of the pictures."""
        rows = np.flatnonzero(which)
        if not len(rows):
            return
        part = self._view(rows)
        paint(part)
        self.rgb[rows] = part.rgb
        if self.masks is not None and part.masks is not None:
            self.masks[rows] = part.masks

    def _near(self, low_u: float, high_u: float, low_v: float, high_v: float) -> _Painter:
        """Return a painter of the pixels around part of the head, on views: what it paints is painted here."""
        inside = (self.u > low_u) & (self.u < high_u) & (self.v > low_v) & (self.v < high_v)
        rows, cols = np.flatnonzero(inside.any((0, 2))), np.flatnonzero(inside.any((0, 1)))
        r = slice(rows[0], rows[-1] + 1) if len(rows) else slice(0, 0)
        c = slice(cols[0], cols[-1] + 1) if len(cols) else slice(0, 0)
        return self._view(slice(None), r, c)

    def _cover(self, distance: Floats, soft: float = 1.0) -> Floats:
        return np.clip(0.5 - distance / (soft * self.pixel), 0.0, 1.0)

    def _paint(self, alpha: Floats, colour: Floats, attribute: int | None = None) -> None:
        """Lay a colour, (n, 3) or (n, height, width, 3), over the pixels with opacity ``alpha``."""
        seen = alpha > 0
        rows, cols = np.flatnonzero(seen.any((0, 2))), np.flatnonzero(seen.any((0, 1)))
        if not len(rows):
            return
        r, c = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)  # most shapes are small: leave the rest alone
        alpha, rgb = alpha[:, r, c], self.rgb[:, r, c]
        colour = colour[:, None, None, :] if colour.ndim == 2 else colour[:, r, c]
        rgb += alpha[..., None] * (colour - rgb)
        if self.masks is not None:
            masks = self.masks[:, :, r, c]
            masks *= 1 - alpha[:, None]
            if attribute is not None:
                masks[:, attribute] += alpha

    # ---------------------------------------------------------------- the face, from back to front

    def paint_all(self, noise: Floats | None) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        self._background()
        self._back_hair()
        self._body()
        self._head()
        has = self.scene.has
        self._only(has[:, _BEARD], _Painter._beard)
        self._only(has[:, _EARRINGS], lambda part: part._near(-65, 65, -15, 40)._earrings())
        self._near(-45, 45, -40, 30)._features()
        mouth = self._near(-45, 45, 0, 60)
        mouth._only(~has[:, _SMILE], _Painter._mouth)
        mouth._only(has[:, _SMILE], _Painter._smile)
        self._front_hair()
        self._only(has[:, _GLASSES], lambda part: part._near(-60, 60, -40, 12)._glasses())
        self._only(has[:, _HAT], _Painter._hat)
        return self._light(noise), None if self.masks is None else self.masks >= 0.5

    def _background(self) -> None:
        s = self.scene.column
        along = (
            np.cos(s("back_angle")) * (self.x - WIDTH / 2) + np.sin(s("back_angle")) * (self.y - HEIGHT / 2)
        ) / 220 + 0.5
        along = np.clip(along, 0, 1)[..., None]
        self.rgb[:] = self.scene.back_a[:, None, None] * (1 - along) + self.scene.back_b[:, None, None] * along
        far = np.sqrt((self.x - s("blob_x")) ** 2 + (self.y - s("blob_y")) ** 2)
        self._paint(0.8 * np.clip((s("blob_r") - far) / 12, 0, 1), self.scene.blob)

    def _hair_colour(self) -> Floats:
        s = self.scene.column
        from_crown = np.arctan2(self.u - 60 * s("parting"), self.v + 75)
        strands = np.sin(31 * from_crown + 0.03 * self.v * np.sin(s("strands")) + s("strands"))
        strands = 1 + 0.11 * strands + 0.08 * np.sin(73 * from_crown + s("strands")) - 0.002 * self.v
        return self.scene.hair[:, None, None] * strands[..., None]

    def _back_hair(self) -> None:
        s = self.scene.column
        kind, volume = s("hair_kind"), s("hair_volume")
        grow = volume + np.where(kind == 3, 9, 0)
        skull = _ellipse(self.u, self.v + 14, s("head_rx") + grow, 46 + grow)
        fall = _box(self.u, self.v - s("hair_length") / 2, s("head_rx") + grow, s("hair_length") / 2 + 24, 18.0)
        shape = np.where(kind == 2, np.minimum(skull, fall), skull)
        self._paint(self._cover(shape) * (kind > 0), self._hair_colour() * 0.8)

    def _skin(self, shade: Floats) -> Floats:
        return self.scene.skin[:, None, None] * shade[..., None]

    def _body(self) -> None:
        s = self.scene.column
        neck = _box(self.u, self.v - 62, s("head_rx") * 0.52, 30.0, 8.0)
        self._paint(self._cover(neck), self._skin(0.78 - 0.1 * np.clip((60 - self.v) / 20, 0, 1)))
        shoulders = _ellipse(self.u, self.v - 122, 84.0, 48 - s("neckline"))
        fold = 0.9 + 0.1 * np.sin(0.12 * self.u + s("strands"))
        self._paint(self._cover(shoulders), self.scene.cloth[:, None, None] * fold[..., None])

    def _outline(self, longer: Floats | float = 0.0) -> Floats:
        """Distance to the head's outline: an ellipse whose lower half narrows to the chin."""
        s = self.scene.column
        low = np.clip(self.v / s("head_ry"), 0, 1.2)
        return _ellipse(self.u / (1 - 0.22 * s("jaw") * low * low), self.v, s("head_rx"), s("head_ry") + longer * low)

    def _head(self) -> None:
        s = self.scene.column
        for side in (-1, 1):
            ear = _ellipse(self.u - side * (s("head_rx") + 0.5), self.v + 3, 5.5, s("ear"))
            self._paint(self._cover(ear), self._skin(np.full_like(self.u, 0.86)))
            inner = _ellipse(self.u - side * (s("head_rx") + 1.5), self.v + 3, 2.5, s("ear") * 0.6)
            self._paint(0.5 * self._cover(inner, 2.0), self._skin(np.full_like(self.u, 0.68)))
        a, b = self.u / s("head_rx"), self.v / s("head_ry")
        depth = np.sqrt(np.clip(1 - a * a - b * b, 0, 1))
        shade = 1 + s("contrast") * (0.8 * (a * s("light_x") + b * s("light_y")) + 0.5 * (depth - 0.75))
        colour = self._skin(shade)
        for side in (-1, 1):  # cheeks
            cheek = np.exp(-((self.face_u - side * 23) ** 2 + (self.v - 14) ** 2) / 90) * s("blush")
            colour *= 1 - cheek[..., None] * np.array([0.02, 0.3, 0.28], np.float32)
        self._paint(self._cover(self._outline()), colour)

    def _beard(self) -> None:
        s = self.scene.column
        t = np.abs(self.u) / s("head_rx")
        full = self._outline(s("beard_length")) - 1.2
        # the upper edge: below the nose or below the mouth, up to the ears at the sides
        edge = np.where(s("moustache") > 0, s("nose_v") + 5, s("mouth_v") + 5) - 26 * t**2.5
        full = np.maximum(full, edge - self.v)
        chin = _ellipse(self.face_u, self.v - s("mouth_v") - 9, s("mouth_w") + 6, 16 + 0.6 * s("beard_length"))
        chin = np.maximum(chin, self._outline(s("beard_length")) - 1.2)
        shape = np.where(s("beard_kind") > 0, chin, full)
        lips = _ellipse(self.face_u, self.v - s("mouth_v"), s("mouth_w") * 1.1, s("lip") + 2.5)
        shape = np.maximum(shape, -lips)
        curls = 1 + 0.2 * np.sin(1.3 * self.u + 2 * np.sin(0.9 * self.v)) * np.sin(1.1 * self.v + s("strands"))
        # the skin below shades it: a beard is darker than its face even where the hair is fair
        light = np.array([0.3, 0.59, 0.11], np.float32)
        hair, skin = self.scene.hair @ light, self.scene.skin @ light
        shade = np.minimum(self.scene.beard_shade, 0.6 * skin / hair)[:, None, None] * curls
        colour = self.scene.hair[:, None, None] * shade[..., None]
        self._paint(s("beard_cover") * self._cover(shape, 2.5), colour, _BEARD)

    def _earrings(self) -> None:
        s = self.scene.column
        size, kind = s("ring_size"), s("ring_kind")
        for side in (-1, 1):
            u, v = self.u - side * (s("head_rx") + 2.5), self.v - s("ear") + 3
            hoop = np.abs(_ellipse(u, v - size, size, size)) - 1.5
            stud = _ellipse(u, v - 1, 2.2 + 0.35 * size, 2.2 + 0.35 * size)
            drop = np.minimum(_box(u, v - size, 0.8, size, 0.4), _ellipse(u, v - 2.2 * size, 0.55 * size, 0.8 * size))
            shape = np.choose(np.broadcast_to(kind.astype(np.intp), u.shape), [hoop, stud, drop])
            shine = 1 + 0.25 * np.sin(0.9 * (u + v))
            self._paint(self._cover(shape), self.scene.metal[:, None, None] * shine[..., None], _EARRINGS)

    def _features(self) -> None:
        s, u, v = self.scene.column, self.face_u, self.v
        dark = 0.62 * self.scene.skin
        nose = 1.3 * _YAW * s("yaw")
        side = np.where(s("light_x") > 0, -1.0, 1.0)  # the side in shadow
        ridge = _stroke(v - s("nose_v") + 9, (self.u - nose) - side * 3.2, 10.0, side * 1.5, 1.0)
        self._paint(0.35 * self._cover(ridge, 3.0), dark)
        tip = _stroke(self.u - nose, v - s("nose_v") - 2.5, s("nose_w"), -2.5, 0.9)
        self._paint(0.6 * self._cover(tip, 2.0), dark)
        for eye in (-1, 1):
            eu, ev = u - eye * s("eye_u"), v - s("eye_v")
            white = np.maximum(_ellipse(eu, ev, s("eye_rx"), s("eye_open")), np.abs(eu) - s("eye_rx"))
            inside = self._cover(white)
            self._paint(inside, np.full((len(self.scene), 3), 0.95, np.float32))
            self._paint(inside * self._cover(_ellipse(eu - s("gaze"), ev, 3.6, 3.6)), self.scene.iris)
            self._paint(inside * self._cover(_ellipse(eu - s("gaze"), ev, 1.7, 1.7)), np.full_like(dark, 0.03))
            lid = _stroke(eu, ev + s("eye_open"), s("eye_rx") + 0.8, s("eye_open") * 0.9, 0.7)
            self._paint(0.9 * self._cover(lid), 0.3 * self.scene.skin)
            brow = _stroke(eu, ev + s("brow_v"), 9.5, 3.0, s("brow_width"), eye * s("brow_tilt"))
            self._paint(0.85 * self._cover(brow, 1.5), 0.75 * self.scene.hair)

    def _mouth(self) -> None:
        s, u, v = self.scene.column, self.face_u, self.v - self.scene.column("mouth_v")
        round_ = np.sqrt(np.clip(1 - (u / s("mouth_w")) ** 2, 0, 1))
        self._paint(self._cover(_stroke(u, v, s("mouth_w"), s("mouth_bend"), s("lip") * round_)), self._lips())
        self._paint(0.8 * self._cover(_stroke(u, v, s("mouth_w"), s("mouth_bend"), 0.5)), 0.35 * self.scene.skin)

    def _lips(self) -> Floats:
        red = self.scene.lip_red[:, None]
        return (0.8 * self.scene.skin * (1 - red) + red * np.array([0.72, 0.16, 0.20], np.float32)).astype(np.float32)

    def _smile(self) -> None:
        s, u, v = self.scene.column, self.face_u, self.v - self.scene.column("mouth_v")
        wide = s("mouth_w") * s("smile_wide")
        round_ = np.sqrt(np.clip(1 - (u / wide) ** 2, 0, 1))
        bend, open_ = -s("smile_bend"), s("smile_open")
        self._paint(
            self._cover(_stroke(u, v - open_ / 2, wide, bend, (open_ / 2 + s("lip")) * round_)), self._lips(), _SMILE
        )
        gap = _stroke(u, v - open_ / 2, wide * 0.9, bend * 0.81, open_ / 2 * round_)
        self._paint(self._cover(gap), np.tile(np.array([0.35, 0.06, 0.08], np.float32), (len(self.scene), 1)), _SMILE)
        teeth = _stroke(u, v - open_ * 0.3, wide * 0.86, bend * 0.75, open_ * 0.34 * round_)
        self._paint(self._cover(teeth), np.full((len(self.scene), 3), 0.97, np.float32), _SMILE)
        for side in (-1, 1):  # creases beside the mouth
            crease = _stroke(v + s("smile_bend") + 2, side * u - wide - 3, 7.0, -3.0, 0.7)
            self._paint(0.6 * self._cover(crease, 1.5), 0.55 * self.scene.skin, _SMILE)

    def _front_hair(self) -> None:
        s = self.scene.column
        t = self.u / s("head_rx")
        grow = np.where(s("hair_kind") == 3, 6, 2.5)
        fringe = 2.5 * np.sin(0.35 * self.u + s("strands")) * np.sin(2 * s("strands"))
        line = s("hairline") + s("parting") * self.u + s("temples") * t * t + 22 * np.abs(t) ** 5 + fringe
        cap = np.maximum(_ellipse(self.u, self.v + 14, s("head_rx") + grow, 46 + grow), self.v - line)
        self._paint(self._cover(cap, 1.5) * (s("hair_kind") > 0), self._hair_colour())

    def _glasses(self) -> None:
        s = self.scene.column
        width = s("frame_width")
        ring, lens = np.full_like(self.u, np.inf), np.full_like(self.u, np.inf)
        for eye in (-1, 1):
            shape = _box(
                self.face_u - eye * (s("eye_u") + 0.5),
                self.v - s("eye_v") - 0.5,
                s("lens_rx"),
                s("lens_ry"),
                s("lens_round") * s("lens_ry"),
            )
            lens, ring = np.minimum(lens, shape), np.minimum(ring, np.abs(shape) - width)
            end = eye * (s("eye_u") + s("lens_rx"))  # from the lens to the ear
            half = np.abs(eye * s("head_rx") - end - _YAW * s("yaw")) / 2 + 1
            arm = _box(self.face_u - end - eye * half, self.v - s("eye_v") + 3, half, width, 0.5)
            ring = np.minimum(ring, np.maximum(arm, self._outline() - 3))
        bridge = _stroke(
            self.face_u, self.v - s("eye_v") + 2.5, np.maximum(s("eye_u") - s("lens_rx"), 2.0) + 1.5, 1.5, width
        )
        glare = 0.25 * np.clip((self.face_u + 1.5 * self.v) % 40 / 40, 0, 1)
        tint = np.where(s("sun") > 0, s("tint"), 0.08)
        self._paint(
            tint * self._cover(lens), self.scene.lens[:, None, None] + glare[..., None] * s("sun")[..., None], _GLASSES
        )
        self._paint(self._cover(np.minimum(ring, bridge)), self.scene.frame, _GLASSES)

    def _hat(self) -> None:
        s = self.scene.column
        kind = np.broadcast_to(s("hat_kind").astype(np.intp), self.u.shape)
        u = self.u - 0.35 * _YAW * s("yaw")
        v = self.v - s("hat_v") - s("hat_tilt") * self.u - 5 * (u / 45) ** 2 * (kind != 1)
        wide = s("head_rx") + s("hat_wide")
        dome = np.maximum(_ellipse(u, v - 2, wide, s("hat_height")), v - 2)
        crown = np.maximum(_ellipse(u, v, wide * 0.92, s("hat_height") * 1.05), v)
        shape = np.where(kind == 1, crown, dome)
        weave = (
            1 + 0.12 * np.sin(np.where(kind == 0, 0.9, 0.05) * u) - 0.25 * (u / wide * s("light_x") * -1) + 0.002 * v
        )
        colour = self.scene.hat[:, None, None] * weave[..., None]
        self._paint(self._cover(shape), colour, _HAT)
        cuff = _box(u, v + 3, wide + 1.5, 7.0, 4.0)
        ribbon = np.maximum(crown, np.abs(v + 7) - 5)
        visor = np.maximum(_ellipse(u - _YAW * s("yaw"), v - 1, wide * 0.95, s("brim") * 0.55), -(v + 2))
        self._paint(
            self._cover(np.choose(kind, [cuff, ribbon, visor])), self.scene.band[:, None, None] * weave[..., None], _HAT
        )
        brim = _ellipse(u, v, wide + s("brim"), 7.5)
        self._paint(self._cover(np.where(kind == 1, brim, np.inf)), colour * 0.82, _HAT)
        pompom = _ellipse(u, v + s("hat_height"), 8.0, 8.0)
        self._paint(self._cover(np.where(kind == 0, pompom, np.inf), 2.0), self.scene.band, _HAT)

    def _light(self, noise: Floats | None) -> NDArray[np.uint8]:
        s = self.scene.column
        slope = 1 + 0.35 * s("contrast") * (
            (self.x / WIDTH - 0.5) * s("light_x") + (self.y / HEIGHT - 0.5) * s("light_y")
        )
        warm = 1 + self.scene.warmth[:, None] * np.array([1.0, 0.0, -1.0], np.float32)
        rgb = self.rgb * (s("gain") * slope)[..., None] * warm[:, None, None]
        if noise is not None:
            rgb = rgb + noise * s("noise")[..., None]
        return np.rint(255 * np.clip(rgb, 0, 1)).astype(np.uint8)
