"""How much memory there is, so that a job too large for it is refused before it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


def available_memory() -> int | None:
    """Bytes that a new allocation may take: what the kernel says is free, within the limits of container and process.

    Returns
    -------
    int or None
        None where the system does not tell (then nothing is refused).
    """
    free = [*_of_cgroups(), *_of_process()]
    fields = _fields(_PROC / "meminfo")
    if "MemAvailable" in fields:
        free.append(fields["MemAvailable"])
    if not free:
        try:
            free.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        except (AttributeError, OSError, ValueError):
            return None
    return max(min(free), 0)


def resident_memory() -> int:
    """Bytes of memory that this process has now; the most that it had, or 0, where the system does not tell."""
    fields = _fields(_PROC / "self" / "status")
    if "VmRSS" in fields:
        return fields["VmRSS"]
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _fields(path: Path) -> dict[str, int]:
    """Bytes by name, of a file that the kernel writes in kB."""
    if not path.is_file():
        return {}
    lines = (line.split(":", 1) for line in path.read_text().splitlines() if line.endswith(" kB"))
    return {name: int(value.split()[0]) * 1024 for name, value in lines}


def _of_cgroups() -> Iterator[int]:
    """What is left of the limits of this process's control group and of the groups around it."""
    groups = _PROC / "self" / "cgroup"
    for line in groups.read_text().splitlines() if groups.is_file() else ():
        _, kind, path = line.split(":", 2)
        if kind and "memory" not in kind.split(","):
            continue
        top = _CGROUPS / "memory" if kind else _CGROUPS
        limit, usage, cached = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if kind
            else ("memory.max", "memory.current", "inactive_file")
        )
        here = top / path.lstrip("/")
        for group in (here, *here.parents):
            if not group.is_relative_to(top):
                break
            try:
                stat = dict(one.split() for one in (group / "memory.stat").read_text().splitlines())
                used = int((group / usage).read_text()) - int(stat[cached])  # the kernel gives cached files up
                yield int((group / limit).read_text()) - used
            except (OSError, ValueError, KeyError):  # no such group here, no limit (the word "max")
                continue


def _of_process() -> Iterator[int]:
    """What is left of the limits of the process itself (``ulimit -v``, ``ulimit -d``)."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    fields = _fields(_PROC / "self" / "status")
    for limit, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY and name in fields:
            yield most - fields[name]


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
