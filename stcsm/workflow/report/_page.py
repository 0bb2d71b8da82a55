"""From a result in an .h5ad file to one HTML page that a colleague can open without Python."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata as ad
from anndata import AnnData
from jinja2 import Environment, PackageLoader, StrictUndefined

from stcsm import _keys
from stcsm.workflow.report._pictures import Pictures
from stcsm.workflow.report._read import concept_rows, glance, overview, settings_tables

MOST_CONCEPTS = 60
"""Concepts with a section of their own; of more, the most significant, or else the first."""


def write_report(result: str | Path, out: str | Path, *, title: str | None = None, progress: bool = False) -> Path:
    """Write one self-contained page: maps on the tissue, top genes, statistics, sanity, settings, versions.

    Pictures and styles are inside the page, which loads nothing from elsewhere and runs no scripts. It is written whole
    or not at all.

    Parameters
    ----------
    result
        ``result.h5ad`` of ``stcsm run``, or any ``.h5ad`` with concepts and maps of stcsm.
    out
        The page; an existing report is replaced.
    title
        Heading; the file's name by default.
    progress
        Show a progress bar.

    Returns
    -------
    ``out``.

    Raises
    ------
    FileNotFoundError
        If ``result`` is no file.
    ValueError
        If it is no .h5ad, holds no concepts or no maps, or ``out`` is the result itself.
    FileExistsError
        If ``out`` is a folder, or a file that is no HTML page.
    """
    source, target = Path(result), Path(out)
    if not source.is_file():
        raise FileNotFoundError(f"Expected a result of stcsm run (an .h5ad file), found no such file: {source}")
    _check_target(source, target)
    try:
        adata = ad.read_h5ad(source)
    except Exception as error:
        raise ValueError(
            f"Expected an .h5ad file, found one that cannot be read as such: {source} ({error})"
        ) from error
    page = render(adata, title or source.stem, progress=progress)
    handle, scratch = tempfile.mkstemp(prefix=".stcsm-", suffix=".html", dir=target.resolve().parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(page)
        os.chmod(scratch, 0o666 & ~_umask())
        os.replace(scratch, target)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
    return target


def render(adata: AnnData, title: str, *, progress: bool = False) -> str:
    """The page of a result as text.

    Raises
    ------
    ValueError
        If ``adata`` holds no concepts or no maps.
    """
    check_result(adata)
    rows, left_out = concept_rows(adata, MOST_CONCEPTS)
    pictures = Pictures(adata)
    for row in pictures.shown(rows, progress):
        row["pictures"] = pictures.of_concept(row["key"])
    environment = Environment(
        loader=PackageLoader("stcsm.workflow.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("page.html.j2").render(
        title=title,
        glance=glance(adata),
        overview=overview(rows),
        concepts=rows,
        left_out=left_out,
        tissue=pictures.tissue(),
        sanity=pictures.sanity([row["key"] for row in rows]),
        settings=settings_tables(adata),
        made=f"stcsm {version('stcsm')}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def check_result(adata: AnnData) -> None:
    """Refuse what has no concepts or no maps."""
    record: dict[str, Any] = dict(adata.uns.get(_keys.UNS, {}))
    if not record.get("concepts"):
        raise ValueError("Expected concepts of stcsm in the file, found none; make a result with stcsm run")
    if not any(key in adata.obsm for key in (_keys.CONCEPT_MAP, _keys.CONCEPT_SALIENCY)):
        raise ValueError(
            f"Expected maps in .obsm[{_keys.CONCEPT_MAP!r}] or .obsm[{_keys.CONCEPT_SALIENCY!r}], found none; run "
            "stcsm.tl.concept_map(adata, model), or make a result with stcsm run"
        )


def _check_target(source: Path, target: Path) -> None:
    if target.is_dir():
        raise FileExistsError(f"Expected a file to write, found a folder: {target}; name a file in it")
    if not target.resolve().parent.is_dir():
        raise FileNotFoundError(
            f"Expected a folder for the report, found none: {target.resolve().parent}; make it first"
        )
    if not target.exists():
        return
    if target.samefile(source):
        raise ValueError(f"Expected another file than the result for the report, found {target}")
    with open(target, "rb") as file:
        start = file.read(64).lstrip().lower()
    if start and not start.startswith((b"<!doctype html", b"<html")):
        raise FileExistsError(f"Expected room for a page, found a file that is no HTML: {target}; choose another --out")


def _umask() -> int:
    """The process's mask for new files (it can only be read by setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
