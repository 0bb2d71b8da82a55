"""Images as arrays: read from a file, cropped to the face as published, checked, laid out in a grid."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from stcsm._files import whole_file

__all__ = [
    "ALIGNED",
    "OUTSIDE",
    "ImageError",
    "Resample",
    "as_pixels",
    "crop_boxes",
    "fit_boxes",
    "image_grid",
    "open_image",
    "read_image",
    "read_mask",
    "write_png",
]

Resample = Literal["nearest", "bilinear"]
_RESAMPLE = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "La", "RGBa"}

#: Height and width of CelebA's aligned images, in whose pixels the crop is defined.
ALIGNED = (218, 178)

#: What happens to a crop that extends beyond the image. "clip": it is cut at the border. "skip": the image is excluded.
#: "published": Python slices, as in the published code (a negative start counts from the end, so most such crops are
#: empty).
OUTSIDE = ("clip", "skip", "published")


class ImageError(ValueError):
    """A file cannot be used as an image; the message names it."""


# ---------------------------------------------------------------- the crop


def crop_boxes(landmarks: ArrayLike) -> NDArray[np.int64]:
    """Boxes of the published crop (Brocki & Chung 2019), for faces as CelebA aligns them.

    Rows extend from 105 above the nose to 35 below the left corner of the mouth, columns from 50 left of the left eye
    to 50 right of the right eye.

    Parameters
    ----------
    landmarks
        (n, 10) in the order of CelebA's table.

    Returns
    -------
    (n, 4): top, bottom, left, right, ends excluded. They may extend beyond the image: see `fit_boxes`.
    """
    points = np.asarray(landmarks, dtype=np.int64)
    if points.ndim != 2 or points.shape[1] != 10:
        raise ValueError(f"Expected ten landmark numbers per image, found shape {points.shape}.")
    return np.stack([points[:, 5] - 105, points[:, 7] + 35, points[:, 0] - 50, points[:, 2] + 50], axis=1)


def fit_boxes(
    boxes: NDArray[np.int64], height: int, width: int, outside: str = "clip"
) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """Fit crops into images of one size.

    Parameters
    ----------
    boxes
        (n, 4) top, bottom, left, right.
    height, width
        Of the images, in pixels.
    outside
        One of `OUTSIDE`.

    Returns
    -------
    The boxes as they are cut, and a status for each: ``"inside"``, ``"clipped"`` (part of it was outside) or
    ``"empty"`` (nothing is left, or ``outside`` says to skip it).
    """
    if outside not in OUTSIDE:
        raise ValueError(f"Expected outside to be one of {', '.join(OUTSIDE)}, found {outside!r}.")
    limit = np.array([height, height, width, width])
    leaves = (boxes < 0).any(axis=1) | (boxes > limit).any(axis=1)
    # a Python slice: negative numbers count from the end, then both ends are limited to the image
    fitted = np.clip(np.where(boxes < 0, boxes + limit, boxes) if outside == "published" else boxes, 0, limit)
    empty = (fitted[:, 1] <= fitted[:, 0]) | (fitted[:, 3] <= fitted[:, 2])
    if outside == "skip":
        empty |= leaves
    return fitted, np.where(empty, "empty", np.where(leaves, "clipped", "inside"))


# ---------------------------------------------------------------- files


def open_image(path: str | Path) -> Image.Image:
    """Read an image file completely, as RGB; transparent pixels become white.

    Raises
    ------
    ImageError
        If the file is missing, damaged, truncated, or does not have 8 bits per channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in _MODES:
                raise ImageError(
                    f"Expected 8 bits per channel in {path}, found mode {image.mode!r}; convert the file first."
                )
            image.load()
            if image.mode == "RGB":
                return image.copy()
            if "transparency" in image.info or image.mode in {"LA", "PA", "RGBA", "La", "RGBa"}:
                rgba = image.convert("RGBA")
                return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
            return image.convert("RGB")
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"Expected an image at {path}, found no such file.") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"Expected an image in {path}, found a damaged file: {error}") from error


def read_image(
    path: str | Path,
    size: int,
    box: NDArray[np.int64] | None = None,
    resample: Resample = "nearest",
    source_size: tuple[int, int] | None = None,
) -> NDArray[np.uint8]:
    """Read an image, crop it to a box and resize the crop.

    Parameters
    ----------
    path
        The file.
    size
        Height and width of the result, in pixels.
    box
        Top, bottom, left, right, within the image. None takes the whole image, rotated as its EXIF orientation says.
    resample
        "nearest" (published) or "bilinear" (anti-aliased).
    source_size
        Height and width that the file must have, because the box is in its pixels.

    Returns
    -------
    (size, size, 3), 0 to 255.

    Raises
    ------
    ImageError
        If the file cannot be read, or its size is not ``source_size``.
    """
    image = open_image(path)
    if source_size is not None and (image.height, image.width) != source_size:
        raise ImageError(
            f"Expected {source_size[0]} x {source_size[1]} pixels (height x width) in {path}, as its landmarks assume, "
            f"found {image.height} x {image.width}; use the aligned images, or crop=False."
        )
    if box is None:
        image = ImageOps.exif_transpose(image)
        return np.asarray(image.resize((size, size), _RESAMPLE[resample]))
    top, bottom, left, right = (int(v) for v in box)
    return np.asarray(image.crop((left, top, right, bottom)).resize((size, size), _RESAMPLE[resample]))


def read_mask(
    path: str | Path,
    size: int,
    box: NDArray[np.int64] | None = None,
    resample: Resample = "nearest",
    source_size: tuple[int, int] | None = None,
) -> NDArray[np.bool_]:
    """Read a mask as `read_image` reads its image: (size, size), true where a pixel is at least half white."""
    return read_image(path, size, box, resample, source_size)[..., 0] >= 128


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write an image (height, width, 3), completely or not at all."""
    with whole_file(path) as scratch:
        Image.fromarray(pixels).save(scratch, format="PNG")


# ---------------------------------------------------------------- arrays


def as_pixels(images: Tensor | NDArray[np.generic]) -> Tensor:
    """Convert uint8 (0 to 255) or float (0 to 1) images (n, 3, size, size) to floats between 0 and 1.

    Raises
    ------
    ValueError
        If the shape is wrong, or floats are not between 0 and 1.
    """
    given = torch.as_tensor(images)
    if given.ndim != 4 or given.shape[1] != 3:
        raise ValueError(f"Expected images of shape (n, 3, size, size), found {tuple(given.shape)}.")
    if given.dtype == torch.uint8:
        return given.float().div_(255)
    if not given.is_floating_point():
        raise ValueError(f"Expected uint8 images, or floats between 0 and 1, found {given.dtype}.")
    if given.numel() and not (float(given.min()) >= 0 and float(given.max()) <= 1):
        raise ValueError(
            f"Expected floats between 0 and 1, found {float(given.min()):g} to "
            f"{float(given.max()):g}; divide by 255, or pass uint8."
        )
    return given


def image_grid(images: Tensor | NDArray[np.generic], columns: int = 8) -> NDArray[np.uint8]:
    """Arrange images in a grid.

    Parameters
    ----------
    images
        (n, 3, size, size): uint8, or floats between 0 and 1.
    columns
        Images per row.

    Returns
    -------
    (height, width, 3), 0 to 255; the last row is filled with white.

    Raises
    ------
    ValueError
        If there is no image, or ``columns`` is below 1.
    """
    pixels = as_pixels(images).detach().cpu().float().mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    n, size = pixels.shape[:2]
    if n < 1 or columns < 1:
        raise ValueError(f"Expected at least one image and one column, found {n} and {columns}.")
    columns = min(columns, n)
    rows = -(-n // columns)
    full = np.full((rows * columns, size, size, 3), 255, np.uint8)
    full[:n] = pixels
    return full.reshape(rows, columns, size, size, 3).swapaxes(1, 2).reshape(rows * size, columns * size, 3)
