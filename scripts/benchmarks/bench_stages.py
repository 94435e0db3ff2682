"""What each stage of a photo's way costs, in milliseconds of one core's processor time; the machine need not be idle.

    scripts/bench_stages                             to the screen
    scripts/bench_stages --write docs/benchmarks.md  and put the tables into the page

Each stage runs alone, several times over; the median is shown. The last rows add up what a photo costs as PNG, and what
share of that is the generator: no run on cores that are all busy can come closer to the generator alone. The second
table has what was tried in place of a stage, and what loading takes.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from bench_page import busy, describe_machine, table, today, write_part  # noqa: E402
from bench_photos import large_photos, squares  # noqa: E402
from composites import portraits  # noqa: E402

from h2a_batch.convert import decode  # noqa: E402
from h2a_batch.errors import H2AError  # noqa: E402
from h2a_batch.faces import Detector, Search, search_of  # noqa: E402
from h2a_batch.inference import Generator  # noqa: E402
from h2a_batch.options import Options  # noqa: E402
from h2a_batch.photos import FORMATS, encode, encode_png  # noqa: E402
from h2a_batch.places import at  # noqa: E402

REPEATS, SLOW_REPEATS = 12, 6
MIN_FACE = 100  # pixels
Work = Callable[[], object]
Rows = list[tuple[str, ...]]


def cost(work: Work, repeats: int = REPEATS) -> float:
    """Milliseconds of processor time, of this process: MindSpore Lite computes in threads of its own."""
    work()
    spent = []
    for _ in range(repeats):
        before = time.process_time()
        work()
        spent.append(1e3 * (time.process_time() - before))
    return statistics.median(spent)


def reading(path: Path, generator: Generator, searches: Sequence[Search | None]) -> list[float]:
    """A photo decoded with faces looked for in several ways, and as little of it as JPEG allows."""
    pixels = generator.card.input
    size, fit = (pixels.width, pixels.height), generator.card.fit

    def eighth() -> None:
        with Image.open(path) as image:
            image.draft("RGB", (image.width // 8, image.height // 8))
            image.load()

    ways: list[Work] = [partial(decode, path, size, fit, "model", False, search) for search in searches]
    return [cost(way, SLOW_REPEATS) for way in (*ways, eighth)]


def measure(model: str) -> tuple[Rows, Rows]:
    """The rows of both tables."""
    generator, detector, people = Generator(model, device="cpu"), Detector(), portraits(2)
    kinds = (Options(faces="off"), Options(), Options(min_face=MIN_FACE))
    searches = [search_of(options, detector.find, generator.card.face) for options in kinds]
    with tempfile.TemporaryDirectory() as place:
        photos = {"512x512": Path(place, "512.jpg"), "12 megapixels": Path(place, "12.jpg")}
        for path, data in zip(photos.values(), (squares(people)[0], large_photos(people)[1]), strict=True):
            path.write_bytes(data)
        read = [reading(path, generator, searches) for path in photos.values()]
        size = (generator.card.input.width, generator.card.input.height)
        pixels = decode(photos["512x512"], size, "pad", "model").pixels
        tensor = generator.card.input.to_tensor([pixels])
        answer = generator.run(tensor)
        image = Image.fromarray(generator.card.output.to_images(answer)[0])
        data = encode(image, "png", 92)
        written = cost(lambda: at(Path(place, "out.png")).write(data))
    paint = cost(lambda: generator.run(tensor))
    turned = cost(lambda: generator.card.input.to_tensor([pixels]))
    turned += cost(lambda: generator.card.output.to_images(answer))
    formats = {name: cost(partial(encode, image, name, 92)) for name in FORMATS}
    names = (
        "decode, as a whole",
        "decode, faces looked for",
        f"decode, the same with --min-face {MIN_FACE}",
        "of it, JPEG's entropy coding and an eighth of the pixels",
    )
    rows: Rows = [(name, *(f"{spent[number]:.1f}" for spent in read)) for number, name in enumerate(names)]
    rows += [("pixels to numbers and back", *[f"{turned:.1f}"] * 2), ("generator", *[f"{paint:.1f}"] * 2)]
    rows += [(f"encode as {name}", *[f"{spent:.1f}"] * 2) for name, spent in formats.items()]
    rows.append(("write the file", *[f"{written:.1f}"] * 2))
    for number, name in enumerate(("--faces off", "faces looked for, one found", f"--min-face {MIN_FACE}, one found")):
        sums = [spent[number] + turned + paint + formats["png"] + written for spent in read]
        shares = (f"{paint / total:.2f} of {total:.1f}" for total in sums)
        rows.append((f"all as PNG, {name}: the generator's share", *shares))
    return rows, tried(image, paint, Generator(model, device="cpu", threads=2), tensor) + loading(model)


def tried(image: Image.Image, paint: float, two: Generator, tensor: NDArray[np.float32]) -> Rows:
    """What was tried in place of a stage: Pillow's PNG in several settings, and one generator of two threads."""
    pillow = {f"Pillow's, level {level}": {"compress_level": level} for level in (0, 1, 6, 9)}
    pillow |= {"Pillow's, Huffman codes alone": {"compress_type": zlib.Z_HUFFMAN_ONLY}}
    runs = {"compress_type": zlib.Z_RLE}
    large = image.resize((4 * image.width, 4 * image.height), Image.Resampling.BICUBIC)
    ways: dict[str, Callable[[], bytes]] = {"PNG in h2a-batch's own way": lambda: encode_png(image)}
    ways |= {f"PNG in {name}": partial(_pillow_png, image, how) for name, how in pillow.items()}
    ways["PNG in Pillow's, run lengths"] = partial(_pillow_png, image, runs)
    ways["the same enlarged to 1024x1024, h2a-batch's own way"] = lambda: encode_png(large)
    ways["the same enlarged to 1024x1024, Pillow's, run lengths"] = partial(_pillow_png, large, runs)
    rows: Rows = [(name, f"{cost(way):.1f}", f"{len(way()) / 1e3:.1f} kB") for name, way in ways.items()]
    rows.append(("generator of one thread", f"{paint:.1f}", "-"))
    rows.append(("generator of two threads", f"{cost(lambda: two.run(tensor)):.1f}", "-"))
    return rows


def loading(model: str) -> Rows:
    """What it takes to load the models, from the cache of optimised ones and as they are, and to run each once."""
    models: dict[str, Work] = {
        "generator": partial(Generator, model, device="cpu"),
        "face detector": Detector,
    }
    rows: Rows = [(f"loading the {name}", f"{cost(load, SLOW_REPEATS):.0f}", "-") for name, load in models.items()]
    os.environ["XDG_CACHE_HOME"] = os.devnull
    plain = "as it was exported, not from the cache"
    rows += [(f"the {name} {plain}", f"{cost(load, SLOW_REPEATS):.0f}", "-") for name, load in models.items()]
    return rows


def _pillow_png(image: Image.Image, how: dict[str, int]) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG", **how)
    return data.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="anime-256", help="as for h2a-batch; of 256x256 (%(default)s)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    given = parser.parse_args()
    if given.write and not os.access(given.write, os.R_OK | os.W_OK):
        parser.error(f"--write {given.write}: no such page, or it cannot be written")
    before = busy()
    try:
        stages, others = measure(given.model)
    except H2AError as error:
        sys.exit(f"bench_stages: {error}")
    text = (
        f"{today()}. {describe_machine()}. Other programs kept {before:.0%} of the cores busy before the start.\n\n"
        f"{table(('stage, milliseconds of one core', 'a JPEG of 512x512', 'of 12 megapixels'), stages)}\n\n"
        f"{table(('tried, on a painted picture of 256x256', 'milliseconds of one core', 'size'), others)}"
    )
    print(text)
    if given.write:
        write_part(given.write, "scripts/bench_stages", text)


if __name__ == "__main__":
    main()
