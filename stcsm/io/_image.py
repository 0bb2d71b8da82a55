"""An image of the tissue and the affine transformation onto it, stored where squidpy looks for them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from stcsm._files import existing_file, text_lines

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE = 2000
"""Longest side in pixels of a stored image, that of Space Ranger's ``hires``."""
SPOT_PER_PITCH = 0.5
"""Diameter of a spot over the distance between two: 100 and 200 micrometres (Stahl et al. 2016, Science 353:78)."""
BLANK_SIDE = 128
"""Longest side in pixels of the canvas that is stored where there is no image."""
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
        words = " ".join(line for _, line in text_lines(path)).replace(",", " ").split()
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


def read_image(
    source: str | Path | ArrayLike, image_shape: tuple[int, int] | None
) -> tuple[np.ndarray, float, tuple[int, int]]:
    """Image no longer than `MAX_SIDE`, its scale and the size of the image at full resolution.

    Parameters
    ----------
    source
        Image file, or an array (height, width, 3 or 4) or (height, width): uint8, or floats from 0 to 1.
    image_shape
        (width, height) of the full-resolution image; None where `source` is that image.

    Returns
    -------
    image : uint8 array (height, width, 3)
    scale : float
        Its pixels over full-resolution pixels.
    full : (width, height)
        Of the full-resolution image.

    Raises
    ------
    ValueError
        Not an image, or not of the proportions of `image_shape`.
    """
    with _opened(source) as opened:
        full = opened.size if image_shape is None else check_image_shape(image_shape, opened.size)
        opened.thumbnail((MAX_SIDE, MAX_SIDE))  # leaves a smaller image as it is; reads a large JPEG at reduced size
        image = np.asarray(_on_white(opened))
    # the sides are rounded to whole pixels, so their mean is nearer the truth than either
    scale = float(np.mean([image.shape[1] / full[0], image.shape[0] / full[1]]))
    return image, scale, full


@contextmanager
def _opened(source: str | Path | ArrayLike) -> Iterator[Image]:
    from PIL import Image

    if not isinstance(source, str | Path):
        yield Image.fromarray(_bytes(np.asarray(source)))
        return
    path = existing_file(source, "an image")
    try:
        with warnings.catch_warnings():  # an image of a whole slide is large, and from the user's own disk
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                yield image
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"Expected an image of less than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels, "
            f"found more in {path}; save a reduced copy and give the size of this one as image_shape."
        ) from error
    except OSError as error:  # also what Pillow says of files it does not know
        raise ValueError(
            f"Expected an image (JPEG, PNG, TIFF), found a file that does not open as one: {path} ({error}); "
            "save it again as one of these."
        ) from error


def _bytes(array: np.ndarray) -> np.ndarray:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise ValueError(f"Expected an image of shape (height, width, 3), found shape {array.shape}.")
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating) or not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(f"Expected an image of uint8, or of floats from 0 to 1, found {array.dtype}; convert it.")
    return np.rint(array * 255).astype(np.uint8)


def _on_white(image: Image) -> Image:
    from PIL import Image as Images

    if image.mode[0] in "IF":
        raise ValueError(f"Expected an image of 8 bits a channel, found mode {image.mode}; convert it to RGB.")
    if "A" in image.mode or "transparency" in image.info:
        return Images.alpha_composite(Images.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def check_image_shape(image_shape: tuple[int, int], size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return (width, height), checked to be a size and, if given, of the proportions of an image of `size`.

    Raises
    ------
    ValueError
        Not two positive numbers, or other proportions (the sides swapped, for instance).
    """
    if len(image_shape) != 2 or not min(image_shape) >= 1:
        raise ValueError(f"Expected image_shape as (width, height) in pixels, found {image_shape!r}.")
    full = (int(image_shape[0]), int(image_shape[1]))
    if size is not None and not _proportional(size, full):
        turned = " They agree as (height, width): give (width, height)." if _proportional(size, full[::-1]) else ""
        raise ValueError(
            f"Expected an image of the proportions of image_shape, {full[0]} x {full[1]} (width x height), "
            f"found one of {size[0]} x {size[1]}.{turned}"
        )
    return full


def _proportional(size: tuple[int, int], full: tuple[int, int]) -> bool:
    return abs(size[1] - full[1] * size[0] / full[0]) <= max(1.0, SHAPE_TOLERANCE * size[1])


def spatial_entry(
    pixels: np.ndarray,
    matrix: np.ndarray | None,
    image: np.ndarray | None = None,
    scale: float = 1.0,
    full: tuple[int, int] | None = None,
    **metadata: str,
) -> dict[str, Any]:
    """Value of ``.uns["spatial"][library_id]``: images, scale factors and metadata, as squidpy reads them.

    squidpy draws spots at their true size only where there is an image, so without one a small white canvas of the
    array's size is stored; ``metadata["image"]`` says ``"tissue"`` or ``"blank"``.
    """
    pitch = 1.0 if matrix is None else float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    metadata["image"] = "blank" if image is None else "tissue"
    if image is None:
        image, scale = _blank(pixels, pitch, full)
    return {
        "images": {"hires": image},
        "scalefactors": {"tissue_hires_scalef": scale, "spot_diameter_fullres": SPOT_PER_PITCH * pitch},
        "metadata": metadata,
    }


def _blank(pixels: np.ndarray, pitch: float, full: tuple[int, int] | None) -> tuple[np.ndarray, float]:
    width, height = full or tuple(pixels.max(axis=0) + pitch)
    scale = BLANK_SIDE / max(width, height, 1.0)
    shape = (max(1, round(height * scale)), max(1, round(width * scale)), 3)
    return np.full(shape, 255, dtype=np.uint8), scale
