"""The command line: ``stcsm demo``, ``stcsm run``, ``stcsm report``, ``stcsm fetch``, ``stcsm faces``."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from stcsm.images import faces

app = typer.Typer(
    help="Concept saliency maps for spatial transcriptomics: where in a tissue a concept lives, which genes carry it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
fetch = typer.Typer(help="Fetch published data.", no_args_is_help=True)
app.add_typer(fetch, name="fetch")
app.add_typer(faces, name="faces")

Out = Annotated[
    Path,
    typer.Option("--out", help="Folder for the results, created if absent. Results of an earlier run are replaced."),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the model.")]
NSeeds = Annotated[
    int, typer.Option("--n-seeds", min=1, help="Models of different seeds that are trained and averaged.")
]
Method = Annotated[
    str,
    typer.Option(
        "--method", help="Attribution method of concept_saliency.csv (saliency, integrated_gradients, rectgrad, ...)."
    ),
]
Encoder = Annotated[
    str,
    typer.Option(
        "--encoder", help="Encoder of the gene model: auto, mlp (fully connected) or conv (needs an array of spots)."
    ),
]
LibraryId = Annotated[
    str | None,
    typer.Option(
        "--library-id", help="Name of the image in .uns['spatial'] to draw on, where the spots do not say it."
    ),
]
Resolution = Annotated[
    str,
    typer.Option(
        "--resolution",
        help="Most features of the gene model, each a few neighbouring spots pooled: auto (20,000), a number, or full "
        "(every spot is one).",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, no report.")]


@app.command()
def demo(
    out: Out = Path("stcsm_demo"),
    seed: Seed = 0,
    n_seeds: NSeeds = 2,
    method: Method = "saliency",
    encoder: Encoder = "auto",
    quiet: Quiet = False,
) -> None:
    """Analyse a simulated olfactory bulb with known tissue layers; print how well the maps find them."""
    from stcsm.workflow import run_demo

    run_demo(out, seed=seed, n_seeds=n_seeds, method=method, encoder=encoder, quiet=quiet)


@app.command()
def run(
    counts: Annotated[
        list[Path],
        typer.Argument(
            help="Raw counts: .h5ad, a SpatialData store (.zarr), ST text (a file, or a folder of replicates), a Space "
            "Ranger folder (Visium, Visium HD), a folder of Xenium, CosMx, MERSCOPE, STARmap PLUS, seqFISH, Stereo-seq "
            "(or a .gef) or Curio. "
            "Several are sections of one analysis.",
        ),
    ],
    out: Out,
    genes: Annotated[
        list[str] | None, typer.Option("--genes", help="A concept: NAME=GENE or NAME=GENE1,GENE2; may be repeated.")
    ] = None,
    gmt: Annotated[Path | None, typer.Option("--gmt", help="GMT file of gene sets; each makes a concept.")] = None,
    match: Annotated[
        str | None, typer.Option("--match", help="Column of .var to match the gene sets on, such as symbols.")
    ] = None,
    ignore_case: Annotated[
        bool,
        typer.Option("--ignore-case", help="Match gene sets to genes whose case differs (human, mouse)."),
    ] = False,
    null: Annotated[
        int | None,
        typer.Option(
            "--null",
            min=0,
            help="Random concepts that each map is tested against; 0: none. By default 1000 where they take a second "
            "(methods linear in the concept, up to 100 concepts).",
        ),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            "--labels",
            help="CSV file with a label for each spot; each label makes a concept. Of several sections: one with a "
            "column 'section', or one for each section, in their order.",
        ),
    ] = None,
    labels_column: Annotated[
        str | None, typer.Option("--labels-column", help="Column of --labels, where it has several.")
    ] = None,
    labels_key: Annotated[
        str | None, typer.Option("--labels-key", help="Column of .obs with tissue labels; each makes a concept.")
    ] = None,
    groups: Annotated[
        list[str] | None, typer.Option("--groups", help="One of the labels to take; may be repeated. All by default.")
    ] = None,
    table: Annotated[
        str | None, typer.Option("--table", help="Table of a SpatialData store, where there are several.")
    ] = None,
    coordinate_system: Annotated[
        str, typer.Option("--coordinate-system", help="Of a SpatialData store whose table has no coordinates.")
    ] = "global",
    write_store: Annotated[
        bool,
        typer.Option(
            "--write-store/--keep-store", help="Also write the results into the table of a SpatialData store, or not."
        ),
    ] = True,
    layer: Annotated[
        str | None,
        typer.Option("--layer", help="Layer of the counts in an .h5ad, or raw for .raw; by default .X."),
    ] = None,
    bin_size: Annotated[
        int | None,
        typer.Option(
            "--bin-size",
            min=1,
            help="Side of the bins of Visium HD in micrometres (by default 8 if there, else the largest), or of a .gef "
            "in DNBs (by default 50).",
        ),
    ] = None,
    n_bins: Annotated[
        int | None,
        typer.Option(
            "--n-bins",
            min=1,
            help="Bins along the longer side of the tissue in which the counts of cells are added up; several sections "
            "of cells need them.",
        ),
    ] = None,
    keep_background: Annotated[
        bool, typer.Option("--keep-background", help="Keep the spots that lie beside the tissue (in_tissue 0).")
    ] = False,
    keep_controls: Annotated[
        bool, typer.Option("--keep-controls", help="Keep features that are no genes (control probes, antibodies).")
    ] = False,
    spatial_key: Annotated[
        str, typer.Option("--spatial-key", help="Key of the coordinates in .obsm of an .h5ad.")
    ] = "spatial",
    batch_key: Annotated[
        str | None,
        typer.Option(
            "--batch-key",
            help="Column of .obs that names the section of each spot; by default section, where COUNTS are several.",
        ),
    ] = None,
    one_section: Annotated[
        bool, typer.Option("--one-section", help="These spots are one section, although they look like several.")
    ] = False,
    library_id: LibraryId = None,
    method: Method = "saliency",
    encoder: Encoder = "auto",
    scale: Annotated[
        str,
        typer.Option(
            "--scale",
            help="Scale of concept_map.csv: region, spot or auto (labels decide for their own concepts, counts for the "
            "others).",
        ),
    ] = "auto",
    seed: Seed = 0,
    n_seeds: NSeeds = 2,
    resolution: Resolution = "auto",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the training of an interrupted run of the same counts and options into OUT; a trained "
            "model there is not trained again.",
        ),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Train a gene model on a tissue and map concepts on it."""
    from stcsm.workflow import run_counts

    run_counts(
        counts, out, genes=genes or [], gmt=gmt, match=match, ignore_case=ignore_case, labels=labels or None,
        labels_column=labels_column, labels_key=labels_key, groups=groups or None, layer=layer, bin_size=bin_size,
        keep_background=keep_background, keep_controls=keep_controls, spatial_key=spatial_key, batch_key=batch_key,
        one_section=one_section, n_bins=n_bins, table=table, coordinate_system=coordinate_system,
        write_store=write_store, library_id=library_id, method=method, encoder=encoder, scale=scale, seed=seed,
        n_seeds=n_seeds,
        resolution=int(resolution) if resolution.isdecimal() else resolution, null=null, resume=resume, quiet=quiet,
    )  # fmt: skip


@app.command()
def report(
    result: Annotated[Path, typer.Argument(help="result.h5ad of stcsm run.")],
    out: Annotated[Path, typer.Option("--out", help="HTML file; an earlier report there is replaced.")] = Path(
        "report.html"
    ),
    title: Annotated[str | None, typer.Option("--title", help="Heading; by default the name of the file.")] = None,
    library_id: LibraryId = None,
    quiet: Quiet = False,
) -> None:
    """Write a self-contained HTML page of a result, which opens without Python."""
    from stcsm.workflow import write_report

    # Notices about the source of libraries that plots import do not concern the user.
    warnings.filterwarnings("ignore", category=SyntaxWarning)
    path = write_report(result, out, title=title, library_id=library_id, progress=not quiet)
    if not quiet:
        typer.echo(str(path))


@fetch.command("mob")
def fetch_mob(
    out: Out,
    replicate: Annotated[int, typer.Option("--replicate", min=1, max=12, help="Replicate, 1 to 12.")] = 1,
    quiet: Quiet = False,
) -> None:
    """Fetch a replicate of the mouse olfactory bulb (Stahl et al. 2016): counts, image and transformation."""
    from stcsm.datasets import fetch_mob as fetch_files

    for path in fetch_files(replicate, out, progress=not quiet):
        typer.echo(str(path))


EXPECTED = (ValueError, TypeError, OSError, KeyError, MemoryError, ModuleNotFoundError)
"""Errors whose message says what was expected and what was found."""
SHELL_WORDS = {
    "stcsm.io.read(..., keep_background=True) keeps them": "--keep-background keeps them",
    "rename them, or add their counts with duplicates='sum'": "rename them, or read the file in Python with "
    "stcsm.io.read_st(path, duplicates='sum') and write an .h5ad",
    "rename the spots, or read other formats with stcsm.io.read": "rename the spots",
    "image_shape must be the size of the image that the transformation was made for": "end the name of the "
    "transformation in _for_WIDTHxHEIGHT, the size in pixels of the image that it was made for",
    "give each spot a cell first: stcsm.pp.to_grid(adata, bin_size=...)": "take --encoder mlp, which needs none",
    "take larger bins, or encoder=": "take encoder=",
    ' To go on with its other genes: missing="report".': " To go on with its other genes, leave it out.",
    "Expected method to be": "Expected --method to be",
    "encoder to be": "--encoder to be",
    "resolution to be": "--resolution to be",
    "Expected estimator='contrast' or 'cav'": "Expected --estimator contrast or cav",
    "; lower min_counts": "; too few for a map, or train in Python, where GeneVAE takes a lower min_counts",
    "log='tensorboard'": "--log tensorboard",
    "log='csv'": "--log csv",
    "a smaller lr ": "a smaller --lr ",
    "call with that": "give that",
    "Exclude them with data.without(data.unreadable())": "Copy them again, or delete their rows from the table",
    "call crop_faces again": "run stcsm faces crop again",
    ", put it in a folder and name the folder with path= or the environment variable STCSM_DATA_DIR": " and give it to "
    "stcsm run",
    "(stcsm.io.read_st reads any file)": "(stcsm run reads any file)",
    "put an array (n_spots, 2) there or pass spatial_key=": "name one of them with --spatial-key, or write an array "
    "(n_spots, 2) there into the .h5ad",
    "adata = stcsm.io.from_spatialdata(sdata)": "give the SpatialData store (.zarr) itself",
    "write it there or pass batch_key=None": "name one of them with --batch-key, or leave it out",
    "give the labels of each section, {section: labels} with batch_key='section',": "give --labels once for each "
    "section, in their order,",
    "join them as adata = anndata.concat([a, b], label='section', index_unique='-'), and pass batch_key='section'": ""
    "give a file for each section (stcsm run A B)",
    "in a folder of its own and give stcsm.io.read the list of folders": "in a folder of its own and give all of the "
    "folders",
    "lower batch_size, n_hidden or n_seeds, or bin": "lower n_seeds=, or bin",
    "choose another or pass overwrite=True": "choose another",
    "pass overwrite=True": "remove it",
    "go on with what it was begun with, or remove the file to begin anew": "give --resume the counts and options that "
    "it was begun with, or leave it out to begin anew",
}
"""What error messages and warnings say for Python, and what it is called here."""
IN_COMMAND = {
    "crop": {", or crop=False": ""},
    "train": {},
    "concepts": {"pass size=": "train with size="},
    "saliency": {"pass size=": "train with size="},
}
"""The same for one command of ``stcsm faces``."""
OPTIONS = {
    "layer": "--layer NAME",
    "table": "--table NAME",
    "coordinate_system": "--coordinate-system NAME",
    "spatial_key": "--spatial-key NAME",
    "batch_key": "--batch-key COLUMN",
    "library_id": "--library-id NAME",
    "bin_size": "--bin-size N",
    "n_bins": "--n-bins N",
    "match": "--match COLUMN",
    "column": "--labels-column NAME",
    "groupby": "--labels-key COLUMN",
    "groups": "--groups LABEL",
    "method": "--method NAME",
    "encoder": "--encoder NAME",
    "scale": "--scale NAME",
    "n_seeds": "--n-seeds N",
    "n_random": "--null N",
    "resolution": "--resolution N",
    "seed": "--seed N",
    "images": "--images FOLDER",
    "attributes": "--attributes FILE",
    "landmarks": "--landmarks FILE",
    "partition": "--partition FILE",
    "size": "--size N",
    "batch_size": "--batch-size N",
    "keep_background": "--keep-background",
    "keep_controls": "--keep-controls",
    "ignore_case": "--ignore-case",
    "one_section": "--one-section",
    "crop": "--no-crop",
}
"""Arguments of Python that messages name, and the options that set them."""
_NAMES = "|".join(OPTIONS)
_ARGUMENT = re.compile(rf"""(?<![\w.'"/-])({_NAMES})=('[^']*'|"[^"]*"|\.\.\.|\d+|None|True|False)?(?![\w/])""")
_WORD = re.compile(rf"""(?<![\w.'"/-])({"|".join(name for name in OPTIONS if "_" in name)})(?![\w'"/=.-]\S)""")
_IN_BINS = re.compile(
    r"(, after )?stcsm\.pp\.to_grid\(adata, n_bins=(\d+)[^()]*\), then adata = stcsm\.pp\.bin_spots\(adata\)"
)
_BY_NAMES = re.compile(
    r"adata\.obs\['section'\] = adata\.obs_names\.str\.\w+\('.', n=1\)\.str\[-?\d\], and pass batch_key='section'"
    r"(, after stcsm\.pp\.to_grid\([^()]*\)(, then adata = stcsm\.pp\.bin_spots\(adata\))?)?"
)
_LEFT_OUT = re.compile(rf"leave ({_NAMES}) out")
_CALL = re.compile(r"(?:stcsm\.models\.)?(?:GeneVAE|(?:GeneVAE\.)?setup_anndata)\((?:adata|\.\.\.), ([^()]*)\)")
_CODE = re.compile(r"(stcsm\.(?:pp|tl|pl)\.\w+\([^()]*\))")
_PYTHON = re.compile(
    r"\bstcsm\.(?:pp|io)\.\w+|\banndata\.\w+|\badata\.\w+(?:\.\w+)*\(|\badata(?:\.\w+\[[^\]]*\])? = |\badata\["
)
"""Code that is to be run on the data."""


def in_shell(text: str, command: str = "") -> str:
    """A message on one line, in the words of the command line; code stays, with the way back from Python."""
    text = " ".join(text.split())
    for python, shell in {**IN_COMMAND.get(command, {}), **SHELL_WORDS}.items():
        text = text.replace(python, shell)
    text = _BY_NAMES.sub("give a file for each section (stcsm run A B)", text)
    text = _IN_BINS.sub(lambda found: f"{' with ' if found[1] else ''}--n-bins {found[2]}", text)
    text = _CALL.sub(r"\1", text)
    parts = _CODE.split(text)
    for k in range(0, len(parts), 2):
        part = _LEFT_OUT.sub(lambda found: f"leave {_option(found[1])} out", parts[k])
        part = _ARGUMENT.sub(lambda found: _as_option(found[1], found[2]), part)
        parts[k] = _WORD.sub(lambda found: _option(found[1]), part)
    text = "".join(parts)
    if _PYTHON.search(text) and "write an .h5ad" not in text:
        text += " (in Python; then write an .h5ad and give it to stcsm run)"
    return text


def _option(name: str) -> str:
    return OPTIONS[name].split()[0]


def _as_option(name: str, value: str | None) -> str:
    """``bin_size=8`` as ``--bin-size 8``, ``bin_size=...`` as ``--bin-size N``, ``bin_size=`` as ``--bin-size``."""
    if value is None or value in ("True", "False"):
        return _option(name)
    if value == "None":
        return f"no {_option(name)}"
    return OPTIONS[name] if value == "..." else f"{_option(name)} {shlex.quote(value.strip(chr(39) + chr(34)))}"


class _Said(logging.Handler):
    """Warnings of stcsm's log, as those of Python: one line each, in the words of the command line."""

    def emit(self, record: logging.LogRecord) -> None:
        _warn(record.getMessage())


def _command() -> str:
    """Name of the command of ``stcsm faces`` that is running; empty for others."""
    return sys.argv[2] if sys.argv[1:2] == ["faces"] and len(sys.argv) > 2 else ""


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    typer.echo(f"stcsm: warning: {in_shell(str(message), _command())}", err=True)


@contextmanager
def _one_line_each() -> Iterator[None]:
    """Show warnings as one line each, without the line of code that raised them."""
    log, said = logging.getLogger("stcsm"), _Said(logging.WARNING)
    before, warnings.showwarning = warnings.showwarning, _warn
    log.addHandler(said)
    try:
        yield
    finally:
        log.removeHandler(said)
        warnings.showwarning = before


def main() -> None:
    """Run the command line; bad input ends with status 2 and one line.

    Set ``STCSM_DEBUG=1`` to see where an error comes from.
    """
    # torch reads it when it is loaded, which no command has done yet. Threads that wait for one another would spin, for
    # as long as another program has a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        with _one_line_each():
            status = app(standalone_mode=False)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        if os.environ.get("STCSM_DEBUG"):
            raise
        if not (_is_usage(error) or isinstance(error, EXPECTED)):
            raise
        usage = _is_usage(error)
        text = " ".join(error.format_message().split()) if usage else in_shell(str(error), _command())  # type: ignore[attr-defined]
        typer.echo(f"stcsm: {text or type(error).__name__}", err=True)
        sys.exit(2)
    if status:
        sys.exit(status)  # of Ctrl-C, which newer versions of typer return


def _is_usage(error: Exception) -> bool:
    """Whether the command line itself was wrong (typer may carry its own copy of click)."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")
