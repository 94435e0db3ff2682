"""Do damaged photos harm? Files of every kind are damaged at random and decoded, each as a run decodes it.

Whatever is in a file, decoding must end in time, with a picture or with one of the program's own errors. An exception
of another kind, a process that dies, and a file that takes longer than the deadline or more memory than the budget are
problems: such files are kept, and become tests. The same seed damages the same files in the same way.
"""

from __future__ import annotations

import argparse
import io
import random
import resource
import select
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from PIL import Image, PngImagePlugin, features

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = sorted((ROOT / "tests" / "photos").glob("*.jpg"))
CASES = (ROOT / "tests" / "cases", ROOT.parent / "shared" / "cases")
LARGEST = 300_000  # bytes of a file to damage
DEADLINE = 20.0  # seconds for one file
MEMORY = 3 << 30  # bytes of address space of the process that decodes
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HEADER = 2048  # bytes at the beginning, where most damage is done: they say how to read the rest


def corpus() -> dict[str, bytes]:
    """Return small sound files of every kind that can be written here, and the small ones of the tests' cases."""
    with Image.open(PHOTOS[0]) as image:
        photo = image.convert("RGB").resize((96, 72))
    exif = photo.getexif()
    exif[0x0112], exif[0x010E] = 6, "a portrait"
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta/>" * 20)
    files: dict[str, bytes] = {}

    def add(name: str, picture: Image.Image, kind: str, **how: object) -> None:
        data = io.BytesIO()
        picture.save(data, kind, **how)
        files[name] = data.getvalue()

    add("jpg", photo, "JPEG", exif=exif)
    add("progressive jpg", photo, "JPEG", progressive=True, optimize=True)
    add("cmyk jpg", photo.convert("CMYK"), "JPEG")
    add("gray jpg", photo.convert("L"), "JPEG", icc_profile=bytes(3000))
    add("png", photo, "PNG", exif=exif, pnginfo=text)
    add("rgba png", photo.convert("RGBA"), "PNG", optimize=True)
    add("palette png", photo.convert("P"), "PNG", transparency=3)
    add("16-bit png", photo.convert("L").convert("I").point(lambda value: value * 257).convert("I;16"), "PNG")
    add("moving png", photo, "PNG", save_all=True, append_images=[photo.rotate(9)], duration=50)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        add(f"{compression} tif", photo, "TIFF", compression=compression, exif=exif)
    add("pages tif", photo, "TIFF", save_all=True, append_images=[photo.rotate(9)])
    add("1-bit tif", photo.convert("1"), "TIFF", compression="group4")
    add("gif", photo.convert("P"), "GIF", save_all=True, append_images=[photo.rotate(9).convert("P")])
    add("bmp", photo, "BMP")
    add("webp", photo, "WEBP", exif=exif)
    add("lossless webp", photo.convert("RGBA"), "WEBP", lossless=True)
    add("moving webp", photo, "WEBP", save_all=True, append_images=[photo.rotate(9)])
    if features.check("avif"):
        add("avif", photo, "AVIF", exif=exif)
    for folder in CASES:
        found = (path for path in sorted(folder.glob("*")) if path.is_file() and path.stat().st_size <= LARGEST)
        files |= {path.name: path.read_bytes() for path in found if path.suffix != ".md"}
    return files


def damaged(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Return a copy with one to four kinds of damage."""
    result = bytearray(data)
    ways: list[Callable[[bytearray], None]] = [
        lambda file: flip(file, chance),
        lambda file: overwrite(file, chance),
        lambda file: overwrite(file, chance),
        lambda file: move(file, chance),
        lambda file: splice(file, chance.choice(others), chance),
        lambda file: file.__delitem__(slice(somewhere(file, chance), None)),
    ]
    for _ in range(chance.choice((1, 1, 2, 4))):
        if result:
            chance.choice(ways)(result)
    return bytes(result)


def somewhere(file: bytearray, chance: random.Random) -> int:
    return chance.randrange(min(len(file), HEADER) if chance.random() < 0.7 else len(file))


def flip(file: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 8, 64))):
        file[somewhere(file, chance)] ^= 1 << chance.randrange(8)


def overwrite(file: bytearray, chance: random.Random) -> None:
    """Put an extreme number of one, two or four bytes somewhere."""
    order, width = chance.choice("<>"), chance.choice("BHI")
    value = chance.choice(EXTREMES) & ((1 << 8 * struct.calcsize(width)) - 1)
    place = somewhere(file, chance)
    file[place : place + struct.calcsize(width)] = struct.pack(order + width, value)


def move(file: bytearray, chance: random.Random) -> None:
    """Put a piece in a second time, or take it out."""
    start = somewhere(file, chance)
    piece = file[start : start + chance.choice((1, 4, 12, 100, 5000))]
    if chance.random() < 0.5:
        del file[start : start + len(piece)]
    else:
        file[start:start] = piece * chance.choice((1, 2, 50))


def splice(file: bytearray, other: bytes, chance: random.Random) -> None:
    start = somewhere(file, chance)
    begin = chance.randrange(len(other))
    file[start : start + chance.choice((0, 50))] = other[begin : begin + chance.choice((20, 500))]


class Decoder:
    """A process that decodes one file after the other."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        command = [sys.executable, __file__, "--decode"]
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody empties would stop the libraries
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, cwd=ROOT
        )
        cast(BinaryIO, self.process.stdout).readline()  # it is ready

    def answer(self, data: bytes) -> str:
        """Return what became of a file: "ok", the kind of error, or what is wrong after "PROBLEM"."""
        stdin, stdout = cast(BinaryIO, self.process.stdin), cast(BinaryIO, self.process.stdout)
        stdin.write(struct.pack("<I", len(data)) + data)
        stdin.flush()
        if DEADLINE <= 0 or not select.select([stdout], [], [], DEADLINE)[0]:
            return self.lost(f"it took more than {DEADLINE:.0f} s")
        line = stdout.readline().decode(errors="replace").strip()
        return line or self.lost("the process died")

    def lost(self, why: str) -> str:
        self.end()
        self.said.seek(0)
        said = self.said.read().decode(errors="replace").strip().splitlines()
        code = self.process.returncode
        self.start()
        return f"PROBLEM {why} ({code}) {said[-1] if said else ''}"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def decode_all() -> None:
    """Decode the files that come on standard input, as a run does; answer each with a line."""
    from h2a_batch.convert import decode
    from h2a_batch.errors import PhotoError

    print("ready", flush=True)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    while header := sys.stdin.buffer.read(4):
        data = sys.stdin.buffer.read(*struct.unpack("<I", header))
        with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
            file.write(data)
            file.flush()
            try:
                decode(Path(file.name), (256, 256), "pad", "model", keep_metadata=True)
                answer = "ok"
            except PhotoError as error:
                answer = error.kind
            except BaseException as error:
                answer = f"PROBLEM {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        print(answer, flush=True)


def fuzz(seconds: float, seed: int, keep: Path) -> tuple[Counter[str], list[str]]:
    """Damage and decode files for a while; return how often there was each answer, and the problems."""
    chance = random.Random(seed)
    files = corpus()
    every = list(files.values())
    answers: Counter[str] = Counter()
    problems = []
    decoder = Decoder()
    for name, data in turns(files, seconds):
        broken = damaged(data, every, chance)
        answer = decoder.answer(broken)
        answers[answer.split()[0]] += 1
        if answer.startswith("PROBLEM"):
            keep.mkdir(parents=True, exist_ok=True)
            file = keep / f"{seed}-{answers.total()}-{name.replace(' ', '-')}"
            file.write_bytes(broken)
            problems.append(f"{file}: {answer[8:]}")
    decoder.end()
    return answers, problems


def turns(files: dict[str, bytes], seconds: float) -> Iterator[tuple[str, bytes]]:
    """Yield the files, again and again, until the time is over."""
    end = time.monotonic() + seconds
    while True:
        for item in files.items():
            if time.monotonic() > end:
                return
            yield item


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, metavar="N", help="of decoding (default: 30)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the damage (default: 1)")
    parser.add_argument("--keep", type=Path, default=ROOT / "build" / "fuzz", metavar="FOLDER", help="for the problems")
    parser.add_argument("--decode", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.decode:
        decode_all()
        return 0
    answers, problems = fuzz(given.seconds, given.seed, given.keep)
    print(f"seed {given.seed}: {answers.total()} damaged files")
    for answer, count in answers.most_common():
        print(f"{count:8} {answer}")
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
