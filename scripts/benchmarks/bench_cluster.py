"""What a run on a Ray cluster costs: the same photos locally and on nodes of one core each, all on this machine.

    scripts/bench_cluster                       two nodes, to the screen
    scripts/bench_cluster --write docs/scale.md  and put figures, and what follows for 10 million photos, into the page

Local and cluster runs take turns, each in a process of its own, with the shipped model on portraits of 512x512. What a
photo costs the driver is then seen on many tiny photos with a tiny model, so that the driver and not the nodes is what
works. Processor times leave out start-up: they count from a tenth of the photos to the last.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from bench_page import busy, describe_machine, ratios, spread, table, today, write_part  # noqa: E402
from bench_photos import SMALL, fill, fill_small, squares  # noqa: E402
from composites import portraits  # noqa: E402
from lite_support import ConvTanh  # noqa: E402

from h2a_batch import convert_folder  # noqa: E402
from h2a_batch.convert import Result, cluster  # noqa: E402
from h2a_batch.ledger import Ledger, Output, Task, claim, claim_faces  # noqa: E402
from h2a_batch.sources import Scan, Source, scan  # noqa: E402

MANY, NODES, CORES = 10_000_000, (1, 10, 100), 2  # photos, and nodes of so many cores, of the table that is worked out
CALLS, NAMED, PARCEL = 300, 100, 4
Figures = dict[str, Any]


def run_here(photos: Path, out: Path, model: str, address: str) -> None:
    """Convert a folder in this process, on a cluster where there is an address, and print as JSON what it took."""
    marks: list[tuple[float, float, float]] = []  # at every result: wall, main thread, process

    def note(result: object) -> None:
        marks.append((time.perf_counter(), time.thread_time(), time.process_time()))

    faces = "crop" if model == "anime-256" else "off"
    summary = convert_folder(photos, out, model=model, device="cpu", faces=faces, ray=address or None, on_file=note)
    first, last = marks[len(marks) // 10], marks[-1]
    files = len(marks) - len(marks) // 10 - 1
    figures = {
        "converted": summary.converted,
        "seconds": summary.seconds,
        "rate": files / (last[0] - first[0]),
        "main": 1e3 * (last[1] - first[1]) / files,
        "process": 1e3 * (last[2] - first[2]) / files,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(figures))


def measure(photos: Path, out: Path, model: str, count: int, address: str) -> Figures:
    """`run_here` in a process of its own."""
    command = [sys.executable, __file__, "--run", str(photos), str(out), model, address]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "GLOG_v": "4"})
    if done.returncode:
        sys.exit(f"bench_cluster: {(done.stderr.strip() or 'the run failed').splitlines()[-1]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    print(f"bench_cluster: {'cluster' if address else 'local'}, {model}: {figures}", file=sys.stderr)
    if figures["converted"] != count:
        sys.exit(f"bench_cluster: {figures['converted']} of {count} photos were converted")
    return figures


@contextmanager
def cluster_of(nodes: int) -> Iterator[str]:
    """A cluster of so many nodes of one core on this machine, by its address."""
    from ray.cluster_utils import Cluster

    how: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20}
    made = Cluster(initialize_head=True, head_node_args={**how, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            made.add_node(**how)
        yield str(made.address)
    finally:
        made.shutdown()


class Echo:
    """An actor that does nothing."""

    def call(self) -> None:
        """Nothing."""


def call_time(address: str) -> float:
    """Milliseconds from an actor's call to its answer, the median."""
    import ray

    ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    try:
        echo, times = ray.remote(Echo).options(num_cpus=0).remote(), []
        for _ in range(CALLS):
            start = time.perf_counter()
            ray.get(echo.call.remote())
            times.append(1e3 * (time.perf_counter() - start))
        return median(times)
    finally:
        ray.shutdown()


def naming_time(photos: Path, out: Path) -> tuple[float, float]:
    """Milliseconds that the driver takes for the names of a photo's faces, and for a commit that makes them durable."""
    with Ledger(out, "{}") as ledger:
        found = scan([photos], Scan(suffix="", format="png", recursive=True, out=out, is_output=ledger.is_output))
        tasks = [claim(ledger, source, False, []) for source in found if isinstance(source, Source)][:NAMED]
        ledger.commit()
        named, durable = [], []
        for task in filter(None, tasks):
            start = time.perf_counter()
            claim_faces(ledger, task, 3, False, [], durable=False)
            middle = time.perf_counter()
            ledger.flush()
            named.append(1e3 * (middle - start))
            durable.append(1e3 * (time.perf_counter() - middle))
    return median(named), median(durable)


def message_bytes(photos: Path) -> int:
    """Bytes of what the driver and a node tell each other of one photo, in parcels of `PARCEL`."""
    paths = sorted(photos.rglob("*.jpg"))[:PARCEL]
    sources = [Source(path, str(path), path.with_suffix(".png").name, 50_000, 1) for path in paths]
    tasks = [Task(source, photos, source.output) for source in sources]
    results = tuple(Result(task, 0.1, "0" * 64, (Output(task.name, 100_000),)) for task in tasks)
    return (len(pickle.dumps(tasks)) + len(pickle.dumps(cluster.Report(results, room=16)))) // PARCEL


def size_of(folder: Path, pattern: str) -> int:
    """Bytes of the files below a folder whose names are like this."""
    return sum(path.stat().st_size for path in folder.rglob(pattern))


def compare(given: argparse.Namespace, place: Path) -> Figures:
    """All that is measured."""
    photos, count = fill(place / "photos", squares(portraits(60)), given.photos), given.photos
    tiny, files = fill_small(place / "tiny", portraits(12), given.files), given.files
    model = str(ConvTanh(size=SMALL).write(place / "tiny.mindir"))
    local, there = list[Figures](), list[Figures]()
    with cluster_of(given.nodes) as address:
        for number in range(given.rounds):
            turns = [("", local), (address, there)]
            for where, figures in reversed(turns) if number % 2 else turns:
                figures.append(measure(photos, place / f"out-{len(figures)}-{bool(where)}", "anime-256", count, where))
        many = measure(tiny, place / "many", model, files, address)
        call = call_time(address)
    return {
        "local": local,
        "cluster": there,
        "many": many,
        "call": call,
        "naming": naming_time(photos, place / "names"),
        "message": message_bytes(photos),
        "read": size_of(photos, "*.jpg") / count,
        "written": size_of(place / "out-0-True", "*.png") / count,
        "ledger": size_of(place / "many", "ledger.sqlite") / files,
        "table": size_of(place / "many", "report.csv") / files,
    }


def describe(found: Figures, given: argparse.Namespace, before: float) -> str:
    """The part of the page: what was measured, and what follows from it."""
    local, there = ([run["rate"] for run in found[name]] for name in ("local", "cluster"))
    named, durable = found["naming"]
    many, busiest = found["many"], max(run["process"] for run in found["cluster"])
    memory = max(run["memory"] for run in (*found["cluster"], many))
    rows = [
        (f"photos/s on {given.nodes} nodes of one core", spread(there, ".1f")),
        (f"photos/s locally, {given.cores} generators", spread(local, ".1f")),
        ("cluster over local", spread(ratios(there, local))),
        ("driver, ms of processor a photo, at this rate", f"{busiest:.2f}"),
        (f"the same at {many['rate']:.0f} photos/s (tiny model)", f"{many['process']:.2f}"),
        ("of it, the thread that scans, claims, records and hands out", f"{many['main']:.2f}"),
        ("driver, memory at most, MB", f"{memory:.0f}"),
        ("call of an actor and its answer, ms", f"{found['call']:.2f}"),
        ("names for three faces of a photo, ms", f"{named:.2f}"),
        ("commit that makes the names of all photos durable that wait for them, ms", f"{durable:.1f}"),
        ("driver and node, bytes a photo", f"{found['message']:,}"),
        ("read and written, kB a photo", f"{found['read'] / 1e3:.0f} and {found['written'] / 1e3:.0f}"),
        ("ledger and report.csv, bytes a photo", f"{found['ledger']:.0f} and {found['table']:.0f}"),
    ]
    text = f"{today()}. {describe_machine()}. {given.rounds} rounds of {given.photos} photos, then {given.files:,} "
    text += f"tiny ones. Other programs kept {before:.0%} of the cores busy before the start."
    return (
        f"{text}\n\n{table(('measured', ''), rows)}\n\n{_worked_out(found, median(there) / given.nodes, given.nodes)}"
    )


def _worked_out(found: Figures, core: float, measured: int) -> str:
    """What follows for many photos, where a core makes so many a second and so many nodes were measured.

    The driver's thread is taken to need so much for each photo, and so much for each node that it asks all the time.
    """
    photo = found["many"]["main"] / 1e3
    node = max(0.0, median(run["rate"] * (run["main"] / 1e3 - photo) for run in found["cluster"])) / measured
    rows = []
    for nodes in NODES:
        wanted, most = nodes * CORES * core, max(1.0, (1 - nodes * node) / photo)
        rate = min(wanted, most)
        hours = MANY / rate / 3600
        rows.append(
            (
                f"{nodes} of {CORES} cores",
                f"{rate:,.0f}" + (f" (the nodes alone: {wanted:,.0f})" if wanted > most else ""),
                f"{hours:,.1f} h" if hours < 72 else f"{hours / 24:,.1f} days",
                f"{hours * nodes:,.0f}",
                f"{min(1.0, rate * photo + nodes * node):.0%}",
                f"{rate * found['read'] / 1e6:,.1f} and {rate * found['written'] / 1e6:,.1f}",
                f"{2 * rate:,.0f}",
            )
        )
    head = ("nodes", "photos/s", "time", "node-hours", "the driver's one thread", "read, written, MB/s", "requests/s")
    size = MANY * (found["ledger"] + found["table"]) / 1e9
    text = (
        f"{MANY // 1_000_000} million portraits at {core:.1f} photos a second and core, where the driver's one thread "
    )
    text += f"takes {1e3 * photo:.2f} ms for a photo and {1e3 * node:.1f} ms a second for a node:"
    full, named = 1 / (CORES * core * photo + node), 1e3 / (1e3 * photo + found["naming"][0])
    after = (
        f"Ledger and report.csv grow to {size:.1f} GB, OUT to {MANY * found['written'] / 1e12:.2f} TB. The thread is "
    )
    after += (
        f"full at {full:,.0f} such nodes; where every photo has faces to name, at {named:,.0f} photos a second at most."
    )
    return f"{text}\n\n{table(head, rows)}\n\n{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=2, help="of one core each; as many as there are (%(default)s)")
    parser.add_argument("--photos", type=int, default=240, help="of 512x512, with the shipped model (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of a local and a cluster run (%(default)s)")
    parser.add_argument("--files", type=int, default=10_000, help="tiny ones, with a tiny model (%(default)s)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        photos, out, model, address = given.run
        run_here(Path(photos), Path(out), model, address)
        return
    if min(given.nodes, given.rounds) < 1 or min(given.photos, given.files) < 40:
        sys.exit("bench_cluster: at least one node, one round, and 40 photos and files")
    before, given.cores = busy(), len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as place:
        found = compare(given, Path(place))
    text = describe(found, given, before)
    print(text)
    if given.write:
        write_part(given.write, "scripts/bench_cluster", text)


if __name__ == "__main__":
    main()
