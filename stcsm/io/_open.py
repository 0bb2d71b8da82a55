"""Open text files as people have them: plain or gzipped whatever the suffix says, with clear errors if cut short."""

from __future__ import annotations

import difflib
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GZIP_MAGIC = b"\x1f\x8b"


def existing_file(path: str | Path, what: str) -> Path:
    """Return `path` as an existing, non-empty file.

    Raises
    ------
    FileNotFoundError
        Nothing stands there; files of a similar name are suggested.
    IsADirectoryError
        A folder stands there.
    ValueError
        The file has no content.
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
def open_text(path: Path) -> Iterator[io.TextIOBase]:
    """Open a UTF-8 text file, gzipped or plain by its content; any line ending, with or without a byte order mark.

    Raises
    ------
    ValueError
        The gzip stream is cut short or damaged, or the content is not UTF-8 text.
    """
    with path.open("rb") as raw:
        zipped = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        binary = gzip.GzipFile(fileobj=raw) if zipped else raw
        try:
            with io.TextIOWrapper(binary, encoding="utf-8-sig") as text:
                yield text
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"Expected a whole gzip file, found one that is cut short or damaged ({error}): {path}; "
                "fetch or copy it again."
            ) from error
        except UnicodeDecodeError as error:
            raise ValueError(
                f"Expected UTF-8 text, found other bytes ({error.reason}): {path}; export it as plain text in UTF-8."
            ) from error
