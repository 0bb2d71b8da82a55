"""From a result in an .h5ad file to one HTML page that a colleague can open without Python."""

from __future__ import annotations

import base64
import io
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import pandas as pd
from anndata import AnnData
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from stcsm import _keys, pl
from stcsm._files import whole_file
from stcsm.workflow._results import check_library, sections_of, spatial_key_of
from stcsm.workflow.report._read import concept_rows, glance, overview, settings_tables

MOST_CONCEPTS = 60
"""Concepts with a section of their own; of more, the most significant, or else the first."""
MOST_SANITY = 30
"""Concepts in the figure of the sanity checks."""
DPI = 110


def write_report(
    result: str | Path,
    out: str | Path,
    *,
    title: str | None = None,
    library_id: str | None = None,
    progress: bool = False,
) -> Path:
    """Write one self-contained page: maps on the tissue, top genes, statistics, sanity, settings, versions.

    Images and styles are inside the page, which loads nothing from elsewhere and runs no scripts. It is written whole
    or not at all.

    Parameters
    ----------
    result
        ``result.h5ad`` of ``stcsm run``, or any ``.h5ad`` with concepts and maps of stcsm.
    out
        The page; an existing report is replaced.
    title
        Heading; the file's name by default.
    library_id
        Name of the image in ``.uns["spatial"]``, where the spots do not say it.
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
        If it is no .h5ad, holds no concepts or no maps, has no image of the name ``library_id`` or several sections, or
        ``out`` is the result itself.
    FileExistsError
        If ``out`` is a folder, or a file that is no HTML page.
    """
    source, target = Path(result), Path(out)
    if not source.is_file():
        raise FileNotFoundError(f"Expected a result of stcsm run (an .h5ad file), found no such file: {source}")
    _check_target(source, target)
    try:
        adata = ad.read_h5ad(source, backed="r")  # a page shows no counts
    except Exception as error:
        raise ValueError(
            f"Expected an .h5ad file, found one that cannot be read as such: {source} ({error})"
        ) from error
    try:
        page = _render(adata, title or source.stem, library_id, progress=progress)
    finally:
        adata.file.close()
    with whole_file(target) as scratch:
        scratch.write_text(page, encoding="utf-8")
    return target


def _render(adata: AnnData, title: str, library_id: str | None = None, *, progress: bool = False) -> str:
    """The page of a result as text.

    Raises
    ------
    ValueError
        If ``adata`` holds no concepts or no maps.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    _check_result(adata)
    check_library(adata, library_id)
    rows, left_out = concept_rows(adata, MOST_CONCEPTS)
    for row in tqdm(rows, desc="report", unit="concept", disable=not progress, leave=False):
        row["images"] = _maps(adata, row["key"], library_id)
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
        tissue=_tissue(adata, library_id),
        sanity=_sanity(adata, [row["key"] for row in rows]),
        settings=settings_tables(adata),
        made=f"stcsm {version('stcsm')}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def _check_result(adata: AnnData) -> None:
    """Refuse a file without concepts or maps."""
    record: dict[str, Any] = dict(adata.uns.get(_keys.UNS, {}))
    if not record.get("concepts"):
        raise ValueError("Expected concepts of stcsm in the file, found none; make a result with stcsm run")
    if not any(key in adata.obsm for key in (_keys.CONCEPT_MAP, _keys.CONCEPT_SALIENCY)):
        raise ValueError(
            f"Expected maps in .obsm[{_keys.CONCEPT_MAP!r}] or .obsm[{_keys.CONCEPT_SALIENCY!r}], found none; run "
            "stcsm.tl.concept_map(adata, model), or make a result with stcsm run"
        )


def _maps(adata: AnnData, key: str, library_id: str | None) -> dict[str, str]:
    """Maps of one concept by heading, one for each section."""
    spatial_key = spatial_key_of(adata)
    if spatial_key not in adata.obsm:
        return {}
    made = {}
    for heading, table in (("Concept map", _keys.CONCEPT_MAP), ("Saliency", _keys.CONCEPT_SALIENCY)):
        if table in adata.obsm and key in pd.DataFrame(adata.obsm[table]):
            for section, part in sections_of(adata):
                figure = pl.concept_map(
                    part, [key], key=table, spatial_key=spatial_key, library_id=library_id, title="", return_fig=True
                )
                made[f"{heading}, {section}" if section else heading] = _encoded(figure)
    return made


def _tissue(adata: AnnData, library_id: str | None) -> str:
    """The image of the section with its spots; empty where there is none."""
    spatial_key = spatial_key_of(adata)
    if spatial_key not in adata.obsm or pl.find_image(adata, spatial_key, library_id) is None:
        return ""
    return _encoded(pl.section(adata, library_id=library_id, return_fig=True), kind="jpg")


def _sanity(adata: AnnData, keys: list[str]) -> str:
    """The figure of the sanity checks; empty where there were none."""
    record = adata.uns[_keys.UNS].get("sanity")
    if not record:
        return ""
    known = {str(key) for key in record["concepts"]}
    checked = [key for key in keys if key in known][:MOST_SANITY]
    return _encoded(pl.sanity(adata, checked, return_fig=True)) if checked else ""


def _encoded(figure: Figure, kind: str = "png") -> str:
    """A figure as a data address; the figure is closed."""
    held = io.BytesIO()
    try:
        figure.savefig(held, format=kind, dpi=DPI, bbox_inches="tight")
    finally:
        plt.close(figure)
    mime = "jpeg" if kind == "jpg" else kind
    return f"data:image/{mime};base64,{base64.b64encode(held.getvalue()).decode('ascii')}"


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
        raise FileExistsError(f"Expected an HTML page to replace, found another file: {target}; choose another --out")
