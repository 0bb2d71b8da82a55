"""How well a map finds pixels that are known to carry an attribute."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_dilation
from sklearn.metrics import roc_auc_score

__all__ = ["mask_agreement", "mean_difference"]


def mask_agreement(
    maps: ArrayLike, masks: ArrayLike, *, share: float = 0.05, margin: int | None = None
) -> dict[str, NDArray[np.float64]]:
    """Compare maps with the masks of an attribute, picture by picture.

    Parameters
    ----------
    maps
        (n, size, size), higher where the map says that the attribute is; or one map (size, size) for all.
    masks
        (n, size, size) booleans, true where the attribute is seen.
    share
        Which share of the pixels, the highest ones, should lie in the mask.
    margin
        Pixels by which the mask is widened for that, since a contour is as good a finding as what it encloses; None
        takes 1/32 of the width, at least one pixel.

    Returns
    -------
    ``auroc``: (n,), over pixels, 0.5 is chance. ``top``: (n,), share of the highest pixels in the widened mask.
    ``chance``: (n,), that of pixels drawn at random. NaN where a mask is empty or covers the picture.

    Raises
    ------
    ValueError
        If shapes differ, a map is not finite, or the share does not lie between 0 and 1.
    """
    truth = np.asarray(masks, dtype=bool)
    values = np.asarray(maps, dtype=np.float64)
    if truth.ndim != 3 or values.shape not in (truth.shape, truth.shape[1:]):
        raise ValueError(f"Expected maps and masks of one shape (n, size, size), found {values.shape}, {truth.shape}.")
    if not np.isfinite(values).all():
        raise ValueError("Expected finite maps, found NaN or infinity.")
    if not 0 < share < 1:
        raise ValueError(f"Expected a share between 0 and 1, found {share}.")
    wide = max(1, round(truth.shape[1] / 32)) if margin is None else margin
    if wide < 0:
        raise ValueError(f"Expected a margin of at least 0 pixels, found {margin}.")
    values = np.broadcast_to(values, truth.shape)
    n_top = max(1, round(share * truth[0].size)) if len(truth) else 0
    out = {key: np.full(len(truth), np.nan) for key in ("auroc", "top", "chance")}
    for i, (value, mask) in enumerate(zip(values, truth, strict=True)):
        if not mask.any() or mask.all():
            continue
        near = binary_dilation(mask, iterations=wide) if wide else mask
        highest = np.argsort(-value, axis=None, kind="stable")[:n_top]
        out["auroc"][i] = roc_auc_score(mask.ravel(), value.ravel())
        out["top"][i] = near.ravel()[highest].mean()
        out["chance"][i] = near.mean()
    return out


def mean_difference(pixels: ArrayLike, has: ArrayLike) -> NDArray[np.float64]:
    """Mean of the pictures with an attribute minus mean of those without: a map that no model is needed for.

    `stcsm.images.pixel_maps` makes ``|mean(with) - mean(without)|`` of it, one value a pixel. Where faces are aligned,
    every method has to be compared with it; it is the same for every picture.

    Parameters
    ----------
    pixels
        (n, 3, size, size).
    has
        (n,) booleans.

    Returns
    -------
    (size, size, 3), in the units of the pixels.

    Raises
    ------
    ValueError
        If shapes do not match, or all pictures or none have the attribute.
    """
    which = np.asarray(has, dtype=bool)
    given = np.asarray(pixels)
    if given.ndim != 4 or which.shape != (len(given),):
        raise ValueError(f"Expected one boolean for each of {len(given)} pictures, found shape {which.shape}.")
    if not 0 < which.sum() < len(which):
        raise ValueError(f"Expected pictures with and without the attribute, found {which.sum()} of {len(which)}.")
    weights = np.where(which, 1 / which.sum(), -1 / (~which).sum())
    difference = np.zeros(given.shape[1:])
    for start in range(0, len(given), 256):
        part = slice(start, start + 256)
        difference += np.tensordot(weights[part], given[part].astype(np.float64), axes=1)
    return difference.transpose(1, 2, 0)
