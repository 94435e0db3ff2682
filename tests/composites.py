"""Wide photos made of portraits on made-up backgrounds, with known faces; and landscapes without any."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from h2a_batch.faces.framing import Face

HERE = Path(__file__).resolve().parent
PHOTOS = HERE / "photos"
AI_FACES = HERE.parent.parent / "shared" / "photos" / "faces"  # 512x512, people who do not exist
SIDE = 380  # pixels of a portrait in a `group`, and somewhat less than from one to the next
_FADE = 0.06  # of a portrait's side, at its border
# Read off the pictures, in pixels: the middle between eyes and mouth, and the width of the face.
_BY_HAND = {
    "A000210.jpg": (114, 144, 100),
    "A000365.jpg": (85, 131, 105),
    "A000366.jpg": (90, 126, 100),
    "A000368.jpg": (107, 122, 105),
    "B000589.jpg": (111, 136, 105),
    "B000711.jpg": (105, 144, 100),
}
_ALIGNED = (0.5, 0.6, 0.57)  # the same, of the side, where a portrait is aligned as those of FFHQ are


@dataclass(frozen=True)
class Portrait:
    """A picture of one person, and where the face is: its middle and its width, in pixels."""

    image: Image.Image
    x: float
    y: float
    width: float


@dataclass(frozen=True)
class Known:
    """A face in a composed photo: its middle and its width, the longer side of its portrait, all in pixels.

    ``angle`` is how far the portrait is turned clockwise, in degrees.
    """

    x: float
    y: float
    width: float
    side: float
    angle: float

    def is_shown_by(self, face: Face) -> bool:
        """Whether a face that was found is this one: its middle within a quarter of the width, its size within 1.7."""
        eye, other, _, left, right = face.landmarks
        x, y = (sum(values) / 4 for values in zip(eye, other, left, right, strict=True))
        return math.hypot(x - self.x, y - self.y) < self.width / 4 and 1 / 1.7 < face.width / self.width < 1.7


def portraits(limit: int | None = None) -> list[Portrait]:
    """The AI-made portraits where they are there, else those of the tests."""
    if not AI_FACES.is_dir():
        return own_portraits()
    x, y, width = _ALIGNED
    found = []
    for path in sorted(AI_FACES.glob("*.jpg"))[:limit]:
        image = _read(path)
        found.append(Portrait(image, x * image.width, y * image.height, width * image.width))
    return found


def own_portraits() -> list[Portrait]:
    """Those of the tests, with faces of known places."""
    return [Portrait(_read(PHOTOS / name), *place) for name, place in sorted(_BY_HAND.items())]


def landscape(size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    """A sky over hills, water or woods: layers of noise, rough and fine, with grain; nobody in it."""
    width, height = size
    pixels = np.empty((height, width, 3), np.float32)
    pixels[:] = np.linspace(random.uniform(60, 230, 3), random.uniform(60, 230, 3), height)[:, None]
    for _ in range(random.integers(2, 6)):
        colour, roughness = random.uniform(0, 220, 3), int(random.integers(3, 40))
        level = height * random.uniform(0.2, 0.9)
        edge = level + height * random.uniform(0.02, 0.2) * _noise((width, 1), roughness, random)[0]
        below = np.arange(height)[:, None] > edge[None, :]
        texture = random.uniform(5, 60) * _noise(size, int(random.integers(8, 200)), random)
        pixels[below] = (colour + texture[..., None])[below]
    pixels += random.normal(0, random.uniform(1, 12), (height, width, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def compose(
    people: Sequence[Portrait],
    size: tuple[int, int],
    count: int,
    random: np.random.Generator,
    sides: tuple[float, float] = (64, 512),
    tilt: tuple[float, float] = (0, 30),
) -> tuple[Image.Image, list[Known]]:
    """A photo of up to `count` people beside each other, fewer where there is no room.

    Args:
        sides: pixels of a portrait's longer side, from and to; small ones are as frequent as large ones.
        tilt: degrees by which a portrait is turned to either side, from and to.
    """
    photo, known = landscape(size, random), list[Known]()
    taken: list[tuple[float, float, float]] = []
    for index in random.choice(len(people), count, replace=count > len(people)):
        side = math.exp(random.uniform(math.log(sides[0]), math.log(min(sides[1], min(size) / 1.5))))
        angle = float(random.uniform(*tilt) * random.choice([-1, 1]))
        for _ in range(50):
            reach = 0.71 * side  # however it is turned
            x, y = random.uniform(reach, size[0] - reach), random.uniform(reach, size[1] - reach)
            if all(math.hypot(x - a, y - b) > reach + c for a, b, c in taken):
                taken.append((x, y, reach))
                known.append(put(photo, people[index], (x, y), side, angle))
                break
            side = max(sides[0], side * 0.9)
    return photo, known


def put(photo: Image.Image, person: Portrait, middle: tuple[float, float], side: float, angle: float) -> Known:
    """Put a portrait into a photo, its longer side `side` pixels and turned clockwise, with a soft border."""
    scale = side / max(person.image.size)
    size = (max(1, round(person.image.width * scale)), max(1, round(person.image.height * scale)))
    fine = person.image.resize((2 * size[0], 2 * size[1]), Image.Resampling.LANCZOS).convert("RGBA")
    ramps = [np.minimum(np.arange(n) + 0.5, np.arange(n)[::-1] + 0.5) / (2 * _FADE * side) for n in fine.size]
    alpha = np.minimum(ramps[1][:, None], ramps[0][None, :]).clip(0, 1)
    fine.putalpha(Image.fromarray((255 * alpha).astype(np.uint8)))
    turned = fine.rotate(-angle, Image.Resampling.BICUBIC, expand=True)
    turned = turned.resize((max(1, turned.width // 2), max(1, turned.height // 2)), Image.Resampling.BOX)
    left, top = round(middle[0] - turned.width / 2), round(middle[1] - turned.height / 2)
    photo.paste(turned, (left, top), turned)
    x, y = (person.x * scale - size[0] / 2, person.y * scale - size[1] / 2)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    middle = (left + turned.width / 2, top + turned.height / 2)
    return Known(middle[0] + x * cos - y * sin, middle[1] + x * sin + y * cos, person.width * scale, side, angle)


def matched(known: Sequence[Known], faces: Sequence[Face]) -> list[Face | None]:
    """The face that was found for each known one, none for two; None where there is none."""
    left = list(faces)
    result: list[Face | None] = []
    for one in known:
        face = next((face for face in left if one.is_shown_by(face)), None)
        if face:
            left.remove(face)
        result.append(face)
    return result


def _noise(size: tuple[int, int], cells: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise of shape (height, width), about -1 to 1, with this many hills along the longer side."""
    coarse = [max(2, round(cells * length / max(size))) for length in size]
    values = Image.fromarray(random.uniform(-1, 1, (coarse[1], coarse[0])).astype(np.float32))
    return np.asarray(values.resize(size, Image.Resampling.BICUBIC))


def _read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        result: Image.Image = image.convert("RGB")
        return result


def scenery(width: int, height: int) -> Image.Image:
    """A landscape in which nobody is."""
    return landscape((width, height), np.random.default_rng(3))


def group(path: Path, *people: int, width: int = 1500) -> Path:
    """A wide photo of some people, from left to right."""
    photo, portraits = scenery(width, 500), own_portraits()
    for place, number in enumerate(people):
        put(photo, portraits[number], (210 + place * 420, 250), SIDE, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    photo.save(path, quality=95)
    return path


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises a picture of this size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
