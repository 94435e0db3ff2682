"""The detector on photos composed of real portraits, with faces in known places."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from composites import AI_FACES, Known, Portrait, compose, landscape, matched, own_portraits, portraits, put
from PIL import Image

from h2a_batch.errors import ModelError
from h2a_batch.faces.detector import NARROWEST, Detector, Detectors, usual_smallest
from h2a_batch.faces.framing import Face
from h2a_batch.inference.card import find_model

OWN = own_portraits()


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


def _find(detector: Detector, photo: Image.Image, smallest: float | None = None) -> list[Face]:
    return detector.find(np.asarray(photo), smallest or usual_smallest(photo.size))


def _recall_and_precision(
    detector: Detector, people: Sequence[Portrait], photos: int, sides: tuple[float, float]
) -> tuple[float, float]:
    random = np.random.default_rng(7)
    sizes = ((1280, 960), (1920, 1080), (1080, 1440))
    known, found, hits = 0, 0, 0
    for number in range(photos):
        photo, faces = compose(people, sizes[number % 3], 1 + number % 12, random, sides)
        seen = _find(detector, photo)
        known, found = known + len(faces), found + len(seen)
        hits += sum(face is not None for face in matched(faces, seen))
    return hits / known, hits / found


@pytest.mark.parametrize("portrait", OWN, ids=lambda portrait: f"{portrait.x}")
def test_a_portrait_has_one_face_with_eyes_nose_and_mouth_in_place(detector: Detector, portrait: Portrait) -> None:
    (face,) = _find(detector, portrait.image)
    assert Known(portrait.x, portrait.y, portrait.width, 250, 0).is_shown_by(face)
    eye, other, nose, left, right = face.landmarks
    assert eye[0] < nose[0] < other[0] and left[0] < nose[0] < right[0]
    assert max(eye[1], other[1]) < nose[1] < min(left[1], right[1])
    assert all(face.box[0] < x < face.box[2] and face.box[1] < y < face.box[3] for x, y in face.landmarks)


@pytest.mark.slow
def test_people_are_found_in_wide_photos_and_nobody_is_made_up(detector: Detector) -> None:
    recall, precision = _recall_and_precision(detector, OWN, 8, (90, 250))
    assert recall >= 0.95 and precision >= 0.95


@pytest.mark.slow
@pytest.mark.skipif(not AI_FACES.is_dir(), reason="../shared/photos/faces is not there")
def test_the_numbers_of_the_readme_hold(detector: Detector) -> None:
    recall, precision = _recall_and_precision(detector, portraits(), 36, (64, 512))
    assert recall >= 0.95 and precision >= 0.95


@pytest.mark.slow
def test_landscapes_are_empty(detector: Detector) -> None:
    random = np.random.default_rng(3)
    for _ in range(8):
        assert _find(detector, landscape((1280, 960), random)) == []


def test_fifty_people_in_one_photo_are_found(detector: Detector) -> None:
    photo = landscape((1600, 1000), np.random.default_rng(1))
    known = [
        put(photo, OWN[number % 6], (80 + 160 * (number % 10), 100 + 200 * (number // 10)), 150, number % 31 - 15)
        for number in range(50)
    ]
    faces = _find(detector, photo)
    assert len(faces) == 50 and None not in matched(known, faces)


def test_tilted_faces_are_found_and_their_tilt_is_seen(detector: Detector) -> None:
    for angle in (-45, -20, 20, 45):
        photo = landscape((640, 480), np.random.default_rng(2))
        known = put(photo, OWN[4], (320, 240), 250, angle)
        (face,) = _find(detector, photo)
        assert known.is_shown_by(face)
        (x, y), (end_x, end_y) = face.landmarks[:2]
        assert abs(np.degrees(np.arctan2(end_y - y, end_x - x)) - angle) < 6


@pytest.mark.slow
def test_a_large_photo_is_looked_at_in_parts_and_no_face_is_counted_twice_or_lost(detector: Detector) -> None:
    random = np.random.default_rng(11)
    for size in ((3000, 700), (900, 2600)):
        photo, known = compose(OWN, size, 9, random, (100, 600))
        found = _find(detector, photo, NARROWEST)  # not made smaller
        assert len(found) == len(known) and None not in matched(known, found)


def test_a_face_that_fills_a_large_photo_is_one_face(detector: Detector) -> None:
    portrait = OWN[1].image.resize((2400, 3000), Image.Resampling.BICUBIC)
    faces = _find(detector, portrait, 30)
    assert len(faces) == 1 and faces[0].width > 900


def test_faces_narrower_than_wanted_are_left_out(detector: Detector) -> None:
    photo = landscape((1280, 960), np.random.default_rng(4))
    large, small = put(photo, OWN[0], (300, 400), 500, 0), put(photo, OWN[1], (900, 400), 120, 0)
    assert [large.is_shown_by(face) for face in _find(detector, photo, 90)] == [True]
    faces = _find(detector, photo, 30)
    assert len(faces) == 2 and None not in matched([large, small], faces)
    assert faces[0].score >= faces[1].score


def test_places_are_in_pixels_of_the_picture_that_was_given(detector: Detector) -> None:
    image = OWN[3].image
    (small,) = _find(detector, image, 40)
    (large,) = _find(detector, image.resize((800, 1000), Image.Resampling.BICUBIC), 160)
    assert np.allclose(np.array(large.box) / 4, small.box, atol=6)
    assert np.allclose(np.array(large.landmarks) / 4, small.landmarks, atol=6)


def test_a_face_that_the_border_cuts_is_found_within_the_picture(detector: Detector) -> None:
    photo = landscape((640, 480), np.random.default_rng(5))
    put(photo, OWN[5], (40, 240), 240, 0)  # the left half of the face is beyond
    (face,) = _find(detector, photo)
    assert face.box[0] >= 0 and face.box[2] <= 640


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (1, 5000), (5000, 3)])
def test_pictures_of_any_size_can_be_searched(detector: Detector, size: tuple[int, int]) -> None:
    assert _find(detector, Image.new("RGB", size, "gray"), 20) == []


def test_the_smallest_face_grows_with_large_photos_only() -> None:
    assert usual_smallest((640, 480)) == usual_smallest((1792, 1792)) == 28
    assert 28 < usual_smallest((2000, 1500)) < usual_smallest((2400, 900)) < 40
    assert usual_smallest((4000, 3000)) == usual_smallest((3000, 4000)) == 40


def test_threads_share_detectors_and_find_the_same(detector: Detector) -> None:
    pictures = [np.asarray(portrait.image) for portrait in OWN] * 16  # more than wait for one detector only
    alone = [detector.find(picture, 28) for picture in pictures]
    shared = Detectors()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(partial(shared.find, smallest=28), pictures, timeout=60)) == alone
    assert 1 < len(shared._free) <= 4


def test_a_detector_that_cannot_be_loaded_is_told_to_every_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in find_model("centerface").parent.glob("centerface.*"):
        shutil.copyfile(path, tmp_path / path.name)
    (tmp_path / "centerface.mindir").write_bytes(b"damaged")
    monkeypatch.setattr("h2a_batch.faces.detector.find_model", lambda name: tmp_path / f"{name}.mindir")
    shared, picture = Detectors(), np.asarray(OWN[0].image)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(shared.find, picture, 28) for _ in range(8)]:
            with pytest.raises(ModelError, match=r"sha256|damaged"):
                done.result(60)
