"""How much memory is free, in a container too."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch


def bytes_free(device: str) -> float:
    """Bytes that are free on a device; infinite where nobody tells."""
    if device.startswith("cuda"):
        place = torch.device(device).index  # None is the current one
        free, _ = torch.cuda.mem_get_info(place)
        # What torch holds ready is free, too.
        held = torch.cuda.memory_reserved(place)
        return free + held - torch.cuda.memory_allocated(place)
    return max(0.0, min([_available(), *_left_in_groups()]))


def _available(told: Path = Path("/proc/meminfo")) -> float:
    """What Linux says can be had without swapping."""
    try:
        for line in told.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return 1024 * float(value.split()[0])
    except (OSError, ValueError):  # another system
        pass
    return math.inf


# Of the two versions of control groups: limit, use, and what of it can be given back.
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def _left_in_groups(
    told: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[float]:
    """What is left of the memory of each control group that this process is in."""
    try:
        lines = told.read_text().splitlines()
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
        for place in (folder, *folder.parents):
            yield _left(place, *_FILES[version])
            if place == top:
                break


def _left(folder: Path, limit: str, use: str, idle: str) -> float:
    """Bytes left of the limit of a control group; infinite without one."""
    try:
        most = float((folder / limit).read_text())
        used = float((folder / use).read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
        stat = dict(line.split() for line in lines)
        return most - used + float(stat.get(idle, 0))
    except (OSError, ValueError):  # no such file, or "max"
        return math.inf


def too_large(needed: float, free: float) -> str:
    """Why a trial is not begun."""
    return f"needs about {_in_words(needed)} of memory, {_in_words(free)} are free"


def _in_words(n_bytes: float) -> str:
    size, unit = (n_bytes / 1e9, "GB") if n_bytes >= 1e9 else (n_bytes / 1e6, "MB")
    return f"{size:.1f} {unit}" if size < 10 else f"{size:,.0f} {unit}"
