"""Simulated faces with known truth, in the layout of CelebA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from stcsm._files import whole_folder
from stcsm.datasets._faces_draw import HEIGHT, WIDTH, draw, landmarks
from stcsm.datasets._faces_scene import ATTRIBUTES, draw_scenes

__all__ = ["FACE_ATTRIBUTES", "simulated_faces"]

FACE_ATTRIBUTES = ATTRIBUTES
"""Attributes of the simulated faces, in the order of the tables."""

_BATCH = 64  # images whose traits are sampled together
_MARK = "simulated_faces.json"
_OURS = {
    "img_align_celeba",
    "masks",
    "list_attr_celeba",
    "list_landmarks_align_celeba",
    "list_eval_partition",
    "simulated_faces",
}
_POINTS = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")


def simulated_faces(
    out: str | Path,
    n: int = 2000,
    *,
    seed: int = 0,
    prevalence: float = 0.5,
    masks: bool = True,
    layout: Literal["official", "kaggle"] = "official",
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Simulate faces with known attributes, and write them in CelebA's layout.

    Hat, glasses, smile, beard and earrings are independent of each other and of pose, size, skin, hair, light and
    background. Image i does not depend on ``n``.

    Parameters
    ----------
    out
        A new folder.
    n
        Number of images, 178 x 218 pixels (JPEG). The first 80% are training images, then 10% validation, 10% test.
    seed
        Of all random numbers.
    prevalence
        Probability of each attribute.
    masks
        Write ``masks/<attribute>/000001.png`` for each image with the attribute: white where the attribute makes up at
        least half of the pixel.
    layout
        "official": text tables; "kaggle": csv, images in a nested folder.
    overwrite
        Replace a folder of simulated faces.
    progress
        Whether to show a progress bar.

    Returns
    -------
    ``out``, for `stcsm.images.CelebA`.

    Raises
    ------
    ValueError
        If a setting is out of range.
    FileExistsError
        If ``out`` exists and ``overwrite`` is false, or contains other files.

    Examples
    --------
    >>> folder = stcsm.datasets.simulated_faces("faces", 4000)
    >>> faces = stcsm.images.CelebA(folder, size=64)
    """
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 999_999:
        raise ValueError(f"Expected n to be an integer from 1 to 999999, found {n!r}.")
    if not 0 <= prevalence <= 1:
        raise ValueError(f"Expected a prevalence between 0 and 1, found {prevalence}.")
    if layout not in ("official", "kaggle"):
        raise ValueError(f"Expected layout 'official' or 'kaggle', found {layout!r}.")
    out = Path(out)
    _refuse_strangers(out, overwrite)
    with whole_folder(out) as scratch:
        images = scratch / "img_align_celeba" / ("img_align_celeba" if layout == "kaggle" else "")
        images.mkdir(parents=True)
        has, points = _draw_all(n, seed, prevalence, images, scratch / "masks" if masks else None, progress)
        _write_tables(scratch, layout, has, points)
        settings = {"n": n, "seed": seed, "prevalence": prevalence, "masks": masks, "layout": layout}
        (scratch / _MARK).write_text(json.dumps(settings, indent=1), encoding="utf-8")
    return out


def _refuse_strangers(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise FileExistsError(f"Expected a new folder, found that {out} exists; choose another or pass overwrite=True.")
    strangers = [p.name for p in out.iterdir() if p.stem not in _OURS] if out.is_dir() else ["a file"]
    # a real CelebA has the same file names, and must not be deleted by mistake
    if strangers or not (out / _MARK).is_file():
        raise FileExistsError(
            f"Expected a folder of simulated faces only, found {strangers[0] if strangers else 'other images'!r} in "
            f"{out}; choose another."
        )


def _draw_all(
    n: int, seed: int, prevalence: float, images: Path, masks: Path | None, progress: bool
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    if masks is not None:
        for name in ATTRIBUTES:
            (masks / name).mkdir(parents=True)
    has, points = [], []
    with tqdm(total=n, desc="draw", unit="image", disable=not progress) as bar:
        for start in range(0, n, _BATCH):
            numbers = np.arange(start, min(start + _BATCH, n))
            scene = draw_scenes(numbers, seed, prevalence)
            has.append(scene.has)
            points.append(landmarks(scene))
            for row, i in enumerate(numbers):
                noise = np.random.default_rng([seed, int(i), 1]).standard_normal((3, HEIGHT, WIDTH), dtype=np.float32)
                pixels, seen = draw(scene.face(row), noise)
                name = f"{i + 1:06d}"
                Image.fromarray(np.ascontiguousarray(pixels)).save(images / f"{name}.jpg", quality=92)
                if masks is not None:
                    for a in np.flatnonzero(scene.has[row]):
                        Image.fromarray(seen[a]).save(masks / ATTRIBUTES[a] / f"{name}.png")
            bar.update(len(numbers))
    return np.concatenate(has), np.concatenate(points)


def _write_tables(folder: Path, layout: str, has: NDArray[np.bool_], points: NDArray[np.int64]) -> None:
    n = len(has)
    names = pd.Index([f"{i + 1:06d}.jpg" for i in range(n)], name="image_id")
    columns = [f"{point}_{axis}" for point in _POINTS for axis in "xy"]
    part = np.searchsorted([round(0.8 * n), round(0.9 * n)], np.arange(n), side="right")
    tables = {
        "list_attr_celeba": pd.DataFrame(np.where(has, 1, -1), names, list(ATTRIBUTES)),
        "list_landmarks_align_celeba": pd.DataFrame(points, names, columns),
        "list_eval_partition": pd.DataFrame(part, names, ["partition"]),
    }
    for stem, table in tables.items():
        if layout == "kaggle":
            table.to_csv(folder / f"{stem}.csv")
            continue
        lines = [" ".join([name, *(f"{v:2d}" for v in row)]) for name, row in zip(names, table.to_numpy(), strict=True)]
        head = [] if stem == "list_eval_partition" else [str(n), " ".join(table.columns) + " "]
        (folder / f"{stem}.txt").write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")
