"""One image in memory: every kind of input, the same picture as a run makes, errors in one line."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import PHOTOS
from PIL import Image

import h2a_batch
from h2a_batch import Generator, PhotoError, UsageError, convert_folder, convert_image

PORTRAIT = sorted(PHOTOS.glob("*.jpg"))[0]


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(device="cpu")


def _pixels(image: object) -> np.ndarray:
    assert isinstance(image, Image.Image)
    return np.asarray(image)


def test_every_kind_of_input_gives_the_picture_of_a_run(generator: Generator, tmp_path: Path) -> None:
    convert_folder(PORTRAIT, tmp_path, faces="off")
    with Image.open(tmp_path / f"{PORTRAIT.stem}.png") as made, Image.open(PORTRAIT) as photo:
        wanted = np.asarray(made.convert("RGB"))
        before = photo.tobytes()
        for given in (str(PORTRAIT), PORTRAIT, PORTRAIT.read_bytes(), photo, np.asarray(photo)):
            anime = _pixels(convert_image(given, generator=generator))
            assert anime.shape == (*wanted.shape[:2], 3) and np.array_equal(anime, wanted)
        assert photo.tobytes() == before


def test_modes_sizes_and_alpha(generator: Generator) -> None:
    with Image.open(PORTRAIT) as photo:
        gray = convert_image(photo.convert("L"), size=64, fit="crop", generator=generator)
        assert isinstance(gray, Image.Image) and gray.size == (64, 64) and gray.mode == "RGB"
        for mode in ("P", "CMYK", "1", "LA", "I;16"):
            assert isinstance(convert_image(photo.convert("L").convert(mode), generator=generator), Image.Image)
        transparent = photo.convert("RGBA")
        transparent.putalpha(100)
        painted = convert_image(transparent, size="source", generator=generator)
        assert isinstance(painted, Image.Image) and painted.size == photo.size and painted.mode == "RGBA"
        assert painted.getchannel("A").getextrema() == (100, 100)


def test_faces_are_a_list_or_put_back(generator: Generator) -> None:
    group = Image.new("RGB", (900, 420), "gray")
    for number, path in enumerate(sorted(PHOTOS.glob("*.jpg"))[:3]):
        with Image.open(path) as portrait:
            group.paste(portrait.resize((200, 250)), (50 + 300 * number, 80))
    cut = convert_image(group, faces="crop", generator=generator)
    assert isinstance(cut, list) and len(cut) == 3 and all(image.size == (256, 256) for image in cut)
    whole = convert_image(group, faces="paste", generator=generator)
    assert isinstance(whole, Image.Image) and whole.size == group.size
    assert np.array_equal(np.asarray(whole)[:, :20], np.asarray(group)[:, :20])
    (alone,) = convert_image(PORTRAIT, faces="crop", generator=generator)
    assert isinstance(alone, Image.Image)


def test_threads_may_share_a_generator(generator: Generator) -> None:
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda _: _pixels(convert_image(PORTRAIT, generator=generator)), range(8)))
    assert all(np.array_equal(image, images[0]) for image in images)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"", "empty"),
        (b"no picture at all", "no image"),
        ("/nowhere/at/all.jpg", "no longer there"),
        (np.zeros((8, 8, 3), np.float32), "float32.*uint8"),
        (np.zeros((8, 8, 2, 2), np.uint8), "shape"),
    ],
)
def test_what_is_no_image_is_told_in_a_line(generator: Generator, given: object, message: str) -> None:
    with pytest.raises(PhotoError, match=message) as caught:
        convert_image(given, generator=generator)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_values_that_make_no_sense(generator: Generator) -> None:
    for wrong in ({"faces": "all"}, {"size": 0}, {"fit": "squeeze"}, {"device": "gpu"}):
        with pytest.raises(UsageError, match="choose"):
            convert_image(PORTRAIT, generator=generator, **wrong)  # type: ignore[arg-type]


def test_the_public_face_is_whole() -> None:
    assert all(getattr(h2a_batch, name) is not None for name in h2a_batch.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        h2a_batch.nothing  # noqa: B018
