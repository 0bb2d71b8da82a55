"""The mouse olfactory bulb of Stahl et al. 2016: its files on this machine, or fetched from the official address."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import anndata as ad

from stcsm import _keys
from stcsm.io import add_labels, read_image, read_st, read_transformation, shape_in_name

BASE_URL = "https://www.spatialresearch.org/wp-content/uploads/2016/07/"
URL_VARIABLE = "STCSM_MOB_URL"
TIMEOUT = 30
"""Seconds without an answer."""
REPLICATES = range(1, 13)
SHAPES = {1: (267, 16573), 2: (280, 15981), 11: (262, 16218), 12: (282, 16034)}
"""Spots and genes of the replicates that could be checked; no hash of the official files is known."""
MISSPELT = frozenset({2, 9, 12})
"""Replicates whose official transformation file is spelled `transformaton`."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
DATA_VARIABLE = "STCSM_DATA_DIR"
RINGS = ("GCL", "MCL", "EPL", "OPL", "GL", "ONL")
"""Usual short names of the bulb's tissue layers, from the core outwards."""


def mouse_olfactory_bulb(
    replicate: int = 1, *, path: str | Path | None = None, base_url: str | None = None, progress: bool = True
) -> ad.AnnData:
    """Load one of the twelve sections of mouse olfactory bulb of Stahl et al. 2016 (Science 353:78).

    Looked for in this order: `path`; the folder of the environment variable ``STCSM_DATA_DIR``, or `mob` in it; the
    cache; the official address.

    Parameters
    ----------
    replicate
        1 to 12; the paper on concept saliency maps uses 1.
    path
        The count matrix (plain or gzipped), or a folder that holds it under its official name; then nothing is fetched.
    base_url
        Address that holds the files; default the environment variable ``STCSM_MOB_URL``, else the official one.
    progress
        Show a progress bar while fetching.

    Returns
    -------
    AnnData
        Spots x genes, as `stcsm.io.read_st` gives it: with the image where it and its transformation lie beside the
        counts or can be fetched, and with ``.obs["layer"]`` where labels (`Rep11_layers.csv`) lie beside them.

    Raises
    ------
    FileNotFoundError
        The counts are not found; the message says which file to put where.
    ValueError
        No such replicate, or a file that is not this replicate's (another shape).

    Examples
    --------
    >>> adata = stcsm.datasets.mouse_olfactory_bulb(11)  # doctest: +SKIP
    """
    check_replicate(replicate)
    files = _local(replicate, path) or _cached(replicate, base_url, progress)
    adata = _read(files)
    check_shape(adata.shape, replicate, str(files.counts))
    if files.labels is not None:
        add_labels(adata, files.labels)
        names = adata.obs[_keys.LAYER].cat.categories
        if set(names) <= set(RINGS):
            adata.obs[_keys.LAYER] = adata.obs[_keys.LAYER].cat.reorder_categories([r for r in RINGS if r in names])
    return adata


def _local(replicate: int, path: str | Path | None) -> MobFiles | None:
    if path is None:
        folder = os.environ.get(DATA_VARIABLE)
        return find_files(Path(folder).expanduser(), replicate) if folder else None
    path = Path(path).expanduser()
    if path.is_file():
        return files_beside(path, replicate)
    files = find_files(path, replicate)
    if files is None:
        what = "there is no such file or folder" if not path.exists() else "it is not there, nor in its mob folder"
        raise FileNotFoundError(
            f"Expected {counts_name(replicate)} (plain or .gz) in {path}, found that {what}; "
            "put it there, or leave path= out to fetch it."
        )
    return files


def _cached(replicate: int, base_url: str | None, progress: bool) -> MobFiles:
    import pooch

    folder = Path(pooch.os_cache("stcsm")) / "mob"
    files = find_files(folder, replicate)
    if files is None:
        counts = fetch_mob(replicate, folder, base_url=base_url, progress=progress)[0]
        files = files_beside(counts, replicate)
    return files


def _read(files: MobFiles) -> ad.AnnData:
    if files.image is None:
        return read_st(files.counts)
    try:
        return read_st(
            files.counts, image=files.image, transformation=files.transformation, image_shape=files.image_shape
        )
    except (ValueError, OSError) as error:
        adata = read_st(files.counts)  # raises by itself where the counts are at fault
        warnings.warn(f"Read without its image: {error}", stacklevel=3)
        return adata


def fetch_mob(replicate: int, out: str | Path, *, base_url: str | None = None, progress: bool = True) -> list[Path]:
    """Download one replicate of the mouse olfactory bulb.

    Each file is checked before it is moved into place: the counts must be readable and have the replicate's shape where
    it is known. Existing files are kept. A warning says where the image or its transformation cannot be fetched.

    Parameters
    ----------
    replicate
        1 to 12.
    out
        Folder to write to; created if absent.
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
        The counts cannot be fetched (offline, moved); the message says which file to put where. Nothing is written.
    ValueError
        No such replicate, or the answer is not its count matrix. Nothing is written.
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
    companions = [image_name(replicate), transformation_name(replicate)]
    there += [out / name for name in companions if (out / name).is_file()]
    for name in companions:
        if out / name not in there:
            try:
                file = _download(url, name, folder, progress)
                (read_transformation(file) if file.suffix == ".txt" else read_image(file, None))
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
    """The reason in plain words; requests gives it with details of its connection pool."""
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


@dataclass(frozen=True)
class MobFiles:
    """Files of one replicate; an image and its transformation come together or not at all."""

    counts: Path
    labels: Path | None = None
    image: Path | None = None
    transformation: Path | None = None
    image_shape: tuple[int, int] | None = None


def counts_name(replicate: int) -> str:
    """Official name of the counts."""
    return f"Rep{replicate}_MOB_count_matrix-1.tsv"


def image_name(replicate: int) -> str:
    """Official name of the image."""
    return f"HE_Rep{replicate}.jpg" if replicate <= 4 else f"HE_Rep{replicate}_MOB.jpg"


def transformation_name(replicate: int) -> str:
    """Official name of the transformation."""
    return f"Rep{replicate}_MOB_{'transformaton' if replicate in MISSPELT else 'transformation'}.txt"


def labels_name(replicate: int) -> str:
    """Name under which labels are looked for beside the counts; there are no official ones."""
    return f"Rep{replicate}_layers.csv"


def check_replicate(replicate: int) -> None:
    """Raise ValueError unless `replicate` is one of the twelve."""
    if not isinstance(replicate, Integral) or replicate not in REPLICATES:
        raise ValueError(f"Expected a replicate from 1 to 12, found {replicate!r}.")


def check_shape(shape: tuple[int, int], replicate: int, source: str) -> None:
    """Raise ValueError unless `shape` (spots, genes) is that of the replicate, where it is known."""
    expected = SHAPES.get(replicate)
    if expected is not None and tuple(shape) != expected:
        raise ValueError(
            f"Expected replicate {replicate} with {expected[0]} spots x {expected[1]} genes, "
            f"found {shape[0]} x {shape[1]} in {source}; it is another replicate, filtered, or cut short "
            "(stcsm.io.read_st reads any file)."
        )


def find_files(folder: Path, replicate: int) -> MobFiles | None:
    """Files of a replicate in `folder` or its `mob` folder; None without counts."""
    for where in (folder, folder / "mob"):
        for name in (counts_name(replicate), f"{counts_name(replicate)}.gz"):
            if (where / name).is_file():
                return files_beside(where / name, replicate)
    return None


def files_beside(counts: Path, replicate: int) -> MobFiles:
    """Labels, image and transformation that lie beside the counts."""
    folder = counts.parent
    labels = folder / labels_name(replicate)
    found = MobFiles(counts, labels if labels.is_file() else None)
    image, transformation = folder / image_name(replicate), folder / transformation_name(replicate)
    if image.is_file() and transformation.is_file():
        return MobFiles(found.counts, found.labels, image, transformation)
    return _reduced(found, folder, replicate) or found


def _reduced(found: MobFiles, folder: Path, replicate: int) -> MobFiles | None:
    """Look for a reduced image, and a transformation whose name gives the size of the image that it was made for."""
    images = sorted(p for p in folder.glob(f"Rep{replicate}_HE*") if p.suffix.lower() in IMAGE_SUFFIXES)
    for transformation in sorted(folder.glob(f"Rep{replicate}_transformation_for_*.txt")):
        size = shape_in_name(transformation)
        if size and images:
            return MobFiles(found.counts, found.labels, images[0], transformation, size)
    return None
