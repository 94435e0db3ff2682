"""How well are faces found, how long does that take, and how are the faces of a training set framed?

Without arguments: composes wide photos of 1 to 12 portraits (of ../shared/photos/faces, else of tests/photos), 64 to
512 pixels large, tilted by up to 30 and then by 30 to 45 degrees, on made-up landscapes. Recall is the share of these
faces that were found in their place, precision the share of what was found that is one of them. Then photos of three
sizes are timed, in milliseconds of one processor; and whole runs, in photos a second.

With --training FOLDER ...: where eyes and mouth are in the pictures of a training set; the field "face" that a model's
card should have; and how much of each picture the square around its face then spans.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from h2a_batch import convert_folder
from h2a_batch.faces import Detector, Face, frame_of, is_portrait, usual_smallest
from h2a_batch.inference import DEFAULT_MODEL, FaceRule, Generator, card_of, find_model
from h2a_batch.options import FACES

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from composites import Known, compose, landscape, matched, portraits  # noqa: E402

SIZES = ((1280, 960), (1920, 1080), (1080, 1440))
TIMED = ((512, 512), (1920, 1080), (4000, 3000))
STEPS = (64, 96, 160, 513)  # pixels of a portrait: the columns of the table
PEOPLE = 12


def find_people(detector: Detector, photos: int, smallest: float | None, seed: int) -> None:
    """Compose photos of people, look for them, and print recall and precision."""
    spans = [f"{low} to {high - 1} pixels" for low, high in pairwise(STEPS)]
    print(f"| portraits tilted by | recall | precision | {' | '.join(spans)} |")
    print(f"| --- | --- | --- |{' --- |' * len(spans)}")
    for tilt in ((0.0, 30.0), (30.0, 45.0)):
        random, people = np.random.default_rng(seed), portraits()
        seen: list[tuple[Known, Face | None]] = []
        faces = 0
        for number in range(photos):
            photo, known = compose(people, SIZES[number % len(SIZES)], 1 + number % PEOPLE, random, tilt=tilt)
            found = _find(detector, np.asarray(photo), smallest)
            seen += zip(known, matched(known, found), strict=True)
            faces += len(found)
        precision = sum(face is not None for _, face in seen) / max(1, faces)
        cells = [_recall(seen), f"{precision:.3f}"]
        for low, high in pairwise(STEPS):
            cells.append(_recall([pair for pair in seen if low <= pair[0].side < high]))
        print(f"| {tilt[0]:.0f} to {tilt[1]:.0f} degrees | {' | '.join(cells)} |")


def _recall(seen: Sequence[tuple[Known, Face | None]]) -> str:
    return f"{sum(face is not None for _, face in seen) / max(1, len(seen)):.3f} of {len(seen)}"


def find_nobody(detector: Detector, photos: int, smallest: float | None, seed: int) -> None:
    """Look for faces in landscapes, and print how many were found."""
    random = np.random.default_rng(seed)
    pictures = (np.asarray(landscape(SIZES[number % len(SIZES)], random)) for number in range(photos))
    print(f"\n{photos} landscapes: {sum(len(_find(detector, pixels, smallest)) for pixels in pictures)} faces found")


def measure_time(detector: Detector, smallest: float | None, seed: int) -> None:
    """Print the milliseconds of one thread for photos of several sizes, four people in each."""
    generator, random, people = Generator(device="cpu"), np.random.default_rng(seed), portraits()
    square = np.asarray(people[0].image.resize((generator.card.input.width, generator.card.input.height)))
    print(f"\npainting one face takes {_milliseconds(lambda: generator.paint([square])):.0f} ms\n")
    print("| photo | reading the JPEG | finding faces |")
    print("| --- | --- | --- |")
    for size in TIMED:
        photo, _ = compose(people, size, 4, random, sides=(min(size) / 8, min(size) / 2))
        file = io.BytesIO()
        photo.save(file, "JPEG", quality=92)
        pixels = np.asarray(photo)
        read = _milliseconds(partial(_load, file))
        find = _milliseconds(partial(_find, detector, pixels, smallest))
        print(f"| {size[0]}x{size[1]} | {read:.0f} ms | {find:.0f} ms |")


def measure_runs(photos: int, rounds: int, seed: int) -> None:
    """Print the photos a second of whole runs over portraits and over wide photos, the ways of converting in turn."""
    random, people = np.random.default_rng(seed), portraits()
    print(f"\n| {photos} photos, photos/s | faces | off | crop | paste | off over crop |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("portraits", "wide photos"):
            (folder / kind).mkdir()
            for number in range(photos):
                person = people[number % len(people)].image.rotate(number // len(people))
                wide = compose(people, TIMED[1], 4, random, sides=(100, 500))[0] if kind == "wide photos" else person
                wide.save(folder / kind / f"{number:04d}.jpg", quality=92)
            rates: dict[str, list[float]] = {way: [] for way in FACES}
            for turn, way in product(range(rounds), FACES):
                summary = convert_folder(folder / kind, folder / f"{kind} {turn} {way}", faces=way)
                rates[way].append(summary.converted / summary.seconds)
                faces = summary.faces if way == "paste" else 0
            off, crop, paste = (statistics.median(rates[way]) for way in ("off", "crop", "paste"))
            print(f"| {kind} | {faces} | {off:.1f} | {crop:.1f} | {paste:.1f} | {off / crop:.2f} |")


def _find(detector: Detector, pixels: NDArray[np.uint8], smallest: float | None) -> list[Face]:
    return detector.find(pixels, smallest or usual_smallest((pixels.shape[1], pixels.shape[0])))


def _load(file: io.BytesIO) -> Image.Image:
    return Image.open(file).convert("RGB")


def _milliseconds(work: Callable[[], object]) -> float:
    """Processor time, which a busy machine hardly changes: the median of seven runs, after one that does not count."""
    times = []
    for _ in range(8):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1000 * statistics.median(times[1:])


def measure_training(detector: Detector, folder: Path) -> None:
    """Print where the largest face of each picture is, and the rule that gives the pictures' own framing back."""
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".png", ".webp"))
    places, found = [], []
    for path in pictures:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        faces = sorted(detector.find(pixels, max(pixels.shape) / 16), key=lambda face: -face.width)
        if faces:
            left, right, _, *corners = np.array(faces[0].landmarks) / max(pixels.shape)
            eyes, mouth = (left + right) / 2, (corners[0] + corners[1]) / 2
            places.append((*eyes, np.hypot(*(right - left)), np.hypot(*(mouth - eyes))))
            found.append(((pixels.shape[1], pixels.shape[0]), faces))
    print(f"{folder.name}: {len(found)} of {len(pictures)} pictures with a face")
    if not found:
        return
    x, y, eyes, mouth = np.median(places, axis=0)
    spans = [max(place[2] / eyes, place[3] / mouth) for place in places]  # above 1 in the median: the larger of two
    rule = FaceRule(round(x, 3), round(y, 3), *(round(value * np.median(spans), 3) for value in (eyes, mouth)))
    print(f'"face": {asdict(rule)}')
    rows = dict(zip(("x", "y", "eyes", "mouth"), np.array(places).T, strict=True))
    rows["angle"] = np.array([frame_of(faces[0], rule).angle for _, faces in found])
    for name, by in (("square by it", rule), (f"square by {DEFAULT_MODEL}", _shipped_rule())):
        rows[name] = np.array([frame_of(faces[0], by).side / max(size) for size, faces in found])
    print("| | 0 % | 5 % | 25 % | median | 75 % | 95 % | 100 % |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, values in rows.items():
        shown = (f"{value:.3f}" for value in np.percentile(values, (0, 5, 25, 50, 75, 95, 100)))
        print(f"| {name} | {' | '.join(shown)} |")
    whole = sum(is_portrait(size, faces, [frame_of(face, by) for face in faces]) for size, faces in found)
    print(f"{whole} of {len(found)} count as portraits for {DEFAULT_MODEL}\n")


def _shipped_rule() -> FaceRule:
    card = card_of(find_model(DEFAULT_MODEL))
    assert card is not None
    return card.face


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=60, help="to compose for each row of the table (60)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each way of converting (3)")
    parser.add_argument("--min-face", type=float, help="pixels across the narrowest face (as h2a-batch has it)")
    parser.add_argument("--seed", type=int, default=1, help="of the photos (1)")
    parser.add_argument("--training", type=Path, nargs="+", metavar="FOLDER", help="measure these folders' framing")
    given = parser.parse_args()
    detector = Detector()
    if given.training:
        for folder in given.training:
            measure_training(detector, folder)
    else:
        find_people(detector, given.photos, given.min_face, given.seed)
        find_nobody(detector, given.photos, given.min_face, given.seed)
        measure_time(detector, given.min_face, given.seed)
        measure_runs(given.photos, given.rounds, given.seed)


if __name__ == "__main__":
    main()
