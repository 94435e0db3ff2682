"""What a file costs when there are many: h2a-batch on 100 to 100,000 small photos, and again when all are finished.

    scripts/bench_curve                             100, 1,000, 10,000 and 100,000 files, to the screen
    scripts/bench_curve --write docs/benchmarks.md  and put the table into the page

The photos are made for this: 32x32 JPEGs of 1 to 5 kB, all different, a thousand in a folder, converted with --faces
off. The model is tiny, so that what files, scanning and the ledger cost is what there is to see; the shipped model runs
on fewer (--shipped), and the share of scanning and ledger is that of the processor time that a file takes with it.

The main thread scans, claims names, keeps the ledger and hands photos over, and does nothing else: "scan and ledger" is
its processor time, from the first result to the end of the run with its report.csv. Memory is that of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from bench_page import describe_machine, load, table, today, write_part  # noqa: E402
from bench_peers import PeersError, graphs  # noqa: E402
from bench_photos import fill_small  # noqa: E402
from composites import portraits  # noqa: E402

from h2a_batch import convert_folder  # noqa: E402
from h2a_batch.card import find_model  # noqa: E402

COUNTS = (100, 1_000, 10_000, 100_000)
Figures = dict[str, Any]


def run_here(photos: Path, out: Path, model: str) -> None:
    """Convert a folder in this process and print, as JSON, what it took."""
    marks: list[tuple[float, float, float, float]] = []  # at every result: wall, main thread, process, MB

    def note(result: object) -> None:
        marks.append((time.perf_counter(), time.thread_time(), time.process_time(), _resident()))

    summary = convert_folder(photos, out, model=model, device="cpu", faces="off", on_file=note)
    note(None)
    (wall, main, _, _), tenth, last, end = marks[0], marks[len(marks) // 10], marks[-len(marks) // 10], marks[-1]
    files, fifth = len(marks) - 2, len(marks) // 5  # by then the further generators are loaded
    figures = {
        "converted": summary.converted,
        "skipped": summary.skipped,
        "file": 1e3 * (end[0] - wall) / files,
        "first": 1e3 * (tenth[0] - wall) / (len(marks) // 10),
        "last": 1e3 * (marks[-2][0] - last[0]) / (len(marks) // 10 - 1),
        "main": 1e3 * (end[1] - main) / files,
        "process": 1e3 * (end[2] - marks[fifth][2]) / (files - fifth),
        "memory": [tenth[3], end[3], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024],
    }
    print(json.dumps(figures))


def measure(photos: Path, out: Path, model: str, count: int, state: str) -> Figures:
    """A run in a process of its own; `seconds` are those of the whole process."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--run", str(photos), str(out), "--model", model]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "GLOG_v": "4"})
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"bench_curve: {(done.stderr.strip() or 'the run failed').splitlines()[-1]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    if figures[state] != count:
        sys.exit(f"bench_curve: {figures[state]} of {count} files were {state}")
    return {**figures, "seconds": seconds}


def measure_twice(model: str, title: str, count: int, place: Path) -> Figures:
    """A first run over so many new files, and a second one over the finished ones."""
    photos = fill_small(place / "photos", portraits(12), count)
    first = measure(photos, place / "out", model, count, "converted")
    again = measure(photos, place / "out", model, count, "skipped")
    print(f"bench_curve: {title}, {count} files: {first}, again {again}", file=sys.stderr)
    return {**first, "again": again, "title": title, "count": count}


def describe(runs: list[Figures], before: float) -> str:
    """The part of the page."""
    shipped = max((run for run in runs if run["title"] != "tiny"), key=lambda run: run["count"], default=None)
    rows = []
    for run in runs:
        tenth, end, peak = (f"{value:.0f}" for value in run["memory"])
        times = (f"{run['file']:.2f} ({run['first']:.2f}, {run['last']:.2f})", f"{run['main']:.2f}")
        share = f"{run['main'] / shipped['process']:.1%}" if shipped else "-"
        again = run["again"]
        second = (f"{again['seconds']:.1f} s", f"{again['memory'][2]:.0f} MB")
        rows.append((run["title"], f"{run['count']:,}", *times, share, f"{tenth}, {end}; {peak} MB", *second))
    head = (
        "model",
        "files",
        "ms a file (of the first tenth, of the last)",
        "scan and ledger, ms of processor a file",
        "of a file's processor time with the shipped model",
        "memory at a tenth, at the end; peak",
        "second run",
        "its peak",
    )
    took = f" A file takes {shipped['process']:.1f} ms of processor with the shipped model." if shipped else ""
    text = f"{today()}. {describe_machine()}. Load by other work before the start: {before:.1f}.{took}"
    return f"{text}\n\n{table(head, rows)}"


def _resident() -> float:
    """MB of memory that this process has now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS, help="files of the runs with the tiny model")
    parser.add_argument("--shipped", type=int, default=1_000, help="the most with the shipped model (%(default)s)")
    parser.add_argument("--model", default="anime-256", help="the model that is shipped (%(default)s)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    parser.add_argument("--run", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        run_here(*given.run, given.model)
        return
    if min(given.counts) < 50:
        sys.exit("bench_curve: --counts: at least 50, for tenths to be told apart")
    before, runs = load(), list[Figures]()
    try:
        models = {"tiny": str(graphs(find_model(given.model)) / "tiny.mindir"), given.model: given.model}
    except PeersError as error:
        sys.exit(f"bench_curve: {error}")
    for title, model in models.items():
        for count in given.counts:
            if title == "tiny" or count <= given.shipped:
                with tempfile.TemporaryDirectory() as place:
                    runs.append(measure_twice(model, title, count, Path(place)))
    text = describe(runs, before)
    print(text)
    if given.write:
        write_part(given.write, "scripts/bench_curve", text)


if __name__ == "__main__":
    main()
