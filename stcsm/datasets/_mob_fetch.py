"""Fetch the mouse olfactory bulb from its official addresses."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stcsm.datasets._mob_files import (
    check_replicate,
    check_shape,
    counts_name,
    picture_name,
    transformation_name,
)
from stcsm.io import read_picture, read_st, read_transformation

BASE_URL = "https://www.spatialresearch.org/wp-content/uploads/2016/07/"
URL_VARIABLE = "STCSM_MOB_URL"
TIMEOUT = 30
"""Seconds without an answer."""


def fetch_mob(replicate: int, out: str | Path, *, base_url: str | None = None, progress: bool = True) -> list[Path]:
    """Download one replicate of the mouse olfactory bulb.

    Each file is checked before it is moved into place: the counts must read, and have the replicate's shape where it is
    known. Files that are there already are kept. Where the picture or its transformation cannot be had, a warning
    says so.

    Parameters
    ----------
    replicate
        1 to 12.
    out
        Folder to write to; made if need be.
    base_url
        Address that holds the files; default the environment variable ``STCSM_MOB_URL``, else the official one.
    progress
        Show a progress bar.

    Returns
    -------
    list of Path
        The files, counts first.

    Raises
    ------
    FileNotFoundError
        The counts cannot be had (offline, moved); the message says which file to put where. Nothing is written.
    ValueError
        No such replicate, or what was sent is not its count matrix. Nothing is written.
    """
    check_replicate(replicate)
    url = (base_url or os.environ.get(URL_VARIABLE) or BASE_URL).rstrip("/") + "/"
    out = Path(out).expanduser()
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=out, prefix=".fetch-") as folder:
            return _fetch_all(replicate, url, out, Path(folder), progress)
    except BaseException:
        if made and not any(out.iterdir()):
            out.rmdir()
        raise


def _fetch_all(replicate: int, url: str, out: Path, folder: Path, progress: bool) -> list[Path]:
    there = [p for p in (out / counts_name(replicate), out / f"{counts_name(replicate)}.gz") if p.is_file()]
    new: list[Path] = []
    if not there:
        new.append(_fetch_counts(replicate, url, folder, progress))
    companions = [picture_name(replicate), transformation_name(replicate)]
    there += [out / name for name in companions if (out / name).is_file()]
    for name in companions:
        if out / name not in there:
            try:
                file = _download(url, name, folder, progress)
                (read_transformation(file) if file.suffix == ".txt" else read_picture(file, None))
                new.append(file)
            except (OSError, ValueError) as error:
                warnings.warn(f"Fetched without {name}, from {url}: {_reason(error)}", stacklevel=4)
    for file in new:  # all that was fetched is good: only now does anything appear
        os.replace(file, out / file.name)
    return sorted([*there, *(out / file.name for file in new)], key=lambda p: ("count" not in p.name, p.name))


def _fetch_counts(replicate: int, url: str, folder: Path, progress: bool) -> Path:
    name = counts_name(replicate)
    try:
        counts = _download(url, name, folder, progress)
    except OSError as error:  # requests' errors are OSErrors
        raise FileNotFoundError(
            f"Expected {name} from {url}, found no way to fetch it ({_reason(error)}); get {name} (plain or .gz) "
            "elsewhere, put it in a folder and name the folder with path= or the environment variable "
            f"STCSM_DATA_DIR, or name another address with {URL_VARIABLE}."
        ) from error
    try:
        check_shape(read_st(counts).shape, replicate, f"{url}{name}")
    except ValueError as error:
        raise ValueError(
            f"Expected the count matrix of replicate {replicate} at {url}{name}, found something else: {error}"
        ) from error
    return counts


def _download(url: str, name: str, folder: Path, progress: bool) -> Path:
    import pooch

    with _quiet_pooch():
        downloader = pooch.HTTPDownloader(progressbar=progress, timeout=TIMEOUT)
        return Path(pooch.retrieve(url + name, known_hash=None, fname=name, path=folder, downloader=downloader))


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    """Keep pooch from telling the user to write hashes into our code."""
    import pooch

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """Say in plain words what requests says with the innards of its connection pool."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"status {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT} seconds"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke before all had come"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return f"{type(error).__name__}: {error}"
