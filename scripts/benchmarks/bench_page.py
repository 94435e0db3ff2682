"""What the benchmarks share: the machine in words, ratios of rounds, and their parts of docs/benchmarks.md."""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
import time
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from h2a_batch.machine import available_cores
from h2a_batch.places import replacing

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"


def describe_machine() -> str:
    """Processor, cores that this process may use, memory, and what runs on it."""
    info, memory = Path("/proc/cpuinfo"), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    widest = next((flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if flag in flags), "no AVX")
    versions = f"Python {platform.python_version()}, Pillow {metadata.version('pillow')}"
    return f"{name} ({widest}), {available_cores()} cores, {memory:.0f} GB of memory, {versions}"


def busy(seconds: float = 2.0) -> float:
    """The share of the machine's cores that other programs keep busy just now."""

    def read() -> tuple[int, int]:
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(fields), fields[3] + fields[4]  # all; idle and waiting for a disk

    before, idle_before = read()
    time.sleep(seconds)
    after, idle = read()
    return 1 - (idle - idle_before) / max(1, after - before)


def today() -> str:
    """The date of a run, as it stands on the page."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%d %B %Y").lstrip("0")


def peak_memory(process: int | str = "self") -> float:
    """MB of memory that a process has had at most, 0 when it has ended; `getrusage` would also count its parent's."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours over theirs, round by round, so that a machine whose speed drifts does not tilt them."""
    return [own / other for own, other in zip(ours, theirs, strict=True)]


def verdict(found: float, wanted: float, at_most: bool = False) -> str:
    """Whether a goal is met, and if not, how far it is away."""
    if found <= wanted if at_most else found >= wanted:
        return "met"
    return f"missed by {abs(found / wanted - 1):.0%}"


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """The median, and between which values all lie."""
    middle, low, high = (format(value, form) for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def write_part(page: Path, name: str, text: str) -> None:
    """Put a text between the page's marks of this name, in place of what was there; the rest of the page stays."""
    start, end = f"<!-- {name}: written by a command -->", f"<!-- end of {name} -->"
    old = page.read_text(encoding="utf-8") if page.exists() else f"# Benchmarks\n\n{start}\n{end}\n"
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    part = f"{start}\n{text.strip()}\n{end}"
    new = pattern.sub(lambda found: part, old) if pattern.search(old) else f"{old.rstrip()}\n\n{part}\n"
    with replacing(page) as file:
        file.write(new.encode())
