"""What ``stcsm run`` and ``stcsm demo`` do, from files to files."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import h5py
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa
from anndata import AnnData
from pyarrow import csv
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sklearn.metrics import roc_auc_score

from stcsm import _keys, io, pl, tl
from stcsm._folder import replace_all
from stcsm._trust import check_trust, write_trust
from stcsm.attribution import LINEAR_METHODS, METHODS
from stcsm.datasets import simulated_bulb
from stcsm.io._open import existing_file
from stcsm.models import GeneVAE, holds_only_a_model
from stcsm.models._logging import quiet as hushed

RESULT = "result.h5ad"
RESULTS = (
    "concept_saliency.csv",
    "concept_map.csv",
    "concept_scores.csv",
    "concept_maps.png",
    RESULT,
    "concept_significance.csv",
    "sanity.json",
    "model",
)
SIGNIFICANCE = "concept_significance.csv"
SANITY = "sanity.json"
N_RANDOM = 1000
"""Random concepts for each concept where nobody asks for a number."""
FREE = 100
"""Concepts whose maps are tested unasked: the test of so many costs a second or two."""


def run_counts(
    counts: Path,
    out: Path,
    *,
    genes: list[str],
    gmt: Path | None,
    match: str | None,
    ignore_case: bool,
    labels: Path | None,
    labels_key: str | None,
    layer: str | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """Read a tissue, train, map its concepts and write the results into ``out``.

    Raises
    ------
    ValueError, OSError
        If anything about the input is wrong; then nothing is written.
    """
    gene_concepts = parse_genes(genes)
    if not gene_concepts and gmt is None and labels is None and labels_key is None:
        raise ValueError(
            "Expected a concept, found none; give --genes NAME=G1,G2, --gmt FILE, --labels CSV or --labels-key"
        )
    if labels is not None and labels_key is not None:
        raise ValueError("Expected labels once, found both --labels and --labels-key")
    if gmt is not None:
        gmt = existing_file(gmt, "a GMT file")
    check_out(out)
    check_input(out, counts, gmt, labels)
    adata = io.read(counts, layer=layer)
    if labels is not None:
        labels_key = _keys.LAYER
        io.add_labels(adata, labels, labels_key, overwrite=True)
    steps: list[dict[str, Any]] = []
    if gene_concepts:
        steps.append({"genes": gene_concepts})
    if gmt is not None:
        steps.append({"genes": gmt, "match": match, "ignore_case": ignore_case})
    if labels_key is not None:
        steps.append({"layers": labels_key})
    analyse(adata, out, steps, layer=layer, quiet=quiet, **settings)


def run_demo(out: Path, *, quiet: bool, seed: int, **settings: Any) -> None:
    """Analyse the simulated bulb and compare the maps with its known layers."""
    check_out(out)
    adata = simulated_bulb(seed=seed)
    analyse(adata, out, [{"layers": _keys.LAYER}], layer=None, quiet=quiet, seed=seed, **settings)
    if quiet:
        return
    truth = adata.obs[_keys.LAYER].astype(str).to_numpy()
    depth = np.asarray(adata.X.sum(axis=1)).ravel()
    shown = Table(title="How well each map finds its layer (AUROC; 0.5 is chance)")
    for heading in ("layer", "concept map", "saliency", "sequencing depth alone"):
        shown.add_column(heading, justify="left" if heading == "layer" else "right")
    for key in adata.obsm[_keys.CONCEPT_MAP]:
        label = adata.uns[_keys.UNS]["concepts"][key]["label"]
        values = [adata.obsm[_keys.CONCEPT_MAP][key], adata.obsm[_keys.CONCEPT_SALIENCY][key], depth]
        shown.add_row(escape(label), *(f"{roc_auc_score(truth == label, v):.3f}" for v in values))
    Console().print(shown)


def parse_genes(items: list[str]) -> dict[str, list[str]]:
    """``["granule=Penk", "a=X,Y"]`` to ``{"granule": ["Penk"], "a": ["X", "Y"]}``.

    Raises
    ------
    ValueError
        If an item has no name or no gene, or a name comes twice.
    """
    concepts: dict[str, list[str]] = {}
    for item in items:
        name, _, rest = item.partition("=")
        members = [g.strip() for g in rest.split(",") if g.strip()]
        if not name.strip() or not members:
            raise ValueError(f"Expected --genes NAME=GENE1,GENE2, found {item!r}")
        if name.strip() in concepts:
            raise ValueError(
                f"Expected one --genes for each concept, found {name.strip()!r} twice; join its genes by commas"
            )
        concepts[name.strip()] = members
    return concepts


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
    for name in RESULTS[:-1]:
        if (out / name).is_dir():
            raise FileExistsError(f"Expected to write a file, found a folder: {out / name}; choose another --out")
    model = out / RESULTS[-1]
    if model.exists() and not holds_only_a_model(model):
        raise FileExistsError(f"Expected room for the model, found something else in {model}; choose another --out")
    there = [name for name in RESULTS if (out / name).exists()]
    if there and not _is_ours(out / RESULT):
        raise FileExistsError(
            f"Expected an empty folder or results of an earlier run, found {', '.join(there)} in {out} and no "
            f"{RESULT} of stcsm beside; choose another --out"
        )


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
        if path is not None and path.resolve() in due:
            raise FileExistsError(
                f"Expected to keep what is read, found {path} where a result is due; choose another --out"
            )


def analyse(
    adata: AnnData,
    out: Path,
    steps: list[dict[str, Any]],
    *,
    layer: str | None,
    quiet: bool,
    method: str,
    encoder: str,
    seed: int,
    n_seeds: int,
    null: int | None = None,
) -> None:
    """Train a model on ``adata``, map its concepts, write the results."""
    # Of other libraries' notices, only warnings are for the person at the terminal.
    for name in ("lightning.pytorch", "scvi"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for kind in (DeprecationWarning, FutureWarning, SyntaxWarning):
        warnings.filterwarnings("ignore", category=kind)
    warnings.showwarning = _one_line
    console = Console(quiet=quiet)
    started = time.perf_counter()
    if method not in METHODS:
        raise ValueError(f"Expected --method to be one of {', '.join(METHODS)}, found {method!r}")
    GeneVAE.setup_anndata(adata, layer=layer)
    model = GeneVAE(adata, encoder=encoder, seed=seed, n_seeds=n_seeds)
    console.print(model.summary_string.splitlines()[1])
    # A concept that cannot be is refused before the training: untrained embeddings do for the check.
    n_concepts = check_steps(adata, model, steps)
    model.train(progress=not quiet)
    tl.embed_genes(adata, model)
    # What is to be said of gene sets and layers was said before the training.
    with hushed("stcsm.tl._concepts", logging.ERROR), hushed("stcsm.tl._markers", logging.ERROR):
        for step in steps:
            tl.concepts(adata, model, **step)
    tl.saliency(adata, model, method=method, progress=not quiet)
    if null is None and method in LINEAR_METHODS and n_concepts <= FREE:
        null = N_RANDOM
    if null:
        tl.significance(adata, model, n_random=null, seed=seed, progress=not quiet)
        console.print(_tested(adata))
    elif null is None:
        console.print(f"maps are not tested against random concepts ({n_concepts} concepts, {method}); ask: --null N")
    tl.decoded(adata, model)
    tl.concept_map(adata, model)
    check_trust(adata, model, method, seed, console)
    write_results(adata, model, out)
    written = [name for name in RESULTS if (out / name).exists()]
    console.print(f"{', '.join(written)} in {escape(str(out))} ({time.perf_counter() - started:.0f} s)")


def _one_line(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning as one line without the place in our code where it was raised."""
    text = f"stcsm: warning: {' '.join(str(message).split())}"
    Console(stderr=True, soft_wrap=True).print(text, highlight=False, markup=False)


def _tested(adata: AnnData, most: int = 15) -> Table:
    """Most significant concepts, for the person at the terminal."""
    found = tl.concept_table(adata).sort_values(["p", "strength"], ascending=[True, False], kind="stable")
    shown = Table(title=f"Maps against random concepts ({min(most, len(found))} of {len(found)})")
    for heading in ("concept", "p", "q", "strength", "Moran's I"):
        shown.add_column(heading, justify="left" if heading == "concept" else "right")
    for _, row in found.head(most).iterrows():
        shown.add_row(escape(str(row["label"])), *(f"{float(row[v]):.2g}" for v in ("p", "q", "strength", "morans_i")))
    return shown


def check_steps(adata: AnnData, model: GeneVAE, steps: list[dict[str, Any]]) -> int:
    """Try the concepts on a stand-in embedding, so that a bad one fails in a second and not after the training.

    Returns
    -------
    How many concepts there will be.

    Raises
    ------
    ValueError
        If a concept cannot be, or two of them have one name.
    """
    rng = np.random.default_rng(0)
    z = rng.normal(size=(adata.n_vars, 3)).astype(np.float32)
    z[model.reader.gene_totals == 0] = np.nan
    taken: dict[str, str] = {}
    for step in steps:
        layers = {name: adata.layers[name] for name in _keys.layer_names(adata.layers)}
        trial = AnnData(adata.X, obs=adata.obs, var=adata.var, layers=layers)
        trial.varm[_keys.EMBEDDING] = z
        trial.uns[_keys.UNS] = {"setup": adata.uns[_keys.UNS]["setup"], "embedding_model": {"fingerprint": "trial"}}
        tl.concepts(trial, **step)
        for key, record in trial.uns[_keys.UNS]["concepts"].items():
            if key in taken:
                raise ValueError(
                    f"Expected concepts of different names, found {taken[key]!r} and {record['label']!r}, which are "
                    f"both stored as {key!r}; rename one of them"
                )
            taken[key] = record["label"]
    return len(taken)


def write_results(adata: AnnData, model: GeneVAE, out: Path) -> None:
    """Write every result; those of an earlier run are replaced only when all new ones are there."""
    out.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".stcsm-", dir=out))
    try:
        for key, name in ((_keys.CONCEPT_SALIENCY, RESULTS[0]), (_keys.CONCEPT_MAP, RESULTS[1])):
            _write_csv(_with_labels(adata, adata.obsm[key]), scratch / name, "spot")
        _write_csv(_with_labels(adata, adata.varm[_keys.CONCEPT_SCORE]), scratch / RESULTS[2], "gene")
        if "significance" in adata.uns[_keys.UNS]:
            table = tl.concept_table(adata)
            table.set_index("label").to_csv(scratch / SIGNIFICANCE, index_label="concept")
        write_trust(adata, scratch / SANITY)
        with mpl.rc_context({"figure.dpi": 150}):
            backend = mpl.get_backend()
            mpl.use("agg")
            figure = pl.saliency(adata, key=_keys.CONCEPT_MAP)
            figure.savefig(scratch / RESULTS[3], bbox_inches="tight")
            plt.close(figure)
            mpl.use(backend)
        adata.write_h5ad(scratch / RESULT)
        model.save(scratch / RESULTS[-1])
        replace_all(RESULTS, scratch, out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_csv(table: pd.DataFrame, path: Path, index_label: str) -> None:
    """Write with every digit, five times as fast as pandas would: scores of thousands of concepts are many millions."""
    columns = [pa.array(table.index.astype(str)), *(pa.array(table[c].to_numpy(), from_pandas=True) for c in table)]
    whole = pa.Table.from_arrays(columns, names=[index_label, *map(str, table)])
    csv.write_csv(whole, path, csv.WriteOptions(quoting_style="needed"))


def _with_labels(adata: AnnData, table: pd.DataFrame) -> pd.DataFrame:
    """The table under the concepts' own names instead of their keys."""
    concepts = adata.uns[_keys.UNS]["concepts"]
    return table.rename(columns={key: concepts[key]["label"] for key in table})
