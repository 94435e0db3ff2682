"""Makes the graphs that `scripts/bench` and `scripts/bench_curve` run; a Python with MindSpore and onnx runs this.

    bench_models.py MODEL.mindir FOLDER

FOLDER/shipped.onnx     the network that MODEL's card names, with random weights, which take as long as trained ones
FOLDER/shipped.mindir   the same for MindSpore Lite
FOLDER/resnet-9.onnx    the generator of the reference project's size: 9 residual blocks, ngf 64, random weights
FOLDER/resnet-9.mindir  the same for MindSpore Lite
FOLDER/tiny.mindir      32x32 pixels in, next to no work: with it a run costs what files and ledger cost

ONNX gets the networks as they are trained, with InstanceNormalization and ConvTranspose as single operators: the form
that `python -m train export --onnx` writes. A MINDIR holds the inference form (train/export/inference).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("GLOG_v", "3")

from mindspore import nn, set_seed  # noqa: E402

from h2a_batch.places import replacing  # noqa: E402
from train.export import inference_form, mindir_bytes, onnx_bytes  # noqa: E402
from train.networks import build_generator  # noqa: E402

TINY = {"channels": (4, 8, 8), "blocks": 1, "last": 4}


def untrained(model: Path) -> tuple[nn.Cell, tuple[int, ...]]:
    """The generator that a model's card names, with weights of the seed; and the shape of its input."""
    card = json.loads(model.with_suffix(".json").read_text())
    generator = build_generator(card["generator"]["network"], **card["generator"].get("options", {}))
    side = card["input"]
    return generator, (1, 3, side["height"], side["width"])


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)


def main() -> None:
    model, folder = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    set_seed(1)
    resnet, tiny = build_generator("resnet-9"), build_generator("fast", **TINY)
    _write(folder / "resnet-9.mindir", mindir_bytes(inference_form(resnet), (1, 3, 256, 256)))
    _write(folder / "tiny.mindir", mindir_bytes(inference_form(tiny), (1, 3, 32, 32)))
    generator, shape = untrained(model)
    _write(folder / "shipped.mindir", mindir_bytes(inference_form(generator), shape))
    # onnx only after MindSpore's own exports, see train/export/onnx_export.py
    _write(folder / "resnet-9.onnx", onnx_bytes(resnet, (1, 3, 256, 256), "resnet-9", {}))
    _write(folder / "shipped.onnx", onnx_bytes(generator, shape, model.stem, {}))


if __name__ == "__main__":
    main()
