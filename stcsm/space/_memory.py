"""How much memory there is, so that a job too large for it is refused before it starts."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_memory() -> int | None:
    """Bytes that a new allocation may take: what the kernel says is free, within the container's own limit.

    Returns
    -------
    int or None
        None where the system does not tell (then nothing is refused).
    """
    free: list[int] = []
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in fields:
            free.append(int(fields["MemAvailable"].split()[0]) * 1024)
    for limit, usage in _CGROUPS:
        try:
            free.append(int(Path(limit).read_text()) - int(Path(usage).read_text()))
        except (OSError, ValueError):  # absent, or the word "max"
            continue
    if not free:
        try:
            free.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        except (AttributeError, OSError, ValueError):
            return None
    return max(min(free), 0)


def require_memory(needed: float, arithmetic: str, fix: str) -> None:
    """Refuse work that cannot fit.

    Parameters
    ----------
    needed
        Bytes.
    arithmetic
        Where that number comes from, for the message: "512 x 512 cells x 2000 genes x 4 bytes".
    fix
        What the user can do instead.

    Raises
    ------
    MemoryError
        If ``needed`` exceeds :func:`available_memory`.
    """
    free = available_memory()
    if free is not None and needed > free:
        raise MemoryError(
            f"Expected a job that fits the {free / 2**30:.1f} GiB of memory that are free, "
            f"found one of {needed / 2**30:.1f} GiB ({arithmetic}); {fix}"
        )
