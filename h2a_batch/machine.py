"""The cores and the memory that this machine, or this container's share of it, can give."""

from __future__ import annotations

import errno
import math
import os
import re
import resource
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
# as Pillow, MindSpore Lite, C++ and Python's threads say it
_LACK = re.compile(
    r"out of memory|bad_alloc|malloc (\w+ )*failed|(allocate|create|not enough|lack of) memory|start new thread", re.I
)


def available_cores() -> int:
    """Return the number of cores that this process may use, at least 1: its affinity mask and CPU quota limit them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(cores, math.ceil(quota)) if quota else cores)


def available_memory() -> int:
    """Return the number of free bytes of memory of this machine or container; 1 TiB where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        free = 1 << 40
    return max(0, min([free, *_cgroup_memory(), *_limited_memory()]))


def used_addresses() -> tuple[int, int]:
    """Return the bytes of addresses that this process uses: all, and those for data; 0 where the system does not say.

    The limits that ``ulimit -v`` and ``ulimit -d`` set are about these two.
    """
    try:
        pages = Path("/proc/self/statm").read_text().split()
        return int(pages[0]) * os.sysconf("SC_PAGE_SIZE"), int(pages[5]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0, 0


def _limited_memory() -> list[int]:
    """Return the bytes that are left below each limit that a shell or a service set for this process."""
    soft = [resource.getrlimit(limit)[0] for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return [most - used for most, used in zip(soft, used_addresses(), strict=True) if most != resource.RLIM_INFINITY]


def lacks_memory(error: BaseException | None) -> bool:
    """Tell whether an error, or one that caused it, says that the machine gave no memory."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if isinstance(error, MemoryError) or number == errno.ENOMEM:
            return True
        if isinstance(error, RuntimeError | OSError) and number is None and _LACK.search(str(error)):
            return True
        error = error.__cause__
    return False


def _cgroup_memory(root: Path = _CGROUP, own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Return the bytes that are left below each memory limit of this process's control groups (version 2)."""
    left = []
    for group in _own_groups(root, own):
        try:
            left.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
        except (OSError, ValueError):  # no limit is written "max"
            continue
    return left


def _cgroup_quota(root: Path = _CGROUP, own: Path = Path("/proc/self/cgroup")) -> float | None:
    """Return the smallest CPU quota of this process's control groups, in cores; None without a quota."""
    quotas = [_quota_v2(group) for group in _own_groups(root, own)]
    quotas.append(_quota_v1(root / "cpu"))
    return min((quota for quota in quotas if quota), default=None)


def _own_groups(root: Path, own: Path) -> list[Path]:
    """Return this process's control group (version 2) and its parents; in a container usually the root alone."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return [root]
    path = next((line[3:] for line in lines if line.startswith("0::")), "/")
    group = root / path.lstrip("/")
    return [folder for folder in (group, *group.parents) if folder == root or root in folder.parents]


def _quota_v2(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(group: Path) -> float | None:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        period = int((group / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None
    except (OSError, ValueError):
        return None
