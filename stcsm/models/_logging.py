"""Other libraries' notices."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(name: str, level: int) -> Iterator[None]:
    """Keep a library's notices below a level to itself; what was quieter already stays so."""
    library = logging.getLogger(name)
    before = library.level
    library.setLevel(max(level, before))
    try:
        yield
    finally:
        library.setLevel(before)
