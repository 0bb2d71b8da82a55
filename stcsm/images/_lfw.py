"""A small real set: scikit-image's faces and patches of no face."""

from __future__ import annotations

import numpy as np
import pandas as pd
from PIL import Image

from ._data import PictureArray

__all__ = ["lfw_subset"]

_FACES = 100  # of the 200 pictures the first 100 are faces


def lfw_subset(size: int = 32, *, seed: int = 0) -> PictureArray:
    """Return scikit-image's ``lfw_subset``: 100 faces and 100 pictures of no face, grey, 25 x 25 pixels.

    It comes with scikit-image; nothing is downloaded. (A part of Labeled Faces in the Wild, Huang et al. 2007.)

    Parameters
    ----------
    size
        Pictures are resized to ``size`` x ``size`` pixels.
    seed
        Of the partition: of the faces, and of the others, 75 are ``"train"`` and 25 ``"test"``.

    Returns
    -------
    200 pictures with the attribute ``Face``.

    Raises
    ------
    ValueError
        If ``size`` is below 1.
    ModuleNotFoundError
        If scikit-image is not installed.
    """
    if size < 1:
        raise ValueError(f"Expected a size of at least one pixel, found {size}.")
    try:
        from skimage.data import lfw_subset as grey_pictures
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Expected scikit-image, which holds these pictures, found none; pip install scikit-image."
        ) from error
    grey = np.asarray(grey_pictures())
    pixels = np.stack([
        np.asarray(Image.fromarray(np.rint(255 * one).astype(np.uint8)).resize((size, size), Image.Resampling.BILINEAR))
        for one in grey
    ])  # fmt: skip
    names = pd.Index([f"lfw_{k:03d}" for k in range(len(grey))], name="image_id")
    face = np.arange(len(grey)) < _FACES
    part = pd.Series("train", index=names, name="partition")
    rng = np.random.default_rng(seed)
    for kind in (True, False):
        rows = np.flatnonzero(face == kind)
        part.iloc[rng.choice(rows, len(rows) // 4, replace=False)] = "test"
    return PictureArray(pixels, pd.DataFrame({"Face": face}, index=names), part)
