"""What each stage of a photo's way costs, in milliseconds of one core's processor time; the machine need not be idle.

    scripts/bench_stages                             to the screen
    scripts/bench_stages --write docs/benchmarks.md  and put the table into the page

Each stage runs alone, several times over; the median is shown. The last rows add up what a photo costs as PNG, and what
share of that is the generator: no run on cores that are all busy can come closer to the generator alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from bench_page import describe_machine, load, table, today, write_part  # noqa: E402
from bench_photos import large_photos, squares  # noqa: E402
from composites import portraits  # noqa: E402

from h2a_batch.faces import Detector  # noqa: E402
from h2a_batch.generator import Generator  # noqa: E402
from h2a_batch.image import decode, encode  # noqa: E402
from h2a_batch.options import FORMATS, Options  # noqa: E402

REPEATS, SLOW_REPEATS = 12, 6


def cost(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Milliseconds of processor time, of this process: MindSpore Lite computes in threads of its own."""
    work()
    spent = []
    for _ in range(repeats):
        before = time.process_time()
        work()
        spent.append(1e3 * (time.process_time() - before))
    return statistics.median(spent)


def reading(path: Path, generator: Generator, search: object) -> tuple[float, float, float]:
    """A photo decoded as a whole, with faces looked for, and as little of it as JPEG allows."""
    pixels = generator.card.input
    size, fit = (pixels.width, pixels.height), generator.card.framing

    def eighth() -> None:
        with Image.open(path) as image:
            image.draft("RGB", (image.width // 8, image.height // 8))
            image.load()

    whole = cost(lambda: decode(path, size, fit, "model"), SLOW_REPEATS)
    faces = cost(lambda: decode(path, size, fit, "model", False, search), SLOW_REPEATS)  # type: ignore[arg-type]
    return whole, faces, cost(eighth, SLOW_REPEATS)


def measure(model: str) -> list[tuple[str, str, str]]:
    """The rows of the table."""
    generator, detector, people = Generator(model, device="cpu"), Detector(), portraits(2)
    search = Options().search(detector.find, generator.card.face)
    with tempfile.TemporaryDirectory() as place:
        photos = {"512x512": Path(place, "512.jpg"), "12 megapixels": Path(place, "12.jpg")}
        for path, data in zip(photos.values(), (squares(people)[0], large_photos(people)[1]), strict=True):
            path.write_bytes(data)
        read = {name: reading(path, generator, search) for name, path in photos.items()}
        pixels = decode(photos["512x512"], (256, 256), "pad", "model").pixels
    tensor = generator.card.input.to_tensor([pixels])
    answer = generator.run(tensor)
    (painted,) = generator.card.output.to_images(answer)
    paint = cost(lambda: generator.run(tensor))
    turned = cost(lambda: generator.card.output.to_images(np.array(generator.card.input.to_tensor([pixels]))))
    formats = {name: cost(lambda name=name: encode(Image.fromarray(painted), name, 92)) for name in FORMATS}
    names = (
        "decode, as a whole",
        "decode, faces looked for",
        "of it, JPEG's entropy coding and an eighth of the pixels",
    )
    rows = [(name, *(f"{read[photo][number]:.1f}" for photo in read)) for number, name in enumerate(names)]
    rows += [("pixels to numbers and back", *[f"{turned:.1f}"] * 2), ("generator", *[f"{paint:.1f}"] * 2)]
    rows += [(f"encode as {name}", *[f"{spent:.1f}"] * 2) for name, spent in formats.items()]
    for number, name in enumerate(("--faces off", "faces looked for, one found")):
        sums = [read[photo][number] + turned + paint + formats["png"] for photo in read]
        rows.append(
            (f"all as PNG, {name}: the generator's share", *(f"{paint / total:.2f} of {total:.1f}" for total in sums))
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="anime-256", help="as for h2a-batch; of 256x256 (%(default)s)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    given = parser.parse_args()
    before = load()
    head = ("stage, milliseconds of one core", "a JPEG of 512x512", "of 12 megapixels")
    text = f"{today()}. {describe_machine()}. Load by other work: {before:.1f}.\n\n{table(head, measure(given.model))}"
    print(text)
    if given.write:
        write_part(given.write, "scripts/bench_stages", text)


if __name__ == "__main__":
    main()
