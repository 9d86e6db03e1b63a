"""Every reader of files from outside, on thousands of damaged and hostile ones: a value or a UserError, nothing else.

Small valid files, made here, are changed at random: bits, sizes, cuts, repeats, and words of the format. The plain run
tries few of each. Many more, of all readers or of those that -k names:

    FUSION_JAX_FUZZ_EXAMPLES=20000 python -m pytest tests/test_fuzz_readers.py -m "slow or not slow" -k "bvh or tar"

That takes half a minute to ten minutes a reader, of checkpoints an hour; FUSION_JAX_FUZZ_SEED=n tries others. A file
that does harm is kept in FUSION_JAX_FUZZ_FOUND, else the folder for temporary files, and named.
"""

import atexit
import functools
import gzip
import io
import json
import os
import pathlib
import random
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import release_writer
import scipy.io
import small
import torch_writer
from fuzzing import (
    EDITS,
    GROWTH,
    JSON_TOKENS,
    TEXT_TOKENS,
    changed,
    examples,
    most_memory,
    random_edits,
    read_or_refuse,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_bvh import TINY
from test_humaneva import LABELS, _write_cache
from test_release_file import PICKLES
from test_report import RunMaker

from data_pipelines import archives, bvh, heatmap_store, matfile, picture_size, samples, video
from data_pipelines.human36m import dummy_files as h36m_files
from data_pipelines.human36m import masks, poses
from data_pipelines.humaneva import c3d_file, calibration, marker_params, mocap_cache, sync
from data_pipelines.humaneva import dummy_files as humaneva_files
from data_pipelines.kth_football2 import numbers
from data_pipelines.mpii import release as mpii_release
from data_pipelines.mpii import splits as mpii_splits
from data_pipelines.prepared import open_prepared
from data_pipelines.synthetic_humans import mocap_overrides
from data_pipelines.tekin_release import rows
from fusion_jax import (
    checkpoint,
    given_boxes,
    leakage,
    picture_input,
    place,
    progress,
    run_record,
    training_log,
    work_folder,
)
from fusion_jax.leakage import Seen
from fusion_jax.presets import with_overrides
from fusion_jax.records import from_json, parse_json, to_json
from fusion_jax.release_file import read_release
from fusion_jax.sharding import data_mesh
from fusion_jax.state import create_state
from fusion_jax.sweep_result import MemberResult, NetworkCost, read_result
from fusion_jax.torch_file import read_torch_file

# Orbax leaves the futures of its other reads alone when one of them fails.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Case(NamedTuple):
    """A reader to try.

    Attributes:
      make: writes valid files into a folder; returns the one to change.
      read: of the changed file.
      tokens: words of the format.
      few: how many changes the plain run tries.
      wrap: from the changed bytes to the file's: packing, checksums.
    """

    make: Callable[[pathlib.Path], pathlib.Path]
    read: Callable[[pathlib.Path], Any]
    tokens: tuple[bytes, ...] = ()
    few: int = 60
    wrap: Callable[[bytes], bytes] = bytes


def text(name, content):
    def make(folder):
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return folder / name

    return make


def as_json(name, content):
    return text(name, json.dumps(content))


# --- motion capture, labels, cameras --------------------------------------------------------------------------------


def read_motion(path):
    found = bvh.read_bvh(path)
    assert np.isfinite(bvh.forward_kinematics(found)).all()


def kth(name):
    def make(folder):
        for each, count in numbers.PER_STEP.items():
            (folder / each).write_text("".join(f"{n * 0.5:g}\n" for n in range(2 * count)))
        return folder / name

    return make


def cal(folder):
    camera = humaneva_files.plausible_camera(np.eye(3), np.array([10.0, 20, 30]), "C1")
    humaneva_files.write_cal(folder / "C1.cal", camera)
    return folder / "C1.cal"


def ofs(folder):
    humaneva_files.write_ofs(folder / "a.ofs", 10, 20.0, 2.0)
    return folder / "a.ofs"


def mp(folder):
    humaneva_files.write_mp(folder / "S1.mp", {"LShoulderOffset": 40.0, "RShoulderOffset": 41.0})
    return folder / "S1.mp"


def c3d(scale):
    def make(folder):
        points = np.arange(2 * 3 * 3.0).reshape(2, 3, 3)
        humaneva_files.write_c3d(folder / "a.c3d", ["A", "B", "C"], points, scale=scale)
        return folder / "a.c3d"

    return make


def read_c3d(path):
    c3d_file.read_c3d_shape(path)
    c3d_file.read_c3d(path)


def mat_cache(folder):
    _write_cache(folder / "a.mat", np.ones((5, 91, 3)), LABELS)
    return folder / "a.mat"


def mat_release(packed):
    def make(folder):
        kind = [("x", "O"), ("y", "O"), ("id", "O"), ("is_visible", "O")]
        points = np.array([[(1.0, 2.0, 0, "1"), (3.0, 4.0, 1, np.zeros((0, 0)))]], kind)
        person = {"scale": 1.5, "objpos": {"x": 5.0, "y": 6.0}, "x1": 1, "y1": 1, "x2": 3, "y2": 3,
                  "annopoints": {"point": points}}  # fmt: skip
        release = {
            "annolist": {"image": {"name": "015601864.jpg"}, "annorect": person},
            "img_train": 1,
            "single_person": 1,
            "act": {"act_name": "running", "cat_name": "sports"},
        }
        scipy.io.savemat(folder / "a.mat", {"RELEASE": release}, do_compression=packed, long_field_names=True)
        return folder / "a.mat"

    return make


def read_mpii(path):
    mpii_release.parse_release(matfile.load_mat_variable(path, "RELEASE", squeeze_me=True))


def cdf(**options):
    def make(folder):
        h36m_files.write_cdf(folder / "a.cdf", np.arange(96 * 2.0).reshape(1, 2, 96), **options)
        return folder / "a.cdf"

    return make


def h36m_masks(folder):
    h36m_files.write_masks(folder / "a.mat", np.array([[1, 1, 4, 5], [2, 2, 3, 3]]), (8, 6))
    return folder / "a.mat"


def read_masks(path):
    with masks.Masks(path, (8, 6)) as found:
        for number in range(min(len(found), 10)):
            found.rectangle(number)


def hdf5_rows(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("x", data=np.ones((4, 6), np.float32), chunks=(2, 6), compression="gzip")
        file.create_dataset("y", data=np.ones((4, 6), np.float32))
    return folder / "a.h5"


def read_rows(path):
    with rows.open_hdf5(path) as file:
        for name in ("x", "y"):
            rows.find_rows(file, path, name, (6,)).read(0, 3)


# --- weights --------------------------------------------------------------------------------------------------------

_WEIGHTS = {"a": torch_writer.tensor("0", np.arange(6.0).reshape(2, 3)), "b": [1, 2.5, "x", None, {"c": (True,)}]}


def torch_file(form):
    return lambda folder: torch_writer.write(folder / "a.pt", _WEIGHTS, form)


def torch_rewrapped(form):
    """The pickle is what changes; archive and checksums around it stay right."""
    body, storages = torch_writer.pickled(_WEIGHTS, form == "legacy")

    def wrap(data):
        with Scratch() as path:
            return torch_writer.WRITERS[form](path, data, storages).read_bytes()

    return Case(text("a.pt", body), read_torch_file, PICKLE_TOKENS, wrap=wrap)


def release_rewrapped(protocol):
    def wrap(data):
        with Scratch() as path:
            return release_writer.write_pickle(path, data).read_bytes()

    return Case(text("a.npz", PICKLES[protocol]), read_release, PICKLE_TOKENS, wrap=wrap)


class Scratch:
    """A path for a file on the way to bytes."""

    def __enter__(self):
        self._path = pathlib.Path(_folder(), "scratch")
        return self._path

    def __exit__(self, *_):
        self._path.unlink(missing_ok=True)


@functools.cache
def _folder():
    folder = tempfile.mkdtemp(prefix="fusion_jax_fuzz_")
    atexit.register(shutil.rmtree, folder, True)
    return folder


PICKLE_TOKENS = (
    b"cos\nsystem\n", b"(S'touch x'\ntR", b"cbuiltins\neval\n", b"ccopyreg\n_reconstructor\n", b"\x81", b"\x92",
    b"\x93", b"R", b"b", b"}", b"]", b"(", b"t", b"Q", b".", b"2", b"0", b"1", b"e", b"u", b"s", b"q\xff", b"h\x00",
    b"r\xff\xff\xff\x7f", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", b"X\xff\xff\xff\x7f", b"J\xff\xff\xff\xff",
    b"\x8a\xff", b"I01\n", b"L99999999999999999999L\n", b"F1e999\n", b"V\\ud800\n",
)  # fmt: skip


# --- JSON -----------------------------------------------------------------------------------------------------------

_CAMERA = {"fx": 500.0, "fy": 500, "cx": 320, "cy": 240, "distortion": [0, 0, 0, 0, 0], "image_size": [640, 480],
           "rotation": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "center_mm": [0, 0, 0]}  # fmt: skip
_SEEN = [Seen("synthetic_humans/a", "synthetic_humans", False, ("S1",), {"S1/walk": [[0, 9]]}).to_json()]


def run_folder(name, preset="tiny"):
    def make(folder):
        config = with_overrides(preset)
        work_folder.save_run(folder, config, work_folder.DatasetRecord("synthetic_humans/a", "data", "0" * 16), [])
        return folder / name

    return make


def read_config(path):
    config, _ = work_folder.load_run(path.parent)
    assert from_json(type(config), parse_json(json.dumps(to_json(config))), "again") == config


def report_folder(name):
    def make(folder):
        shutil.rmtree(folder / "run", ignore_errors=True)
        RunMaker(folder / "run").write()
        return folder / "run" / name

    return make


def read_run(path):
    run = run_record.read_run(path.parent if path.parent.name == "run" else path.parent.parent)
    _ = run.skeleton, run.task, run.strategy, run.image_size, run.streams, run.num_layers
    for found in run.evaluations:
        found.command(run.workdir)


def read_log(path, nested=False):
    training_log.read_log(path, nested=nested)
    progress._forget_after(path, 3)


_LOG = [
    {"kind": "train", "step": 1, "loss": 1.5, "fusion_weights": [0.5, 0.6], "layer_grad_norms": {"a": 1.0}},
    {"kind": "validation", "step": 1, "mpjpe_mm": 50.5},
    {"kind": "train", "step": 2, "loss": 1.25, "fusion_weights": [0.5, 0.6]},
]


def log(folder):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _LOG))
    return folder / "metrics.jsonl"


def sweep_log(folder):
    line = {"kind": "train", "step": 1, "members": {"loss": [1.0, 2.0]}}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n" + json.dumps({**line, "step": 2}) + "\n")
    return folder / "metrics.jsonl"


_RESULT = to_json(
    MemberResult("learned", 0, "learned", "test", 9, 50.0, 40.0, 1.0, 2.0, (0.5,), NetworkCost(5, 1.0),
                 NetworkCost(4, 0.5), 0.01, None)
)  # fmt: skip


def read_seen(path):
    leakage.seen_from_json(parse_seen(path), str(path))


def parse_seen(path):
    return [part.to_json() for part in work_folder.load_seen(path.parent)]


# --- archives -------------------------------------------------------------------------------------------------------


def zip_archive(folder):
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a/1.txt", "one" * 20)
        packed.writestr("a/2.txt", b"\0" * 300)
    return folder / "a.zip"


def tar_bytes():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for name, content in {"a/1.txt": b"one", "a/" + "long" * 40 + "/é.txt": b"\0" * 600}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return out.getvalue()[: 9 * 512]


def checksummed(data):
    """A tar whose headers' checksums are right again, wherever a header seems to be."""
    blocks = bytearray(data)
    for at in range(0, len(blocks) - 511, 512):
        if blocks[at + 257 : at + 262] == b"ustar":
            blocks[at + 148 : at + 156] = b" " * 8
            blocks[at + 148 : at + 155] = b"%06o\0" % sum(blocks[at : at + 512])
    return bytes(blocks)


def read_archive(path):
    target = path.parent / "unpacked"
    shutil.rmtree(target, ignore_errors=True)
    archives.is_unpacked(path)
    archives.may_hold(path, "2.txt")
    archives.unpack(path, target)
    outside = set(path.parent.parent.rglob("*")) - set(path.parent.rglob("*")) - {path.parent}
    assert not outside, outside


# --- pictures, videos, datasets -------------------------------------------------------------------------------------


def picture(suffix, height=9):
    def make(folder):
        image = np.random.default_rng(0).integers(0, 256, (height, 8, 3), np.uint8)
        assert cv2.imwrite(str(folder / f"a{suffix}"), image)
        return folder / f"a{suffix}"

    return make


def read_picture(path):
    with pytest.MonkeyPatch.context() as patch:  # 25 bytes a pixel are in use at worst: 2.5 GB where all are admitted
        for module in (picture_input, picture_size):
            patch.setattr(module, "MAX_PIXELS", 10**6)
        picture_input.read_photo(path)
        video.read_picture(path)


def read_stored(path):
    samples.decode_image(path.read_bytes(), 8, path.name)


def clip(folder):
    h36m_files.write_video(folder / "a.mp4", [np.full((32, 32, 3), n, np.uint8) for n in (10, 200)], (32, 32))
    return folder / "a.mp4"


def read_video(path):
    with video.Video(path) as found:
        for _ in found.frames(range(4)):
            pass


def prepared(name):
    def make(folder):
        shutil.rmtree(folder / "synthetic_humans", ignore_errors=True)
        source = next((small.data_dir() / "synthetic_humans").glob("16px*"))
        shutil.copytree(source, folder / "synthetic_humans" / source.name)
        (path,) = folder.glob(f"synthetic_humans/*/*/{name}")  # not heatmaps that may be kept further below
        return path

    return make


def read_prepared(path):
    dataset = open_prepared("synthetic_humans", path.parent.parent.parent.parent)
    leakage.check_splits([dataset])
    for split in dataset.splits:
        dataset.split(split)[0]


_HEADER = {"format": 1, "count": 1, "size_px": 2, "joints": ["a"]}


def heatmaps(folder):
    heatmap_store.write_heatmaps(
        folder / "a.array_record", _HEADER, [heatmap_store.pack(np.ones((2, 2, 1)), zlib.crc32(b"x"))]
    )
    return folder / "a.array_record"


def read_heatmaps(path):
    examples = [{"image": b"x", "sequence": "s", "camera_name": "c", "frame": 0}]
    heatmap_store.WithHeatmaps(examples, path, _HEADER)[0]


@functools.cache
def saved():
    """A work folder with a checkpoint of a small network after three steps, all zeros."""
    config = small.config()
    state = jax.eval_shape(functools.partial(create_state, config), jax.random.key(0))
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state.replace(rng=None))
    folder = pathlib.Path(_folder(), "saved")
    work_folder.save_run(folder, config, work_folder.DatasetRecord("synthetic_humans/a", "data", "0" * 16), [])
    checkpoint.save_once(folder, config, 3, state.replace(rng=jax.random.key(0)))
    return folder


def checkpoint_file(pattern):
    def make(folder):
        shutil.copytree(saved(), folder / "run")
        return max((folder / "run" / "checkpoints" / "3").glob(pattern), key=lambda path: path.stat().st_size)

    return make


def read_checkpoint(path):
    run = next(folder for folder in path.parents if folder.name == "run")
    config, _ = work_folder.load_run(run)
    found = checkpoint.Checkpoints(run, config)
    try:
        found.live_layers()
    finally:
        found.close()
    assert checkpoint.restore_run(run, config, data_mesh(jax.local_devices()[:1])).params


CASES = {
    "bvh": Case(text("a.bvh", TINY), read_motion, (*TEXT_TOKENS, b"JOINT", b"End Site", b"{", b"}", b"MOTION")),
    "mapping": Case(as_json("mapping.json", {"unit_mm": 10.0, "up": "y", "drop_first_frame": True, "fps": {"60": 60}}),
                    mocap_overrides.read_overrides, JSON_TOKENS),
    "kth positions2d": Case(kth("positions2d.txt"), lambda path: numbers.read_sequence(path.parent), TEXT_TOKENS),
    "kth cameras": Case(kth("cameras.txt"), lambda path: numbers.read_sequence(path.parent), TEXT_TOKENS),
    "cal": Case(cal, calibration.read_camera, TEXT_TOKENS),
    "ofs": Case(ofs, sync.read_offsets, TEXT_TOKENS),
    "mp": Case(mp, marker_params.read_shoulder_offsets, TEXT_TOKENS),
    "c3d floats": Case(c3d(-1.0), read_c3d, (b"\x50", b"POINT", b"LABELS", b"\xff\xff")),
    "c3d integers": Case(c3d(0.1), read_c3d, (b"\x50", b"POINT", b"LABELS", b"\xff\xff")),
    "mat cache": Case(mat_cache, mocap_cache.read_cache),
    "mat release": Case(mat_release(False), read_mpii, (b"\x0e\0\0\0", b"\x0f\0\0\0", b"\x05\0\4\0")),
    "mat release packed": Case(mat_release(True), read_mpii),
    "cdf": Case(cdf(), lambda path: poses.read_pose_cdf(path, 3), (b"Pose", b"\xcd\xf3\x00\x01", b"\xff" * 4)),
    "cdf packed": Case(cdf(compress=6), lambda path: poses.read_pose_cdf(path, 3)),
    "cdf packed whole": Case(cdf(whole_file=True), lambda path: poses.read_pose_cdf(path, 3)),
    "masks": Case(h36m_masks, read_masks, (b"SNOD", b"TREE", b"HEAP", b"OHDR")),
    "hdf5 rows": Case(hdf5_rows, read_rows, (b"SNOD", b"TREE", b"HEAP", b"OHDR")),
    "mpii list": Case(text("list.txt", "# people\n0 0 015601864\n1 2 015601865.jpg\n"), mpii_splits.read_list,
                      TEXT_TOKENS),
    "torch zip": Case(torch_file("zip"), read_torch_file, PICKLE_TOKENS),
    "torch legacy": Case(torch_file("legacy"), read_torch_file, PICKLE_TOKENS),
    "torch zip pickle": torch_rewrapped("zip"),
    "torch legacy pickle": torch_rewrapped("legacy"),
    "release": Case(lambda folder: release_writer.write_pickle(folder / "a.npz", PICKLES[2]), read_release),
    "release pickle 0": release_rewrapped(0),
    "release pickle 2": release_rewrapped(2),
    "camera": Case(as_json("camera.json", _CAMERA), place.read_camera, JSON_TOKENS),
    "boxes": Case(as_json("boxes.json", {"a.jpg": [[1, 2, 3, 4]], "*": []}), given_boxes.read_boxes, JSON_TOKENS),
    "config": Case(run_folder("config.json"), read_config, JSON_TOKENS, 150),
    "config of a 2D network": Case(run_folder("config.json", "hourglass-tiny"), read_config, JSON_TOKENS),
    "dataset record": Case(run_folder("dataset.json"), read_config, JSON_TOKENS),
    "trained on": Case(as_json("trained_on.json", _SEEN), read_seen, JSON_TOKENS),
    "log": Case(log, read_log, JSON_TOKENS, 150),
    "sweep log": Case(sweep_log, functools.partial(read_log, nested=True), JSON_TOKENS),
    "sweep result": Case(as_json("result.json", _RESULT), read_result, JSON_TOKENS),
    "run: config": Case(report_folder("config.json"), read_run, JSON_TOKENS),
    "run: scores": Case(report_folder("eval/test.json"), read_run, JSON_TOKENS, 30),
    "run: samples": Case(report_folder("eval/test_samples.npz"), read_run, (), 30),
    "zip": Case(zip_archive, read_archive, (b"../", b"/", b"\0", b"\\", b"PK\1\2", b"PK\3\4", b"PK\5\6")),
    "tar": Case(text("a.tar", tar_bytes()), read_archive, (b"../", b"/etc", b"\0" * 512, b"5", b"2", b"S", b"x", b"L"),
                wrap=checksummed),
    "tar with gzip": Case(text("a.tgz", tar_bytes()), read_archive, (b"../", b"17 path=../evil\n", b"size=-512\n"),
                          wrap=lambda data: gzip.compress(checksummed(data), 1)),
    "gzip": Case(text("a.tgz", gzip.compress(tar_bytes(), mtime=0)), read_archive),
    **{f"picture {suffix[1:]}": Case(picture(suffix), read_picture) for suffix in (".jpg", ".png", ".bmp", ".tiff")},
    "stored jpg": Case(picture(".jpg", 8), read_stored),
    "stored png": Case(picture(".png", 8), read_stored),
    "prepared: metadata": Case(prepared("metadata.json"), read_prepared, JSON_TOKENS, 20),
    "prepared: features": Case(prepared("features.json"), read_prepared, JSON_TOKENS, 20),
    "prepared: info": Case(prepared("dataset_info.json"), read_prepared, JSON_TOKENS, 20),
    "prepared: records": Case(prepared("*train.array_record*"), read_prepared, (), 10),
    "heatmaps": Case(heatmaps, read_heatmaps, (), 30),
}  # fmt: skip
SLOW_CASES = {
    "video": Case(clip, read_video, (b"moov", b"mdat", b"stsz", b"\xff" * 4)),
    **{
        f"checkpoint: {pattern}": Case(checkpoint_file(pattern), read_checkpoint, JSON_TOKENS)
        for pattern in (
            *("_CHECKPOINT_METADATA", "card/metadata", "data/metadata", "state/_METADATA", "state/_sharding"),
            *("state/manifest.ocdbt", "state/d/*", "state/ocdbt.process_0/d/*"),
        )
    },
}


@functools.cache
def valid(name):
    """(a file's path, its valid bytes) in a folder of the case's own."""
    case = (CASES | SLOW_CASES)[name]
    folder = pathlib.Path(_folder(), re.sub(r"\W", "_", name)) / "in"
    folder.mkdir(parents=True)
    path = case.make(folder)
    return path, path.read_bytes()


def attempt(name, data):
    """Reads changed bytes; what does harm stays beside the file."""
    case, (path, _) = (CASES | SLOW_CASES)[name], valid(name)
    data = case.wrap(data)
    path.write_bytes(data)
    try:
        return read_or_refuse(case.read, path)
    except BaseException:
        kept_in = pathlib.Path(os.environ.get("FUSION_JAX_FUZZ_FOUND", tempfile.gettempdir()))
        harmful = kept_in / (re.sub(r"\W", "_", name) + ".harmful")
        harmful.write_bytes(data)
        print(f"the file is kept: {harmful}")
        raise


def try_many(name):
    """Of changes drawn fast, as many as asked for in the environment, else 300."""
    case, (_, data) = (CASES | SLOW_CASES)[name], valid(name)
    rng = random.Random(os.environ.get("FUSION_JAX_FUZZ_SEED", "0") + name)
    before = most_memory()
    for _ in range(examples(300)):
        attempt(name, changed(data, random_edits(rng), case.tokens))
    assert most_memory() - before < GROWTH


@pytest.mark.parametrize("name", CASES)
def test_a_changed_file_is_read_or_refused(name):
    case, (path, data) = CASES[name], valid(name)
    path.write_bytes(case.wrap(data))
    case.read(path)  # the file itself is valid: without this, readers could refuse all
    before = most_memory()

    @settings(max_examples=case.few)
    @given(EDITS)
    def check(edits):
        attempt(name, changed(data, edits, case.tokens))

    check()
    assert most_memory() - before < GROWTH


@pytest.mark.parametrize("name", CASES)
def test_any_bytes_are_refused(name):
    @settings(max_examples=8)
    @example(b"")
    @example(b"\0" * 600)
    @example(b"[" * 5000)
    @given(st.binary(max_size=600))
    def check(data):
        attempt(name, data)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES | SLOW_CASES)
def test_many_changed_files_are_read_or_refused(name):
    try_many(name)
