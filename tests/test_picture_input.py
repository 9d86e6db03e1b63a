"""Pictures of every usual kind come out as the colours one sees, upright; what is no picture is refused in one line."""

import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from fusion_jax import picture_input
from fusion_jax.errors import UserError
from fusion_jax.picture_input import MAX_PIXELS, Input, find_inputs, read_photo

# Four blocks of 8 x 8 px, so that JPEG keeps the colours: red, green over blue, grey.
COLORS = np.array([[[200, 40, 40], [40, 180, 60]], [[50, 60, 190], [120, 120, 120]]], np.uint8)


def blocks(colors=COLORS, side=8):
    return np.repeat(np.repeat(colors, side, axis=0), side, axis=1)


def saved(tmp_path, image, kind, **options):
    path = tmp_path / f"p.{kind.lower()}"
    image.save(path, kind, **options)
    return path


def middles(picture, side=8):
    return picture[side // 2 :: side, side // 2 :: side].astype(int)


def refusal(path):
    with pytest.raises(UserError) as caught:
        read_photo(path)
    text = str(caught.value)
    assert path.name in text and "\n" not in text
    return text


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_kinds_come_out_as_they_went_in(tmp_path, kind):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    out = read_photo(saved(tmp_path, Image.fromarray(picture), kind))
    assert out.dtype == np.uint8 and out.flags.writeable
    np.testing.assert_array_equal(out, picture)


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("JPEG", {"quality": 95}, 6),
        ("JPEG", {"quality": 95, "progressive": True}, 6),
        ("WEBP", {"lossless": True}, 0),
        ("GIF", {}, 6),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
    ],
)
def test_colours_of_the_other_kinds(tmp_path, kind, options, tolerance):
    out = read_photo(saved(tmp_path, Image.fromarray(blocks()), kind, **options))
    assert np.abs(middles(out) - COLORS).max() <= tolerance


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_come_out_upright(tmp_path, kind, orientation):
    """EXIF names the side of the scene that the stored picture's first row and column show."""
    upright = blocks()[:, :12]
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),  # is to be turned a quarter to the right
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    out = read_photo(saved(tmp_path, Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options))
    assert out.shape == upright.shape
    assert np.abs(middles(out) - middles(upright)).max() <= 6


def test_grey_is_three_equal_channels(tmp_path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    out = read_photo(saved(tmp_path, Image.fromarray(grey), "PNG"))
    np.testing.assert_array_equal(out, np.repeat(grey[..., None], 3, axis=-1))


def test_one_bit_is_black_and_white(tmp_path):
    bits = np.eye(8, dtype=bool)
    for kind in ("PNG", "TIFF", "BMP"):
        out = read_photo(saved(tmp_path, Image.fromarray(bits), kind))
        np.testing.assert_array_equal(out[..., 0], np.where(bits, 255, 0))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_what_is_transparent_lies_on_white(tmp_path, kind):
    rgba = np.array([[[200, 40, 40, 255], [200, 40, 40, 0], [0, 0, 0, 51]]], np.uint8)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    out = read_photo(saved(tmp_path, Image.fromarray(rgba), kind, **options))
    np.testing.assert_array_equal(out[0], [[200, 40, 40], [255, 255, 255], [204, 204, 204]])  # 255 (1 - 51 / 255)


def test_grey_with_alpha_and_transparent_palette_colours_too(tmp_path):
    out = read_photo(saved(tmp_path, Image.fromarray(np.array([[[80, 255], [80, 0]]], np.uint8), "LA"), "PNG"))
    np.testing.assert_array_equal(out[0], [[80] * 3, [255] * 3])
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    for kind in ("PNG", "GIF"):
        out = read_photo(saved(tmp_path, palette, kind, transparency=1))
        np.testing.assert_array_equal(out[0], [[10, 20, 30], [255, 255, 255], [70, 80, 90]])


def test_of_a_moving_gif_the_first_frame(tmp_path):
    first, second = Image.new("RGB", (4, 4), (250, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 250))
    out = read_photo(saved(tmp_path, first, "GIF", save_all=True, append_images=[second]))
    assert (out == [250, 0, 0]).all()


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits_are_scaled_and_not_clipped(tmp_path, suffix):
    grey = np.array([[0, 128, 129, 257, 32768, 65535 - 128, 65535]], np.uint16)
    path = tmp_path / f"p{suffix}"
    path.write_bytes(cv2.imencode(suffix, grey)[1].tobytes())
    out = read_photo(path)
    np.testing.assert_array_equal(out[0, :, 0], [0, 0, 1, 1, 128, 255, 255])  # v / 257, rounded
    assert (out == out[..., :1]).all()
    colours = np.stack([grey, grey[:, ::-1], np.full_like(grey, 20_000)], axis=-1)
    path.write_bytes(cv2.imencode(suffix, colours[..., ::-1])[1].tobytes())
    assert np.abs(read_photo(path) - colours / 257).max() < 1  # Pillow itself takes the upper byte


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["I;16", "L", "LA", "RGBA", "P", "1"])
def test_pictures_without_three_channels_come_out_upright_too(tmp_path, kind, mode):
    exif = Image.Exif()
    exif[274] = 6
    row = Image.fromarray(np.array([[0, 0, 255]], np.uint8))
    if mode == "I;16":
        row = Image.fromarray(np.array([[0, 0, 65535]], np.uint16))
    out = read_photo(saved(tmp_path, row if mode == "I;16" else row.convert(mode), kind, exif=exif))
    np.testing.assert_array_equal(out, [[[0] * 3], [[0] * 3], [[255] * 3]])


def cmyk_of(rgb):
    """Plain CMYK without black."""
    return Image.merge("CMYK", [*Image.fromarray(255 - rgb).split(), Image.new("L", rgb.shape[1::-1], 0)])


def test_cmyk_has_the_colours_one_sees(tmp_path):
    for kind, options in (("JPEG", {"quality": 98}), ("TIFF", {})):
        out = read_photo(saved(tmp_path, cmyk_of(blocks()), kind, **options))
        assert np.abs(middles(out) - COLORS).max() <= 6


def test_ycck_has_the_colours_one_sees(tmp_path):
    """As Adobe writes it: luminance and colour differences of inverted ink, and the mark 2 in the Adobe segment.

    Pillow does not write this, but the four channels of its CMYK go into the file as they are (inverted): here they
    hold what YCCK would hold, and the mark is changed afterwards.
    """
    y, cb, cr = Image.fromarray(255 - blocks()).convert("YCbCr").split()
    inverted = [channel.point(lambda v: 255 - v) for channel in (y, cb, cr)]
    inverse = Image.merge("CMYK", [*inverted, Image.new("L", y.size)])
    path = saved(tmp_path, inverse, "JPEG", quality=98)
    data = bytearray(path.read_bytes())
    mark = data.index(b"Adobe") + 11
    assert data[mark] == 0
    data[mark] = 2
    path.write_bytes(bytes(data))
    assert np.abs(middles(read_photo(path)) - COLORS).max() <= 8


@pytest.mark.parametrize("numbers", [np.float32([[0.5, 2.0]]), np.int32([[5, 70_000]])])
def test_numbers_of_no_known_scale_are_refused(tmp_path, numbers):
    assert "scale is not known" in refusal(saved(tmp_path, Image.fromarray(numbers), "TIFF"))


@pytest.mark.parametrize(("tag", "usual", "unusual"), [(262, 1, 0), (258, 16, 12)])  # 0 is white; 12 bits
def test_16_bits_that_pillow_would_misread_are_refused(tmp_path, tag, usual, unusual):
    path = saved(tmp_path, Image.fromarray(np.array([[0, 1000]], np.uint16)), "TIFF")
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<HHI", tag, 3, 1)) + 8
    assert data[at] == usual
    data[at] = unusual
    path.write_bytes(bytes(data))
    assert "unusual kind" in refusal(path)


def png_of_size(width, height):
    """A tiny PNG file that claims to be of that size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    "size", [(10_001, 10_000), (12_000, 14_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1), (65_536, 1)]
)
def test_a_decompression_bomb_is_refused_undecoded(tmp_path, size, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    path = tmp_path / "p.png"
    path.write_bytes(png_of_size(*size))
    assert str(MAX_PIXELS) in refusal(path)


def test_a_picture_may_have_as_many_pixels_as_said(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_input, "MAX_PIXELS", 256)
    path = saved(tmp_path, Image.fromarray(blocks()), "PNG")
    assert read_photo(path).shape == (16, 16, 3)
    monkeypatch.setattr(picture_input, "MAX_PIXELS", 255)
    assert "16 x 16 pixels, more than the 255 in all" in refusal(path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "empty"),
        (b"  \n<!DOCTYPE html><p>log in", "web page"),
        (b"\xef\xbb\xbf<HTML>", "web page"),
        (b"<svg xmlns=''/>", "web page or a drawing"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (b"some text", "not a picture"),
        (bytes(1000), "not a picture"),
        (b"\xff\xd8\xff\xe0", "not a picture|cannot be decoded"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path, content, text):
    path = tmp_path / "p.jpg"
    path.write_bytes(content)
    assert any(part in refusal(path) for part in text.split("|"))


def test_missing_files_folders_and_pipes_are_refused(tmp_path):
    assert "does not exist" in refusal(tmp_path / "none.jpg")
    assert "is a folder" in refusal(tmp_path)
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes on this system")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "no ordinary file" in refusal(tmp_path / "pipe.jpg")
    assert "cannot be read" in refusal(tmp_path / ("n" * 300))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_a_file_that_is_cut_off_is_refused_or_whole(tmp_path, kind):
    """Whatever its length: never a picture with a grey or black rest."""
    y, x = np.mgrid[:24, :33]
    path = saved(tmp_path, Image.fromarray(np.stack([x * 7, y * 10, x * y % 256], axis=-1).astype(np.uint8)), kind)
    data, whole = path.read_bytes(), read_photo(path)
    refused = 0
    for length in [*range(1, len(data), max(1, len(data) // 60)), len(data) - 1]:
        path.write_bytes(data[:length])
        try:
            np.testing.assert_array_equal(read_photo(path), whole)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_of_damaged_files_only_user_errors_come(tmp_path, kind):
    path = saved(tmp_path, Image.fromarray(blocks()), kind)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        changed = bytearray(data)
        for place in rng.integers(0, len(data), 4):
            changed[place] = rng.integers(256)
        path.write_bytes(bytes(changed))
        try:
            picture = read_photo(path)
            assert picture.ndim == 3 and picture.dtype == np.uint8
        except UserError as error:
            assert "\n" not in str(error)


def test_remarks_on_damaged_metadata_do_not_leak(tmp_path, capfd):
    """pytest makes an error of every warning."""
    path = saved(tmp_path, Image.fromarray(blocks()), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(30))
    assert read_photo(path).shape == (16, 16, 3)
    assert capfd.readouterr().err == ""


def touched(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def names_and_stems(inputs):
    return {one.path.name: one.stem for one in (*inputs.pictures, *inputs.videos)}


def test_a_folder_stands_for_its_pictures_and_videos_in_natural_order(tmp_path):
    folder = touched(tmp_path / "in", "f10.jpg", "f2.JPG", "f1.png", "b.mp4", "a.mov", "notes.txt", "._f3.jpg")
    touched(folder / "deeper.jpg", "x.jpg")
    inputs = find_inputs([folder])
    assert [one.path.name for one in inputs.pictures] == ["f1.png", "f2.JPG", "f10.jpg"]
    assert [one.path.name for one in inputs.videos] == ["a.mov", "b.mp4"]
    assert inputs.pictures[0] == Input(folder / "f1.png", "f1", "f1.png")


def test_files_keep_the_order_they_are_given_in_and_count_once(tmp_path):
    folder = touched(tmp_path, "a.jpg", "b.jpg", "c.webp")
    paths = [folder / "c.webp", folder / "a.jpg", folder, folder / "a.jpg", folder / "." / "c.webp"]
    assert [one.path.name for one in find_inputs(paths).pictures] == ["c.webp", "a.jpg", "b.jpg"]


def test_results_have_names_of_their_own(tmp_path):
    x = touched(tmp_path / "x", "a.jpg", "a.png", "b.jpg", "C.gif", "c.mp4")
    y = touched(tmp_path / "y", "b.jpg", "d.jpg")
    inputs = find_inputs([x, y])
    assert [one.stem for one in inputs.pictures] == ["a.jpg", "a.png", "x_b.jpg", "C.gif", "y_b.jpg", "d"]
    assert [one.stem for one in inputs.videos] == ["c.mp4"]
    again = find_inputs([y / "d.jpg", y / "b.jpg", x])
    assert {one.path: one.stem for one in again.pictures} == {one.path: one.stem for one in inputs.pictures}


def test_names_that_only_look_alike_after_renaming_differ_too(tmp_path):
    folder = touched(tmp_path / "x", "a.jpg", "a.png", "a.jpg.png", "x_a.jpg.png")
    stems = names_and_stems(find_inputs([folder]))
    assert len({stem.casefold() for stem in stems.values()}) == 4
    upper = touched(tmp_path / "case", "q.jpg", "q.JPG")
    if len(list(upper.iterdir())) == 2:  # a file system that tells them apart
        stems = names_and_stems(find_inputs([upper]))
        assert len({stem.casefold() for stem in stems.values()}) == 2
        assert all(stem.startswith(name) for name, stem in stems.items())


def test_no_input_is_said_so(tmp_path):
    for paths, text in (
        ([], "no input"),
        ([tmp_path], "holds no picture and no video"),
        ([tmp_path / "none.jpg"], "does not exist"),
        ([touched(tmp_path / "t", "a.txt") / "a.txt"], "no suffix of a picture or a video"),
        ([tmp_path / ("n" * 300 + ".jpg")], "cannot be read"),
    ):
        with pytest.raises(UserError, match=text) as caught:
            find_inputs(paths)
        assert "\n" not in str(caught.value)


def test_names_of_all_results_long_names_and_labels(tmp_path):
    folder = touched(tmp_path / "x", "Poses.jpg", "index.png", "n" * 240 + ".jpg", "a.heic", "b.svg", "c.jpg")
    other = touched(tmp_path / "y", "c.jpg")
    inputs = find_inputs([folder, other])
    stems = names_and_stems(inputs)
    assert stems["Poses.jpg"] == "Poses.jpg" and stems["index.png"] == "index.png"
    assert max(map(len, stems.values())) < 170
    assert [one.label for one in inputs.pictures if one.path.name == "c.jpg"] == [
        str(p / "c.jpg") for p in (folder, other)
    ]
    assert [path.name for path in inputs.passed_over] == ["a.heic", "b.svg"]
