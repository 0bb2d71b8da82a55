"""Writes small copies of CelebA in the official and the Kaggle layout; a pixel's value is its row and column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

HEIGHT, WIDTH = 218, 178
POINTS = [f"{p}_{a}" for p in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for a in "xy"]
# The 40 names of list_attr_celeba
ATTRIBUTES = [
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
]


def gradient() -> np.ndarray:
    """An image (218, 178, 3) whose red is the row, green the column, and blue 77."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([rows, columns, np.full_like(rows, 77)], axis=-1).astype(np.uint8)


def names(n: int) -> list[str]:
    return [f"{k + 1:06d}.jpg" for k in range(n)]


def tables(n: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """Attributes (-1/1), landmarks around the positions in aligned faces, and the partition."""
    rng = np.random.default_rng(seed)
    index = pd.Index(names(n), name="image_id")
    signs = pd.DataFrame(rng.choice([-1, 1], (n, 40)), index, ATTRIBUTES)
    middle = np.array([69, 111, 108, 111, 88, 135, 72, 152, 105, 152])
    points = pd.DataFrame(middle + rng.integers(-4, 5, (n, 10)), index, POINTS)
    part = pd.Series(np.arange(n) * 3 // n, index, name="partition")
    return signs, points, part


def write_images(folder: Path, n: int, suffix: str = "jpg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(gradient()).save(folder / f"000001.{suffix}", **({"quality": 95} if suffix == "jpg" else {}))
    content = (folder / f"000001.{suffix}").read_bytes()
    for name in names(n)[1:]:
        (folder / name.replace("jpg", suffix)).write_bytes(content)


def write_text(path: Path, table: pd.DataFrame | pd.Series, header: bool = True) -> None:
    """As the official archive has it: a count, names with a trailing blank, padded numbers, no name column."""
    frame = table.to_frame() if isinstance(table, pd.Series) else table
    lines = [
        f"{name} " + " ".join(f"{v:3d}" for v in row) for name, row in zip(frame.index, frame.to_numpy(), strict=True)
    ]
    head = [str(len(frame)), " ".join(frame.columns) + " "] if header else []
    path.write_text("\n".join([*head, *lines]) + "\n")


def official(root: Path, n: int, seed: int = 0) -> Path:
    signs, points, part = tables(n, seed)
    write_images(root / "Img" / "img_align_celeba", n)
    (root / "Anno").mkdir()
    (root / "Eval").mkdir()
    write_text(root / "Anno" / "list_attr_celeba.txt", signs)
    write_text(root / "Anno" / "list_landmarks_align_celeba.txt", points)
    (root / "Eval" / "list_eval_partition.txt").write_text("".join(f"{k} {v}\n" for k, v in part.items()))
    return root


def kaggle(root: Path, n: int, seed: int = 0, empty_header: bool = False) -> Path:
    signs, points, part = tables(n, seed)
    write_images(root / "img_align_celeba" / "img_align_celeba", n)
    label = "" if empty_header else "image_id"
    signs.to_csv(root / "list_attr_celeba.csv", index_label=label)
    points.to_csv(root / "list_landmarks_align_celeba.csv", index_label=label)
    part.to_csv(root / "list_eval_partition.csv", index_label=label)
    return root
