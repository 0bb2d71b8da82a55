"""What ``stcsm run`` and ``stcsm demo`` do, from files to files."""

from __future__ import annotations

import logging
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sklearn.metrics import roc_auc_score

from stcsm import _keys, io, tl
from stcsm._files import existing_file
from stcsm.attribution import method_class
from stcsm.datasets import simulated_bulb
from stcsm.models import GeneVAE
from stcsm.workflow._results import RESULTS, check_input, check_out, write_results
from stcsm.workflow._trust import check_trust

N_RANDOM = 1000
"""Random concepts for each concept where nobody asks for a number."""
FREE = 100
"""Concepts that are tested without being asked to: the test of so many takes a second or two."""


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
    table: str | None,
    coordinate_system: str,
    write_store: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Read a tissue, train, map its concepts and write the results into ``out``.

    Results of a SpatialData store are also written into its table, unless ``write_store`` is false.

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
    write_store = write_store and io.is_spatialdata(counts)
    adata = io.read(counts, layer=layer, table=table, coordinate_system=coordinate_system)
    if labels is not None:
        labels_key = _keys.LAYER
        io.add_labels(adata, labels, labels_key, overwrite=True)
    if write_store:
        io.check_store(adata, counts, table)
    sources: list[dict[str, Any]] = []
    if gene_concepts:
        sources.append({"genes": gene_concepts})
    if gmt is not None:
        sources.append({"genes": gmt, "match": match, "ignore_case": ignore_case})
    if labels_key is not None:
        sources.append({"groupby": labels_key})
    analyse(adata, out, sources, layer=layer, quiet=quiet, **settings)
    if write_store:
        written = io.add_to_store(adata, counts, table)
        Console(quiet=quiet).print(f"results in table {escape(written)} of {escape(str(counts))}")


def run_demo(out: Path, *, quiet: bool, seed: int, **settings: Any) -> None:
    """Analyse the simulated bulb and compare the maps with its known tissue layers."""
    check_out(out)
    adata = simulated_bulb(seed=seed)
    analyse(adata, out, [{"groupby": _keys.LAYER}], layer=None, quiet=quiet, seed=seed, **settings)
    if quiet:
        return
    truth = adata.obs[_keys.LAYER].astype(str).to_numpy()
    depth = np.asarray(adata.X.sum(axis=1)).ravel()
    shown = Table(title="How well each map finds its tissue layer (AUROC; 0.5 is chance)")
    for heading in ("tissue layer", "concept map", "saliency", "sequencing depth alone"):
        shown.add_column(heading, justify="left" if heading == "tissue layer" else "right")
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
        genes = [g.strip() for g in rest.split(",") if g.strip()]
        if not name.strip() or not genes:
            raise ValueError(f"Expected --genes NAME=GENE1,GENE2, found {item!r}")
        if name.strip() in concepts:
            raise ValueError(
                f"Expected one --genes for each concept, found {name.strip()!r} twice; join its genes by commas"
            )
        concepts[name.strip()] = genes
    return concepts


def analyse(
    adata: AnnData,
    out: Path,
    sources: list[dict[str, Any]],
    *,
    layer: str | None,
    quiet: bool,
    method: str,
    encoder: str,
    seed: int,
    n_seeds: int,
    null: int | None = None,
) -> None:
    """Train a model on ``adata``, map its concepts, write the results.

    ``sources`` are arguments of :func:`stcsm.tl.match_gene_sets`: gene sets and labels are matched before the training,
    so that a bad one is refused in a second.
    """
    # Of other libraries' notices, only warnings concern the user.
    for name in ("lightning.pytorch", "scvi"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for kind in (DeprecationWarning, FutureWarning, SyntaxWarning):
        warnings.filterwarnings("ignore", category=kind)
    warnings.showwarning = _one_line
    console = Console(quiet=quiet)
    started = time.perf_counter()
    linear = method_class(method).linear
    GeneVAE.setup_anndata(adata, layer=layer)
    model = GeneVAE(adata, encoder=encoder, seed=seed, n_seeds=n_seeds)
    console.print(model.summary_string.splitlines()[1])
    first, *others = (tl.match_gene_sets(adata, model, **source) for source in sources)
    sets = sum(others, first)
    model.train(progress=not quiet)
    tl.concepts(adata, model, genes=sets)
    tl.saliency(adata, model, method=method, progress=not quiet)
    if null is None and linear and len(sets) <= FREE:
        null = N_RANDOM
    if null:
        tl.significance(adata, model, n_random=null, seed=seed, progress=not quiet)
        console.print(_tested(adata))
    elif null is None:
        console.print(f"maps are not tested against random concepts ({len(sets)} concepts, {method}); use --null N")
    tl.decoded(adata, model)
    tl.concept_map(adata, model, progress=not quiet)
    check_trust(adata, model, method, seed, console)
    write_results(adata, model, out)
    written = [name for name in RESULTS if (out / name).exists()]
    console.print(f"{', '.join(written)} in {escape(str(out))} ({time.perf_counter() - started:.0f} s)")


def _one_line(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning as one line, without the line of code that raised it."""
    text = f"stcsm: warning: {' '.join(str(message).split())}"
    Console(stderr=True, soft_wrap=True).print(text, highlight=False, markup=False)


def _tested(adata: AnnData, most: int = 15) -> Table:
    """Table of the most significant concepts."""
    found = tl.concept_table(adata).sort_values(["p", "strength"], ascending=[True, False], kind="stable")
    shown = Table(
        title=f"Each map against those of random concepts ({min(most, len(found))} of {len(found)} concepts shown)"
    )
    for heading in ("concept", "p", "q", "strength", "Moran's I"):
        shown.add_column(heading, justify="left" if heading == "concept" else "right")
    for _, row in found.head(most).iterrows():
        shown.add_row(escape(str(row["label"])), *(f"{float(row[v]):.2g}" for v in ("p", "q", "strength", "morans_i")))
    return shown
