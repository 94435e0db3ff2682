"""Painted faces back in their photo: in their place, without a seam, and nothing else touched."""

from __future__ import annotations

import tracemalloc

import numpy as np
from composites import compose, landscape, own_portraits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from h2a_batch.faces.blend import mask, paste
from h2a_batch.faces.detector import Detector, usual_smallest
from h2a_batch.faces.framing import frame_of
from h2a_batch.inference.card import card_of, find_model
from h2a_batch.inference.generator import Generator
from h2a_batch.photos.frame import Frame, cut

PLACES = st.floats(-60, 260, allow_subnormal=False)  # Lite sets the processor to round them to 0
FRAMES = st.builds(Frame, PLACES, PLACES, st.floats(4, 300), st.floats(-180, 180, allow_subnormal=False))


def _masks(photo: NDArray[np.uint8], frames: list[Frame]) -> NDArray[np.float32]:
    """How far each pixel is painted by any of the frames."""
    columns, rows = np.arange(photo.shape[1]), np.arange(photo.shape[0])
    return np.max([mask(frame, columns, rows) for frame in frames], axis=0)


def _smooth_photo(seed: int = 1, size: tuple[int, int] = (200, 160)) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


@settings(deadline=None, max_examples=60)
@given(st.lists(FRAMES, min_size=1, max_size=4), st.integers(0, 1000))
def test_outside_of_the_masks_every_byte_is_the_photos(frames: list[Frame], seed: int) -> None:
    random = np.random.default_rng(seed)
    photo = random.integers(0, 256, (160, 200, 3), dtype=np.uint8)
    painted = [random.integers(0, 256, (48, 48, 3), dtype=np.uint8) for _ in frames]
    before = photo.copy()
    result = paste(photo, frames, painted)
    outside = _masks(photo, frames) == 0
    assert np.array_equal(result[outside], photo[outside]) and np.array_equal(photo, before)
    assert result.shape == photo.shape and result.dtype == np.uint8


@settings(deadline=None, max_examples=40)
@given(FRAMES)
def test_what_was_cut_and_not_painted_goes_back_into_its_place(frame: Frame) -> None:
    photo = _smooth_photo()
    result = paste(photo, [frame], [cut(Image.fromarray(photo), frame, (96, 96))])
    assert np.abs(result.astype(int) - photo).max() <= 24 and np.abs(result.astype(int) - photo).mean() < 2


def test_the_middle_of_a_face_is_as_it_was_painted() -> None:
    photo, frame = _smooth_photo(), Frame(100, 80, 100, 25)
    painted = np.full((64, 64, 3), (200, 30, 120), np.uint8)
    result = paste(photo, [frame], [painted])
    assert (np.abs(result[75:86, 95:106].astype(int) - (200, 30, 120)) <= 2).all()


def test_there_is_no_step_at_the_edge_of_a_face_painted_in_other_colours() -> None:
    photo, frame = _smooth_photo(size=(400, 320)), Frame(200, 160, 220, -12)
    original = cut(Image.fromarray(photo), frame, (128, 128)).astype(int)
    for painted in (original + 70, original - 70):
        answer = painted.clip(0, 255).astype(np.uint8)
        result = paste(photo, [frame], [answer]).astype(float)
        change = np.abs(result - photo).max(axis=2)
        steps = np.maximum(
            np.abs(np.diff(result - photo, axis=0)).max(axis=2)[:, :-1],
            np.abs(np.diff(result - photo, axis=1)).max(axis=2)[:-1],
        )
        edge = _masks(photo, [frame])
        assert change[(edge > 0) & (edge < 0.9)].mean() < 8, "colours meet those of the photo"
        assert steps.max() < 12, "and go over into the painted ones softly: there are 70 levels between them"
        assert change.max() > 50


def test_faces_that_overlap_share_the_ground_in_whatever_order_they_come() -> None:
    photo = _smooth_photo(size=(300, 200))
    frames = [Frame(100, 100, 140, 10), Frame(180, 100, 140, -15)]
    painted = [np.full((64, 64, 3), colour, np.uint8) for colour in ((250, 20, 20), (20, 20, 250))]
    result = paste(photo, frames, painted).astype(int)
    turned = paste(photo, frames[::-1], painted[::-1]).astype(int)
    assert np.abs(result - turned).max() <= 2
    assert result[100, 85, 0] > 200 and result[100, 195, 2] > 200
    line = result[100, 85:196].astype(int)
    assert np.abs(np.diff(line, axis=0)).max() < 25, "no edge between them"


def test_a_large_photo_needs_no_copy_of_itself_in_floats() -> None:
    photo = np.zeros((3000, 4000, 3), np.uint8)
    frames = [Frame(1000, 1500, 1400, 5), Frame(3000, 1500, 1800, -5)]
    painted = [np.full((256, 256, 3), 99, np.uint8)] * 2
    tracemalloc.start()
    paste(photo, frames, painted)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * photo.nbytes


def test_painted_faces_of_a_real_photo_change_and_the_rest_does_not() -> None:
    photo, known = compose(own_portraits(), (900, 700), 3, np.random.default_rng(6), (150, 250))
    pixels, generator, card = np.asarray(photo), Generator("anime-256", device="cpu"), card_of(find_model("anime-256"))
    assert card is not None and known
    faces = Detector().find(pixels, usual_smallest(photo.size))
    frames = [frame_of(face, card.face) for face in faces]
    assert len(frames) == len(known)
    result = paste(pixels, frames, generator.paint([cut(photo, frame, (256, 256)) for frame in frames]))
    changed = np.abs(result.astype(int) - pixels).max(axis=2)
    edge = _masks(pixels, frames)
    assert (changed[edge == 0] == 0).all()
    for frame in frames:
        x, y, reach = round(frame.x), round(frame.y), round(frame.side / 6)
        assert changed[y - reach : y + reach, x - reach : x + reach].mean() > 15
    nobody = landscape((300, 200), np.random.default_rng(1))
    assert np.array_equal(paste(np.asarray(nobody), [], []), np.asarray(nobody))
