"""Measure how much memory is free, also in a container."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch

from sknas._history import Cause, Fault


def bytes_free(device: str) -> float:
    """Return the bytes that are free on a device; infinite if that is unknown."""
    if device.startswith("cuda"):
        index = torch.device(device).index  # None for the current device
        free, _ = torch.cuda.mem_get_info(index)
        # Memory that torch has cached is free, too.
        cached = torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)
        return free + cached
    return max(0.0, min([_available(), *_left_in_groups()]))


def _available(path: Path = Path("/proc/meminfo")) -> float:
    """Return the bytes that are available without swapping, according to Linux."""
    try:
        for line in path.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return 1024 * float(value.split()[0])
    except (OSError, ValueError):  # another system
        pass
    return math.inf


# By version of control groups: the files of the limit and the usage, and the entry of
# memory.stat with what can be reclaimed.
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def _left_in_groups(
    path: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[float]:
    """Yield the bytes left in each control group of this process."""
    try:
        lines = path.read_text().splitlines()
    except OSError:  # another system
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "memory":
            version, top = 1, root / "memory"
        elif not controllers:
            version, top = 2, root
        else:
            continue
        folder = top / group.lstrip("/")
        for parent in (folder, *folder.parents):
            yield _left(parent, *_FILES[version])
            if parent == top:
                break


def _left(folder: Path, limit: str, usage: str, reclaimable: str) -> float:
    """Return the bytes left in a control group; infinite without a limit."""
    try:
        maximum = float((folder / limit).read_text())
        used = float((folder / usage).read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
        stat = dict(line.split() for line in lines)
        return maximum - used + float(stat.get(reclaimable, 0))
    except (OSError, ValueError):  # no such file, or "max"
        return math.inf


def too_large(needed: float, free: float) -> Fault:
    """Return the fault of a trial that is not started for lack of memory."""
    needs = f"needs about {_format(needed)} of memory, {_format(free)} are free"
    return Fault(Cause.OUT_OF_MEMORY, needs)


def _format(n_bytes: float) -> str:
    size, unit = (n_bytes / 1e9, "GB") if n_bytes >= 1e9 else (n_bytes / 1e6, "MB")
    return f"{size:.1f} {unit}" if size < 10 else f"{size:,.0f} {unit}"
