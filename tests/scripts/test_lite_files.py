"""Bad model files: each is a clear exception, and the process goes on. A child for each: it might not."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from lite_support import ConvTanh, message, run_python

pytest.importorskip("mindspore_lite", exc_type=ImportError)

BUILD = """
import sys
import mindspore_lite as lite
for path in sys.argv[2:]:
    try:
        if sys.argv[1] == "runner":
            lite.ModelParallelRunner().build_from_file(path)
        else:
            lite.Model().build_from_file(path, lite.ModelType[sys.argv[1]])
        print("built")
    except RuntimeError as error:
        print(" ".join(str(error).split()))
"""
GOOD = ConvTanh().mindir()
NOISE = random.Random(0).randbytes(5000)
PNG = b"\x89PNG\r\n\x1a\n" + NOISE

CASES = {
    "empty": (b"", "it is empty"),
    "one byte": (b"\0", "it is not a MINDIR"),
    "zeros": (bytes(10_000), "it is not a MINDIR"),
    "ones": (b"\xff" * 5000, "it is not a MINDIR"),
    "noise": (NOISE, "it is not a MINDIR"),
    "text": (b"hello world\n" * 100, "it is not a MINDIR"),
    "PNG": (PNG, "it is not a MINDIR"),
    "ONNX": (
        message((1, 8), (2, "pytorch"), (3, "2.1.0"), (7, message((2, "main_graph")))),
        "it is not a MINDIR",
    ),
    "only a header": (message((1, "0.1.1"), (2, "MindSpore")), "damaged or truncated"),
    "cut in the header": (GOOD[:12], "damaged or truncated"),
    "cut in the middle": (GOOD[: len(GOOD) // 2], "damaged or truncated"),
    "cut in the last byte": (GOOD[:-1], "damaged or truncated"),
    "grown": (GOOD + b"\x0a\xff", "damaged or truncated"),
    "version 2": (
        ConvTanh().mindir(version=2),
        "it has mind_ir_version 2, MindSpore Lite 2.0.0 reads up to 1",
    ),
    "version 3": (
        ConvTanh().mindir(version=3),
        "it has mind_ir_version 3, MindSpore Lite 2.0.0 reads up to 1",
    ),
    "no operators": (message((1, "0.1.1"), (7, message((2, "g"))), (13, 1)), "cannot build it"),
    "an unknown operator": (GOOD.replace(b"Tanh", b"Tonh"), "cannot build it"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_content(name: str, tmp_path: Path) -> None:
    content, reason = CASES[name]
    path = tmp_path / "bad ü.mindir"
    path.write_bytes(content)
    answer = run_python(BUILD, "MINDIR", path)
    assert reason in answer and str(path) in answer, answer
    assert answer.count("\n") == 1


def test_bad_paths(tmp_path: Path) -> None:
    link = tmp_path / "loop.mindir"
    link.symlink_to(link)
    answers = run_python(BUILD, "MINDIR", tmp_path / "none.mindir", tmp_path, "/dev/null", link).splitlines()
    assert "does not exist" in answers[0]
    assert "it is not a file" in answers[1] and "it is not a file" in answers[2]
    assert "does not exist" in answers[3]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = ConvTanh().write(tmp_path / "secret.mindir")
    path.chmod(0)
    assert "Permission denied" in run_python(BUILD, "MINDIR", path)


def test_lite_model_type_wants_a_lite_model(tmp_path: Path) -> None:
    paths = [tmp_path / "noise.ms", tmp_path / "good.mindir"]
    paths[0].write_bytes(NOISE)
    paths[1].write_bytes(GOOD)
    assert run_python(BUILD, "MINDIR_LITE", *paths).count("it is not a MindSpore Lite (.ms) model") == 2


def test_runner_checks_files_too(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.mindir" for number in range(3)]
    for path, content in zip(paths, (b"", NOISE, GOOD[:-1]), strict=True):
        path.write_bytes(content)
    answers = run_python(BUILD, "runner", *paths).splitlines()
    assert "it is empty" in answers[0] and "it is not a MINDIR" in answers[1] and "damaged" in answers[2]


def test_the_good_file_is_good_after_the_bad_ones(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.mindir" for number in range(4)]
    for path, content in zip(paths, (NOISE, GOOD[:-1], CASES["an unknown operator"][0], GOOD), strict=True):
        path.write_bytes(content)
    assert run_python(BUILD, "MINDIR", *paths).splitlines()[-1] == "built"


@pytest.mark.slow
def test_cut_anywhere(tmp_path: Path) -> None:
    paths = []
    for length in sorted(random.Random(1).sample(range(1, len(GOOD)), 200)):
        paths.append(tmp_path / f"{length}.mindir")
        paths[-1].write_bytes(GOOD[:length])
    answers = run_python(BUILD, "MINDIR", *paths).splitlines()
    assert len(answers) == 200 and "built" not in answers
