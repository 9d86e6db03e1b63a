"""Input that means harm: nothing in it runs, nothing leaves its folder, and nothing small becomes very large."""

import dataclasses
import gzip
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fuzzing import most_memory

import data_pipelines.archives as archives
from data_pipelines import picture_size, samples
from data_pipelines.archives import is_unpacked, may_hold, unpack
from data_pipelines.features_file import check_features
from data_pipelines.human36m.dummy_files import write_video
from data_pipelines.source import archive_item
from data_pipelines.video import Video, read_picture
from fusion_jax import records, stored_state
from fusion_jax.config import Config
from fusion_jax.errors import UserError
from fusion_jax.network import Conv, Dense
from fusion_jax.npz_file import read_npz
from fusion_jax.presets import preset, two_streams, with_overrides
from fusion_jax.records import from_json, parse_json, read_json, to_json
from fusion_jax.state import create_state

SMALL = 2**28  # bytes; what a trap of kilobytes may take, far below what it asks for


@pytest.fixture
def little_memory():
    before = most_memory()
    yield
    assert most_memory() - before < SMALL


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A file that only code which came with the input would make, and a module that does so when it is imported."""
    path, folder = tmp_path / "canary", tmp_path / "evil"
    folder.mkdir()
    (folder / "planted.py").write_text(f"open({str(path)!r}, 'w').close()\n\nclass Text: ...\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    return path


class Runs:
    """What pickle turns into a call."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


# --- nothing runs ---------------------------------------------------------------------------------------------------

TEXT = {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}
DICT = "tensorflow_datasets.core.features.features_dict.FeaturesDict"


def features_of(feature):
    return {"pythonClassName": DICT, "featuresDict": {"features": {"a": feature, "b": TEXT}}}


PLANTED = {
    "at the top": {"pythonClassName": "planted.Text", "text": {}},
    "within": features_of({"pythonClassName": "planted.Text", "text": {}}),
    "by the field's other name": features_of({"python_class_name": "planted.Text", "text": {}}),
    "in the old form": {"type": "planted.Text", "content": {}},
    "in the old form, as text": features_of(
        {"pythonClassName": DICT, "jsonFeature": {"json": json.dumps({"x": {"type": "planted.Text", "content": {}}})}}
    ),
    "in a sequence": {
        "pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence",
        "sequence": {"feature": {"pythonClassName": "planted.Text", "text": {}}},
    },
}


@pytest.mark.parametrize("how", PLANTED)
def test_a_datasets_own_class_is_never_imported(tmp_path, canary, how):
    import tensorflow_datasets as tfds

    (tmp_path / "features.json").write_text(json.dumps(PLANTED[how]))
    with pytest.raises(UserError, match="features.json: .*"):
        check_features(tmp_path)
    assert not canary.exists()
    with pytest.raises(Exception):  # noqa: B017
        tfds.features.FeatureConnector.from_config(str(tmp_path))
    assert canary.exists(), "what TFDS itself does with this file, so that the test would notice"


def test_features_of_the_usual_kinds_pass(tmp_path):
    import tensorflow_datasets as tfds

    kinds = tfds.features
    tensor = kinds.Tensor(shape=(None, 2), dtype=np.float32)
    found = kinds.FeaturesDict(
        {
            "image": kinds.Image(shape=(4, 4, 3)),
            "words": kinds.Sequence(kinds.Text(), length=3),
            "inner": {"tensor": tensor, "number": kinds.Scalar(np.int64), "list": kinds.Sequence({"x": tensor})},
            "label": kinds.ClassLabel(num_classes=3),
            "box": kinds.BBoxFeature(),
        }
    )
    found.save_config(str(tmp_path))
    check_features(tmp_path)


@pytest.mark.parametrize("shape", [["1000000", "1000000"], ["9" * 5000], ["-2"], ["x"], [1.5], "4"])
def test_features_larger_than_any_datasets_are_refused(tmp_path, shape):
    tensor = "tensorflow_datasets.core.features.tensor_feature.Tensor"
    feature = {"pythonClassName": tensor, "tensor": {"dtype": "float32", "shape": {"dimensions": shape}}}
    (tmp_path / "features.json").write_text(json.dumps(features_of(feature)))
    with pytest.raises(UserError, match="features.json: a has "):
        check_features(tmp_path)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_pickle_in_an_npz_does_not_run(tmp_path, canary, compressed):
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "a.npz", a=np.array([Runs(canary)], object), b=np.zeros(2))
    with pytest.raises(UserError, match="a is of object, expected numbers"):
        read_npz(tmp_path / "a.npz", ["b", "a"])
    assert not canary.exists()
    np.load(tmp_path / "a.npz", allow_pickle=True)["a"]
    assert canary.exists(), "what NumPy does with this file if it may, so that the test would notice"


# --- nothing leaves its folder, nothing becomes very large: archives -------------------------------------------------


def header(name, size=0, kind=b"0", front=b""):
    """A tar header; `size` as digits or bytes."""
    digits = size if isinstance(size, bytes) else b"%011o\0" % size
    block = name.ljust(100, b"\0") + b"0000644\0" * 3 + digits + b"0" * 11 + b"\0" + b" " * 8 + kind
    block = ((block + b"\0" * 100 + b"ustar\00000").ljust(345, b"\0") + front).ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def fields(**values):
    """A header of more fields for the next member."""
    text = b""
    for name, value in values.items():
        line = f" {name.replace('_', '.')}={value}\n".encode()
        length = len(line) + len(str(len(line) + 2))
        text += str(length).encode() + line
    return header(b"x", len(text), b"x") + text.ljust(512, b"\0")


def packed(tmp_path, *blocks, end=b"\0" * 1024):
    path = tmp_path / "raw.tgz"
    path.write_bytes(gzip.compress(b"".join(blocks) + end))
    return path


def test_the_headers_made_here_are_those_of_tars(tmp_path):
    good = packed(tmp_path, fields(path="a/é"), header(b"b", 3), b"one".ljust(512, b"\0"), header(b"c/", 0, b"5"))
    unpack(good, tmp_path / "raw")
    assert (tmp_path / "raw/a/é").read_bytes() == b"one"
    with tarfile.open(good) as theirs:
        assert theirs.getnames() == ["a/é", "c"]


FILE = b"\0" * 512
BAD_TARS = {
    "a way out in a field": ([fields(path="../evil"), header(b"a", 1), FILE], "leads out of its folder"),
    "a way out in a long name": (
        [header(b"x", 8, b"L"), b"/../evil".ljust(512, b"\0"), header(b"a", 1), FILE], "leads out"),
    "a way out in the name's front": ([header(b"evil", 1, front=b"../../tmp"), FILE], "leads out"),
    "a size below nothing, in a field": ([fields(size="-512"), header(b"a", 1), FILE], "a size is no number"),
    "a size below nothing": ([header(b"a", b"\xff" * 12), FILE], "a size is no number"),
    "a size beyond all disks": ([header(b"a", b"\x80" + b"\xff" * 11), FILE], "more than 200 times its size"),
    "a size that is not there": ([header(b"a", 2000), FILE], "ends in the middle"),
    "one size for all": (
        [header(b"g", 14, b"g"), b"14 size=99999\n".ljust(512, b"\0"), header(b"a", 1), FILE], "all its members"),
    "a file with holes": ([header(b"a", 1, b"S"), FILE], "no usual file"),
    "a file with holes, in fields": ([fields(GNU_sparse_size=10**13), header(b"a", 1), FILE], "holes"),
    "headers without end": ([fields(path="a")] * 50, "more than 8 headers"),
    "a pipe": ([header(b"a", 0, b"6")], "a device or no usual file"),
    "digits that are none": ([header(b"x", 12, b"x"), b"99999 path=a\n".ljust(512, b"\0")], "header of fields"),
    "no end": ([header(b"a", 1), FILE, header(b"b", 1)[:-1] + b"x", FILE], "checksum"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_TARS)
def test_tars_that_python_would_loop_on_or_follow_are_refused(tmp_path, kind):
    blocks, words = BAD_TARS[kind]
    (tmp_path / "in").mkdir()
    path = packed(tmp_path / "in", *blocks)
    is_unpacked(path), may_hold(path, "x"), archive_item(path)
    with pytest.raises(UserError, match=words):
        unpack(path, tmp_path / "in" / "raw")
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "raw.tgz"]


@pytest.mark.parametrize("kind", [b"x", b"L", b"g", b"0"])
def test_a_bomb_in_a_tars_header_or_contents_is_not_unpacked(tmp_path, little_memory, kind):
    path = tmp_path / "raw.tgz"
    with gzip.open(path, "wb", 1) as file:
        file.write(header(b"a", 2**29, kind))
        for _ in range(2**9):
            file.write(b"\0" * 2**20)
    start = time.process_time()
    assert not may_hold(path, "x") and not is_unpacked(path) and "unpacked" in archive_item(path).note
    with pytest.raises(UserError, match="expected 65536 at most|more than 200 times its size"):
        unpack(path, tmp_path / "raw")
    assert time.process_time() - start < 30, "a watchdog: it is not gone through to its end"
    assert [p.name for p in tmp_path.iterdir()] == ["raw.tgz"]


def test_zips_that_lie_about_sizes_names_and_methods(tmp_path, monkeypatch, little_memory):
    path = tmp_path / "raw.zip"

    def refused(words):
        with pytest.raises(UserError, match=words):
            unpack(path, tmp_path / "raw")
        assert [p.name for p in tmp_path.iterdir()] == ["raw.zip"]

    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as made:
        made.writestr("a", b"\0" * 10**8)  # 80 bytes, which zipfile unpacks at once whatever is asked for
    refused("packed by method 12, expected 0 or 8")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a", b"\0" * 10**7)
    data = path.read_bytes()
    at = data.index(b"PK\1\2") + 24
    path.write_bytes(data[:at] + struct.pack("<I", 10) + data[at + 4 :])  # says ten bytes
    refused("damaged or cut off")
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("é", b"1")
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xfe"))  # a name that is said to be UTF-8
    refused("damaged or cut off")
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a/" * 40 + "b", b"1")
    refused("lies 41 folders deep")
    with zipfile.ZipFile(path, "w") as made:
        for number in range(20):
            made.writestr(f"{number}", b"1")
    monkeypatch.setattr(archives, "MAX_MEMBERS", 10)
    refused("more than 10 files")
    monkeypatch.setattr(archives, "_MAX_LIST", 100)
    refused("list of members is .* bytes long, expected 100 at most")


# --- pictures -------------------------------------------------------------------------------------------------------


def png(width, height, rows=b""):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return start + chunk(b"IDAT", rows or zlib.compress(b"\0" * (3 * width + 1) * height, 1)) + chunk(b"IEND", b"")


def jpeg_of_size(width, height):
    data = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


LISTS = {
    "ffconcat": "ffconcat version 1.0\nfile secret.mp4\n",
    "a playlist": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
    "an address": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "another address": "[Reference]\nRef1=secret.mp4\n",
    "a manifest": (
        '<MPD profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">'
        "<Representation><BaseURL>secret.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>"
    ),
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_video_that_names_other_files_does_not_open_them(tmp_path, kind):
    write_video(tmp_path / "secret.mp4", [np.zeros((32, 32, 3), np.uint8)] * 2, (32, 32))
    Video(tmp_path / "secret.mp4").close()
    for suffix in (".mp4", ".avi", ".mkv"):
        path = tmp_path / f"clip{suffix}"
        path.write_text(LISTS[kind])
        with pytest.raises(UserError, match="clip"):
            Video(path)


def test_a_video_with_frames_beyond_all_is_refused(tmp_path, monkeypatch):
    write_video(tmp_path / "clip.mp4", [np.zeros((32, 32, 3), np.uint8)] * 2, (32, 32))
    monkeypatch.setattr("data_pipelines.video.MAX_PIXELS", 1000)
    with pytest.raises(UserError, match="clip.mp4 has frames of 32 x 32 px, more than 1000 px"):
        Video(tmp_path / "clip.mp4")


def test_a_png_whose_piece_is_longer_than_the_file_is_refused(little_memory):
    whole = cv2.imencode(".png", np.full((8, 8, 3), 90, np.uint8))[1].tobytes()
    at = whole.index(b"IDAT") - 4
    for length in (2**31 - 1, 2**32 - 1, 10**6):  # OpenCV makes room for as many bytes
        with pytest.raises(UserError, match="does not decode"):
            samples.decode_image(whole[:at] + struct.pack(">I", length) + whole[at + 4 :], 8, "x")


def test_a_stored_pictures_size_is_read_from_its_header():
    for width, height in ((8, 8), (300, 20)):
        for suffix in (".jpg", ".png"):
            data = cv2.imencode(suffix, np.zeros((height, width, 3), np.uint8))[1].tobytes()
            assert picture_size.encoded_size(data) == (width, height)
            assert all(picture_size.encoded_size(data[:n]) in (None, (width, height)) for n in range(len(data)))
    assert picture_size.encoded_size(jpeg_of_size(30_000, 20_000)) == (30_000, 20_000)
    assert picture_size.encoded_size(cv2.imencode(".bmp", np.zeros((8, 8, 3), np.uint8))[1].tobytes()) is None
    assert picture_size.encoded_size(b"") is None


def test_a_bomb_among_a_datasets_pictures_is_not_decoded(tmp_path, little_memory):
    bomb = png(20_000, 20_000, zlib.compress(b"\0" * 10**7))  # OpenCV makes 1.2 GB of it
    for data in (bomb, jpeg_of_size(30_000, 30_000)):
        (tmp_path / "bomb.jpg").write_bytes(data)
        with pytest.raises(UserError, match="bomb.jpg has .* pixels"):
            read_picture(tmp_path / "bomb.jpg")
        for decode in (samples.decode_image, samples.decode_parts):
            with pytest.raises(UserError, match=r"S1/cam/1: its .* is .*000.*, expected \(64, 64"):
                decode(data, 64, "S1/cam/1")
    image = np.full((8, 8, 3), 90, np.uint8)
    assert (samples.decode_image(png(8, 8), 8, "x") == 0).all()
    assert (samples.decode_image(cv2.imencode(".png", image)[1].tobytes(), 8, "x") == 90).all()


# --- JSON, configs, checkpoints, arrays -------------------------------------------------------------------------------

BAD_JSON = {
    "NaN": ('{"a": NaN}', "NaN is no JSON number"),
    "infinity": ('{"a": -Infinity}', "-Infinity is no JSON number"),
    "a number beyond all": ('{"a": 1e999}', "1e999 is no JSON number"),
    "digits without end": ("[" + "9" * 10_000 + "]", "digits"),
    "a name twice": ('{"steps": 1, "steps": 2}', "'steps' twice"),
    "brackets without end": ("[" * 100_000, "nests deeper than 64"),
    "deep": ("[" * 70 + "]" * 70, "nests deeper than 64"),
    "no text": (b"\xff\xfe{}", "utf-8"),
}


@pytest.mark.parametrize("kind", BAD_JSON)
def test_json_is_taken_strictly(tmp_path, kind):
    content, words = BAD_JSON[kind]
    path = tmp_path / "config.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=f"config.json cannot be read as JSON: .*{words}"):
        read_json(path)


def test_json_that_is_no_file_or_too_large_is_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.json")  # opening it would wait for ever
    with pytest.raises(UserError, match="no ordinary file"):
        read_json(tmp_path / "pipe.json")
    monkeypatch.setattr(records, "MAX_BYTES", 10)
    (tmp_path / "a.json").write_text("[1, 2, 3, 4, 5]")
    with pytest.raises(UserError, match="more than 10 bytes"):
        read_json(tmp_path / "a.json")
    assert parse_json('{"a": [1e3, {"b": null}]}') == {"a": [1000.0, {"b": None}]}


HUGE = 10**12
LAYER = ("network", "streams", 0, "layers", 0)
BAD_CONFIGS = [
    ((*LAYER, "features"), HUGE, "Conv.features is 1000000000000, expected >= 1 and at most"),
    ((*LAYER, "kernel"), HUGE, "Conv.kernel"),
    ((*LAYER, "pool"), HUGE, "Conv.pool"),
    (("network", "streams", 0, "layers", -1, "features"), HUGE, "Dense.features"),
    (("network", "streams", 0, "name"), "a" * 10**6, "name is longer than 100"),
    (("inputs", "image_size"), HUGE, "inputs.image_size"),
    (("inputs", "heatmap_size"), HUGE, "inputs.heatmap_size"),
    (("inputs", "heatmap_sigma_px"), 1e300, "inputs.heatmap_sigma_px"),
    (("steps",), 2**31, "steps"),
    (("batch_size",), HUGE, "batch_size"),
    (("optim", "warmup_steps"), HUGE, "optim.warmup_steps"),
    (("optim", "learning_rate"), 10**400, "expected a number that a float can hold"),
    (("seed",), 10**4000, "seed"),
]


@pytest.mark.parametrize("place, value, words", BAD_CONFIGS)
def test_a_config_cannot_ask_for_terabytes(place, value, words):
    data = to_json(with_overrides("tiny"))
    *way, last = place
    part = data
    for name in way:
        part = part[name]
    part[last] = value
    with pytest.raises(UserError, match=words) as error:
        from_json(Config, data, "config.json")
    assert len(str(error.value)) < 1000


def test_streams_and_layers_without_end_are_refused():
    network = preset("tiny").fusion
    stream = network.streams[0]
    many = tuple(dataclasses.replace(stream, name=f"s{n}") for n in range(100))
    deep = tuple(dataclasses.replace(s, layers=(Dense(2),) * 2000) for s in network.streams)
    for streams in (many, deep):
        with pytest.raises(UserError, match="expected at most 32 of 1000"):
            dataclasses.replace(network, streams=streams)


def test_a_network_larger_than_any_machine_is_refused_before_it_is_made(little_memory):
    base = preset("tiny")
    network = dataclasses.replace(base.fusion, streams=two_streams((Conv(2**15, 9), Dense(2**19))))
    config = dataclasses.replace(base, network=network)
    with pytest.raises(UserError, match=r"has .*e\+.* parameters, expected at most 2.15e\+09"):
        jax.eval_shape(lambda key: create_state(config, key), jax.random.key(0))


def test_a_checkpoint_of_announced_zeros_is_not_read(tmp_path):
    (tmp_path / "manifest").write_bytes(b"\0" * 100_000)
    weights = {"w": jax.ShapeDtypeStruct((2**15, 2**16), jnp.float32)}
    with pytest.raises(UserError, match="holds 100000 bytes, its config announces a state of 8589934592"):
        stored_state.check_stored(tmp_path, weights)
    stored_state.check_stored(tmp_path, {"w": jax.ShapeDtypeStruct((2**13, 2**13), jnp.float32)})


@pytest.mark.parametrize("data", [None, [], {}, {"next_batch": -1}, {"next_batch": True}, {"next_batch": 10**300}])
def test_a_checkpoints_position_is_a_number(data):
    assert stored_state.position({"next_batch": 7}, "x") == 7
    with pytest.raises(UserError, match="next_batch"):
        stored_state.position(data, "checkpoints/3")


def npz(path, shape, data, descr="<f4"):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        made.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data)
    return path


def test_an_npz_announces_or_unpacks_to_no_more_than_is_allowed(tmp_path, little_memory, monkeypatch):
    path = tmp_path / "a.npz"
    assert (read_npz(npz(path, (2,), struct.pack("<2f", 1, 2)), ["a"])["a"] == [1, 2]).all()
    for shape, data, descr, words in (
        ((10**12,), b"\0" * 8, "<f4", "more than 1073741824 bytes"),
        ((-1,), b"\0" * 8, "<f4", "more than|cannot be read"),
        ((2**28,), b"\0" * 8, "<f4", "holds other than 1073741824 bytes"),
        ((2,), b"\0" * 2**24, "<f4", "holds other than 8 bytes"),
        ((2,), b"\0" * 8, "|O", "expected numbers"),
        ((2,), b"\0" * 8, "<U9999", "expected numbers or short texts"),
    ):
        with pytest.raises(UserError, match=f"a.npz .*({words})"):
            read_npz(npz(path, shape, data, descr), ["a"])
    monkeypatch.setattr("fusion_jax.npz_file.MAX_BYTES", 2**20)
    with pytest.raises(UserError, match="more than 1048576 bytes of numbers"):
        read_npz(npz(path, (2**20,), b"\0" * 2**22), ["a"])


def test_reading_never_follows_into_pythons_own_unpickler():
    """No module of the package imports what runs code from files: pickle, marshal, shelve, yaml, joblib, torch.load."""
    code = (
        "import ast, pathlib, sys\n"
        "banned = {'pickle', 'marshal', 'shelve', 'yaml', 'joblib', 'dill', 'cloudpickle', 'torch'}\n"
        "for path in (p for folder in ('fusion_jax', 'data_pipelines') for p in pathlib.Path(folder).rglob('*.py')):\n"
        "    for node in ast.walk(ast.parse(path.read_text())):\n"
        "        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []\n"
        "        names += [node.module or ''] if isinstance(node, ast.ImportFrom) else []\n"
        "        assert not banned & {n.split('.')[0] for n in names}, path\n"
        "        if isinstance(node, ast.keyword) and node.arg == 'allow_pickle':\n"
        "            assert node.value.value is False, path\n"
        "        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') in ('eval', 'exec'):\n"
        "            raise AssertionError(path)\n"
    )
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


def test_a_tar_is_read_as_python_reads_it(tmp_path):
    """Names long, short and foreign in all three formats that Python writes."""
    contents = {"a.txt": b"", "b/c.bin": os.urandom(700), "d/" + "x" * 120 + "/" + "y" * 99: b"1" * 512, "é/ü": b"2"}
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        for mode in ("w", "w:gz", "w:bz2"):
            path = tmp_path / f"{form}{mode[1:].strip(':')}.tar"
            with tarfile.open(path, mode, format=form) as made:
                for name, data in contents.items():
                    member = tarfile.TarInfo(name)
                    member.size, member.mtime = len(data), 1.5
                    made.addfile(member, io.BytesIO(data))
            out = path.with_suffix("")
            unpack(path, out)
            assert {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()} == contents
