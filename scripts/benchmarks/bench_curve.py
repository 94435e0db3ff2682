"""What a file costs when there are many: h2a-batch on 100 to 100,000 small photos, and again when all are finished.

    scripts/bench_curve                             100, 1,000, 10,000 and 100,000 files, to the screen
    scripts/bench_curve --write docs/benchmarks.md  and put the table into the page

The photos are made for this: 32x32 JPEGs of 1 to 5 kB, all different, a thousand in a folder, converted with --faces
off. The model is tiny, so that what files, scanning and the ledger cost is what there is to see; the shipped model runs
on fewer (--shipped), and the share of scanning and ledger is that of the processor time that a file takes with it.

The main thread scans, claims names, keeps the ledger and hands photos over, and does nothing else: "scan and ledger" is
its processor time, from the first result to the end of the run with its report.csv. "In all" is that of all threads,
from the photo at which a fifth is done. Memory is that of the process. It takes some ten minutes, most of them for the
100,000 files: every output is made sure to be on the disk. They need 1 GB in the folder for temporary files (TMPDIR).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from bench_page import busy, describe_machine, peak_memory, table, today, verdict, write_part  # noqa: E402
from bench_peers import PeersError, graphs  # noqa: E402
from bench_photos import fill_small  # noqa: E402
from composites import portraits  # noqa: E402

from h2a_batch import convert_folder  # noqa: E402
from h2a_batch.errors import H2AError  # noqa: E402
from h2a_batch.inference import find_model  # noqa: E402

COUNTS = (100, 1_000, 10_000, 100_000)
FEWEST = 1_000  # files of a run that the longest is compared with: in a shorter one starting up takes most of the time
FLAT, SHARE, SECONDS = 1.1, 0.02, 60.0  # the goals: growth at most, share of a file's processor time, of a second run
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
        "memory": [tenth[3], end[3], peak_memory()],
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
    tiny = [run for run in runs if run["title"] == "tiny"]
    shipped = max((run for run in runs if run["title"] != "tiny"), key=lambda run: run["count"], default=None)
    rows = []
    for run in runs:
        tenth, end, peak = (f"{value:.0f}" for value in run["memory"])
        times = (f"{run['file']:.2f} ({run['first']:.2f}, {run['last']:.2f})", f"{run['process']:.2f}")
        again = run["again"]
        second = (f"{again['seconds']:.1f} s", f"{again['main']:.2f}", f"{again['memory'][2]:.0f} MB")
        rows.append(
            (run["title"], f"{run['count']:,}", *times, f"{run['main']:.2f}", f"{tenth}, {end}; {peak}", *second)
        )
    head = ("model", "files", "ms a file (first tenth, last)", "processor, in all", "scan and ledger")
    more = ("MB at a tenth, at the end; peak", "second run", "its processor", "its peak")
    text = f"{today()}. {describe_machine()}. Other programs kept {before:.0%} of the cores busy before the start."
    return "\n\n".join(filter(None, (text, goal_table(tiny, shipped), table((*head, *more), rows))))


def goal_table(tiny: list[Figures], shipped: Figures | None) -> str:
    """What was wanted of the longest run, and what came out."""
    most, before = tiny[-1], next((run for run in tiny[-2:-1] if run["count"] >= FEWEST), None)
    files, lines = f"{most['count']:,}", list[tuple[str, ...]]()

    def line(what: str, wanted: float, found: float, form: str = ".2f", unit: str = "") -> None:
        shown = f"{found:{form}}{unit}"
        lines.append((what, f"{wanted:{form}}{unit}", shown, verdict(found, wanted, at_most=True)))

    if before:
        what = f"processor time of a file, at {files} over at {before['count']:,}"
        line(what, FLAT, most["process"] / before["process"])
    line(f"memory of {files} files, at the end over at a tenth", FLAT, most["memory"][1] / most["memory"][0])
    if shipped:
        what = f"scan and ledger at {files}, of the {shipped['process']:.1f} ms of a file with the shipped model"
        line(what, SHARE, most["main"] / shipped["process"], ".1%")
    line(f"second run over {files} finished files", SECONDS, most["again"]["seconds"], ".0f", " s")
    return table(("what", "at most", "measured", "goal"), lines)


def _resident() -> float:
    """MB of memory that this process has now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def curve(given: argparse.Namespace) -> str:
    """All runs, as the part of the page.

    Raises:
        PeersError, ModelError: there is no tiny model, or no shipped one.
    """
    before, runs = busy(), list[Figures]()
    models = {"tiny": str(graphs(find_model(given.model)) / "tiny.mindir"), given.model: given.model}
    for title, model in models.items():
        for count in sorted(given.counts):
            if title == "tiny" or count <= given.shipped:
                with tempfile.TemporaryDirectory() as place:
                    runs.append(measure_twice(model, title, count, Path(place)))
    return describe(runs, before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS, help="files of the runs with the tiny model")
    parser.add_argument("--shipped", type=int, default=1_000, help="the most with the shipped model (%(default)s)")
    parser.add_argument("--model", default="anime-256", help="the model that is shipped (%(default)s)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    parser.add_argument("--run", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        run_here(given.run[0], given.run[1], given.model)
        return
    if min(given.counts) < 50:
        parser.error("--counts: at least 50, for tenths to be told apart")
    if given.write and not os.access(given.write, os.R_OK | os.W_OK):
        parser.error(f"--write {given.write}: no such page, or it cannot be written")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was made is removed
    try:
        text = curve(given)
    except (PeersError, H2AError) as error:
        sys.exit(f"bench_curve: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(text)
    if given.write:
        write_part(given.write, "scripts/bench_curve", text)


if __name__ == "__main__":
    main()
