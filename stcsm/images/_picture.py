"""One picture file to an array; and the published crop of a face."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = [
    "OUTSIDE",
    "PictureError",
    "Resample",
    "crop_boxes",
    "fit_boxes",
    "open_picture",
    "read_mask",
    "read_picture",
]

Resample = Literal["nearest", "bilinear"]
_RESAMPLE = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "La", "RGBa"}

#: Height and width of CelebA's aligned pictures, in whose pixels the crop is defined.
ALIGNED = (218, 178)

#: What to do with a crop that leaves the picture. "clip": keep what lies inside. "skip": leave the picture out.
#: "published": python slices, as published (a negative start counts from the other end, so the crop is mostly empty).
OUTSIDE = ("clip", "skip", "published")


class PictureError(ValueError):
    """A file that should be a picture and cannot be used as one; the message names it."""


def crop_boxes(landmarks: ArrayLike) -> NDArray[np.int64]:
    """Boxes of the published crop.

    Rows from 105 above the nose to 35 below the left corner of the mouth, columns from 50 left of the left eye to 50
    right of the right eye (Brocki & Chung 2019), for faces as CelebA aligns them.

    Parameters
    ----------
    landmarks
        (n, 10) in the order of CelebA's table.

    Returns
    -------
    (n, 4): top, bottom, left, right, ends excluded. They may leave the picture: see `fit_boxes`.
    """
    points = np.asarray(landmarks, dtype=np.int64)
    if points.ndim != 2 or points.shape[1] != 10:
        raise ValueError(f"Expected ten landmark numbers a picture, found shape {points.shape}.")
    return np.stack([points[:, 5] - 105, points[:, 7] + 35, points[:, 0] - 50, points[:, 2] + 50], axis=1)


def fit_boxes(
    boxes: NDArray[np.int64], height: int, width: int, outside: str = "clip"
) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """Fit crops into a picture of a size.

    Parameters
    ----------
    boxes
        (n, 4) top, bottom, left, right.
    height, width
        Of the pictures.
    outside
        One of `OUTSIDE`.

    Returns
    -------
    The boxes as they will be cut, and for each ``"inside"``, ``"clipped"`` (part of it lay outside) or
    ``"empty"`` (nothing is left, or
    it is to be skipped).
    """
    if outside not in OUTSIDE:
        raise ValueError(f"Expected outside to be one of {', '.join(OUTSIDE)}, found {outside!r}.")
    limit = np.array([height, height, width, width])
    leaves = (boxes < 0).any(axis=1) | (boxes > limit).any(axis=1)
    # what a slice does: a negative number counts from the end, then both ends are held within the picture
    fitted = np.clip(np.where(boxes < 0, boxes + limit, boxes) if outside == "published" else boxes, 0, limit)
    empty = (fitted[:, 1] <= fitted[:, 0]) | (fitted[:, 3] <= fitted[:, 2])
    if outside == "skip":
        empty |= leaves
    return fitted, np.where(empty, "empty", np.where(leaves, "clipped", "inside"))


def open_picture(path: str | Path) -> Image.Image:
    """Open a picture whole, as RGB; transparent pixels become white.

    Raises
    ------
    PictureError
        If the file is absent, damaged, cut short, or holds other than 8 bits a channel.
    """
    try:
        with Image.open(path) as picture:
            if picture.mode not in _MODES:
                raise PictureError(
                    f"Expected 8 bits a channel in {path}, found mode {picture.mode!r}; convert it first."
                )
            picture.load()
            if picture.mode == "RGB":
                return picture.copy()
            if "transparency" in picture.info or picture.mode in {"LA", "PA", "RGBA", "La", "RGBa"}:
                layer = picture.convert("RGBA")
                return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
            return picture.convert("RGB")
    except PictureError:
        raise
    except FileNotFoundError as error:
        raise PictureError(f"Expected a picture at {path}, found no such file.") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PictureError(f"Expected a picture in {path}, found a damaged file: {error}") from error


def read_picture(
    path: str | Path,
    size: int,
    box: NDArray[np.int64] | None = None,
    resample: Resample = "nearest",
    whole: tuple[int, int] | None = None,
) -> NDArray[np.uint8]:
    """Read a picture, cut a box out of it and resize that.

    Parameters
    ----------
    path
        The file.
    size
        Height and width of what is returned.
    box
        Top, bottom, left, right, within the picture. None takes all of it, turned upright as its camera noted.
    resample
        "nearest" (published) or "bilinear" (anti-aliased).
    whole
        Height and width that the picture must have, since the box counts in its pixels.

    Returns
    -------
    (size, size, 3), 0 to 255.

    Raises
    ------
    PictureError
        If the file cannot be read, or has another size than ``whole``.
    """
    picture = open_picture(path)
    if whole is not None and (picture.height, picture.width) != whole:
        raise PictureError(
            f"Expected {whole[0]} x {whole[1]} pixels (height x width) in {path}, as its landmarks count, found "
            f"{picture.height} x {picture.width}; use the aligned pictures, or crop=False."
        )
    if box is None:
        picture = ImageOps.exif_transpose(picture)
        return np.asarray(picture.resize((size, size), _RESAMPLE[resample]))
    top, bottom, left, right = (int(v) for v in box)
    return np.asarray(picture.crop((left, top, right, bottom)).resize((size, size), _RESAMPLE[resample]))


def read_mask(
    path: str | Path,
    size: int,
    box: NDArray[np.int64] | None = None,
    resample: Resample = "nearest",
    whole: tuple[int, int] | None = None,
) -> NDArray[np.bool_]:
    """Read a mask as `read_picture` reads its picture: true where at least half of the pixel is white, (size, size)."""
    return read_picture(path, size, box, resample, whole)[..., 0] >= 128
