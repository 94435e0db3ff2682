"""How fast are the generator and h2a-batch, beside other runtimes and beside the loop that one would write without it?

    scripts/bench                             everything, five rounds, to the screen
    scripts/bench --write docs/benchmarks.md  and put the tables into the page

All contenders take turns, round after round, every second round in reverse, each in a process of its own; ratios are
taken round by round and their median is shown, with the lowest and the highest. It takes a quarter of an hour on two
cores; keep the machine idle meanwhile. Ctrl-C ends it after the last complete round, and that is shown.

generators  one graph on pictures in memory, float32 in and out, no files: the shipped model on MindSpore Lite, ONNX
            Runtime and OpenVINO, and the size of generator that the reference project has (ResNet-9, ngf 64). Each
            runtime is tried in every threading mode first and runs in its fastest.
files       the command `h2a-batch IN OUT` on 512x512 and on 12-megapixel JPEGs, made for this, with --faces off and as
            it comes; and plain loops in the manner of AnimeGAN's script: open, resize, run, save, the next.

"In all" counts the whole process with start-up and loading, "running" from the photo at which a fifth is done. The
processor time of a picture is less disturbed by other work on the machine than the rate is.
ONNX Runtime and OpenVINO are installed into build/bench by themselves; without a network they are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from bench_page import busy, describe_machine, peak_memory, ratios, spread, table, today, verdict, write_part  # noqa: E402
from bench_peers import PeersError, graphs, peers_python  # noqa: E402
from bench_photos import fill, large_photos, squares  # noqa: E402
from bench_worker import MODES, RUNTIMES, SIDE  # noqa: E402
from composites import portraits  # noqa: E402

from h2a_batch.errors import H2AError  # noqa: E402
from h2a_batch.inference import card_of, find_model  # noqa: E402
from h2a_batch.machine import available_cores  # noqa: E402

WORKER = str(ROOT / "scripts" / "benchmarks" / "bench_worker.py")
MAX_DIFFERENCE = 2e-3  # between two runtimes' answers in float32, in [-1, 1]; as in train/export/generator.py
TITLES = {
    "lite": "MindSpore Lite",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO float32",
    "openvino-bf16": "OpenVINO bfloat16",
}
OWN = Path(sys.executable)
TRIAL_SECONDS = 2.0  # of a threading mode
PATIENCE = 120.0  # seconds for a runtime to load a graph
PEOPLE, LARGE_PHOTOS = 12, 4  # different photos; links repeat them
KINDS = {"512": "512x512", "12 MP": "12 megapixels"}
SHARE = 2  # of the photos of 512x512 there are so many for a large one, or one of the plain loops


@dataclass(frozen=True)
class Sample:
    """One measurement."""

    running: float  # pictures a second
    processor: float  # milliseconds of processor time a picture, while running
    whole: float = 0.0  # pictures a second, start-up and loading included
    memory: float = 0.0  # MB, the highest


@dataclass(frozen=True)
class Peers:
    """Other runtimes: their Python, the folder of their graphs, and their names, that in bfloat16 the last."""

    python: Path
    graphs: Path
    names: list[str]


@dataclass
class Row:
    """A contender: how to measure it once, and what came out, a sample for each round."""

    measure: Callable[[], Sample]
    facts: str = ""
    samples: list[Sample] = field(default_factory=list)

    def all(self, name: str) -> list[float]:
        """A field of all samples."""
        return [getattr(sample, name) for sample in self.samples]

    def median(self, name: str) -> float:
        """The median of a field."""
        return statistics.median(self.all(name))


def rate(python: Path, runtime: str, graph: Path, mode: str, seconds: float, answer: Path | None) -> tuple[Sample, str]:
    """A graph in memory, and the runtime's version.

    Raises:
        PeersError: the runtime fails.
    """
    command = [str(python), WORKER, "rate", runtime, str(graph), "--mode", mode, "--seconds", str(seconds)]
    command += ["--threads", str(available_cores()), *(["--answer", str(answer)] if answer else [])]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=_environment(), timeout=PATIENCE + 10 * seconds
        )
    except subprocess.TimeoutExpired as error:
        raise PeersError(f"{TITLES[runtime]} on {graph.name}: no answer after {error.timeout:.0f} seconds") from error
    if done.returncode:
        reason = (done.stderr.strip() or f"it ended with exit code {done.returncode}").splitlines()[-1]
        raise PeersError(f"{TITLES[runtime]} on {graph.name}: {reason}")
    told = json.loads(done.stdout.splitlines()[-1])
    return Sample(told["rate"], told["processor"]), told["version"]


def generator_row(python: Path, runtime: str, graph: Path, given: argparse.Namespace, answer: Path) -> Row:
    """A runtime on a graph, in the threading mode that is fastest here, or in the one that was asked for."""
    modes, seconds = [mode for mode in RUNTIMES[runtime] if given.mode in (None, mode)], given.seconds
    trials, version = dict.fromkeys(modes, 0.0), ""
    for mode in (*modes, *reversed(modes)) if len(modes) > 1 else modes:  # each twice, and the better counts
        sample, version = rate(python, runtime, graph, mode, min(seconds, TRIAL_SECONDS), answer)
        trials[mode] = max(trials[mode], sample.running)
        print(f"bench: {TITLES[runtime]}, {graph.name}, {MODES[mode]}: {sample.running:.1f}/s", file=sys.stderr)
    best = max(trials, key=lambda mode: trials[mode])
    others = [f"{MODES[mode]}: {trials[mode] / trials[best]:.2f}" for mode in modes if mode != best]
    threading = f"{MODES[best]} ({'; '.join(others)})" if others else MODES[best]
    return Row(lambda: rate(python, runtime, graph, best, seconds, None)[0], f"{version} | {threading}")


def find_peers(model: Path) -> Peers | None:
    """The peers' Python, the graphs of this model for them, and which of them this processor can run."""
    try:
        python, folder = peers_python(), graphs(model)
    except PeersError as error:
        print(f"bench: the peers are left out: {error}", file=sys.stderr)
        return None
    has_bf16 = subprocess.run([str(python), WORKER, "bf16"], capture_output=True).returncode == 0
    return Peers(python, folder, [name for name in TITLES if name != "lite" and (has_bf16 or "bf16" not in name)])


def generator_rows(given: argparse.Namespace, model: Path, peers: Peers | None, place: Path) -> dict[str, Row]:
    """All runtimes on the shipped graph, and on ResNet-9 what its goal needs; a peer that fails is left out."""
    # With peers, of the weights that they have, so that the answers can be compared; they take as long as the shipped.
    graph = peers.graphs / "shipped.mindir" if peers else model
    ours = generator_row(OWN, "lite", graph, given, place / "lite.npy")
    rows: dict[str, Row] = {}
    wanted = [("", name, peers.python, peers.graphs / "shipped.onnx") for name in peers.names] if peers else []
    if peers and "resnet" in given.only:
        wanted.append(("resnet ", peers.names[-1], peers.python, peers.graphs / "resnet-9.onnx"))
        wanted.append(("resnet ", "lite", OWN, peers.graphs / "resnet-9.mindir"))
    for prefix, runtime, python, graph in wanted:
        answer = place / f"{prefix}{runtime}.npy"
        try:
            row = generator_row(python, runtime, graph, given, answer)
        except PeersError as error:
            print(f"bench: left out: {error}", file=sys.stderr)
            continue
        if not prefix:
            row.facts += f" | {difference(answer, place / 'lite.npy', runtime):.1g}"
        rows[f"{prefix}{runtime}"] = row
    return {**rows, "lite": ours}  # the last, for it to run between its peers and h2a-batch, both of which it measures


def difference(answer: Path, lite: Path, runtime: str) -> float:
    """How far an answer is from MindSpore Lite's at most; in float32 it must be the same but for rounding."""
    found = float(np.abs(np.load(answer) - np.load(lite)).max())
    if not found <= MAX_DIFFERENCE and not runtime.endswith("bf16"):
        sys.exit(f"bench: {TITLES[runtime]} differs from MindSpore Lite by {found:.2g}: it does not run the same graph")
    return found


def convert(row: Row, command: Sequence[str], photos: Path) -> Sample:
    """Convert a folder by a command that prints a line for each photo; notes the faces that were found in the row."""
    count = sum(1 for _ in photos.iterdir())
    marks, faces, memory = [], 0, 0.0  # at a fifth and at the end: seconds, and those of the processor
    with tempfile.TemporaryDirectory(dir=photos.parent) as out:
        start = time.perf_counter()
        process = subprocess.Popen([*command, str(photos), out], stdout=subprocess.PIPE, text=True, env=_environment())
        assert process.stdout is not None
        try:
            for number, line in enumerate(process.stdout, 1):
                if number in (count // 5, count):
                    marks.append((time.perf_counter(), _processor(process.pid)))
                memory = max(memory, peak_memory(process.pid))
                if line.startswith("{"):
                    told = json.loads(line)
                    faces += told.get("faces", 0)
                    if told["state"] != "converted":
                        sys.exit(f"bench: {line.strip()}")
            process.wait()
            seconds = time.perf_counter() - start
        finally:
            if process.returncode is None:  # it must not write on while its folder is removed
                process.kill()
                process.wait()
    if process.returncode or len(marks) != 2:
        sys.exit(f"bench: {' '.join(command)}: exit code {process.returncode}, not all photos were converted")
    row.facts = f"{faces / count:.1f}" if "--json" in command else "-"
    (first, before), (last, after) = marks
    done = count - count // 5
    return Sample(done / (last - first), 1e3 * (after - before) / done, count / seconds, memory)


def _processor(process: int) -> float:
    """Seconds of processor time that a process has used so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def file_rows(given: argparse.Namespace, model: Path, peers: Peers | None, place: Path) -> dict[str, Row]:
    """h2a-batch on photos of two sizes, and the plain loops."""
    people = portraits(PEOPLE)
    small, large = squares(people), large_photos(people[:LARGE_PHOTOS])
    folders = {"512": fill(place / "512", small, given.count)}
    folders["12 MP"] = fill(place / "12", large, given.count // SHARE)
    folders["loop"] = fill(place / "loop", small, given.count // SHARE)
    commands: dict[str, tuple[str, list[str]]] = {}
    for size in KINDS:
        for faces in ("off", "crop"):
            command = [str(OWN), "-m", "h2a_batch", "--json", "-q", "--device", "cpu", "--model", str(model)]
            commands[f"h2a-batch {size} {faces}"] = (size, [*command, "--faces", faces])
    loops = {"lite": (OWN, model)}
    if peers:
        loops["onnxruntime"] = (peers.python, peers.graphs / "shipped.onnx")
    for runtime, (python, graph) in loops.items():
        command = [str(python), WORKER, "loop", runtime, str(graph), "--threads", str(available_cores())]
        commands[f"loop {runtime}"] = ("loop", command)
    rows = {}
    for name, (size, command) in commands.items():
        row = rows[name] = Row(lambda: Sample(0, 0))
        row.measure = partial(convert, row, command, folders[size])
    return rows


def run_rounds(rows: dict[str, Row], rounds: int) -> int:
    """Measure all, in turn; Ctrl-C ends it after the last complete round. Gives the number of complete rounds."""
    for number in range(rounds):
        order, start = list(rows.items())[:: -1 if number % 2 else 1], time.perf_counter()
        try:
            for name, row in order:
                row.samples.append(row.measure())
                sample = row.samples[-1]
                words = f"{sample.running:.2f}/s, {sample.processor:.1f} ms of processor each"
                print(f"bench: round {number + 1}: {name}: {words}", file=sys.stderr)
            left = (time.perf_counter() - start) * (rounds - number - 1) / 60
            print(f"bench: {number + 1} of {rounds} rounds; some {left:.0f} minutes are left", file=sys.stderr)
        except KeyboardInterrupt:
            for row in rows.values():
                del row.samples[number:]
            return number
    return rounds


def generator_table(rows: dict[str, Row]) -> str:
    """Every runtime on every graph."""
    lines = []
    for prefix, graph in (("", "the shipped model"), ("resnet ", "ResNet-9, ngf 64")):
        ours = rows.get(f"{prefix}lite")
        for runtime, row in ((name, rows[prefix + name]) for name in TITLES if prefix + name in rows):
            version, threading, *difference = row.facts.split(" | ")
            share = spread(ratios(ours.all("running"), row.all("running"))) if ours and ours is not row else "-"
            title = f"{version}{', bfloat16' if runtime.endswith('bf16') else ''}"
            speeds = (f"{row.median('running'):.1f}", f"{row.median('processor'):.0f} ms")
            lines.append((graph, title, threading, *speeds, share, difference[0] if difference else "-"))
    head = ("graph", "runtime", "threads (other modes' share)", "pictures/s", "processor time", "Lite's rate over it")
    return table((*head, "difference"), lines)


def file_table(rows: dict[str, Row]) -> str:
    """h2a-batch and the loops, as shares of the generator alone."""
    lines = []
    for name, row in rows.items():
        program, _, rest = name.partition(" ")
        if program in ("h2a-batch", "loop"):
            size, _, faces = rest.rpartition(" ") if program == "h2a-batch" else ("512", "", "off")
            title = f"h2a-batch --faces {faces}" if program == "h2a-batch" else f"plain loop, {TITLES[rest]}"
            shares = [spread(ratios(row.all(which), rows["lite"].all("running"))) for which in ("running", "whole")]
            speeds = (f"{row.median('running'):.1f}", f"{row.median('whole'):.1f}", f"{row.median('processor'):.0f} ms")
            memory = f"{max(row.all('memory')):.0f} MB"
            lines.append((KINDS[size], title, *speeds, *shares, row.facts, memory))
    head = ("JPEGs", "program", "photos/s, running", "in all", "processor time", "of the generator alone, running")
    return table((*head, "in all", "faces a photo", "peak memory"), lines)


def goal_table(rows: dict[str, Row]) -> str:
    """What was wanted, and what came out; by processor time only where both keep all cores busy."""
    goals = [(f"generator, of {TITLES[name]}", "lite", name, 1.0) for name in ("onnxruntime", "openvino")]
    for name in ("openvino-bf16", "openvino"):  # the second where the processor has no bfloat16
        goals.append((f"shipped model, of {TITLES[name]} on ResNet-9", "lite", f"resnet {name}", 3.0))
    for size, wanted in (("512", 0.92), ("12 MP", 0.8)):
        for faces in ("off", "crop"):
            what = f"h2a-batch on {KINDS[size]}, --faces {faces}, of the generator alone"
            goals.append((what, f"h2a-batch {size} {faces}", "lite", wanted))
    for runtime in ("lite", "onnxruntime"):
        what = f"h2a-batch on 512x512, --faces off, of the plain loop on {TITLES[runtime]}"
        goals.append((what, "h2a-batch 512 off", f"loop {runtime}", 2.0))
    lines = []
    for what, ours, theirs, wanted in goals:
        if ours in rows and theirs in rows:
            found = ratios(rows[ours].all("running"), rows[theirs].all("running"))
            spent = ratios(rows[theirs].all("processor"), rows[ours].all("processor"))
            met = verdict(statistics.median(found), wanted)
            lines.append((what, f"{wanted:g}", spread(found), met, "-" if "loop" in theirs else spread(spent)))
    return table(("rate", "at least", "measured, running", "goal", "by processor time"), lines) if lines else ""


def describe(given: argparse.Namespace, rows: dict[str, Row], rounds: int, before: float) -> str:
    """The part of the page."""
    lite = rows["lite"].facts.partition(" | ")[0]
    loops = f"{given.count // SHARE} by the loops"
    photos = f"{given.count} photos of 512x512 ({loops}) and {given.count // SHARE} of 12 megapixels"
    text = [
        f"{today()}. {describe_machine()}, {lite}, model {given.model}. Rounds: {rounds}; {given.seconds:g} seconds of"
        f" each generator{f', {photos}' if 'files' in given.only else ''} a round."
        f" Other programs kept {before:.0%} of the cores busy before the start.",
        goal_table(rows),
        generator_table(rows),
        file_table(rows) if any(name.startswith("h2a") for name in rows) else "",
    ]
    return "\n\n".join(filter(None, text))


def _environment() -> dict[str, str]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "GLOG_v": "4", "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def measure(given: argparse.Namespace) -> str:
    """All of it, as the part of the page.

    Raises:
        PeersError, ModelError: a runtime fails, or the model does.
    """
    before, model = busy(), find_model(given.model)
    card = card_of(model)
    if card and (card.input.width, card.input.height, card.input.layout) != (SIDE, SIDE, "NCHW"):
        sys.exit(f"bench: {model}: only models of {SIDE}x{SIDE} pixels, NCHW, can be measured")
    with tempfile.TemporaryDirectory() as place:
        peers = find_peers(model)
        rows = generator_rows(given, model, peers, Path(place))
        rows |= file_rows(given, model, peers, Path(place)) if "files" in given.only else {}
        rounds = run_rounds(rows, given.rounds)
    if not rounds:
        sys.exit("bench: no round is complete")
    return describe(given, rows, rounds, before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    groups = ("files", "resnet")
    parser.add_argument("--rounds", type=int, default=5, help="times that each contender runs (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5, help="of each generator in a round (%(default)s)")
    parser.add_argument("--count", type=int, default=240, help="photos of 512x512, half as many large (%(default)s)")
    parser.add_argument("--model", default="anime-256", help="as for h2a-batch; of 256x256 (%(default)s)")
    parser.add_argument(
        "--only", nargs="*", choices=groups, default=groups, help="beside the shipped model's generators"
    )
    parser.add_argument("--mode", choices=("each",), help="one thread each for all runtimes, and no trial of others")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the tables into this page")
    given = parser.parse_args()
    if given.rounds < 1 or given.seconds < 0.5 or given.count < 40:
        parser.error("at least 1 round, 0.5 seconds and 40 photos")
    if given.write and not os.access(given.write, os.R_OK | os.W_OK):
        parser.error(f"--write {given.write}: no such page, or it cannot be written")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was made is removed
    try:
        text = measure(given)
    except (PeersError, H2AError) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(text)
    if given.write:
        write_part(given.write, "scripts/bench", text)


if __name__ == "__main__":
    main()
