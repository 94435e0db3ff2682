"""Photos to measure with, made from portraits: 512x512, 12 megapixels, and very small ones by the thousand."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from composites import Portrait, landscape, put  # noqa: E402

LARGE = (4000, 3000)
SHARES = (0.2, 0.6)  # of a large photo's height, that its portrait's side takes
SMALL = 32  # pixels
_COMMENT = b"\xff\xfe"  # JPEG's marker of a comment; two bytes of its length follow, which count themselves


def squares(people: Sequence[Portrait]) -> list[bytes]:
    """Each portrait as a JPEG of 512x512."""
    return [_jpeg(person.image.resize((512, 512), Image.Resampling.LANCZOS), 92) for person in people]


def large_photos(people: Sequence[Portrait]) -> list[bytes]:
    """Each person in a landscape of 12 megapixels with a camera's grain, as a JPEG of some 4 MB; near or far."""
    random = np.random.default_rng(0)
    photos = []
    for number, person in enumerate(people):
        photo = landscape((LARGE[0] // 2, LARGE[1] // 2), random).resize(LARGE, Image.Resampling.BICUBIC)
        side = LARGE[1] * (SHARES[0] + (SHARES[1] - SHARES[0]) * number / max(1, len(people) - 1))
        put(photo, person, (LARGE[0] / 2, LARGE[1] * 0.55), side, 0)
        grain = random.normal(0, 3, (LARGE[1], LARGE[0], 1)).astype(np.float32)
        pixels = (np.asarray(photo, np.float32) + grain).clip(0, 255).astype(np.uint8)
        photos.append(_jpeg(Image.fromarray(pixels), 88))
    return photos


def fill(folder: Path, photos: Sequence[bytes], count: int) -> Path:
    """A folder of so many files, the photos repeated: each is a file of its own on the disk once, then links to it."""
    folder.mkdir(parents=True)
    for number in range(count):
        path = folder / f"{number:06d}.jpg"
        if number < len(photos):
            path.write_bytes(photos[number])
        else:
            path.hardlink_to(folder / f"{number % len(photos):06d}.jpg")
    return folder


def fill_small(folder: Path, people: Sequence[Portrait], count: int) -> Path:
    """A folder of so many tiny JPEGs, a thousand in each sub-folder, no two with the same bytes, of 1 to 5 kB."""
    tiny = [_jpeg(person.image.resize((SMALL, SMALL), Image.Resampling.LANCZOS), 85) for person in people]
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number // 1000:04d}" / f"IMG_{number:06d}.jpg"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        comment = str(number).encode().ljust(int(random.integers(8, 4096)))
        head, rest = tiny[number % len(tiny)][:2], tiny[number % len(tiny)][2:]
        path.write_bytes(head + _COMMENT + (len(comment) + 2).to_bytes(2, "big") + comment + rest)
    return folder


def _jpeg(image: Image.Image, quality: int) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()
