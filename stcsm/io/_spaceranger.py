"""Space Ranger output folders, through squidpy."""

from __future__ import annotations

import warnings
from pathlib import Path

import anndata as ad

from stcsm import _keys

MATRIX = "filtered_feature_bc_matrix.h5"
POSITIONS = ("tissue_positions.csv", "tissue_positions_list.csv")
NEEDED = ("scalefactors_json.json", "tissue_hires_image.png", "tissue_lowres_image.png")


def looks_like_spaceranger(folder: Path) -> bool:
    """Whether `folder` holds something that Space Ranger writes."""
    return (
        (folder / "spatial").is_dir()
        or any(folder.glob("*feature_bc_matrix*"))
        or any(folder.glob("*probe_bc_matrix*"))
    )


def read_spaceranger(folder: Path) -> ad.AnnData:
    """Read a Space Ranger `outs` folder, of version 1 or later.

    Gene symbols that occur twice are made unique (`Gene`, `Gene-1`), with a warning; spots without a position are
    refused.

    Raises
    ------
    FileNotFoundError
        A file that Space Ranger writes is missing; the message names it and what is there.
    """
    spatial = folder / "spatial"
    absent = [] if (folder / MATRIX).is_file() else [MATRIX]
    if not any((spatial / name).is_file() for name in POSITIONS):
        absent.append(f"spatial/{POSITIONS[0]} (or {POSITIONS[1]})")
    absent += [f"spatial/{name}" for name in NEEDED if not (spatial / name).is_file()]
    if absent:
        raise FileNotFoundError(
            f"Expected a Space Ranger outs folder, found no {', '.join(absent)} in {folder} "
            f"(there: {', '.join(sorted(p.name for p in folder.iterdir())[:12]) or 'nothing'}); "
            "copy the whole outs folder."
        )
    import squidpy as sq

    with warnings.catch_warnings():  # replaced by our own, which counts them
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        adata = sq.read.visium(folder, counts_file=MATRIX, library_id=_library(folder))
    unplaced = int(adata.obs[_keys.ARRAY_ROW].isna().sum())
    if unplaced:
        raise ValueError(
            f"Expected a position for every spot, found none for {unplaced} of {adata.n_obs} spots in {spatial}; "
            "the matrix and the positions come from different runs."
        )
    if not adata.var_names.is_unique:
        twice = int(adata.var_names.duplicated().sum())
        warnings.warn(
            f"Found {twice} gene symbols that occur more than once; they were numbered (Gene, Gene-1).", stacklevel=3
        )
        adata.var_names_make_unique()
    return adata


def _library(folder: Path) -> str | None:
    """Return a name for the section where the matrix does not hold one; squidpy asks for it then."""
    import h5py

    with h5py.File(folder / MATRIX, "r") as file:
        return None if len(file.attrs.get("library_ids", ())) else folder.resolve().parent.name or folder.name
