"""CelebA as people have it on disk."""

from __future__ import annotations

from pathlib import Path

from ._folder import PictureFolder
from ._layout import find_layout, read_crop_settings
from ._picture import Resample

__all__ = ["CelebA"]


class CelebA(PictureFolder):
    """A copy of CelebA, cropped to the face as published.

    Parameters
    ----------
    root
        Folder of the official archive's files or of the Kaggle copy; pictures and tables are found below it.
    size
        Crops are resized to ``size`` x ``size`` pixels.
    crop
        Whether to crop by landmarks (see `crop_boxes`). Folders that `crop_faces` wrote are crops already and are
        read as they are.
    outside
        Crops that leave their picture: "clip" keeps what lies inside, "skip" leaves the picture out, "published" cuts
        by python slices as the published code did, where most crops that start outside come out empty.
        Empty ones are left out, and counted.
    resample
        "nearest" (published) or "bilinear".
    pictures, attributes, landmarks, partition, masks
        Paths, where they are not below ``root`` or go by other names.
    missing
        What to do where listed files are absent: "warn" and leave them out, or "error".

    Attributes
    ----------
    inventory
        What became of every picture: an `Inventory`.

    Raises
    ------
    FileNotFoundError
        If pictures, attributes or, where needed, landmarks are not found.
    ValueError
        If a table is damaged or does not fit the pictures.

    Notes
    -----
    Nothing but the tables, the names of the files and one picture is read until pictures are asked for. CelebA: Liu
    et al., Deep Learning Face Attributes in the Wild, ICCV 2015; its licence does not allow to pass it on, so nothing
    here fetches it.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        size: int = 128,
        crop: bool = True,
        outside: str = "clip",
        resample: Resample = "nearest",
        pictures: str | Path | None = None,
        attributes: str | Path | None = None,
        landmarks: str | Path | None = None,
        partition: str | Path | None = None,
        masks: str | Path | None = None,
        missing: str = "warn",
    ) -> None:
        read_crop_settings(Path(root))  # refuses unfinished crops, whose tables are not there yet
        found = find_layout(root, pictures, attributes)
        pictures, attributes = found.pictures, found.attributes
        landmarks, partition = landmarks or found.landmarks, partition or found.partition
        done = read_crop_settings(found.pictures.parent)
        if done is not None and size > done["size"]:
            raise ValueError(
                f"Expected a size of at most {done['size']}, which the crops in {root} have, found {size}; pass "
                f"size={done['size']}, or crop the original pictures again."
            )
        if crop and done is None and landmarks is None:
            raise FileNotFoundError(
                f"Expected list_landmarks_align_celeba.txt or .csv in {root} to crop by, found "
                f"neither; give landmarks= its path, or crop=False."
            )
        points = Path(landmarks) if crop and done is None and landmarks is not None else None
        self._open(pictures, attributes, partition, points, size, resample, outside, masks or found.masks, missing)
