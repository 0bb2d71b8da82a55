"""What ``stcsm run`` and ``stcsm demo`` do, from files to files."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sklearn.metrics import roc_auc_score

from stcsm import _keys, io, pp, tl
from stcsm._features import spots_taken
from stcsm._files import existing_file, remove_state
from stcsm.attribution import method_class
from stcsm.datasets import simulated_bulb
from stcsm.models import GeneVAE, differs_from_saved
from stcsm.workflow._plan import make_plan, recorded_cost, require_map_memory, require_reading_memory
from stcsm.workflow._progress import RunProgress, TrainingProgress, duration
from stcsm.workflow._results import (
    MODEL,
    RESULTS,
    RUN,
    UNFINISHED,
    check_input,
    check_library,
    check_out,
    require_room,
    write_results,
)
from stcsm.workflow._trust import check_trust

N_RANDOM = 1000
"""Random concepts for each concept where nobody asks for a number."""
LONG = 60.0
"""Seconds of a run whose plan is said."""
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
    labels: Path | Sequence[Path] | None,
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
    n_bins: int | None = None,
    **settings: Any,
) -> None:
    """Read a tissue, train, map its concepts and write the results into ``out``.

    Several ``counts`` are the sections of one analysis. Results of a SpatialData store are also written into its table,
    unless ``write_store`` is false or ``n_bins`` adds up its cells.

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
    files = [labels] if isinstance(labels, Path) else list(labels or ())
    check_input(out, *paths, gmt, *files)
    require_reading_memory(paths)
    _quiet_libraries()
    store = _store(paths) if write_store and n_bins is None else None
    with RunProgress(quiet) as progress, _says_how_to_go_on(out):
        with progress.stage("read"):
            adata = io.read(
                paths, layer=layer, bin_size=bin_size, keep_background=keep_background, table=table,
                coordinate_system=coordinate_system,
            )  # fmt: skip
            if batch_key is None and not one_section and _is_joined(adata, paths):
                batch_key = _keys.SECTION
            if batch_key is not None and n_bins is None:
                _shared_positions(adata, batch_key)
            if labels is not None:
                labels_key = _keys.LAYER
                given = files[0] if len(files) == 1 else _by_section(adata, files, batch_key)
                io.add_labels(adata, given, labels_key, column=labels_column, batch_key=batch_key, overwrite=True)
            if store is not None:
                io.check_store(adata, store, table)
            if n_bins is not None:
                adata = _in_bins(adata, n_bins, layer, labels_key, spatial_key, batch_key, keep_background)
                layer, spatial_key = None, _keys.SPATIAL
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
        analyse(adata, out, sources, setup=setup, quiet=quiet, progress=progress, **settings)
    if store is not None:
        written = io.add_to_store(adata, store, table)
        Console(quiet=quiet).print(f"results in table {escape(written)} of {escape(str(store))}")


def _by_section(adata: AnnData, files: list[Path], batch_key: str | None) -> dict[str, Path]:
    """File of labels of each section, in their order."""
    sections = [] if batch_key is None else list(dict.fromkeys(adata.obs[batch_key].astype(str)))
    if len(files) != len(sections):
        raise ValueError(
            f"Expected --labels once, or once for each of {len(sections) or 1} sections, found it {len(files)} times"
        )
    return dict(zip(sections, files, strict=True))


@contextmanager
def _says_how_to_go_on(out: Path) -> Iterator[None]:
    """Say after Ctrl-C how the run goes on, where something of it is kept."""
    try:
        yield
    except KeyboardInterrupt:
        if (out / UNFINISHED).exists():
            Console(stderr=True).print(
                f"interrupted; the same command with --resume goes on with the training in {escape(str(out))}"
            )
        raise


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


def _in_bins(
    adata: AnnData,
    n_bins: int,
    layer: str | None,
    labels_key: str | None,
    spatial_key: str,
    batch_key: str | None,
    keep_background: bool,
) -> AnnData:
    """Counts of cells (on tissue) added up in the bins of one grid, and the commonest label of each."""
    adata = adata[spots_taken(adata, keep_background)].copy()
    pp.to_grid(adata, n_bins=n_bins, spatial_key=spatial_key, batch_key=batch_key)
    adata.obsm[_keys.SPATIAL] = np.asarray(adata.obsm[spatial_key])
    return pp.bin_spots(adata, layer=layer, labels=labels_key, batch_key=batch_key)


def run_demo(out: Path, *, quiet: bool, seed: int, **settings: Any) -> None:
    """Analyse the simulated bulb and compare the maps with its known tissue layers."""
    check_out(out)
    _quiet_libraries()
    with RunProgress(quiet) as progress:
        with progress.stage("read"):
            adata = simulated_bulb(seed=seed)
        analyse(adata, out, [{"groupby": _keys.LAYER}], setup={}, quiet=quiet, seed=seed, progress=progress, **settings)
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
    scale: str = "auto",
    resolution: int | str = "auto",
    null: int | None = None,
    resume: bool = False,
    library_id: str | None = None,
    progress: RunProgress,
) -> None:
    """Train a model on ``adata``, map its concepts, write the results.

    With ``resume`` an interrupted training in ``out`` goes on, and a trained model there is not trained again.
    ``setup`` are arguments of :meth:`stcsm.models.GeneVAE.setup_anndata`, ``sources`` of
    :func:`stcsm.tl.match_gene_sets`: gene sets and labels are matched before the training,
    so that a bad one is refused in a second.
    """
    if scale not in pp.SCALES:
        raise ValueError(f"Expected --scale to be one of {', '.join(pp.SCALES)}, found {scale!r}")
    console = Console(quiet=quiet)
    linear = method_class(method).linear
    unfinished = out / UNFINISHED
    with progress.stage("read"):
        GeneVAE.setup_anndata(adata, **setup)
        check_library(adata, library_id)
        model = GeneVAE(adata, encoder=encoder, seed=seed, n_seeds=n_seeds, resolution=resolution)
        console.print(model.summary_string.splitlines()[1])
        first, *others = (tl.match_gene_sets(adata, model, **source) for source in sources)
        sets = sum(others, first)
    require_room(adata, model, len(sets), out)
    require_map_memory(model, len(sets))
    model, is_trained = _begin(adata, model, out, resume, console)
    if null is None and linear and len(sets) <= FREE:
        null = N_RANDOM
    with progress.stage("read"):
        cost = recorded_cost(out / RUN) if is_trained else None
        skipped = (*(() if null else ("null",)), *(("width", "train") if is_trained else ()))
        plan = make_plan(model, len(sets), skipped, cost)
    progress.plan(plan.seconds)
    if plan.total > LONG:
        console.print(f"this takes about {duration(plan.total)} and {plan.memory / 1e9:.1f} GB of memory")
    if not is_trained:
        with progress.stage("width"):
            model.train(
                progress=False, checkpoint=unfinished, keep_checkpoint=True, callbacks=[TrainingProgress(progress)]
            )
    with progress.stage("saliency"):
        tl.concepts(adata, model, genes=sets)
        tl.saliency(adata, model, method=method)
    if null:
        with progress.stage("null"):
            tl.significance(adata, model, n_random=null, seed=seed)
        console.print(_tested(adata))
    elif null is None:
        console.print(f"maps are not tested against random concepts ({len(sets)} concepts, {method}); use --null N")
    with progress.stage("graph"):
        if scale != "auto" or len(sets.coherence) < len(sets):  # labels decide by themselves, when their maps are made
            _spot_graph(adata, model, scale)
    with progress.stage("map"):
        tl.decoded(adata, model)
        tl.concept_map(adata, model, scale=scale)
    console.print(_scales(adata))
    with progress.stage("sanity"):
        check_trust(adata, model, method, seed, console)
    with progress.stage("write"):
        write_results(adata, model, out, lambda: {**progress.record(), **plan.record(), **_chosen(adata)}, library_id)
    remove_state(unfinished)
    written = [name for name in RESULTS if (out / name).exists()]
    console.print(f"{', '.join(written)} in {escape(str(out))} ({sum(progress.seconds.values()):.0f} s)")


def _chosen(adata: AnnData) -> dict[str, Any]:
    """What was chosen by size and free memory: where the counts lay, and how the nearest spots were searched."""
    graph = adata.uns[_keys.UNS].get("spot_graph", {})
    return {"counts": "file" if adata.isbacked else "memory", "nearest_spots": graph.get("search")}


def _begin(adata: AnnData, model: GeneVAE, out: Path, resume: bool, console: Console) -> tuple[GeneVAE, bool]:
    """Say where the run begins; return the model, the one of an earlier run where it is to be taken, and whether it is.

    An interrupted training that nobody asks to go on with is forgotten.
    """
    unfinished = out / UNFINISHED
    if not resume:
        if unfinished.exists():
            Console(stderr=True).print(
                f"an interrupted training in {escape(str(out))} is begun anew; --resume goes on with one"
            )
            remove_state(unfinished)
        return model, False
    if unfinished.exists():
        console.print(f"goes on with the training in {escape(str(unfinished))}")
        return model, False
    if (out / MODEL).exists():
        differs = differs_from_saved(model, out / MODEL)
        if not differs:
            console.print(f"takes the trained model in {escape(str(out / MODEL))}")
            return GeneVAE.load(out / MODEL, adata), True
        console.print(f"the model there is of other {', '.join(differs)}: nothing is resumed, a model is trained")
    else:
        console.print(f"nothing to resume in {escape(str(out))}: starts from the beginning")
    return model, False


def _scales(adata: AnnData) -> str:
    """At which scale maps are made, and why."""
    record = adata.uns[_keys.UNS]["concept_map"]
    rows = dict.fromkeys(zip(record["scales"], record["reason"], strict=True))
    return "\n".join(f"maps at the scale of {scale}s{f' ({why})' if why else ''}" for scale, why in rows)


def _spot_graph(adata: AnnData, model: GeneVAE, scale: str) -> None:
    """Join the spots for the maps, where they are not joined already."""
    if _keys.SPOT_GRAPH not in adata.obsp:
        setup = model.setup
        batch_key = None if model.sections is None else setup.batch_key
        pp.spot_graph(
            adata, scale, layer=setup.layer, spatial_key=setup.spatial_key, batch_key=batch_key,
            seed=model.settings["seed"],
        )  # fmt: skip


def _quiet_libraries() -> None:
    """Of other libraries' notices, only warnings concern the user."""
    for name in ("lightning.pytorch", "scvi"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for kind in (DeprecationWarning, FutureWarning, SyntaxWarning):
        warnings.filterwarnings("ignore", category=kind)


def _tested(adata: AnnData, most: int = 15) -> Table:
    """Table of the most significant concepts."""
    found = tl.concept_table(adata).sort_values(["q", "p", "strength"], ascending=[True, True, False], kind="stable")
    shown = Table(
        title=f"Each map against those of random concepts ({min(most, len(found))} of {len(found)} concepts shown)"
    )
    for heading in ("concept", "verdict", "strength", "Moran's I"):
        shown.add_column(heading, justify="left" if heading in ("concept", "verdict") else "right")
    for _, row in found.head(most).iterrows():
        numbers = (f"{float(row[v]):.2g}" for v in ("strength", "morans_i"))
        shown.add_row(escape(str(row["label"])), row["verdict"], *numbers)
    return shown
