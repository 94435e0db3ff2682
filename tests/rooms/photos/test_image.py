from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from composites import bomb
from conftest import PHOTOS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, features

from h2a_batch.convert import Photo, decode
from h2a_batch.convert.finish import finish
from h2a_batch.errors import PhotoError
from h2a_batch.inference.card import Pixels
from h2a_batch.photos import HAVE_HEIF
from h2a_batch.photos.fit import CLOSE_UP, fit_photo, step_back
from h2a_batch.photos.formats import encode
from h2a_batch.photos.frame import Frame
from h2a_batch.photos.kinds import sniff
from h2a_batch.photos.png import encode_png
from h2a_batch.places.files import replacing, temporary_path

FRAME = (256, 256)
SIDES = st.integers(1, 5000)
PORTRAIT = sorted(PHOTOS.glob("*.jpg"))[0]


def _decode(path: Path, fit: str = "pad", size: str = "model", keep_metadata: bool = False) -> Photo:
    return decode(path, FRAME, fit, size, keep_metadata)


def _content(photo: Photo) -> np.ndarray:
    left, top, right, bottom = photo.placement.content
    return photo.pixels[top:bottom, left:right]


def _kind(path: Path) -> str:
    with pytest.raises(PhotoError) as caught:
        _decode(path)
    assert "\n" not in str(caught.value)
    return caught.value.kind


def _quadrants(width: int = 64, height: int = 32) -> Image.Image:
    """Red, green, blue, white from top left to bottom right: every turn of it is another picture."""
    image = Image.new("RGB", (width, height), "white")
    image.paste("red", (0, 0, width // 2, height // 2))
    image.paste("lime", (width // 2, 0, width, height // 2))
    image.paste("blue", (0, height // 2, width // 2, height))
    return image


@given(SIDES, SIDES, st.sampled_from(["pad", "crop", "stretch"]), st.sampled_from(["model", "source", "700"]))
def test_a_placement_lies_within_photo_and_frame(width: int, height: int, fit: str, size: str) -> None:
    placement = fit_photo((width, height), FRAME, fit, size)
    left, top, right, bottom = placement.crop
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    left, top, right, bottom = placement.content
    assert 0 <= left < right <= 256 and 0 <= top < bottom <= 256
    assert min(placement.output) >= 1
    if size == "700":
        assert max(placement.output) == 700
    if fit == "pad" and size == "source":
        assert placement.output == (width, height)


@given(SIDES, SIDES, st.sampled_from(["pad", "crop"]))
def test_proportions_are_kept_to_a_pixel(width: int, height: int, fit: str) -> None:
    placement = fit_photo((width, height), FRAME, fit, "model")
    used = placement.crop[2] - placement.crop[0], placement.crop[3] - placement.crop[1]
    shown = placement.content[2] - placement.content[0], placement.content[3] - placement.content[1]
    scale = max(shown) / max(used)
    assert abs(used[0] * scale - shown[0]) <= max(1, scale) and abs(used[1] * scale - shown[1]) <= max(1, scale)


@given(
    st.sampled_from(["NCHW", "NHWC"]),
    st.sampled_from(["RGB", "BGR"]),
    st.sampled_from([(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0)]),
    st.sampled_from([((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]),
)
def test_pixels_survive_the_way_to_the_model_and_back(
    layout: str, order: str, limits: tuple[float, float], norm: tuple[tuple[float, ...], tuple[float, ...]]
) -> None:
    pixels = Pixels(4, 16, layout, order, *limits, *norm)  # type: ignore[arg-type]
    images = [np.random.default_rng(number).integers(0, 256, (16, 4, 3), dtype=np.uint8) for number in range(3)]
    tensor = pixels.to_tensor(images)
    assert tensor.shape == pixels.shape(3) and tensor.dtype == np.float32 and tensor.flags.c_contiguous
    assert np.array_equal(np.stack(pixels.to_images(tensor)), np.stack(images))


@given(
    width=st.integers(1, 9000),
    height=st.integers(1, 9000),
    x=st.floats(0, 1, allow_subnormal=False),  # which the runtime switches off
    y=st.floats(0, 1, allow_subnormal=False),
    near=st.floats(1.0, 4.0),
    fit=st.sampled_from(["pad", "crop"]),
)
def test_a_close_up_is_put_where_its_face_belongs(
    width: int, height: int, x: float, y: float, near: float, fit: str
) -> None:
    before = fit_photo((width, height), FRAME, fit, "model")
    used = before.crop[2] - before.crop[0], before.crop[3] - before.crop[1]
    face = Frame(before.crop[0] + x * used[0], before.crop[1] + y * used[1], near * max(used), 0)
    after = step_back(before, face, FRAME)
    if near < CLOSE_UP:
        assert after == before
        return
    left, top, right, bottom = after.content
    assert 0 <= left < right <= FRAME[0] and 0 <= top < bottom <= FRAME[1]
    assert (after.crop, after.output) == (before.crop, before.output)
    scale = FRAME[0] / face.side
    assert right - left == max(1, round(used[0] * scale)) and bottom - top == max(1, round(used[1] * scale))
    middle = left + x * used[0] * scale  # of the face, in the frame: where it belongs unless the photo would stick out
    assert middle == pytest.approx(FRAME[0] / 2, abs=2) or left <= 1 or right >= FRAME[0] - 1


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"])
def test_every_format_is_known_by_its_content(tmp_path: Path, format: str) -> None:
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    path = tmp_path / "picture.txt"
    _quadrants(256, 128).save(path, format)
    assert sniff(path.read_bytes()[:32]) == format
    pixels = _content(_decode(path))
    assert pixels.shape == (128, 256, 3)
    assert np.abs(pixels[20, 20].astype(int) - (255, 0, 0)).max() < 30


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, turn: int) -> None:
    upright = _quadrants(256, 128)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the Pillow transpose that the reader has to take back
    stored = upright.transpose(Image.Transpose(undo[turn])) if turn > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = turn
    stored.save(tmp_path / "a.tif", exif=exif)
    assert np.array_equal(_content(_decode(tmp_path / "a.tif")), np.asarray(upright))
    stored.save(tmp_path / "a.png", exif=exif)
    photo = _decode(tmp_path / "a.png", keep_metadata=True)
    assert np.array_equal(_content(photo), np.asarray(upright))
    assert photo.exif is not None
    kept = Image.Exif()
    kept.load(photo.exif)
    assert kept[0x0112] == 1


def test_a_broken_exif_block_does_not_cost_the_photo(tmp_path: Path) -> None:
    _quadrants().save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\xff\xff")
    assert _decode(tmp_path / "a.jpg", keep_metadata=True).pixels.shape == (256, 256, 3)


def test_alpha_is_kept_in_the_output_and_white_for_the_model(tmp_path: Path) -> None:
    image = _quadrants(256, 256).convert("RGBA")
    image.putalpha(Image.new("L", image.size, 255))
    image.paste((0, 0, 0, 0), (0, 0, 128, 256))
    image.save(tmp_path / "a.png")
    photo = _decode(tmp_path / "a.png", size="512")
    assert tuple(photo.pixels[128, 20]) == (255, 255, 255)
    result = finish(photo, [photo.pixels], keep_alpha=True)[0]
    assert result.mode == "RGBA" and result.size == (512, 512)
    assert result.getchannel("A").getpixel((20, 256)) == 0 and result.getchannel("A").getpixel((500, 256)) == 255
    assert finish(photo, [photo.pixels], keep_alpha=False)[0].mode == "RGB"


def test_palette_gray_and_bilevel_pictures(tmp_path: Path) -> None:
    for mode in ("P", "L", "1", "LA", "PA", "RGBA", "CMYK", "YCbCr", "LAB"):
        suffix = "tif" if mode in ("CMYK", "YCbCr", "LAB") else "png" if mode != "PA" else "tif"
        source = _quadrants(256, 256).convert("RGB")
        if mode == "LAB":
            to_lab = ImageCms.buildTransform(
                ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
            )
            image = to_lab.apply(source)
        else:
            image = source.convert(mode)
        try:
            image.save(tmp_path / f"a.{suffix}")
        except (OSError, KeyError):
            continue  # Pillow reads this mode but does not write it here
        pixels = _decode(tmp_path / f"a.{suffix}").pixels.astype(int)
        if mode in ("L", "1", "LA"):
            assert abs(pixels[200, 200] - 255).max() < 5, mode
        else:
            assert np.abs(pixels[20, 20] - (255, 0, 0)).max() < 12, mode
            assert np.abs(pixels[200, 20] - (0, 0, 255)).max() < 40, mode


def test_transparency_of_a_palette_is_alpha(tmp_path: Path) -> None:
    image = _quadrants(64, 64).quantize(8)
    image.save(tmp_path / "a.gif", transparency=image.getpixel((5, 5)))
    photo = _decode(tmp_path / "a.gif")
    assert photo.alpha is not None and photo.alpha.getextrema() == (0, 255)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    Image.fromarray(np.tile(ramp, (256, 1))).save(tmp_path / "a.png")
    Image.fromarray(np.tile(ramp, (256, 1))).save(tmp_path / "a.tif")
    for name in ("a.png", "a.tif"):
        pixels = _decode(tmp_path / name).pixels[128, :, 0].astype(int)
        assert np.abs(pixels - np.arange(256)).max() <= 1
    Image.fromarray(np.tile(np.linspace(0, 1, 256, dtype=np.float32), (256, 1))).save(tmp_path / "f.tif")
    assert np.abs(_decode(tmp_path / "f.tif").pixels[128, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_colour_profiles_are_converted_to_srgb(tmp_path: Path) -> None:
    swapped = _swapped_profile()
    _quadrants(256, 256).save(tmp_path / "a.png", icc_profile=swapped)
    pixels = _decode(tmp_path / "a.png").pixels.astype(int)
    assert pixels[20, 20, 1] > 200 and pixels[20, 20, 0] < 60  # red under this profile is green
    _quadrants(256, 256).save(tmp_path / "b.png", icc_profile=b"not a profile")
    assert tuple(_decode(tmp_path / "b.png").pixels[20, 20]) == (255, 0, 0)


def _swapped_profile() -> bytes:
    """sRGB with the primaries of red and green exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", data[128:132])[0]
    tags = {bytes(data[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    data[red + 4 : red + 12], data[green + 4 : green + 12] = data[green + 4 : green + 12], data[red + 4 : red + 12]
    return bytes(data)


def test_a_large_jpeg_is_decoded_at_a_reduced_scale(tmp_path: Path) -> None:
    image = _quadrants(4096, 2048)
    image.save(tmp_path / "a.jpg", quality=95)
    sizes: list[tuple[int, int]] = []
    original = ImageFile.ImageFile.load

    def watched(self: ImageFile.ImageFile) -> object:
        sizes.append(self.size)
        return original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", watched)
        photo = _decode(tmp_path / "a.jpg")
    assert sizes[0] == (512, 256)
    assert np.abs(_content(photo).astype(int) - np.asarray(image.resize((256, 128))).astype(int)).mean() < 3


def test_metadata_is_kept_only_when_asked(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a portrait"
    for source in ("a.jpg", "a.tif", "a.png"):
        _quadrants().save(tmp_path / source, exif=exif)
        assert _decode(tmp_path / source).exif is None
        photo = _decode(tmp_path / source, keep_metadata=True)
        for format in ("png", "jpg", "webp"):
            with Image.open(
                io.BytesIO(encode(finish(photo, [photo.pixels], True)[0], format, 90, photo.exif))
            ) as result:
                assert result.getexif()[0x010E] == "a portrait"
                assert 273 not in result.getexif(), "where the old file kept its pixels"


def test_what_a_format_cannot_hold_is_explained() -> None:
    for format, width in (("webp", 16384), ("jpg", 65501)):
        with pytest.raises(PhotoError, match=f"cannot be saved as {format}"):
            encode(Image.new("RGB", (width, 1)), format, 90)


def test_what_is_no_photo_is_named_by_kind(tmp_path: Path) -> None:
    good = PORTRAIT.read_bytes()
    cases = {
        "empty": b"",
        "not-an-image": b"Dear diary, this is not a picture.",
        "truncated": good[: len(good) // 2],
        "corrupt": good[:2] + b"\xff" + b"\0" * 500,
    }
    for kind, data in cases.items():
        path = tmp_path / f"{kind}.jpg"
        path.write_bytes(data)
        assert _kind(path) == kind
    assert _kind(tmp_path / "gone.jpg") == "vanished"


def test_a_heic_photo_without_its_reader_is_told_what_to_install(tmp_path: Path) -> None:
    if HAVE_HEIF:
        pytest.skip("the extra heif is installed")
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x24ftypheic" + b"\0" * 400)
    assert _kind(tmp_path / "a.heic") == "unsupported"


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(60000, 60000))
    assert _kind(tmp_path / "bomb.png") == "too-large"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_fail_cleanly_or_decode(tmp_path: Path, data: st.DataObject) -> None:
    format = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"]))
    raw = io.BytesIO()
    _quadrants().save(raw, format)
    damaged = bytearray(raw.getvalue())
    for position in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=8)):
        damaged[position] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged"
    path.write_bytes(bytes(damaged[: data.draw(st.integers(1, len(damaged)))]))
    try:
        assert _decode(path).pixels.shape == (256, 256, 3)
    except PhotoError as error:
        assert "\n" not in str(error)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 600), st.integers(1, 600), st.sampled_from(["pad", "crop", "stretch"]))
def test_any_size_of_photo_is_read(tmp_path: Path, width: int, height: int, fit: str) -> None:
    Image.new("RGB", (width, height), (9, 90, 200)).save(tmp_path / "a.bmp")
    photo = _decode(tmp_path / "a.bmp", fit, "source")
    assert photo.pixels.shape == (256, 256, 3) and np.ptp(photo.pixels.reshape(-1, 3), axis=0).max() <= 2
    assert finish(photo, [photo.pixels], True)[0].size == photo.placement.output


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="no space"), replacing(path) as file:
        file.write(b"half of the n")
        raise OSError("no space")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.png"]


def test_a_link_in_place_of_an_output_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "original.jpg").write_bytes(b"precious")
    os.symlink(tmp_path / "original.jpg", tmp_path / "out.png")
    os.symlink(tmp_path / "original.jpg", temporary_path(tmp_path / "out.png"))
    with replacing(tmp_path / "out.png") as file:
        file.write(encode(_quadrants(), "png", 90))
    assert (tmp_path / "original.jpg").read_bytes() == b"precious"
    assert not (tmp_path / "out.png").is_symlink()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_pngs_of_our_own_are_read_as_they_were(data: st.DataObject) -> None:
    mode, channels = data.draw(st.sampled_from([("L", ()), ("RGB", (3,)), ("RGBA", (4,))]))
    width, height = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    pixels = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 256, (height, width, *channels), np.uint8)
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    written = encode_png(Image.fromarray(pixels), exif.tobytes() if data.draw(st.booleans()) else None)
    with Image.open(io.BytesIO(written)) as read:
        read.load()
        assert read.mode == mode and (np.asarray(read) == pixels).all()
        assert read.getexif().get(0x010F) in (None, "a maker") and bool(read.getexif()) == (b"eXIf" in written)
    with Image.open(io.BytesIO(written)) as read:
        read.verify()  # its checksums


def test_a_picture_that_a_format_cannot_hold_is_the_photos_failure() -> None:
    if "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow has no AVIF")
    with pytest.raises(PhotoError, match="70000x8 pixels cannot be saved as avif"):
        encode(Image.new("RGB", (70_000, 8)), "avif", 92)
