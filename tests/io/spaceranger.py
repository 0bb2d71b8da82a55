"""Writes small Space Ranger output in every layout, as 10x's programs and public repositories store it."""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from PIL import Image
from scipy import sparse
from scipy.io import mmwrite

COUNTS = np.array([[1, 0, 3], [0, 2, 0], [4, 0, 5], [0, 0, 6]], dtype=np.float32)
"""Spots x genes; the last spot lies beside the tissue."""
BARCODES = ["AAACAAGTATCTCCCA-1", "CAACACCAATAACTGC-1", "GAACAGAGCGACTCCT-1", "TAACAGCTTTCAGAAG-1"]
GENES = ["Penk", "Doc2g", "Kctd12"]
POSITIONS = pd.DataFrame(
    {
        "barcode": BARCODES,
        "in_tissue": [1, 1, 1, 0],
        "array_row": [0, 1, 2, 3],
        "array_col": [0, 1, 0, 1],
        "pxl_row_in_fullres": [100.0, 200.0, 300.0, 400.0],
        "pxl_col_in_fullres": [110.0, 160.0, 110.0, 160.0],
    }
)
SCALES = {"spot_diameter_fullres": 55.0, "tissue_hires_scalef": 0.5, "tissue_lowres_scalef": 0.1}
COLOURS = {"hires": (200, 10, 10), "lowres": (10, 10, 200)}


@dataclass
class Layout:
    """What is written, and under which names."""

    matrix: str = "h5"  # h5, mtx, mtx.gz, v2 (genes.tsv), flat (three files beside the others)
    kind: str = "filtered"
    positions: str = "tissue_positions.csv"
    gzipped: bool = False
    prefix: str = ""
    flat: bool = False
    images: tuple[str, ...] = ("hires", "lowres")
    scales: bool = True
    types: tuple[str, ...] = ("Gene Expression",) * 3
    library: str | None = None
    genes: tuple[str, ...] = tuple(GENES)
    counts: np.ndarray = None  # type: ignore[assignment]


def write_spaceranger(folder: Path, layout: Layout | None = None, **changes) -> Path:
    layout = layout or Layout(**changes)
    spatial = folder if layout.flat else folder / "spatial"
    spatial.mkdir(parents=True, exist_ok=True)
    n_spots = 4 if layout.kind == "raw" else 3
    counts = (COUNTS if layout.counts is None else layout.counts)[:n_spots]
    order = np.arange(n_spots)[::-1]  # never in the order of the positions
    _write_matrix(folder, layout, counts[order], [BARCODES[i] for i in order])

    def put(name: str, data: bytes) -> None:
        zipped = layout.gzipped
        (spatial / f"{layout.prefix}{name}{'.gz' if zipped else ''}").write_bytes(
            gzip.compress(data) if zipped else data
        )

    if layout.positions.endswith(".parquet"):
        put(layout.positions, POSITIONS.to_parquet(index=False))
    else:
        header = layout.positions != "tissue_positions_list.csv"
        put(layout.positions, POSITIONS.to_csv(index=False, header=header).encode())
    if layout.scales:
        put("scalefactors_json.json", json.dumps(SCALES).encode())
    for name in layout.images:
        image = io.BytesIO()
        Image.new("RGB", (int(300 * SCALES[f"tissue_{name}_scalef"]), 40), COLOURS[name]).save(image, format="png")
        put(f"tissue_{name}_image.png", image.getvalue())
    return folder


def _write_matrix(folder: Path, layout: Layout, counts: np.ndarray, barcodes: list[str]) -> None:
    ids = [f"ENSMUSG{i:011d}" for i in range(len(layout.genes))]
    matrix = sparse.csc_matrix(counts.T.astype(np.int32))
    name = f"{layout.prefix}{layout.kind}_feature_bc_matrix"
    if layout.matrix == "h5":
        write_h5(folder / f"{name}.h5", matrix, barcodes, ids, layout)
        return
    zipped = layout.matrix in ("mtx.gz", "flat")
    place, prefix = (folder, layout.prefix) if layout.matrix == "flat" else (folder / name, "")
    place.mkdir(exist_ok=True)
    raw = io.BytesIO()
    mmwrite(raw, matrix.tocoo())
    rows = zip(ids, layout.genes, layout.types, strict=True)
    old = layout.matrix == "v2"
    files = {
        "matrix.mtx": raw.getvalue(),
        "barcodes.tsv": ("\n".join(barcodes) + "\n").encode(),
        "genes.tsv" if old else "features.tsv": "".join(
            "\t".join(row[: 2 if old else 3]) + "\n" for row in rows
        ).encode(),
    }
    for file, data in files.items():
        (place / f"{prefix}{file}{'.gz' if zipped else ''}").write_bytes(gzip.compress(data) if zipped else data)


def write_h5(path: Path, matrix: sparse.csc_matrix, barcodes, ids, layout: Layout) -> None:
    with h5py.File(path, "w") as file:
        if layout.library is not None:
            file.attrs["library_ids"] = np.array([layout.library.encode()])
        group = file.create_group("matrix")
        for key in ("data", "indices", "indptr"):
            group[key] = getattr(matrix, key)
        group["shape"] = np.array(matrix.shape)
        group["barcodes"] = np.array(barcodes, "S")
        features = group.create_group("features")
        features["id"], features["name"] = np.array(ids, "S"), np.array(layout.genes, "S")
        features["feature_type"] = np.array(layout.types, "S")
        features["genome"] = np.array(["mm10"] * len(ids), "S")
