"""Text files plain or gzipped; files and folders that appear whole or not at all; models as safetensors and JSON.

Nothing is ever unpickled.
"""

from __future__ import annotations

import codecs
import difflib
import gzip
import io
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

if TYPE_CHECKING:
    from torch import Tensor

GZIP_MAGIC = b"\x1f\x8b"
TENSORS = "model.safetensors"
SETTINGS = "model.json"
FORMAT = 1


def existing_file(path: str | os.PathLike[str], what: str) -> Path:
    """Return `path` as an existing, non-empty file.

    Parameters
    ----------
    path
        The file; ``~`` stands for the home folder.
    what
        How messages call it, such as ``"a file of labels"``.

    Raises
    ------
    FileNotFoundError
        If there is nothing; files of a similar name are suggested.
    IsADirectoryError
        If it is a folder.
    ValueError
        If the file is empty.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"Expected {what}, found a folder: {path}; name a file in it.")
    if not path.is_file():
        raise FileNotFoundError(f"Expected {what}, found nothing at {path}{_similar(path)}; check the path.")
    if path.stat().st_size == 0:
        raise ValueError(f"Expected {what}, found an empty file (0 bytes): {path}; fetch or export it again.")
    return path


def _similar(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (there is no folder {path.parent})"
    close = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=3)
    return f" (similar names there: {', '.join(close)})" if close else ""


@contextmanager
def opened_text(path: Path) -> Iterator[io.TextIOWrapper]:
    """A text file, unzipped where its content is gzipped: UTF-8 with or without a byte order mark, UTF-16 with one.

    Raises
    ------
    ValueError
        If the bytes read turn out to be of another encoding; the message names it, and the fix.
    """
    with path.open("rb") as raw:
        zipped = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        binary = gzip.GzipFile(fileobj=raw) if zipped else raw
        utf16 = binary.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        try:
            with io.TextIOWrapper(binary, encoding="utf-16" if utf16 else "utf-8-sig") as text:
                yield text
        except UnicodeDecodeError as error:
            if utf16:
                raise ValueError(
                    f"Expected UTF-16 text, as the first bytes say, found others in {path} ({error.reason}); save it "
                    "again, in UTF-8."
                ) from error
            raise ValueError(other_encoding(error.object[error.start : error.start + 1], str(path))) from error


def other_encoding(byte: bytes, where: str) -> str:
    """The message for a byte that is not UTF-8."""
    return (
        f"Expected UTF-8 text, found other bytes in {where}, such as {byte!r}, which is {byte.decode('latin-1')!r} in "
        "Latin-1; save it in UTF-8 (in Excel: CSV UTF-8; in a shell: iconv -f latin1 -t utf-8)."
    )


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a text file that are not blank, each with its number (from 1) and without its line ending.

    The content says whether the file is gzipped, not its name. Any line ending is read; UTF-8 with or without a byte
    order mark, UTF-16 with one.

    Raises
    ------
    ValueError
        If the gzip stream is cut short or damaged, or a line is of another encoding.
    """
    number = 0
    try:
        with opened_text(path) as text:
            # bytes that are not UTF-8 are let through as surrogates, so that the error below can name their line
            text.reconfigure(errors="surrogateescape" if text.encoding != "utf-16" else "strict")
            for number, line in enumerate(text, start=1):
                if not line.isascii():
                    line.encode()
                if line.strip():
                    yield number, line.rstrip("\n")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"Expected a whole gzip file, found one that is cut short or damaged ({error}): {path}; "
            "fetch or copy it again."
        ) from error
    except UnicodeEncodeError as error:
        byte = error.object[error.start].encode("utf-8", "surrogateescape")
        raise ValueError(other_encoding(byte, f"line {number} of {path}")) from error


def strangers_in(folder: Path) -> list[str]:
    """Names in a folder that do not belong to a model; ``"."`` where it is not a folder."""
    held = [p.name for p in folder.iterdir()] if folder.is_dir() else ["."]
    return [name for name in held if name not in (TENSORS, SETTINGS)]


def holds_only_a_model(folder: str | Path) -> bool:
    """Whether a folder holds a saved model and nothing else, so that a model may be written there."""
    return not strangers_in(Path(folder))


def write_model(folder: str | Path, tensors: dict[str, Tensor], settings: dict[str, Any], overwrite: bool) -> None:
    """Write a model's folder, whole or not at all.

    Raises
    ------
    FileExistsError
        If ``folder`` exists and ``overwrite`` is false, or if it holds anything but a model.
    """
    folder = Path(folder)
    if folder.exists():
        if not overwrite:
            raise FileExistsError(f"Expected a new folder, found that {folder} exists; pass overwrite=True")
        strangers = strangers_in(folder)
        if strangers:
            raise FileExistsError(
                f"Expected a folder that holds a stcsm model and nothing else, found {strangers[0]!r} in {folder}; "
                "it is left as it is: choose another folder"
            )
    from safetensors.torch import save_file  # loads torch, which readers of text do without

    with whole_folder(folder) as scratch:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, scratch / TENSORS)
        _as_any_other(scratch / TENSORS, scratch)
        (scratch / SETTINGS).write_text(json.dumps({"format": FORMAT, **settings}, indent=1), encoding="utf-8")


def _as_any_other(path: Path, folder: Path) -> None:
    """Give a file the permissions that a new file has; safetensors writes for the owner alone."""
    other = folder / f"{path.name}.permissions"
    other.touch()
    path.chmod(other.stat().st_mode)
    other.unlink()


def read_model(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and settings of a saved model.

    Raises
    ------
    FileNotFoundError
        If ``folder`` holds no model.
    ValueError
        If its files are damaged or of a newer format.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    for name in (TENSORS, SETTINGS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"Expected {name} in {folder}, found none; is this a folder that model.save wrote?")
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except (json.JSONDecodeError, SafetensorError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected a whole model in {folder}, found a damaged file: {error}") from error
    found = settings.get("format") if isinstance(settings, dict) else None
    if found != FORMAT:
        raise ValueError(
            f"Expected a model of format {FORMAT}, found {found!r} in {folder}; "
            "read it with the version of stcsm that wrote it"
        )
    return tensors, settings


def write_state(path: Path, tensors: dict[str, Tensor], plain: str) -> None:
    """Write one safetensors file with ``plain`` in its header; it replaces ``path`` at once, or nothing changes.

    What a killed process leaves beside it has one name, so that the next writing replaces it.
    """
    from safetensors.torch import save_file

    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part, {"state": plain})
        os.replace(part, path)
    except SafetensorError as error:
        raise OSError(f"Expected room for {path}, found that it cannot be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def remove_state(path: Path) -> None:
    """Remove a file that :func:`write_state` wrote, and what a killed process left beside it."""
    for file in (path, _part(path)):
        file.unlink(missing_ok=True)


def read_state(path: Path, tensors: bool = True) -> tuple[dict[str, Tensor], str]:
    """Tensors and header of a file that :func:`write_state` wrote; without ``tensors`` the header alone.

    Raises
    ------
    ValueError
        If it is damaged or another file.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            held = file.metadata() or {}
            names = file.keys() if tensors else ()
            # Copies: a file that is mapped into memory cannot be replaced on Windows.
            return {name: file.get_tensor(name).clone() for name in names}, held["state"]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"Expected the state of a training in {path}, found a damaged or another file") from error


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """Make an empty folder for the length of a block; what a killed process left of it is removed first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to; the file written there replaces ``path`` when the block ends without an error.

    After an error ``path`` is unchanged and nothing else is left behind. Where it is a link, its target is replaced.
    """
    path = path.resolve()
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield scratch / path.name
        os.replace(scratch / path.name, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into, which replaces ``folder`` when the block ends without an error.

    After an error ``folder`` is unchanged and nothing else is left behind. Where it is a link, its target is replaced.

    Raises
    ------
    NotADirectoryError
        If ``folder`` exists and is not a folder.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"Expected a folder or nothing at {folder}, found a file; choose another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield scratch
        scratch.chmod(0o755)  # mkdtemp's folder is the owner's alone
        _replace_folder(scratch, folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _replace_folder(scratch: Path, folder: Path) -> None:
    """Move ``scratch`` to ``folder``; the old one is put aside first and deleted last."""
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

    Afterwards ``folder`` holds under these names what ``scratch`` held, and nothing where it held nothing. If a step
    fails, ``folder`` is restored. ``scratch`` must lie on the same disk; the caller deletes it.
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
