"""What ``stcsm run`` and ``stcsm demo`` do, from files to files."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sklearn.metrics import roc_auc_score

from stcsm import _keys, io, pp, tl
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
    counts: Path | Sequence[Path],
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
    table: str | None = None,
    coordinate_system: str = "global",
    write_store: bool = True,
    labels_column: str | None = None,
    groups: list[str] | None = None,
    bin_size: int | None = None,
    keep_background: bool = False,
    keep_controls: bool = False,
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    one_section: bool = False,
    **settings: Any,
) -> None:
    """Read a tissue, train, map its concepts and write the results into ``out``.

    Several ``counts`` are the sections of one analysis. Results of a SpatialData store are also written into its table,
    unless ``write_store`` is false.

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
    if labels_column is not None and labels is None:
        raise ValueError("Expected --labels with --labels-column, found none; a column of .obs is --labels-key")
    if groups is not None and labels is None and labels_key is None:
        raise ValueError("Expected labels with --groups, found none; give --labels CSV or --labels-key COLUMN")
    if one_section and batch_key is not None:
        raise ValueError("Expected --one-section or --batch-key, found both")
    paths = [counts] if isinstance(counts, Path) else list(counts)
    if gmt is not None:
        gmt = existing_file(gmt, "a GMT file")
    check_out(out)
    check_input(out, *paths, gmt, labels)
    _quiet_libraries()
    store = _store(paths) if write_store else None
    adata = io.read(
        paths, layer=layer, bin_size=bin_size, keep_background=keep_background, table=table,
        coordinate_system=coordinate_system,
    )  # fmt: skip
    if batch_key is None and not one_section and _is_joined(adata, paths):
        batch_key = _keys.SECTION
    if batch_key is not None:
        _shared_positions(adata, batch_key)
    if labels is not None:
        labels_key = _keys.LAYER
        io.add_labels(adata, labels, labels_key, column=labels_column, overwrite=True)
    if store is not None:
        io.check_store(adata, store, table)
    sources: list[dict[str, Any]] = []
    if gene_concepts:
        sources.append({"genes": gene_concepts})
    if gmt is not None:
        sources.append({"genes": gmt, "match": match, "ignore_case": ignore_case})
    if labels_key is not None:
        sources.append({"groupby": labels_key, "groups": groups})
    setup: dict[str, Any] = {"layer": layer, "spatial_key": spatial_key, "batch_key": batch_key}
    flags = {"one_section": one_section, "keep_background": keep_background, "keep_controls": keep_controls}
    setup |= {name: True for name, asked in flags.items() if asked}
    analyse(adata, out, sources, setup=setup, quiet=quiet, **settings)
    if store is not None:
        written = io.add_to_store(adata, store, table)
        Console(quiet=quiet).print(f"results in table {escape(written)} of {escape(str(store))}")


def _store(paths: Sequence[Path]) -> Path | None:
    """The SpatialData store that is read; None where the counts come from elsewhere or from several paths."""
    return paths[0] if len(paths) == 1 and io.is_spatialdata(paths[0]) else None


def _is_joined(adata: AnnData, paths: Sequence[Path]) -> bool:
    """Whether the column of sections was written on reading: several files, or a folder of several sections."""
    return _keys.SECTION in adata.obs and (len(paths) > 1 or paths[0].is_dir())


def _shared_positions(adata: AnnData, batch_key: str) -> None:
    """Put ST sections, whose spots lie beside the centres of the array, on one array; whole positions stay."""
    if _keys.SPATIAL_ARRAY in adata.obsm and np.isfinite(adata.obsm[_keys.SPATIAL_ARRAY]).all():
        pp.to_grid(adata, batch_key=batch_key)


def run_demo(out: Path, *, quiet: bool, seed: int, **settings: Any) -> None:
    """Analyse the simulated bulb and compare the maps with its known tissue layers."""
    check_out(out)
    _quiet_libraries()
    adata = simulated_bulb(seed=seed)
    analyse(adata, out, [{"groupby": _keys.LAYER}], setup={}, quiet=quiet, seed=seed, **settings)
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
    setup: dict[str, Any],
    quiet: bool,
    method: str,
    encoder: str,
    seed: int,
    n_seeds: int,
    null: int | None = None,
) -> None:
    """Train a model on ``adata``, map its concepts, write the results.

    ``setup`` are arguments of :meth:`stcsm.models.GeneVAE.setup_anndata`, ``sources`` of
    :func:`stcsm.tl.match_gene_sets`: gene sets and labels are matched before the training,
    so that a bad one is refused in a second.
    """
    console = Console(quiet=quiet)
    started = time.perf_counter()
    linear = method_class(method).linear
    GeneVAE.setup_anndata(adata, **setup)
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


def _quiet_libraries() -> None:
    """Of other libraries' notices, only warnings concern the user."""
    for name in ("lightning.pytorch", "scvi"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for kind in (DeprecationWarning, FutureWarning, SyntaxWarning):
        warnings.filterwarnings("ignore", category=kind)


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
