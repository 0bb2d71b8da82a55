"""A picture of the tissue and the affine transformation onto it, stored where squidpy looks for them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from stcsm.io._open import existing_file, open_text

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE = 2000
"""Longest side in pixels of a stored picture, that of Space Ranger's ``hires``."""
SPOT_PER_PITCH = 0.5
"""Diameter of a spot over the distance between two: 100 and 200 micrometres (Stahl et al. 2016, Science 353:78)."""
BLANK_SIDE = 128
"""Longest side in pixels of the canvas that stands in where there is no picture."""
SHAPE_TOLERANCE = 0.01
"""Width and height may be scaled this differently, relative, beyond what rounding to whole pixels explains."""


def read_transformation(source: str | Path | ArrayLike) -> np.ndarray:
    """Affine transformation from array to pixel coordinates, shape (3, 3): ``[x y 1] @ matrix`` is ``[px py 1]``.

    Parameters
    ----------
    source
        File of 9 numbers separated by blanks, or those numbers.

    Raises
    ------
    ValueError
        Not 9 finite numbers, not affine (transposed, for instance), or not invertible.
    """
    if isinstance(source, str | Path):
        path = existing_file(source, "a transformation file of 9 numbers")
        where = f" in {path}"
        with open_text(path) as text:
            words = text.read().replace(",", " ").split()
        try:
            numbers = np.array(words, dtype=np.float64)
        except ValueError as error:
            raise ValueError(f"Expected 9 numbers, found {' '.join(words)[:80]!r}{where}: {error}.") from error
    else:
        where = ""
        numbers = np.asarray(source, dtype=np.float64)
    if numbers.size != 9 or not np.isfinite(numbers).all():
        raise ValueError(
            f"Expected a transformation of 9 finite numbers, found {numbers.size}{where}; "
            "give the 3 x 3 matrix that takes the row vector [x y 1] to pixels."
        )
    matrix = numbers.reshape(3, 3)
    if not np.allclose(matrix[:, 2], [0, 0, 1]):
        hint = "it is transposed: give its transpose" if np.allclose(matrix[2], [0, 0, 1]) else "check the numbers"
        raise ValueError(
            "Expected an affine transformation of row vectors, whose last column is 0 0 1, "
            f"found {matrix[:, 2]}{where}; {hint}."
        )
    if abs(np.linalg.det(matrix[:2, :2])) < 1e-12:
        raise ValueError(
            f"Expected an invertible transformation, found one that maps the array onto a line{where}; "
            "check the numbers."
        )
    return matrix


def read_picture(
    source: str | Path | ArrayLike, image_shape: tuple[int, int] | None
) -> tuple[np.ndarray, float, tuple[int, int]]:
    """Picture no longer than `MAX_SIDE`, its scale and the size of the picture at full resolution.

    Parameters
    ----------
    source
        Picture file, or an array (height, width, 3 or 4) or (height, width): uint8, or floats from 0 to 1.
    image_shape
        (width, height) of the full-resolution picture; None where `source` is that picture.

    Returns
    -------
    picture : uint8 array (height, width, 3)
    scale : float
        Its pixels over full-resolution pixels.
    full : (width, height)
        Of the full-resolution picture.

    Raises
    ------
    ValueError
        Not a picture, or not of the proportions of `image_shape`.
    """
    image = _load(source)
    width, height = image.size
    full = (width, height) if image_shape is None else _check_shape(image_shape, (width, height))
    if max(width, height) > MAX_SIDE:
        image.thumbnail((MAX_SIDE, MAX_SIDE))
    picture = np.asarray(image.convert("RGB"))
    # the sides are rounded to whole pixels, so their mean is nearer the truth than either
    scale = float(np.mean([picture.shape[1] / full[0], picture.shape[0] / full[1]]))
    return picture, scale, full


def _load(source: str | Path | ArrayLike) -> Image:
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, str | Path):
        path = existing_file(source, "a picture")
        try:
            with warnings.catch_warnings():  # a whole-slide picture is large, and the user's own
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                image = Image.open(path)
                image.load()
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(
                f"Expected a picture (JPEG, PNG, TIFF), found a file that does not open as one: {path} ({error})."
            ) from error
        return image
    array = np.asarray(source)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise ValueError(f"Expected a picture of shape (height, width, 3), found shape {array.shape}.")
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.floating) or not (np.nanmin(array) >= 0 and np.nanmax(array) <= 1):
            raise ValueError(f"Expected a picture of uint8, or of floats from 0 to 1, found {array.dtype}; convert it.")
        array = np.rint(np.nan_to_num(array) * 255).astype(np.uint8)
    return Image.fromarray(array)


def _check_shape(image_shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    full = tuple(int(n) for n in image_shape)
    if len(full) != 2 or min(full) < 1:
        raise ValueError(f"Expected image_shape as (width, height) in pixels, found {image_shape!r}.")
    ratio = size[0] / full[0]
    slack = max(1.0, SHAPE_TOLERANCE * size[1])
    if abs(size[1] - full[1] * ratio) > slack:
        turned = (
            " They agree as (height, width): give (width, height)."
            if abs(size[1] - full[0] * size[0] / full[1]) <= slack
            else ""
        )
        raise ValueError(
            f"Expected a picture of the proportions of image_shape {full[0]} x {full[1]} (width x height), "
            f"found one of {size[0]} x {size[1]}.{turned}"
        )
    return full[0], full[1]


def spatial_entry(
    pixels: np.ndarray,
    matrix: np.ndarray | None,
    picture: np.ndarray | None = None,
    scale: float = 1.0,
    full: tuple[int, int] | None = None,
    **metadata: str,
) -> dict[str, Any]:
    """Value of ``.uns["spatial"][library_id]``: images, scale factors and metadata, as squidpy reads them.

    squidpy draws spots of a true size only where there is a picture, so without one a small white canvas of the
    array's size stands in for it; ``metadata["picture"]`` says ``"tissue"`` or ``"blank"``.
    """
    pitch = 1.0 if matrix is None else float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    metadata["picture"] = "blank" if picture is None else "tissue"
    if picture is None:
        picture, scale = _blank(pixels, pitch, full)
    return {
        "images": {"hires": picture},
        "scalefactors": {"tissue_hires_scalef": scale, "spot_diameter_fullres": SPOT_PER_PITCH * pitch},
        "metadata": metadata,
    }


def _blank(pixels: np.ndarray, pitch: float, full: tuple[int, int] | None) -> tuple[np.ndarray, float]:
    width, height = full or tuple(pixels.max(axis=0) + pitch)
    scale = BLANK_SIDE / max(width, height, 1.0)
    shape = (max(1, round(height * scale)), max(1, round(width * scale)), 3)
    return np.full(shape, 255, dtype=np.uint8), scale
