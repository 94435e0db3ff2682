"""The pictures that are dropped, struck and counted."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from PIL import Image

PORTRAITS = sorted((Path(__file__).resolve().parents[2] / "tests" / "photos").glob("*.jpg"))
POOL = 40  # different pictures


def pictures() -> dict[str, bytes]:
    """Small JPEG and PNG files, each of its own content, by sha256."""
    found = {}
    for number in range(POOL):
        with Image.open(PORTRAITS[number % len(PORTRAITS)]) as image:
            small = image.convert("RGB").rotate(3 * number).resize((80 + number, 100))
        data = io.BytesIO()
        small.save(data, "PNG" if number % 5 == 0 else "JPEG")
        found[key_of(data.getvalue())] = data.getvalue()
    return found


def key_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
