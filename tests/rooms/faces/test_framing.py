"""Squares around faces: where they lie, and their pixels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from composites import PHOTOS, compose, own_portraits, put
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from h2a_batch.errors import ModelError
from h2a_batch.faces.detector import Detector, usual_smallest
from h2a_batch.faces.framing import Face, frame_of, is_portrait
from h2a_batch.inference.card import FaceRule, card_of, find_model
from h2a_batch.photos.frame import Frame, cut

RULE = FaceRule(0.5, 0.47, 0.28, 0.27)
SIDES = st.integers(1, 300)
PLACES = st.floats(-400, 700, allow_subnormal=False)  # Lite sets the processor to round them to 0
FRAMES = st.builds(Frame, PLACES, PLACES, st.floats(1, 900), st.floats(-180, 180, allow_subnormal=False))


def _face_in(frame: Frame, rule: FaceRule, turned: float = 1.0) -> Face:
    """A face that lies in a frame as the rule says; `turned` brings the eyes together."""
    half = turned * rule.eyes / 2
    u = [rule.x - half, rule.x + half, rule.x, rule.x - 0.1, rule.x + 0.1]
    v = [rule.y, rule.y, rule.y + 0.15, rule.y + rule.mouth, rule.y + rule.mouth]
    points = (frame.to_photo((1, 1)) @ np.array([u, v, [1.0] * 5])).T
    eye, other, nose, left, right = [(float(x), float(y)) for x, y in points]
    return Face((frame.x, frame.y, frame.x + frame.side / 2, frame.y + 1), (eye, other, nose, left, right), 0.9)


@given(PLACES, PLACES, st.floats(5, 2000), st.floats(-170, 170, allow_subnormal=False), st.floats(0.2, 1))
def test_a_frame_is_found_from_the_face_that_lies_in_it(
    x: float, y: float, side: float, angle: float, turned: float
) -> None:
    frame = Frame(x, y, side, angle)
    found = frame_of(_face_in(frame, RULE, turned), RULE)
    assert math.hypot(found.x - x, found.y - y) < side * 1e-3
    assert abs(found.side - side) < side * 1e-3 and abs(found.angle - angle) < 0.1


@given(FRAMES, SIDES, SIDES, st.sampled_from([(32, 32), (48, 32), (16, 40)]))
def test_any_square_can_be_cut_and_has_no_pixels_but_the_photos(
    frame: Frame, width: int, height: int, size: tuple[int, int]
) -> None:
    pixels = cut(Image.new("RGB", (width, height), (10, 200, 90)), frame, size)
    assert pixels.shape == (size[1], size[0], 3) and pixels.dtype == np.uint8
    assert (pixels == (10, 200, 90)).all(), "no wedges of another colour"


@given(FRAMES, SIDES, SIDES)
def test_the_middle_of_a_cut_is_the_photos_pixel_there_or_its_mirror_image(
    frame: Frame, width: int, height: int
) -> None:
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0] = (np.arange(width) * 255 // max(1, width - 1))[None, :]
    ramp[..., 1] = (np.arange(height) * 255 // max(1, height - 1))[:, None]
    small = Frame(frame.x, frame.y, min(frame.side, min(width, height) / 8), frame.angle)
    pixels = cut(Image.fromarray(ramp), small, (33, 33)).astype(int)
    for channel, (place, length) in enumerate(((frame.x, width), (frame.y, height))):
        if length >= 16:  # between two mirrors
            wanted = (length - abs((place % (2 * length)) - length) - 0.5) * 255 / (length - 1)
            assert abs(pixels[16, 16, channel] - wanted) <= 3 * 255 / length + 2


def test_beyond_the_border_the_photo_is_mirrored() -> None:
    photo = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    photo = photo.resize((256, 256), Image.Resampling.BICUBIC)
    pixels = cut(photo, Frame(0, 128, 128, 0), (128, 128)).astype(int)
    assert np.abs(pixels[:, :64] - pixels[:, 127:63:-1]).mean() < 2


@pytest.mark.parametrize("angle", [-45, -10, 30])
@pytest.mark.parametrize("side", [150, 250, 900])
def test_a_tilted_face_is_cut_as_if_it_were_upright(angle: float, side: int) -> None:
    person = own_portraits()[2]
    photo = Image.new("RGB", (2000, 2000), "gray")
    put(photo, person, (1000, 1000), side, angle)
    upright = Image.new("RGB", (2000, 2000), "gray")
    put(upright, person, (1000, 1000), side, 0)
    tilted, straight = (
        cut(image, Frame(1000, 1000, 0.6 * side, turn), (96, 96)).astype(int)
        for image, turn in ((photo, angle), (upright, 0))
    )
    assert np.abs(tilted - straight).mean() < 5
    assert np.abs(tilted - straight[:, ::-1]).mean() > 10


def test_a_fine_pattern_becomes_its_mean_and_no_moire() -> None:
    board = np.indices((1200, 1200)).sum(0) % 2 * 255
    photo = Image.fromarray(np.repeat(board[..., None], 3, 2).astype(np.uint8))
    for angle in (0, 17):
        pixels = cut(photo, Frame(600, 600, 700, angle), (64, 64)).astype(int)
        assert np.abs(pixels - 127).max() < 12


def test_a_cut_of_the_whole_photo_is_as_sharp_as_a_resized_one() -> None:
    photo = own_portraits()[0].image.crop((0, 25, 200, 225))
    wanted = np.asarray(photo.resize((100, 100), Image.Resampling.LANCZOS)).astype(int)
    pixels = cut(photo, Frame(100, 100, 200, 0), (100, 100)).astype(int)
    assert np.abs(pixels - wanted).mean() < 2
    assert np.diff(pixels, axis=1).std() > 0.9 * np.diff(wanted, axis=1).std()


def test_portraits_count_as_such_and_wide_photos_do_not() -> None:
    detector, rule = Detector(), card_of(find_model("anime-256")).face  # type: ignore[union-attr]

    def counts(photo: Image.Image) -> bool:
        faces = detector.find(np.asarray(photo), usual_smallest(photo.size))
        assert faces
        return is_portrait(photo.size, faces, [frame_of(face, rule) for face in faces])

    people = own_portraits()
    assert len(people) == len(list(PHOTOS.glob("*.jpg")))
    assert all(counts(person.image) for person in people)
    for seed in range(4):
        photo, _ = compose(people, (1280, 720), 1, np.random.default_rng(seed), (100, 500))
        assert not counts(photo), "a wide photo with one face"
    couple = Image.new("RGB", (400, 250))
    couple.paste(people[0].image, (0, 0))
    couple.paste(people[1].image, (200, 0))
    assert not counts(couple)
    assert not is_portrait((100, 100), [], [])


def test_somebody_small_in_the_background_does_not_count() -> None:
    first, second = Frame(100, 100, 180, 0), Frame(190, 40, 40, 0)
    faces = [_face_in(frame, RULE) for frame in (second, first)]
    assert is_portrait((200, 250), faces, [second, first])
    assert not is_portrait((200, 400), faces, [second, first])


def test_a_card_says_how_faces_are_framed(tmp_path: Path) -> None:
    model, card = find_model("anime-256"), tmp_path / "mine.json"
    (tmp_path / "mine.mindir").symlink_to(model)
    text = model.with_suffix(".json").read_text()
    shipped = card_of(model)
    assert shipped is not None and 0.4 < shipped.face.y < 0.55
    old = '"eyes": 0.287'
    assert old in text
    card.write_text(text.replace(old, '"eyes": 0.2'))
    mine = card_of(tmp_path / "mine.mindir")
    assert mine is not None and mine.face.eyes == 0.2
    for wrong in ('"eyes": 0', '"eyes": "wide"', '"ears": 0.2', '"eyes": NaN'):
        card.write_text(text.replace(old, wrong))
        with pytest.raises(ModelError, match="not a usable model card"):
            card_of(tmp_path / "mine.mindir")
    card.write_text(text.replace('"face": {', '"faces": {'))
    without = card_of(tmp_path / "mine.mindir")
    assert without is not None and without.face == FaceRule()
