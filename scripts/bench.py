"""How fast is h2a-batch, beside its generator alone and beside the loop that one would write without it?

Three programs convert the same photos, in turn, several rounds in one run, each timed as a whole process:

generator   as many one-thread generators as h2a-batch uses, fed from memory: no files, the upper bound
h2a-batch   the command: reading, batches, writing, ledger
plain loop  one MindSpore Lite model with all cores as its threads: open, resize, predict, save, the next

"In all" includes start-up and the loading of the model. "Running" does not: each program also converts a tenth of the
photos, and the difference in photos is divided by the difference in seconds. The ratios are taken round by round, so
that a machine whose speed drifts does not tilt them.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from h2a_batch.card import find_model
from h2a_batch.generator import Generator
from h2a_batch.image import decode
from h2a_batch.machine import available_cores

ROOT = Path(__file__).resolve().parent.parent
FACES = ROOT.parent / "shared" / "photos" / "faces"
PROGRAMS = ("generator", "h2a-batch", "plain loop")


def run_generator(photos: list[Path], count: int, model: str) -> None:
    """One-thread generators, one a core, on as many pictures as there are photos; only a few are read."""
    generators = [Generator(model, device="cpu") for _ in range(available_cores())]
    side = generators[0].card.input
    pixels = [decode(photo, (side.width, side.height), "pad", "model").pixels for photo in photos]
    waiting = iter(range(count))

    def work(generator: Generator) -> None:
        for number in waiting:  # next() of a range iterator is atomic
            generator.paint([pixels[number % len(pixels)]])

    threads = [threading.Thread(target=work, args=(generator,)) for generator in generators]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def run_plain_loop(photos: list[Path], model: str, out: Path) -> None:
    """What one would write in ten minutes."""
    import mindspore_lite as lite

    context = lite.Context()
    context.target = ["cpu"]
    context.cpu.thread_num = available_cores()
    generator = lite.Model()
    generator.build_from_file(str(find_model(model)), lite.ModelType.MINDIR, context)
    inputs = generator.get_inputs()
    for photo in photos:
        image = Image.open(photo).convert("RGB").resize((256, 256), Image.Resampling.LANCZOS)
        tensor = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
        inputs[0].set_data_from_numpy(np.ascontiguousarray(tensor))
        result = generator.predict(inputs)[0].get_data_to_numpy()[0]
        painted = ((result.transpose(1, 2, 0) + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
        Image.fromarray(painted).save(out / f"{photo.stem}.png")


def measure(program: str, folder: Path, model: str) -> tuple[float, float]:
    """One program in a process of its own: seconds, and peak memory in MB."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        if program == "h2a-batch":
            command = [sys.executable, "-m", "h2a_batch", str(folder), out, "-q", "--model", model]
        else:
            command = [sys.executable, __file__, "--only", program, "--model", model, str(folder), out]
        start = time.perf_counter()
        process = subprocess.Popen(command, env={**os.environ, "GLOG_v": "4"})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{program} ended with exit code {process.returncode}")
    return seconds, usage.ru_maxrss / 1024


def compare(few: Path, many: Path, model: str, rounds: int) -> None:
    """Measure all three, in turn, and print the table."""
    less, more = len(os.listdir(few)), len(os.listdir(many))
    print(f"{describe_machine()}\n{more} photos, {rounds} rounds, model {model}\n")
    whole: dict[str, list[float]] = {program: [] for program in PROGRAMS}
    running: dict[str, list[float]] = {program: [] for program in PROGRAMS}
    memory = dict.fromkeys(PROGRAMS, 0.0)
    for number in range(rounds):
        for program in PROGRAMS:
            short, _ = measure(program, few, model)
            seconds, memory[program] = measure(program, many, model)
            whole[program].append(more / seconds)
            running[program].append((more - less) / (seconds - short))
            print(f"round {number + 1}: {program} {short:.1f} s and {seconds:.1f} s", file=sys.stderr)
    print("| photos/s | in all | running | h2a-batch, in all | h2a-batch, running | peak memory |")
    print("| --- | --- | --- | --- | --- | --- |")
    for program in PROGRAMS:
        rates = f"{statistics.median(whole[program]):.1f} | {statistics.median(running[program]):.1f}"
        ratios = " | ".join(_ratio(rate["h2a-batch"], rate[program]) for rate in (whole, running))
        print(f"| {program} | {rates} | {ratios} | {memory[program]:.0f} MB |")


def _ratio(ours: list[float], theirs: list[float]) -> str:
    """Ours over theirs, round by round: the median, and between which values all lie."""
    ratios = [own / other for own, other in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def describe_machine() -> str:
    """Processor, cores that this process may use, Python, MindSpore Lite."""
    import mindspore_lite

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    version = getattr(mindspore_lite, "__version__", "?")
    return f"{name}, {available_cores()} cores, Python {platform.python_version()}, MindSpore Lite {version}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="?", type=Path, default=FACES if FACES.is_dir() else ROOT / "tests" / "photos")
    parser.add_argument("out", nargs="?", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=600, help="photos to convert; the folder's are repeated (600)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each program runs (3)")
    parser.add_argument("--model", default="anime-256", help="as for h2a-batch")
    parser.add_argument("--only", choices=PROGRAMS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    files = sorted(path for path in given.photos.iterdir() if path.suffix.lower() in (".jpg", ".png"))
    if given.only == "generator":
        run_generator(files[:32], len(files), given.model)
    elif given.only:
        run_plain_loop(files, given.model, given.out)
    elif not files:
        sys.exit(f"{given.photos}: no photos there")
    else:
        with tempfile.TemporaryDirectory() as place:
            few, many = (_fill(Path(place, str(count)), files, count) for count in (given.count // 10, given.count))
            compare(few, many, given.model, given.rounds)


def _fill(folder: Path, files: list[Path], count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:05d}.jpg").symlink_to(files[number % len(files)].resolve())
    return folder


if __name__ == "__main__":
    main()
