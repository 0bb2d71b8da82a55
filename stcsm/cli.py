"""The command line: ``stcsm demo``, ``stcsm run``, ``stcsm report``, ``stcsm fetch``, ``stcsm faces``."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

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
        Path,
        typer.Argument(help="ST text file, .h5ad, Space Ranger folder or SpatialData store (.zarr) with raw counts."),
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
        Path | None,
        typer.Option("--labels", help="CSV file with a label for each spot; each label makes a concept."),
    ] = None,
    labels_key: Annotated[
        str | None, typer.Option("--labels-key", help="Column of .obs with tissue labels; each makes a concept.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", help="Layer of the counts in an .h5ad; by default .X.")
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
    method: Method = "saliency",
    encoder: Encoder = "auto",
    seed: Seed = 0,
    n_seeds: NSeeds = 2,
    quiet: Quiet = False,
) -> None:
    """Train a gene model on a tissue and map concepts on it."""
    from stcsm.workflow import run_counts

    run_counts(
        counts, out, genes=genes or [], gmt=gmt, match=match, ignore_case=ignore_case, labels=labels,
        labels_key=labels_key, layer=layer, table=table, coordinate_system=coordinate_system, write_store=write_store,
        method=method, encoder=encoder, seed=seed, n_seeds=n_seeds, null=null,
        quiet=quiet,
    )  # fmt: skip


@app.command()
def report(
    result: Annotated[Path, typer.Argument(help="result.h5ad of stcsm run.")],
    out: Annotated[Path, typer.Option("--out", help="HTML file; an earlier report there is replaced.")] = Path(
        "report.html"
    ),
    title: Annotated[str | None, typer.Option("--title", help="Heading; by default the name of the file.")] = None,
    quiet: Quiet = False,
) -> None:
    """Write a self-contained HTML page of a result, which opens without Python."""
    from stcsm.workflow import write_report

    # Notices about the source of libraries that plots import do not concern the user.
    warnings.filterwarnings("ignore", category=SyntaxWarning)
    path = write_report(result, out, title=title, progress=not quiet)
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


SHELL_WORDS = {
    "layer=...": "--layer NAME",
    "table=.": "--table NAME.",
    "; leave table= out": "; leave --table out",
    "with table=": "with --table",
    "coordinate_system=.": "--coordinate-system NAME.",
    " or pass spatial_key=": "",
    "n_seeds": "--n-seeds",
    "match=...": "--match COLUMN",
    "ignore_case=True": "--ignore-case",
    "Expected method to be": "Expected --method to be",
    "encoder to be": "--encoder to be",
    "attributes= its path": "--attributes its path",
    "landmarks= its path": "--landmarks its path",
    "images= their folder": "--images their folder",
    "or crop=False": "or --no-crop",
    "pass overwrite=True": "remove it",
}
"""Arguments that error messages name, and the options that set them here."""
EXPECTED = (ValueError, TypeError, OSError, KeyError, MemoryError, ModuleNotFoundError)
"""Errors whose message says what was expected and what was found."""


def main() -> None:
    """Run the command line; bad input ends with status 2 and one line.

    Set ``STCSM_DEBUG=1`` to see where an error comes from.
    """
    # torch reads it when it is loaded, which no command has done yet. Threads that wait for one another would spin, for
    # as long as another program has a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        app(standalone_mode=False)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        if os.environ.get("STCSM_DEBUG"):
            raise
        if not (_is_usage(error) or isinstance(error, EXPECTED)):
            raise
        text = error.format_message() if _is_usage(error) else str(error)  # type: ignore[attr-defined]
        text = " ".join(text.split()) or type(error).__name__
        for python, shell in SHELL_WORDS.items():
            text = text.replace(python, shell)
        typer.echo(f"stcsm: {text}", err=True)
        sys.exit(2)


def _is_usage(error: Exception) -> bool:
    """Whether the command line itself was wrong (typer may carry its own copy of click)."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")
