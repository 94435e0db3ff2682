"""Inspection: what looks suspicious, what does not, and what of a file is left out."""

from __future__ import annotations

import io
import os
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest
from conftest import PHOTOS, SHARED, Command
from hostile_support import chunk, png_of, png_with, scans, tiff_with, webp_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from h2a_batch.photos import HAVE_HEIF, Reader, inspect
from h2a_batch.photos.patched import Patch, patched
from h2a_batch.photos.tags import lighten_exif

MB = 1 << 20


def look(data: bytes) -> str:
    return inspect(io.BytesIO(data)).why


def orange(data: bytes) -> str:
    """Read a file, see that it is orange, and return what was left out."""
    reader = Reader(io.BytesIO(data))
    pixel = reader.load(1.0).image.convert("RGB").getpixel((3, 3))
    assert pixel == (200, 100, 50)
    return reader.note


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "MPO", "HEIF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_photos_as_programs_write_them_are_usual(format: str, mode: str) -> None:
    if format == "HEIF" and not HAVE_HEIF:
        pytest.skip("the extra heif is not installed")
    data = io.BytesIO()
    with Image.open(next(iter(sorted(PHOTOS.glob("*.jpg"))))) as image:
        picture, exif = image.convert(mode), Image.Exif()
    exif[271] = "a camera"
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    more = {"exif": exif, "icc_profile": icc} if format not in ("GIF", "BMP") else {}
    picture.save(data, format, **more)
    found = inspect(data)
    assert (found.why, found.patches, found.profile) == ("", (), None)
    assert found.pixels == picture.width * picture.height and Reader(data).note == ""


def strips(count: int, huge: bool = False) -> bytes:
    """A TIFF whose strips all lie at one place; or one whose width and length are numbers beyond all bounds."""
    width = struct.pack("<HHId", 256, 12, 1, 0)[:8]
    tags = [(256, 4, 1, 16), (257, 4, 1, count), (259, 3, 1, 8), (273, 4, count, 200), (279, 4, count, 200)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    if huge:
        entries = width + struct.pack("<I", 200) + struct.pack("<HHII", 257, 12, 1, 200) + entries[24:]
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(200) + struct.pack("<d", 1e308) * 30_000


def test_strips_that_share_their_bytes_look_suspicious() -> None:
    assert look(strips(60_000)) == "very many strips" and look(strips(500)) == ""


def test_numbers_beyond_all_bounds_are_a_broken_photo(tmp_path: Path, h2a: Command) -> None:
    data = strips(5, huge=True)
    data = data[:200] + struct.pack("<d", 1e308) + data[208:]
    (tmp_path / "wide.tif").write_bytes(data)
    done = h2a("wide.tif", "out")
    assert done.returncode == 1 and "unexpected" not in done.stderr and done.stderr.startswith(f"{tmp_path}/wide.tif: ")


def test_only_the_first_profile_of_a_png_is_looked_at() -> None:
    profile = (b"iCCP", b"p\0\0" + zlib.compress(bytes(2 * MB)))
    found = inspect(io.BytesIO(png_with(*[profile] * 30)))
    assert len(found.patches) == 30 and found.profile == bytes(2 * MB), "the others would take as long each"


def test_a_chunk_that_claims_gigabytes_is_not_given_them() -> None:
    data = png_with((b"iCCP", b"p\0\0"))
    place = data.index(b"iCCP") - 4
    tracemalloc.start()
    inspect(io.BytesIO(data[:place] + b"\xf0\0\0\0" + data[place + 4 :]))
    assert tracemalloc.get_traced_memory()[1] < 64 * MB
    tracemalloc.stop()


@pytest.mark.parametrize(("kind", "usual", "many"), [(b"av01", 3, 60), (b"hvc1", 60, 400)])
def test_pictures_of_very_many_tiles_look_suspicious(kind: bytes, usual: int, many: int) -> None:
    def tiled(count: int) -> bytes:
        brand = b"avif" if kind == b"av01" else b"heic"
        boxes = b"ispe" + bytes(4) + struct.pack(">II", 640, 480) + (b"infe" + kind) * count
        first = struct.pack(">I", 16) + b"ftyp" + brand + bytes(4)
        return first + struct.pack(">I", 8 + len(boxes)) + b"meta" + boxes + bytes(64)

    assert look(tiled(usual)) == "" and look(tiled(many)) == "very many tiles"


@pytest.mark.parametrize("more", [{"progressive": True}, {"progressive": True, "subsampling": 0}, {"quality": 100}])
def test_a_jpeg_of_a_camera_or_a_program_is_usual(more: dict[str, object]) -> None:
    data = io.BytesIO()
    Image.effect_noise((800, 600), 90).convert("RGB").save(data, "JPEG", **more)
    assert inspect(data).why == ""


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (scans(3000), "3,0.. scans"),
        (webp_of(13363, 13363), "179 million pixels"),
        (png_of(6000, 6000, 6), "36 million pixels in few bytes"),
        (b"BM" + bytes(16)[:12] + b"\x28\0\0\0" + b"\x10\x27\0\0" * 2 + b"\1\0\x08\0\1\0\0\0" + bytes(40), "slow kind"),
        (b"GIF89a" + b"\x10\0\x10\0\0\0\0" + b"!\xfe\1a\0" * 9000, "blocks of text"),
        (b"\xff\xd8" + b"\xff\xe1\0\x04ab" * 5000, "segments of metadata"),
        (b"\xff\xd8" + (b"\xff\xe1\xff\xff" + bytes(65533)) * 300, "much metadata"),
        (png_with(*[(b"teXt", b"")] * 3000), "very many chunks"),
        (png_with((b"IHDR", bytes(13))), "two headers"),
        (tiff_with([(324, 4, 10**6, 8)]), "very many strips"),
        (tiff_with([(322, 4, 1, 60000), (323, 4, 1, 60000)]), "3,600 million pixels"),
        (tiff_with([])[:-768].replace(b"\x03\1\3\0\1\0\0\0\1", b"\x03\1\3\0\1\0\0\0\7"), "rare kind"),
        (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "rare kind"),
    ],
)  # fmt: skip
def test_what_may_take_much_looks_suspicious(data: bytes, why: str) -> None:
    found = look(data)
    if why == "3,0.. scans":
        assert found.startswith("3,0") and found.endswith(" scans")
    else:
        assert why in found


def test_inspection_takes_no_time_whatever_is_in_the_file() -> None:
    bombs = [
        png_with(*[(b"zTXt", b"a\0\0" + zlib.compress(bytes(50 * MB), 9))] * 200),
        tiff_with([(34665, 4, 1, 8)] * 3000),
        b"\xff\xd8" + b"\xff" * MB,
        webp_of(64, 64) + b"ABCD\0\0\0\0" * 100_000,
    ]
    started = time.perf_counter()
    for bomb in bombs:
        inspect(io.BytesIO(bomb))
    assert time.perf_counter() - started < 20


def test_large_texts_of_a_png_are_left_out_and_small_ones_stay() -> None:
    big = zlib.compress(bytes(3 * MB))
    xmp = b"XML:com.adobe.xmp\0\1\0\0\0" + big
    assert orange(png_with((b"iTXt", xmp))).startswith("metadata of ")
    assert "left out" in orange(png_with((b"zTXt", b"a\0\0" + big)))
    assert "left out" in orange(png_with((b"tEXt", b"a\0" + b"b" * 2 * MB)))
    assert "left out" in orange(png_with((b"iTXt", b"a\0\0\0\0\0" + b"b" * 2 * MB)))
    assert "left out" in orange(png_with((b"eXIf", b"MM\0\x2a" + bytes(2 * MB))))
    assert "left out" in orange(png_with((b"abCd", bytes(2 * MB))))
    assert "left out" in orange(png_with(*[(b"zTXt", b"a\0\0" + zlib.compress(bytes(MB - 100)))] * 99))
    assert orange(png_with((b"zTXt", b"a\0\0" + zlib.compress(bytes(MB - 100))))) == ""
    small = png_with()
    behind = small[:-12] + chunk(b"zTXt", b"a\0\0" + big) + small[-12:]
    assert "left out" in orange(behind), "also behind the pixels"


def test_a_large_profile_of_a_png_still_gives_its_colours() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes().ljust(3 * MB, b"\0")
    data = png_with((b"iCCP", b"p\0\0" + zlib.compress(profile)))
    assert orange(data) == "" and Reader(io.BytesIO(data)).profile == profile
    bomb = png_with((b"iCCP", b"p\0\0" + zlib.compress(bytes(64 * MB), 9)))
    assert "left out" in orange(bomb) and Reader(io.BytesIO(bomb)).profile is None


def test_large_chunks_of_a_webp_are_left_out() -> None:
    data = io.BytesIO()
    image = Image.new("RGB", (40, 30), (200, 100, 50))
    image.save(data, "WEBP", lossless=True, xmp=b"x" * 2 * MB, exif=b"Exif\0\0MM\0\x2a" + bytes(2 * MB))
    assert orange(data.getvalue()) == "metadata of 4 MB left out: more than a photo needs"


@pytest.mark.parametrize("big", [False, True])
def test_large_tags_of_a_tiff_are_left_out(big: bool) -> None:
    assert orange(tiff_with([], big=big)) == ""
    assert "left out" in orange(tiff_with([(39321, 5, 250_000, 8)], 3 * MB, big)), "rationals"
    assert "left out" in orange(tiff_with([(39321 + n, 5, 100_000, 8) for n in range(50)], 3 * MB, big)), (
        "of the same bytes"
    )
    assert "left out" in orange(tiff_with([(34000 + n, 3, 1, 8) for n in range(9000)], big=big)), "very many"
    assert orange(tiff_with([(39321, 5, 1000, 8)], MB, big)) == ""


def test_a_directory_inside_of_another_one_is_not_read() -> None:
    """Its entries are other bytes by mistake or on purpose: what is cut out there must not hurt the pixels."""
    for big in (False, True):
        for place in (8, 16, 24, 30, 60):
            assert orange(tiff_with([(34665, 4, 1, place), (34853, 4, 1, place)], big=big)) == ""


def test_an_exif_block_whose_tags_share_bytes_is_made_light_and_keeps_its_turn() -> None:
    turn = (274, 3, 1, 6)
    block = b"Exif\0\0" + tiff_with([turn, *((40000 + n, 3, 25_000, 8) for n in range(2000))], 60_000)
    light, left_out = lighten_exif(block)
    assert left_out > 50 * MB and len(light) == len(block)
    data = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 100, 50)).save(data, "JPEG", exif=block, quality=100)
    started = time.perf_counter()
    reader = Reader(io.BytesIO(data.getvalue()))
    assert reader.upright == (30, 40) and "left out" in reader.note and reader.exif
    assert time.perf_counter() - started < 10


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_are_inspected_without_an_error(data: st.DataObject) -> None:
    picture = io.BytesIO()
    exif = Image.Exif()
    exif[271] = "a camera"
    format = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"]))
    Image.linear_gradient("L").resize((16, 16)).save(picture, format, exif=exif)
    raw = bytearray(picture.getvalue())
    for _ in range(data.draw(st.integers(0, 20))):
        raw[data.draw(st.integers(0, min(300, len(raw)) - 1))] = data.draw(st.sampled_from([0, 1, 127, 128, 255]))
    inspect(io.BytesIO(raw[: data.draw(st.integers(0, len(raw)))]))


@given(st.binary(max_size=200), st.data())
def test_a_patched_file_reads_as_the_bytes_with_the_patches(base: bytes, data: st.DataObject) -> None:
    places = sorted(data.draw(st.lists(st.integers(0, len(base)), max_size=8)))
    patches, wanted, known = [], b"", 0
    for start, end in zip(places[::2], places[1::2], strict=False):
        patches.append(Patch(start, end, data.draw(st.binary(max_size=9))))
        wanted += base[known:start] + patches[-1].data
        known = end
    wanted += base[known:]
    file = patched(io.BytesIO(base), patches)
    assert file.read() == wanted
    place = data.draw(st.integers(0, len(wanted) + 3))
    assert file.seek(place) == place and file.read(7) == wanted[place : place + 7]
    assert file.seek(0, os.SEEK_END) == len(wanted) and file.read() == b""


@pytest.mark.skipif(not (SHARED / "cases/hostile").is_dir(), reason="the hostile photos are not here")
def test_the_hostile_photos_look_it() -> None:
    folder = Path(SHARED / "cases/hostile")
    whys = {path.name: look(path.read_bytes()) for path in folder.iterdir() if path.suffix in (".jpg", ".webp", ".png")}
    assert len(whys) == 3 and all(whys.values())
