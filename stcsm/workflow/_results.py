"""The folder of results that ``stcsm run`` writes: what is in it, what it may replace, all of it or nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from PIL import Image

from stcsm import _keys, io, pl, tl
from stcsm._files import replace_all, scratch_folder
from stcsm.models import GeneVAE, holds_only_a_model
from stcsm.space import NEIGHBOURS
from stcsm.workflow._trust import write_trust

SALIENCY, MAP, SCORES = "concept_saliency.csv", "concept_map.csv", "concept_scores.csv"
SIGNIFICANCE, SANITY = "concept_significance.csv", "sanity.json"
PLOT, RESULT, MODEL = "concept_maps.png", "result.h5ad", "model"
RUN = "run.json"
RESULTS = (SALIENCY, MAP, SCORES, PLOT, RESULT, SIGNIFICANCE, SANITY, RUN, MODEL)
UNFINISHED = "unfinished.stcsm"
"""State of the training, until the results are there."""
SCRATCH = ".stcsm-results"
"""Folder in which results are written, until all of them are there."""


def check_out(out: Path) -> None:
    """Refuse, before any work, a folder that cannot take the results or where one would replace what is not ours.

    Raises
    ------
    FileExistsError
        If ``out`` is a file, or if something that we did not write stands where a result is due.
    PermissionError
        If it cannot be written to.
    """
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"Expected a folder for the results, found a file: {out}")
    nearest = next(p for p in (out, *out.resolve().parents) if p.exists())
    if not os.access(nearest, os.W_OK):
        raise PermissionError(f"Expected a folder that can be written to, found one that cannot: {nearest}")
    for name in RESULTS:
        if name != MODEL and (out / name).is_dir():
            raise FileExistsError(f"Expected to write a file, found a folder: {out / name}; choose another --out")
    model = out / MODEL
    if model.exists() and not holds_only_a_model(model):
        raise FileExistsError(f"Expected room for the model, found something else in {model}; choose another --out")
    there = [name for name in RESULTS if (out / name).exists()]
    if there and not _is_ours(out / RESULT):
        raise FileExistsError(
            f"Expected an empty folder or results of an earlier run, found {', '.join(there)} in {out} and no "
            f"{RESULT} of stcsm beside; choose another --out"
        )


def require_room(adata: AnnData, model: GeneVAE, n_concepts: int, out: Path) -> None:
    """Refuse, before the training, a disk that is too small for its state and for the results.

    Raises
    ------
    OSError
        With the arithmetic.
    """
    weights = 4 * sum(p.numel() for p in model.module.parameters())
    spots, genes, latent = adata.n_obs, adata.n_vars, 2 * model.settings["n_latent"] * model.n_members
    parts = {
        # Weights and two moments, and the same once more while a new state is written.
        "state of the training": 2 * 3 * weights,
        "model": weights,
        "counts": _counts_bytes(adata),
        # Saliency, p, q, decoded and concept map, and the first and the last again as text of some 20 letters.
        "maps": spots * n_concepts * (5 * 8 + 2 * 20),
        "genes": genes * (8 * latent + n_concepts * (8 + 20)),
        "spot graph": spots * max(NEIGHBOURS) * 12,
    }
    nearest = next(p for p in (out, *out.resolve().parents) if p.exists())
    free, needed = shutil.disk_usage(nearest).free, sum(parts.values())
    if needed > free:
        said = ", ".join(f"{name} {size / 1e9:.2g}" for name, size in parts.items())
        raise OSError(
            f"Expected room for the results in {out}, where {free / 1e9:.2g} GB are free, found that they take about "
            f"{needed / 1e9:.2g} GB ({said}); make room, or choose another --out"
        )


def _counts_bytes(adata: AnnData) -> int:
    """Bytes of the counts in a result."""
    if adata.isbacked:  # copied from the file as they are
        return os.stat(str(adata.filename)).st_size
    return sum(_nbytes(m) for m in (adata.X, *adata.layers.values(), *([adata.raw.X] if adata.raw else [])))


def _nbytes(matrix: Any) -> int:
    """Bytes of a matrix in memory."""
    if hasattr(matrix, "indptr"):
        return sum(part.nbytes for part in (matrix.data, matrix.indices, matrix.indptr))
    return int(np.prod(matrix.shape)) * matrix.dtype.itemsize


def _is_ours(path: Path) -> bool:
    """Whether a file is the result of an earlier run."""
    try:
        with h5py.File(path, "r") as file:
            return f"uns/{_keys.UNS}" in file
    except OSError:
        return False


def check_input(out: Path, *inputs: Path | None) -> None:
    """Refuse to replace what is being read.

    Raises
    ------
    FileExistsError
        If an input stands where a result is due.
    """
    due = {(out / name).resolve() for name in RESULTS}
    for path in inputs:
        if path is not None and io.is_zarr(path) and out.resolve().is_relative_to(path.resolve()):
            raise FileExistsError(
                f"Expected a folder outside the store that is read, found {out}; choose another --out"
            )
        if path is not None and path.resolve() in due:
            raise FileExistsError(
                f"Expected to keep what is read, found {path} where a result is due; choose another --out"
            )


def write_results(
    adata: AnnData, model: GeneVAE, out: Path, run: Callable[[], dict[str, Any]], library_id: str | None = None
) -> None:
    """Write every result; those of an earlier run are replaced only when all new ones are there.

    ``run`` gives what is recorded of the run itself, at the end; ``library_id`` names the image to draw on.
    """
    out.mkdir(parents=True, exist_ok=True)
    with scratch_folder(out / SCRATCH) as scratch:
        for key, name in ((_keys.CONCEPT_SALIENCY, SALIENCY), (_keys.CONCEPT_MAP, MAP)):
            _write_csv(_with_labels(adata, adata.obsm[key]), scratch / name, "spot")
        _write_csv(_with_labels(adata, adata.varm[_keys.CONCEPT_SCORE]), scratch / SCORES, "gene")
        if "significance" in adata.uns[_keys.UNS]:
            table = tl.concept_table(adata)
            table.set_index("label").to_csv(scratch / SIGNIFICANCE, index_label="concept")
        write_trust(adata, scratch / SANITY)
        _draw(adata, scratch / PLOT, library_id)
        _write_h5ad(adata, scratch / RESULT)
        model.save(scratch / MODEL)
        (scratch / RUN).write_text(json.dumps(run(), indent=1) + "\n", encoding="utf-8")
        replace_all(RESULTS, scratch, out)


def _write_h5ad(adata: AnnData, path: Path) -> None:
    """Write an AnnData; counts that lie in a file are copied from there, without coming into memory."""
    if not adata.isbacked:
        adata.write_h5ad(path)
        return
    AnnData(
        obs=adata.obs, var=adata.var, uns=adata.uns, obsm=dict(adata.obsm), varm=dict(adata.varm),
        obsp=dict(adata.obsp), varp=dict(adata.varp), layers=dict(adata.layers),
    ).write_h5ad(path)  # fmt: skip
    with h5py.File(str(adata.filename), "r") as source, h5py.File(path, "r+") as file:
        for name in ("X", "raw"):
            if name in source:
                if name in file:
                    del file[name]
                source.copy(name, file)


def spatial_key_of(adata: AnnData) -> str:
    """Key of the coordinates in ``.obsm`` of a result."""
    return str(adata.uns[_keys.UNS].get("setup", {}).get("spatial_key", _keys.SPATIAL))


def sections_of(adata: AnnData) -> list[tuple[str, AnnData]]:
    """Each section with its name; the whole AnnData, without a name, where there is one section."""
    column = _keys.sections_key(adata)
    labels = np.array([]) if column is None else adata.obs[column].astype(str).to_numpy()
    names = np.unique(labels)
    return [(str(n), adata[labels == n]) for n in names] if len(names) > 1 else [("", adata)]


def check_library(adata: AnnData, library_id: str | None) -> None:
    """Refuse the name of an image that is not there, or that cannot be that of every section.

    Raises
    ------
    ValueError
        With what is there.
    """
    if library_id is None:
        return
    pl.find_image(adata, spatial_key_of(adata), library_id)
    sections = [name for name, _ in sections_of(adata)]
    if len(sections) > 1:
        raise ValueError(
            f"Expected one section with --library-id, found {len(sections)} ({', '.join(map(repr, sections[:3]))}); "
            "name the images in adata.uns['spatial'] as the sections are (in Python; then write an .h5ad)"
        )


def _draw(adata: AnnData, path: Path, library_id: str | None) -> None:
    """Draw the maps, those of several sections below one another."""
    images = []
    with mpl.rc_context({"figure.dpi": 150}):
        backend = mpl.get_backend()
        mpl.use("agg")
        for section, part in sections_of(adata):
            figure = pl.concept_map(part, spatial_key=spatial_key_of(adata), library_id=library_id, return_fig=True)
            if section:
                figure.text(0, 1, section, ha="left", va="bottom", fontsize="x-large")
            held = BytesIO()
            figure.savefig(held, bbox_inches="tight")
            plt.close(figure)
            images.append(Image.open(held).convert("RGB"))
        mpl.use(backend)
    whole = Image.new("RGB", (max(i.width for i in images), sum(i.height for i in images)), "white")
    top = 0
    for image in images:
        whole.paste(image, (0, top))
        top += image.height
    whole.save(path)


def _write_csv(table: pd.DataFrame, path: Path, index_label: str) -> None:
    """Write every digit, five times as fast as pandas: the scores of thousands of concepts are many millions."""
    import pyarrow as pa
    from pyarrow import csv

    columns = [pa.array(table.index.astype(str)), *(pa.array(table[c].to_numpy(), from_pandas=True) for c in table)]
    whole = pa.Table.from_arrays(columns, names=[index_label, *map(str, table)])
    csv.write_csv(whole, path, csv.WriteOptions(quoting_style="needed"))


def _with_labels(adata: AnnData, table: pd.DataFrame) -> pd.DataFrame:
    """The table under the concepts' own names instead of their keys."""
    concepts = adata.uns[_keys.UNS]["concepts"]
    return table.rename(columns={key: concepts[key]["label"] for key in table})
