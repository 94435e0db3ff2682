"""A face detector that is broken: no photo counts as one without faces for that."""

from __future__ import annotations

import json
import mmap
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from h2a_batch.errors import ModelError
from h2a_batch.faces import Detector, check_detector, detector
from h2a_batch.inference.weights import _weights
from h2a_batch.places import sha256_of


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped detector, whose weights are NaN, with a card that fits it."""
    model = tmp_path / "centerface.mindir"
    shutil.copyfile(ROOT / "models" / "centerface.mindir", model)
    with model.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        for kind, start, end in [place for place in _weights(data) if place[2] - place[1] > 32]:  # others are settings
            assert kind == 1
            data[start:end] = np.full((end - start) // 4, np.nan, np.float32).tobytes()
    fields = json.loads((ROOT / "models" / "centerface.json").read_text())
    model.with_suffix(".json").write_text(json.dumps({**fields, "sha256": sha256_of(model)}))
    monkeypatch.setattr(detector, "find_model", lambda name: model)
    return model


def test_weights_of_nan_are_found_when_it_loads(broken: Path) -> None:
    with pytest.raises(ModelError, match="weights are not numbers"):
        check_detector()


def test_answers_of_nan_are_no_photo_without_faces(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "check_weights", lambda path: None)
    with pytest.raises(ModelError, match="not finite"):
        Detector().find(np.zeros((64, 64, 3), np.uint8), 16.0)
