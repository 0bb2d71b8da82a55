"""A folder of results: checked before any work, filled only when all of it is there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["results_folder"]


@contextmanager
def results_folder(out: Path, names: Sequence[str]) -> Iterator[Path]:
    """Give a scratch folder for results, and move those that were written into ``out`` when the block ends well.

    Results of the same names of an earlier run are replaced; other things in ``out`` stay as they are. If the block
    fails, ``out`` is as it was.

    Parameters
    ----------
    out
        Folder for the results; made if absent.
    names
        What may be written: files, or folders with a trailing slash.

    Raises
    ------
    FileExistsError
        If ``out`` is a file, or a folder stands where a file is due or the other way round.
    PermissionError
        If ``out`` cannot be written to.
    """
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"Expected a folder for the results, found a file: {out}")
    nearest = next(p for p in (out, *out.resolve().parents) if p.exists())
    if not os.access(nearest, os.W_OK):
        raise PermissionError(f"Expected a folder that can be written to, found one that cannot: {nearest}")
    for name in names:
        place, is_folder = out / name, name.endswith("/")
        if place.exists() and place.is_dir() != is_folder:
            found = "a file" if is_folder else "a folder"
            raise FileExistsError(
                f"Expected room for {name} in {out}, found {found} of that name; choose another --out"
            )
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".stcsm-", dir=out))
    try:
        yield scratch
        (scratch / ".old").mkdir()
        for name in (n.rstrip("/") for n in names):
            if not (scratch / name).exists():
                continue
            if (out / name).exists():
                os.replace(out / name, scratch / ".old" / name)
            os.replace(scratch / name, out / name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if made and not any(out.iterdir()):
            out.rmdir()
