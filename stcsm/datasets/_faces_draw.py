"""Draws simulated faces from back to front.

Shapes are signed distances, so that edges are smooth. A later shape is removed from the masks of the earlier ones: a
mask contains the pixels where its attribute is visible.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from stcsm.datasets._faces_canvas import HEIGHT, WIDTH, YAW, Canvas, Floats, box, ellipse, stroke
from stcsm.datasets._faces_scene import ATTRIBUTES, Scene

__all__ = ["HEIGHT", "WIDTH", "draw", "landmarks"]

_HAT, _GLASSES, _SMILE, _BEARD, _EARRINGS = range(len(ATTRIBUTES))
_LUMINANCE = np.array([0.3, 0.59, 0.11], np.float32)


def landmarks(scene: Scene) -> NDArray[np.int64]:
    """Return CelebA's ten landmark numbers (x, y of left eye, right eye, nose, left and right mouth corner).

    Shape (n, 10).
    """
    shift = scene.yaw * YAW
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


def draw(face: SimpleNamespace, noise: Floats | None = None) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw one face.

    Parameters
    ----------
    face
        Its traits: `Scene.face`.
    noise
        (3, height, width) standard normal numbers, which are scaled by the image's noise level.

    Returns
    -------
    Pixels (height, width, 3), 0 to 255, and masks (attributes, height, width), true where the attribute makes up at
    least half of the pixel.
    """
    canvas = Canvas(face)
    _background(canvas)
    if face.hair_kind > 0:
        _back_hair(canvas)
    _body(canvas)
    _head(canvas)
    if face.has[_BEARD]:
        _beard(canvas.near(-60, 60, -32, 85))
    if face.has[_EARRINGS]:
        _earrings(canvas)
    _features(canvas)
    (_smile if face.has[_SMILE] else _mouth)(canvas.near(-45, 45, 0, 60))
    if face.hair_kind > 0:
        _front_hair(canvas.near(-60, 60, -85, 20))
    if face.has[_GLASSES]:
        _glasses(canvas.near(-60, 60, -40, 12))
    if face.has[_HAT]:
        _hat(canvas.near(-95, 95, -110, 10))
    return _lit(canvas, noise), canvas.masks(range(len(ATTRIBUTES)))


def _background(whole: Canvas) -> None:
    f = whole.face
    along = np.cos(f.back_angle) * (whole.x - WIDTH / 2) + np.sin(f.back_angle) * (whole.y - HEIGHT / 2)
    along = np.clip(along / 220 + 0.5, 0, 1)
    whole.rgb[:] = f.back_a[:, None, None] + along * (f.back_b - f.back_a)[:, None, None]
    part = whole.window(f.blob_x - f.blob_r, f.blob_x + f.blob_r, f.blob_y - f.blob_r, f.blob_y + f.blob_r)
    far = np.sqrt((part.x - f.blob_x) ** 2 + (part.y - f.blob_y) ** 2)
    part.paint(0.8 * np.clip((f.blob_r - far) / 12, 0, 1), f.blob)


def _hair_colour(part: Canvas) -> Floats:
    f = part.face
    from_crown = np.arctan2(part.u - 60 * f.parting, part.v + 75)
    wave = f.strands + 0.03 * np.sin(f.strands) * part.v
    shade = 1 + 0.11 * np.sin(31 * from_crown + wave) + 0.08 * np.sin(73 * from_crown + f.strands) - 0.002 * part.v
    return f.hair[:, None, None] * shade


def _back_hair(whole: Canvas) -> None:
    f = whole.face
    grow = f.hair_volume + (9 if f.hair_kind == 3 else 0)
    long = f.hair_kind == 2
    part = whole.near(
        -f.head_rx - grow - 2, f.head_rx + grow + 2, -62 - grow, f.hair_length + 26 if long else 34 + grow
    )
    shape = ellipse(part.u, part.v + 14, f.head_rx + grow, 46 + grow)
    if long:
        fall = box(part.u, part.v - f.hair_length / 2, f.head_rx + grow, f.hair_length / 2 + 24, 18.0)
        shape = np.minimum(shape, fall)
    part.paint(part.cover(shape), _hair_colour(part) * 0.8)


def _body(whole: Canvas) -> None:
    f = whole.face
    part = whole.near(-f.head_rx * 0.52 - 2, f.head_rx * 0.52 + 2, 30, 94)
    neck = box(part.u, part.v - 62, f.head_rx * 0.52, 30.0, 8.0)
    part.paint(part.cover(neck), _skin(part, 0.78 - 0.1 * np.clip((60 - part.v) / 20, 0, 1)))
    part = whole.near(-86, 86, 72 + f.neckline, 172)
    shoulders = ellipse(part.u, part.v - 122, 84.0, 48 - f.neckline)
    fold = 0.9 + 0.1 * np.sin(0.12 * part.u + f.strands)
    part.paint(part.cover(shoulders), f.cloth[:, None, None] * fold)


def _skin(part: Canvas, shade: Floats) -> Floats:
    return part.face.skin[:, None, None] * shade


def _outline(part: Canvas, longer: float = 0.0) -> Floats:
    """Distance to the head's outline: an ellipse whose lower half narrows to the chin."""
    f = part.face
    low = np.clip(part.v / f.head_ry, 0, 1.2)
    u, v = part.u / (1 - 0.22 * f.jaw * low * low), part.v
    if not longer:
        return ellipse(u, v, f.head_rx, f.head_ry)
    # the ellipse itself grows downwards, so its half axis depends on the place
    ry = f.head_ry + longer * low
    a, b = u / f.head_rx, v / ry
    radius = np.sqrt(a * a + b * b)
    return radius * (radius - 1) / np.maximum(np.sqrt((a / f.head_rx) ** 2 + (b / ry) ** 2), 1e-6)


def _head(whole: Canvas) -> None:
    f = whole.face
    for side in (-1, 1):
        middle = side * (f.head_rx + 0.5)
        part = whole.near(middle - 8, middle + 8, -5 - f.ear, f.ear)
        ear = ellipse(part.u - middle, part.v + 3, 5.5, f.ear)
        part.paint(part.cover(ear), f.skin * 0.86)
        inner = ellipse(part.u - middle - side, part.v + 3, 2.5, f.ear * 0.6)
        part.paint(0.5 * part.cover(inner, 2.0), f.skin * 0.68)
    part = whole.near(-f.head_rx - 2, f.head_rx + 2, -f.head_ry - 2, f.head_ry + 2)
    a, b = part.u / f.head_rx, part.v / f.head_ry
    depth = np.sqrt(np.clip(1 - a * a - b * b, 0, 1))
    colour = _skin(part, 1 + f.contrast * (0.8 * (a * f.light_x + b * f.light_y) + 0.5 * (depth - 0.75)))
    cheeks = np.exp(-((np.abs(part.face_u) - 23) ** 2 + (part.v - 14) ** 2) / 90) * f.blush
    colour *= 1 - cheeks * np.array([0.02, 0.3, 0.28], np.float32)[:, None, None]
    part.paint(part.cover(_outline(part)), colour)


def _beard(part: Canvas) -> None:
    f = part.face
    edge_of_face = _outline(part, f.beard_length) - 1.2
    if f.beard_kind > 0:  # on the chin alone
        shape = ellipse(part.face_u, part.v - f.mouth_v - 9, f.mouth_w + 6, 16 + 0.6 * f.beard_length)
    else:  # from below the nose or below the mouth, up to the ears at the sides
        top = (f.nose_v if f.moustache > 0 else f.mouth_v) + 5
        shape = top - 26 * (np.abs(part.u) / f.head_rx) ** 2.5 - part.v
    lips = ellipse(part.face_u, part.v - f.mouth_v, f.mouth_w * 1.1, f.lip + 2.5)
    shape = np.maximum(np.maximum(shape, edge_of_face), -lips)
    curls = 1 + 0.2 * np.sin(1.3 * part.u + 2 * np.sin(0.9 * part.v)) * np.sin(1.1 * part.v + f.strands)
    # the skin below shades it: a beard is darker than its face even where the hair is fair
    shade = min(f.beard_shade, 0.6 * float(f.skin @ _LUMINANCE) / float(f.hair @ _LUMINANCE))
    part.paint(f.beard_cover * part.cover(shape, 2.5), f.hair[:, None, None] * (shade * curls), _BEARD)


def _earrings(whole: Canvas) -> None:
    f, size = whole.face, whole.face.ring_size
    for side in (-1, 1):
        middle, top = side * (f.head_rx + 2.5), f.ear - 3
        part = whole.near(middle - 11, middle + 11, top - 6, top + 3 * size + 3)
        u, v = part.u - middle, part.v - top
        if f.ring_kind == 0:  # a hoop
            shape = np.abs(ellipse(u, v - size, size, size)) - 1.5
        elif f.ring_kind == 1:  # a stud
            shape = ellipse(u, v - 1, 2.2 + 0.35 * size, 2.2 + 0.35 * size)
        else:  # a drop
            shape = np.minimum(box(u, v - size, 0.8, size, 0.4), ellipse(u, v - 2.2 * size, 0.55 * size, 0.8 * size))
        shine = 1 + 0.25 * np.sin(0.9 * (u + v))
        part.paint(part.cover(shape), f.metal[:, None, None] * shine, _EARRINGS)


def _features(whole: Canvas) -> None:
    f, turn = whole.face, YAW * whole.face.yaw
    dark, nose = 0.62 * f.skin, 1.3 * turn
    side = -1.0 if f.light_x > 0 else 1.0  # the side in shadow
    part = whole.near(nose - 14, nose + 14, f.nose_v - 26, f.nose_v + 8)
    ridge = stroke(part.v - f.nose_v + 9, part.u - nose - side * 3.2, 10.0, side * 1.5, 1.0)
    part.paint(0.35 * part.cover(ridge, 3.0), dark)
    tip = stroke(part.u - nose, part.v - f.nose_v - 2.5, f.nose_w, -2.5, 0.9)
    part.paint(0.6 * part.cover(tip, 2.0), dark)
    for eye in (-1, 1):
        part = whole.near(turn + eye * f.eye_u - 14, turn + eye * f.eye_u + 14, f.eye_v - 21, f.eye_v + 8)
        u, v = part.face_u - eye * f.eye_u, part.v - f.eye_v
        inside = part.cover(np.maximum(ellipse(u, v, f.eye_rx, f.eye_open), np.abs(u) - f.eye_rx))
        part.paint(inside, np.full(3, 0.95, np.float32))
        part.paint(inside * part.cover(ellipse(u - f.gaze, v, 3.6, 3.6)), f.iris)
        part.paint(inside * part.cover(ellipse(u - f.gaze, v, 1.7, 1.7)), np.full(3, 0.03, np.float32))
        lid = stroke(u, v + f.eye_open, f.eye_rx + 0.8, f.eye_open * 0.9, 0.7)
        part.paint(0.9 * part.cover(lid), 0.3 * f.skin)
        brow = stroke(u, v + f.brow_v, 9.5, 3.0, f.brow_width, eye * f.brow_tilt)
        part.paint(0.85 * part.cover(brow, 1.5), 0.75 * f.hair)


def _lips(face: SimpleNamespace) -> Floats:
    return 0.8 * face.skin * (1 - face.lip_red) + face.lip_red * np.array([0.72, 0.16, 0.20], np.float32)


def _mouth(part: Canvas) -> None:
    f, u, v = part.face, part.face_u, part.v - part.face.mouth_v
    full = np.sqrt(np.clip(1 - (u / f.mouth_w) ** 2, 0, 1))
    part.paint(part.cover(stroke(u, v, f.mouth_w, f.mouth_bend, f.lip * full)), _lips(f))
    part.paint(0.8 * part.cover(stroke(u, v, f.mouth_w, f.mouth_bend, 0.5)), 0.35 * f.skin)


def _smile(part: Canvas) -> None:
    f, u, v = part.face, part.face_u, part.v - part.face.mouth_v
    wide, bend, gap = f.mouth_w * f.smile_wide, -f.smile_bend, f.smile_open
    full = np.sqrt(np.clip(1 - (u / wide) ** 2, 0, 1))
    lips = stroke(u, v - gap / 2, wide, bend, (gap / 2 + f.lip) * full)
    part.paint(part.cover(lips), _lips(f), _SMILE)
    inside = stroke(u, v - gap / 2, wide * 0.9, bend * 0.81, gap / 2 * full)
    part.paint(part.cover(inside), np.array([0.35, 0.06, 0.08], np.float32), _SMILE)
    teeth = stroke(u, v - gap * 0.3, wide * 0.86, bend * 0.75, gap * 0.34 * full)
    part.paint(part.cover(teeth), np.full(3, 0.97, np.float32), _SMILE)
    for side in (-1, 1):  # creases beside the mouth
        crease = stroke(v + f.smile_bend + 2, side * u - wide - 3, 7.0, -3.0, 0.7)
        part.paint(0.6 * part.cover(crease, 1.5), 0.55 * f.skin, _SMILE)


def _front_hair(part: Canvas) -> None:
    f = part.face
    t = np.abs(part.u) / f.head_rx
    grow = 6 if f.hair_kind == 3 else 2.5
    fringe = 2.5 * float(np.sin(2 * f.strands)) * np.sin(0.35 * part.u + f.strands)
    line = f.hairline + f.parting * part.u + f.temples * t**2 + 22 * t**5 + fringe
    cap = np.maximum(ellipse(part.u, part.v + 14, f.head_rx + grow, 46 + grow), part.v - line)
    part.paint(part.cover(cap, 1.5), _hair_colour(part))


def _glasses(part: Canvas) -> None:
    f, u, v = part.face, part.face_u, part.v - part.face.eye_v
    within_face = _outline(part) - 3
    ring = lens = np.full_like(part.u, np.inf)
    for eye in (-1, 1):
        shape = box(u - eye * (f.eye_u + 0.5), v - 0.5, f.lens_rx, f.lens_ry, f.lens_round * f.lens_ry)
        lens, ring = np.minimum(lens, shape), np.minimum(ring, np.abs(shape) - f.frame_width)
        end = eye * (f.eye_u + f.lens_rx)  # from the lens to the ear
        half = abs(eye * f.head_rx - end - YAW * f.yaw) / 2 + 1
        arm = box(u - end - eye * half, v + 3, half, f.frame_width, 0.5)
        ring = np.minimum(ring, np.maximum(arm, within_face))
    bridge = stroke(u, v + 2.5, max(f.eye_u - f.lens_rx, 2.0) + 1.5, 1.5, f.frame_width)
    glare = 0.25 * f.sun * ((u + 1.5 * part.v) % 40 / 40)
    tint = f.tint if f.sun > 0 else 0.08
    part.paint(tint * part.cover(lens), f.lens[:, None, None] + glare, _GLASSES)
    part.paint(part.cover(np.minimum(ring, bridge)), f.frame, _GLASSES)


def _hat(part: Canvas) -> None:
    f = part.face
    woollen, brimmed = f.hat_kind == 0, f.hat_kind == 1  # the third kind is a cap
    u = part.u - 0.35 * YAW * f.yaw
    v = part.v - f.hat_v - f.hat_tilt * part.u
    v = v if brimmed else v - 5 * (u / 45) ** 2
    wide = f.head_rx + f.hat_wide
    if brimmed:
        crown = np.maximum(ellipse(u, v, wide * 0.92, f.hat_height * 1.05), v)
    else:
        crown = np.maximum(ellipse(u, v - 2, wide, f.hat_height), v - 2)
    weave = 1 + 0.12 * np.sin((0.9 if woollen else 0.05) * u) + 0.25 * f.light_x / wide * u + 0.002 * v
    colour = f.hat[:, None, None] * weave
    part.paint(part.cover(crown), colour, _HAT)
    if woollen:
        band = box(u, v + 3, wide + 1.5, 7.0, 4.0)
    elif brimmed:
        band = np.maximum(crown, np.abs(v + 7) - 5)
    else:
        band = np.maximum(ellipse(u - YAW * f.yaw, v - 1, wide * 0.95, f.brim * 0.55), -(v + 2))
    part.paint(part.cover(band), f.band[:, None, None] * weave, _HAT)
    if brimmed:
        part.paint(part.cover(ellipse(u, v, wide + f.brim, 7.5)), colour * 0.82, _HAT)
    elif woollen:
        part.paint(part.cover(ellipse(u, v + f.hat_height, 8.0, 8.0), 2.0), f.band, _HAT)


def _lit(canvas: Canvas, noise: Floats | None) -> NDArray[np.uint8]:
    f = canvas.face
    slope = 1 + 0.35 * f.contrast * ((canvas.x / WIDTH - 0.5) * f.light_x + (canvas.y / HEIGHT - 0.5) * f.light_y)
    warm = 255 * f.gain * (1 + f.warmth * np.array([1.0, 0.0, -1.0], np.float32))
    rgb = canvas.rgb * (slope * warm[:, None, None])
    if noise is not None:
        rgb += noise * (255 * f.noise)
    return np.rint(np.clip(rgb, 0, 255)).astype(np.uint8).transpose(1, 2, 0)
