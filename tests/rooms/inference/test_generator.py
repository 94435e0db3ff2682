"""The generator and its card, on the shipped model and the real MindSpore Lite."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import PHOTOS, ROOT, Command

from h2a_batch import Generator
from h2a_batch.convert.parts import decode
from h2a_batch.errors import ModelError, RuntimeMissingError
from h2a_batch.inference.card import DETECTOR, card_from_shape, card_of, find_model, identify, known_models, read_card

MODEL = ROOT / "models" / "anime-256.mindir"


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator("anime-256", device="cpu")


def _portraits(count: int) -> list[np.ndarray]:
    return [decode(path, (256, 256), "pad", "model").pixels for path in sorted(PHOTOS.glob("*.jpg"))[:count]]


def test_a_portrait_comes_out_drawn_but_recognisable(generator: Generator) -> None:
    before = _portraits(1)[0]
    after = generator.paint([before])[0]
    assert after.shape == (256, 256, 3) and after.dtype == np.uint8
    assert np.abs(after.astype(int) - before.astype(int)).mean() > 5, "it changed nothing"

    def coarse(image: np.ndarray) -> np.ndarray:
        return image.mean(axis=2).reshape(32, 8, 32, 8).mean(axis=(1, 3)).ravel()

    assert np.corrcoef(coarse(before), coarse(after))[0, 1] > 0.5, "it is another picture"


def test_a_batch_gives_what_single_photos_give(generator: Generator) -> None:
    portraits = _portraits(3)
    alone = [generator.paint([portrait])[0] for portrait in portraits]
    together = generator.paint(portraits)
    batched = Generator(MODEL, device="cpu", batch_size=2).paint(portraits)  # the last batch is filled up
    for one, same, other in zip(alone, together, batched, strict=True):
        assert np.array_equal(one, same)
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 1


def test_one_generator_serves_many_threads(generator: Generator) -> None:
    portraits = _portraits(4)
    expected = [generator.paint([portrait])[0] for portrait in portraits]
    results: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda i=i: results.__setitem__(i, generator.paint([portraits[i]])[0]))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(results[i], expected[i]) for i in range(4))


def test_a_wrong_batch_is_refused(generator: Generator) -> None:
    for shape in ((1, 3, 128, 128), (0, 3, 256, 256), (3, 256, 256), (1, 256, 256, 3)):
        with pytest.raises(ValueError, match="expected a batch"):
            generator.run(np.zeros(shape, np.float32))


def test_the_shipped_card_is_complete() -> None:
    card = card_of(MODEL)
    assert card is not None and card.name == "anime-256" and "anime-256" in known_models()
    assert (card.input.width, card.input.height, card.input.layout, card.input.order) == (256, 256, "NCHW", "RGB")
    assert {"generator", "weights", "training_data", "licence", "limits", "sha256", "description"} <= set(card.facts)
    assert card.facts["generator"]["parameters"] > 1e6 and card.facts["generator"]["macs"] > 1e9


def test_a_model_without_a_card_works_the_same(tmp_path: Path, generator: Generator) -> None:
    shutil.copyfile(MODEL, tmp_path / "mine.mindir")
    mine = Generator(tmp_path / "mine.mindir", device="cpu")
    portrait = _portraits(1)
    assert np.array_equal(mine.paint(portrait)[0], generator.paint(portrait)[0])
    assert identify(tmp_path / "mine.mindir")[:2] == (mine.card.sha256, "pad")


def test_a_card_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    fields = json.loads(MODEL.with_suffix(".json").read_text())
    shutil.copyfile(MODEL, tmp_path / "m.mindir")
    card = tmp_path / "m.json"
    for change, message in (
        ({"sha256": "0" * 64}, "sha256"),
        ({"input": {**fields["input"], "width": 128}}, "its card says"),
        ({"output": {**fields["output"], "height": 512}}, "its card says"),
        ({"input": {**fields["input"], "layout": "CHWN"}}, "CHWN"),
        ({"input": {**fields["input"], "range": [1, 1]}}, "range"),
        ({"input": None}, "not a usable model card"),
    ):
        card.write_text(json.dumps({**fields, **change}))
        with pytest.raises(ModelError, match=message):
            Generator(tmp_path / "m.mindir", device="cpu")
    card.write_text("{")
    with pytest.raises(ModelError, match="not a usable model card"):
        card_of(tmp_path / "m.mindir")


def test_a_model_that_cannot_be_used_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="known: anime-256"):
        find_model("anime-999")
    with pytest.raises(ModelError, match="no such model file"):
        find_model(tmp_path / "gone.mindir")
    (tmp_path / "empty.mindir").touch()
    with pytest.raises(ModelError, match="empty"):
        find_model(tmp_path / "empty.mindir")
    (tmp_path / "cut.mindir").write_bytes(MODEL.read_bytes()[:100_000])
    (tmp_path / "photo.mindir").write_bytes(sorted(PHOTOS.glob("*.jpg"))[0].read_bytes())
    for name in ("cut", "photo"):
        with pytest.raises(ModelError, match="cannot load it"):
            Generator(tmp_path / f"{name}.mindir", device="cpu")


def test_the_face_detector_is_no_generator(h2a: Command, photos: Path, tmp_path: Path) -> None:
    """It lies beside the generators, but is neither offered nor taken as one."""
    assert known_models() == ["anime-256"]
    detector = find_model("centerface")
    for model in ("centerface", detector):
        done = h2a(photos, tmp_path / "out", "--model", model)
        assert done.returncode == 2
        said = f"{detector}: a face detector, not a generator; known: anime-256; or give the path of a .mindir file\n"
        assert done.stderr.endswith(said) and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
    with pytest.raises(ModelError, match="a generator, not a face detector"):
        read_card(MODEL, DETECTOR)


def test_a_graph_that_takes_no_colour_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.mindir").write_bytes(b"x")
    assert card_from_shape(tmp_path / "m.mindir", [1, 512, 384, 3]).input.layout == "NHWC"
    for shape in ([1, 1, 256, 256], [1, 1000], [3, 256, 256]):
        with pytest.raises(ModelError, match="its input has shape"):
            card_from_shape(tmp_path / "m.mindir", shape)


def test_a_missing_runtime_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mindspore_lite", None)
    with pytest.raises(RuntimeMissingError, match="scripts/h2a-batch"):
        Generator("anime-256", device="cpu")
