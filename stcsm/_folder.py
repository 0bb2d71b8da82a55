"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into, which takes the place of ``folder`` when the block ends without an error.

    What stands at ``folder`` is replaced only then; after an error it is as it was, and nothing else is left behind.
    Where it is a link, the folder that it leads to is replaced.

    Raises
    ------
    NotADirectoryError
        If something else than a folder stands there.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"Expected a folder or nothing at {folder}, found a file; choose another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield scratch
        scratch.chmod(0o755)  # mkdtemp's folder is the owner's alone
        _take_place(scratch, folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _take_place(scratch: Path, folder: Path) -> None:
    """Move ``scratch`` to ``folder``; what stands there is put aside, and deleted only when that is done."""
    if not folder.exists():
        os.replace(scratch, folder)
        return
    aside = scratch.with_name(f"{scratch.name}-old")
    os.replace(folder, aside)
    try:
        os.replace(scratch, folder)
    except BaseException:
        os.replace(aside, folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def replace_all(names: Sequence[str], scratch: Path, folder: Path) -> None:
    """Move the files and folders of these names from ``scratch`` to ``folder``: all of them, or none.

    What ``folder`` had under any of the names is gone afterwards, whether there is a new one or not; if a step fails,
    it is all back. ``scratch`` lies on the same disk, and is to be deleted by the caller.
    """
    aside = Path(tempfile.mkdtemp(prefix="old-", dir=scratch))
    new = [name for name in names if (scratch / name).exists()]
    try:
        for name in names:
            if (folder / name).exists():
                os.replace(folder / name, aside / name)
            if name in new:
                os.replace(scratch / name, folder / name)
    except BaseException:
        for name in new:
            if not (scratch / name).exists():
                os.replace(folder / name, scratch / name)
        for name in names:
            if (aside / name).exists():
                os.replace(aside / name, folder / name)
        raise
