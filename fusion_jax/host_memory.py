"""How much memory this machine can still give this process, limits of its container included. Linux; no jax."""

from __future__ import annotations

import os
import pathlib
import shutil
from typing import NamedTuple

_NO_LIMIT = 1 << 60  # cgroups of version 1 write about this much where there is none


class Memory(NamedTuple):
    """Bytes: what there is in all, and what can still be had."""

    total: int
    available: int


def ram(root: pathlib.Path = pathlib.Path("/")) -> Memory | None:
    """The RAM for this process: the machine's or, where that is less, what its control groups leave; None off Linux.

    Args:
      root: where the file system begins.
    """
    try:
        told = dict(line.split(":") for line in (root / "proc/meminfo").read_text().splitlines())
        total, available = (1024 * int(told[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return None
    for folder, names in _control_groups(root):
        limit, used, reclaimable = (_number(folder, name) for name in names)
        if limit is not None and limit < _NO_LIMIT:
            total = min(total, limit)
            available = min(available, max(0, limit - (used or 0) + (reclaimable or 0)))
    return Memory(total, available)


def disk(folder: pathlib.Path) -> Memory:
    """The file system that holds a folder, or would hold it once it is made. Raises OSError."""
    there = pathlib.Path(os.path.abspath(folder))
    while not there.exists() and there != there.parent:
        there = there.parent
    usage = shutil.disk_usage(there)
    return Memory(usage.total, usage.free)


def _control_groups(root: pathlib.Path) -> list[tuple[pathlib.Path, tuple[str, str, str]]]:
    """The folders of this process's groups and of those around them, with what each calls its limit and its use."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        own = pathlib.PurePosixPath(path.lstrip("/"))  # inside a container the path may be the host's: then the root
        found += [(base / part, names) for part in (own, *own.parents)]
    return found


def _number(folder: pathlib.Path, name: str) -> int | None:
    """A group's number: a file's content, or a line of memory.stat; None where there is none, or no limit."""
    try:
        if name.startswith("memory."):
            return int((folder / name).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return int(stat[name])
    except (OSError, ValueError, KeyError):
        return None
