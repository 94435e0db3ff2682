"""A generator cell to `NAME.mindir`, `NAME.json` and, if wanted, `NAME.onnx`.

Everything is exported and verified, on MindSpore Lite and ONNX Runtime, before anything is written.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from mindspore.train.mind_ir_pb2 import ModelProto
from numpy.typing import NDArray
from PIL import Image, ImageOps

from h2a_batch.inference import card_of
from h2a_batch.places import replacing, sha256_of
from train.errors import TrainError
from train.export.inference import inference_form
from train.export.mindir import to_version_1
from train.export.onnx_export import OPSET, card_metadata, onnx_bytes, run_on_onnx_runtime
from train.lite import lite_version, run_on_lite
from train.networks import total_stride

Picture = NDArray[np.uint8]  # (height, width, 3), RGB
Fields = dict[str, Any]

CARD_VERSION = 1
# Largest difference allowed anywhere in an output of range [-1, 1]: half of the step between two 8-bit values, so that
# none comes out more than one step away. Lite's convolutions round more roughly than MindSpore's, and norms amplify it.
MAX_DIFFERENCE = 3.9e-3
SYNTHETIC = 4
# As much as a few float32 operations on values of 1 round away: 1/33,000 of the step between two 8-bit values.
NOISE = 2.0**-22


def export_generator(
    cell: nn.Cell, card: Fields, path: str | Path, pictures: Sequence[Picture] = (), onnx: bool = False
) -> Fields:
    """Writes the generator as `path` (.mindir) and its card beside it (.json); returns the card as written.

    `card` holds the fields that people write, `input` among them; sha256, counts and the verification are added here.
    The exported graph is `inference_form(cell)` as MINDIR version 1. On the pictures and on synthetic ones, MindSpore
    Lite's output must be within MAX_DIFFERENCE of MindSpore's forward pass of the cell itself. With `onnx`, the cell
    is also written as ONNX (.onnx), after ONNX Runtime has passed the same test. Nothing is written, and older files
    stay, when anything fails (TrainError).
    """
    path = Path(path)
    shape = input_shape(card)
    check_size(cell, shape)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder, path.name)
        draft.write_bytes(_exported(cell, shape))
        counts = {"parameters": count_parameters(cell), "macs": count_macs(cell, shape)}
        fields = {
            "card": CARD_VERSION,
            **card,
            "file": path.name,
            "sha256": sha256_of(draft),
            "generator": {**card.get("generator", {}), **counts},
        }
        draft.with_suffix(".json").write_text(json.dumps(fields))
        checked = card_of(draft)  # by the reader that will read it
        assert checked is not None
        x = checked.input.to_tensor([*synthetic_pictures(shape[3], shape[2]), *pictures])
        expected = forward_pass(cell, x)
        fields["verified"] = verified(cell, x, expected, run_on_lite(draft, x), f"MindSpore Lite {lite_version()}")
        files = {path: draft.read_bytes()}
    if onnx:
        file = path.with_suffix(".onnx")
        files[file] = onnx_bytes(cell, shape, str(card["name"]), card_metadata(card))
        agreement = verified(cell, x, expected, *run_on_onnx_runtime(files[file], x))
        digest = hashlib.sha256(files[file]).hexdigest()
        fields["onnx"] = {"file": file.name, "sha256": digest, "opset": OPSET, "verified": agreement}
    files[path.with_suffix(".json")] = (json.dumps(fields, indent=1, ensure_ascii=False) + "\n").encode()
    write_files(files)
    return fields


def _exported(cell: nn.Cell, shape: tuple[int, ...]) -> bytes:
    form = inference_form(cell)
    try:
        return mindir_bytes(form, shape)
    except TrainError:
        raise
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise TrainError(
            f"MindSpore cannot export {type(cell).__name__} for {shape[3]}x{shape[2]}: {reason}"
        ) from error


def write_files(files: Mapping[Path, bytes]) -> None:
    """In their order, the card last: a reader in between sees a sha256 that does not fit, never a wrong card."""
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(data)


def mindir_bytes(cell: nn.Cell, shape: tuple[int, ...]) -> bytes:
    """The cell as a MINDIR of version 1 for inputs of this shape; one cell gives the same bytes each time."""
    with tempfile.TemporaryDirectory() as folder:
        cell.set_train(False)
        ms.export(cell, Tensor(np.zeros(shape, np.float32)), file_name=f"{folder}/g", file_format="MINDIR")
        model = ModelProto.FromString(Path(folder, "g.mindir").read_bytes())
    data: bytes = to_version_1(model).SerializeToString(deterministic=True)
    return data


def forward_pass(cell: nn.Cell, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """MindSpore's output of the cell for (N, 3, H, W), picture by picture."""
    cell.set_train(False)
    return np.concatenate([cell(Tensor(picture[None])).asnumpy() for picture in x])


def verified(
    cell: nn.Cell, x: NDArray[np.float32], expected: NDArray[np.float32], actual: NDArray[np.float32], runtime: str
) -> Fields:
    """The card's fields of a runtime's output compared with MindSpore's forward pass; TrainError above the limit.

    A picture of one colour is left out, and counted as `left_out`, where MindSpore itself has no stable answer to it.
    """
    if expected.shape != actual.shape:
        raise TrainError(f"{runtime} returns the shape {actual.shape}, MindSpore {expected.shape}")
    differences = np.abs(expected - actual).max((1, 2, 3))
    judged = [
        bool(d <= MAX_DIFFERENCE or not np.isfinite(d)) or _is_stable(cell, p, y)
        for d, p, y in zip(differences, x, expected, strict=True)
    ]
    differences = np.where(judged, differences, 0)
    worst = int(differences.argmax())  # NaN, where there is one
    difference = float(differences[worst])
    if not difference <= MAX_DIFFERENCE:  # so that NaN fails
        raise TrainError(
            f"{runtime.rpartition(' ')[0]} differs from MindSpore by {difference:.3g}, more than {MAX_DIFFERENCE:g},"
            f" on picture {worst + 1} of {len(x)} (the first {SYNTHETIC} are synthetic)"
        )
    return {
        "runtime": runtime,
        "against": f"MindSpore {ms.__version__}",
        "max_abs_difference": float(f"{difference:.3g}"),
        "limit": MAX_DIFFERENCE,
        "pictures": sum(judged),
        **({"left_out": judged.count(False)} if not all(judged) else {}),
    }


def _is_stable(cell: nn.Cell, picture: NDArray[np.float32], y: NDArray[np.float32]) -> bool:
    """Whether noise of the size of rounding leaves the cell's answer y to (3, H, W) within the limit.

    Only pictures of one colour are asked: behind mirrored borders nothing but rounding has contrast in them, which norm
    after norm amplifies.
    """
    if np.ptp(picture, (1, 2)).any():
        return True
    noise = np.random.default_rng(0).uniform(-NOISE, NOISE, picture.shape).astype(np.float32)
    return bool(np.abs(forward_pass(cell, (picture + noise)[None])[0] - y).max() <= MAX_DIFFERENCE)


def count_parameters(cell: nn.Cell) -> int:
    """All numbers that training sets."""
    return sum(parameter.size for parameter in cell.get_parameters())


def count_macs(cell: nn.Cell, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of the convolutions in one forward pass; norms and activations are left out, as usual."""
    total = 0

    def count(conv: nn.Cell, inputs: Any, output: Any) -> None:
        nonlocal total
        # Every weight is used once a position: of the output, or of the input where the convolution is transposed.
        grid = inputs[0] if isinstance(conv, nn.Conv2dTranspose) else output
        total += conv.weight.size * grid.shape[0] * grid.shape[2] * grid.shape[3]

    convolutions = [c for _, c in cell.cells_and_names() if isinstance(c, (nn.Conv2d, nn.Conv2dTranspose))]
    hooks = [conv.register_forward_hook(count) for conv in convolutions]
    try:
        cell(Tensor(np.zeros(shape, np.float32)))
    finally:
        for hook in hooks:
            hook.remove()
    return total


def input_shape(card: Fields) -> tuple[int, int, int, int]:
    """(1, 3, height, width) of the card's input; the networks take no other layout."""
    try:
        fields = card["input"]
        shape = (1, 3, int(fields["height"]), int(fields["width"]))
        layout, order = fields["layout"], fields["order"]
    except (KeyError, TypeError, ValueError) as error:
        raise TrainError(f"the card's input is not complete: {error!r}") from error
    if layout != "NCHW" or order != "RGB" or min(shape) < 1:
        raise TrainError("the card's input must be NCHW and RGB, its width and height at least 1")
    return shape


def check_size(cell: nn.Cell, shape: tuple[int, ...]) -> None:
    """TrainError where height and width of (1, 3, height, width) are not divisible by the generator's total stride."""
    stride = total_stride(cell)
    if shape[2] % stride or shape[3] % stride:
        raise TrainError(
            f"the card's input is {shape[3]}x{shape[2]}: {type(cell).__name__} needs a width and height"
            f" divisible by {stride}"
        )


def read_pictures(folder: Path, card: Fields) -> list[Picture]:
    """All pictures of a folder, in the order of their names, cropped to the proportions of the card's input."""
    _, _, height, width = input_shape(card)
    known = Image.registered_extensions()
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in known)
    if not files:
        raise TrainError(f"{folder}: no pictures there")
    pictures = []
    for file in files:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
            pictures.append(np.asarray(ImageOps.fit(upright, (width, height), Image.Resampling.LANCZOS)))
    return pictures


def synthetic_pictures(width: int, height: int) -> list[Picture]:
    """What strains a norm: no contrast at all, sharp halves, a soft ramp, and noise with a photo's 1/f spectrum."""
    y, x = np.mgrid[0:height, 0:width]
    gray = np.full((height, width), 128.0)
    ramp = 255.0 * (x + y) / (width + height - 2)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = np.inf
    waves = np.fft.fft2(np.random.default_rng(0).standard_normal((3, height, width))) / frequency
    noise = np.real(np.fft.ifft2(waves)).transpose(1, 2, 0)
    noise = 255 * (noise - noise.min()) / np.ptp(noise)
    halves = np.where(x < width // 2, 0.0, 255.0)
    pictures = [np.repeat(plane[..., None], 3, 2) for plane in (gray, halves, ramp)] + [noise]
    assert len(pictures) == SYNTHETIC
    return [picture.astype(np.uint8) for picture in pictures]
