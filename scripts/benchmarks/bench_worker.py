"""One contender of `scripts/bench`, in a process of its own, so that no runtime's threads meet another's.

    bench_worker.py rate RUNTIME MODEL --mode MODE --threads N --seconds S [--answer FILE.npy]
    bench_worker.py loop RUNTIME MODEL IN OUT --threads N

`rate` runs one graph on pictures in memory, float32 (1, 3, H, W) in and out, and prints a line of JSON: pictures a
second and what ran them. `loop` is the script that one would write in ten minutes, after AnimeGAN's: open, resize, run,
save, the next; it prints a line for each photo. `bf16` tells by its exit code whether OpenVINO has bfloat16 here.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

Array = NDArray[np.float32]
Run = Callable[[Array], Array]  # one picture, (1, 3, H, W) -> the same

# How a runtime may be spread over the cores, and what that is called on the page. Lite's is how h2a-batch uses it.
MODES = {
    "each": "one-thread instances, one a core",
    "all": "one instance, all cores",
    "hint": "its own throughput hint",
}
RUNTIMES = {
    "lite": ("each",),
    "onnxruntime": ("each", "all"),
    "openvino": ("each", "all", "hint"),
    "openvino-bf16": ("each", "all", "hint"),
}
WARM_SHARE = 0.25  # of the seconds, run and not counted
SIDE = 256  # of the loop's pictures


def lite_runs(model: str, mode: str, threads: int) -> tuple[list[Run], str]:
    """MindSpore Lite by the product's own `Generator`."""
    import mindspore_lite

    from h2a_batch.inference import Generator

    count, own = (threads, 1) if mode == "each" else (1, threads)
    runs: list[Run] = [Generator(model, device="cpu", threads=own).run for _ in range(count)]
    return runs, f"MindSpore Lite {mindspore_lite.__version__}"


def onnxruntime_runs(model: str, mode: str, threads: int) -> tuple[list[Run], str]:
    """ONNX Runtime's CPU provider with all of its graph optimisations."""
    import onnxruntime

    count, own = (threads, 1) if mode == "each" else (1, threads)

    def session() -> Run:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = own, 1
        options.log_severity_level = 3
        loaded = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        name = loaded.get_inputs()[0].name
        return lambda x: loaded.run(None, {name: x})[0]

    return [session() for _ in range(count)], f"ONNX Runtime {onnxruntime.__version__}"


def openvino_runs(model: str, mode: str, threads: int, precision: str = "f32") -> tuple[list[Run], str]:
    """OpenVINO's CPU plugin, its precision named: left alone it takes bfloat16 where the processor has it."""
    import openvino

    core = openvino.Core()
    graph = core.read_model(model)
    graph.reshape([1, *(dimension.get_length() for dimension in list(graph.inputs[0].partial_shape)[1:])])
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
    if mode == "hint":
        settings["PERFORMANCE_HINT"] = "THROUGHPUT"
    else:
        settings["NUM_STREAMS"] = threads if mode == "each" else 1
    compiled = core.compile_model(graph, "CPU", settings)
    count = {"each": threads, "all": 1}.get(mode) or compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")

    def request() -> Run:
        made = compiled.create_infer_request()
        return lambda x: made.infer(x, share_inputs=True, share_outputs=True)[0]

    return [request() for _ in range(count)], f"OpenVINO {openvino.__version__.partition('-')[0]}"


def runs_of(runtime: str, model: str, mode: str, threads: int) -> tuple[list[Run], str]:
    """What runs one picture each, to be called from as many threads; and the runtime's version."""
    if runtime == "lite":
        return lite_runs(model, mode, threads)
    if runtime == "onnxruntime":
        return onnxruntime_runs(model, mode, threads)
    return openvino_runs(model, mode, threads, "bf16" if runtime.endswith("bf16") else "f32")


def rate_of(runs: list[Run], x: Array, seconds: float) -> tuple[float, float]:
    """Pictures a second, and milliseconds of processor time for each.

    Each thread counts what it finished in its own time, so that none waits for another's last.
    """
    before = time.process_time()

    def work(run: Run) -> tuple[int, float]:
        start, done = time.perf_counter(), 0
        while (spent := time.perf_counter() - start) < seconds:
            run(x)
            done += 1
        return done, done / spent

    with ThreadPoolExecutor(len(runs)) as threads:
        counts, rates = zip(*threads.map(work, runs), strict=True)
    return sum(rates), 1e3 * (time.process_time() - before) / sum(counts)


def picture(side: int) -> Array:
    """Noise as soft as a photo's, (1, 3, side, side) in [-1, 1]; the same each time."""
    coarse = np.random.default_rng(0).uniform(-1, 1, (3, side // 16, side // 16))
    return np.ascontiguousarray(np.kron(coarse, np.ones((16, 16)))[None], np.float32)


def rate(given: argparse.Namespace) -> None:
    """Print how fast a graph runs; write its answer to a known picture where a file is named."""
    runs, version = runs_of(given.runtime, given.model, given.mode, given.threads)
    x = picture(SIDE)
    answers = [np.array(run(x)) for run in runs]  # not in threads: two first calls at once may hang OpenVINO's binding
    if given.answer:
        np.save(given.answer, answers[0])
    rate_of(runs, x, WARM_SHARE * given.seconds)
    pictures, milliseconds = rate_of(runs, x, given.seconds)
    print(json.dumps({"rate": pictures, "processor": milliseconds, "version": version}))


def loop(given: argparse.Namespace) -> None:
    """Open, resize, run, save, the next; the runtime as it comes, with all cores for one picture."""
    from PIL import Image

    (run,), _ = runs_of(given.runtime, given.model, "all", given.threads)
    for photo in sorted(given.photos.iterdir()):
        image = Image.open(photo).convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        tensor = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
        result = run(np.ascontiguousarray(tensor))[0]
        painted = ((result.transpose(1, 2, 0) + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
        Image.fromarray(painted).save(given.out / f"{photo.stem}.png")
        print(photo.name, flush=True)


def bf16(given: argparse.Namespace) -> None:
    """End with 1 where the processor has no bfloat16."""
    import openvino

    sys.exit("BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("bf16").set_defaults(run=bf16)
    for name, run in (("rate", rate), ("loop", loop)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("runtime", choices=RUNTIMES)
        command.add_argument("model")
        if run is loop:
            command.add_argument("photos", type=Path)
            command.add_argument("out", type=Path)
        else:
            command.add_argument("--mode", choices=MODES, default="each")
            command.add_argument("--seconds", type=float, default=4)
            command.add_argument("--answer", type=Path)
        command.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
