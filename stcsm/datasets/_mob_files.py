"""Files of the mouse olfactory bulb (Stahl et al. 2016): their official names, and where they lie on this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

REPLICATES = range(1, 13)
SHAPES = {1: (267, 16573), 2: (280, 15981), 11: (262, 16218), 12: (282, 16034)}
"""Spots and genes of the replicates that were at hand; no hash of the official files is known."""
MISSPELT = frozenset({2, 9, 12})
"""Replicates whose official transformation file is spelled `transformaton`."""
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


@dataclass(frozen=True)
class MobFiles:
    """Files of one replicate; the picture and its transformation are there together or not at all."""

    counts: Path
    labels: Path | None = None
    picture: Path | None = None
    transformation: Path | None = None
    image_shape: tuple[int, int] | None = None


def counts_name(replicate: int) -> str:
    """Official name of the counts."""
    return f"Rep{replicate}_MOB_count_matrix-1.tsv"


def picture_name(replicate: int) -> str:
    """Official name of the picture."""
    return f"HE_Rep{replicate}.jpg" if replicate <= 4 else f"HE_Rep{replicate}_MOB.jpg"


def transformation_name(replicate: int) -> str:
    """Official name of the transformation."""
    return f"Rep{replicate}_MOB_{'transformaton' if replicate in MISSPELT else 'transformation'}.txt"


def labels_name(replicate: int) -> str:
    """Name under which labels are looked for beside the counts; there are no official ones."""
    return f"Rep{replicate}_layers.csv"


def check_replicate(replicate: int) -> None:
    """Raise ValueError unless `replicate` is one of the twelve."""
    if not isinstance(replicate, Integral) or replicate not in REPLICATES:
        raise ValueError(f"Expected a replicate from 1 to 12, found {replicate!r}.")


def check_shape(shape: tuple[int, int], replicate: int, source: str) -> None:
    """Raise ValueError unless `shape` (spots, genes) is that of the replicate, where it is known."""
    expected = SHAPES.get(replicate)
    if expected is not None and tuple(shape) != expected:
        raise ValueError(
            f"Expected replicate {replicate} with {expected[0]} spots x {expected[1]} genes, "
            f"found {shape[0]} x {shape[1]} in {source}; it is another replicate, filtered, or cut short "
            "(stcsm.io.read_st reads any file)."
        )


def find_files(folder: Path, replicate: int) -> MobFiles | None:
    """Files of a replicate in `folder` or its `mob` folder; None without counts."""
    for place in (folder, folder / "mob"):
        for name in (counts_name(replicate), f"{counts_name(replicate)}.gz"):
            if (place / name).is_file():
                return files_beside(place / name, replicate)
    return None


def files_beside(counts: Path, replicate: int) -> MobFiles:
    """Labels, picture and transformation that lie beside the counts."""
    folder = counts.parent
    labels = folder / labels_name(replicate)
    found = MobFiles(counts, labels if labels.is_file() else None)
    picture, transformation = folder / picture_name(replicate), folder / transformation_name(replicate)
    if picture.is_file() and transformation.is_file():
        return MobFiles(found.counts, found.labels, picture, transformation)
    return _reduced(found, folder, replicate) or found


def _reduced(found: MobFiles, folder: Path, replicate: int) -> MobFiles | None:
    """Look for a reduced picture, and a transformation whose name says the size of the picture it was made for."""
    pictures = sorted(p for p in folder.glob(f"Rep{replicate}_HE*") if p.suffix.lower() in PICTURE_SUFFIXES)
    for transformation in sorted(folder.glob(f"Rep{replicate}_transformation_for_*.txt")):
        size = re.search(r"_for_(\d+)x(\d+)$", transformation.stem)
        if size and pictures:
            return MobFiles(found.counts, found.labels, pictures[0], transformation, (int(size[1]), int(size[2])))
    return None
