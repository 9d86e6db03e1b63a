"""The part every raw dataset shares: parts to shards to a prepared dataset, resumed, partial, and honest about it."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
import tensorflow_datasets as tfds

from data_pipelines.crops import crop_picture, encode_picture, person_example, whole_pixel_box
from data_pipelines.pose_builder import PoseBuilder, PoseConfig
from data_pipelines.prepared import open_prepared
from data_pipelines.shards import write_shards
from data_pipelines.source import Item, Part, Source, Tally
from fusion_jax.errors import UserError
from fusion_jax.geometry import Camera, apply_affine, camera_to_image, crop_matrix
from fusion_jax.prepare_raw import prepare_with
from fusion_jax.skeletons import skeleton

SIZE = 16


@dataclasses.dataclass(frozen=True)
class ToySettings:
    size: int = SIZE
    step: int = 1

    def config_name(self):
        return f"{self.size}px_step{self.step}"


class ToySource(Source):
    """Text files `<subject>.txt` of one number a frame; the number is the x of every joint."""

    name = "toy"
    skeleton_name = "lsp14"

    def inventory(self) -> Iterator[Item]:
        for part in self.parts():
            problem = None if part.files[0].exists() else "missing; write it"
            yield Item(part.files[0].name, problem)

    def parts(self):
        return [
            Part(split, f"{subject}/walk", subject, f"{subject}/walk", 0, 3, 4, (self.manual_dir / f"{subject}.txt",))
            for subject, split in (("A", "train"), ("B", "train"), ("C", "test"))
        ]

    def read(self, part: Part, tally: Tally):
        path = part.files[0]
        if not path.exists():
            raise UserError(f"{path} is missing; write it")
        for frame, word in enumerate(path.read_text().split()):
            if word == "skip":
                tally.skip("frames without a number")
                continue
            if word == "bad":
                tally.fault(f"{path}: frame {frame} is bad")
                continue
            if word == "end":
                raise UserError(f"{path}: cut off at frame {frame}")
            if word == "slow":
                time.sleep(0.2)
                word = "7"
            if word == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            joints = np.full((14, 3), float(word))
            yield person_example(
                np.zeros((40, 40, 3), np.uint8), np.array([-0.5, -0.5, 40]), self.settings.size,
                joints_world_mm=joints, valid=np.ones(14, bool),
                joints2d_px=joints[:, :2], valid2d=np.ones(14, bool),
                camera_name="cam", subject=part.subject, action="walk", sequence=part.recording, frame=frame,
            )  # fmt: skip

    def description(self):
        return {"frames": "all"}


class Toy(PoseBuilder):
    """A toy."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [PoseConfig.of(ToySettings())]
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Write three text files."
    pkg_dir_path = pathlib.Path(__file__).parent
    source_class = ToySource
    show = False


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    for subject, text in (("A", "1 2 3 4"), ("B", "5 skip skip 6"), ("C", "7 8")):
        (folder / f"{subject}.txt").write_text(text)
    return folder


def prepare(raw, data_dir, *, workers=0, strict=True):
    builder = Toy(data_dir=str(data_dir), config=Toy.BUILDER_CONFIGS[0], file_format="array_record")
    builder.workers, builder.strict = workers, strict
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=str(raw)))
    return builder


@pytest.mark.parametrize("workers", [0, 2])
def test_parts_become_one_dataset_in_order(raw, tmp_path, workers):
    builder = prepare(raw, tmp_path / "data", workers=workers)
    dataset = open_prepared("toy", tmp_path / "data")
    assert [round(float(e["joints_world_mm"][0, 0])) for e in dataset.split("train")] == [1, 2, 3, 4, 5, 6]
    assert [int(e["frame"]) for e in dataset.split("train")] == [0, 1, 2, 3, 0, 3]
    assert len(dataset.split("test")) == 2 and set(dataset.splits) == {"train", "test"}
    assert dataset.subjects == {"train": ["A", "B"], "test": ["C"]}
    assert dataset.provenance["train"] == {"A/walk": [[0, 3]], "B/walk": [[0, 3]]}
    assert dataset.description["frames left out"] == "2 frames without a number"
    assert builder.info.metadata["skipped"] == {"frames without a number": 2}
    assert not list((tmp_path / "data" / "toy" / "16px_step1").glob(".unfinished*"))
    assert dataset.skeleton is skeleton("lsp14")


def test_a_fault_ends_a_strict_run_and_the_next_one_keeps_what_was_done(raw, tmp_path, capsys):
    (raw / "C.txt").write_text("7 bad")
    with pytest.raises(UserError, match="C.txt: frame 1 is bad"):
        prepare(raw, tmp_path / "data")
    waiting = list((tmp_path / "data" / "toy" / "16px_step1").glob(".unfinished*/*.array_record"))
    assert len(waiting) == 2, "A and B are done"
    made = {path: path.stat().st_mtime_ns for path in waiting}
    with pytest.raises(UserError, match="no prepared toy"):
        open_prepared("toy", tmp_path / "data")
    links = {path.stat().st_ino for path in made}
    (raw / "C.txt").write_text("7 8")
    prepare(raw, tmp_path / "data")
    assert "2 of 3 parts are there already" in capsys.readouterr().err
    shards = list((tmp_path / "data" / "toy" / "16px_step1" / "1.0.0").glob("*train*.array_record*"))
    assert {path.stat().st_ino for path in shards} == links, "the very files of the first run"


def test_a_part_whose_file_changed_is_made_again(raw, tmp_path):
    source = ToySource(raw, ToySettings())
    parts = source.parts()
    first = write_shards(source, parts, tmp_path / "work", workers=0, strict=True, show=False)
    (raw / "A.txt").write_text("1 2 3")
    second = write_shards(source, parts, tmp_path / "work", workers=0, strict=True, show=False)
    assert [shard.examples for shard in first] == [4, 2, 2]
    assert [shard.examples for shard in second] == [3, 2, 2]


def test_partial_keeps_the_good_and_lists_the_rest(raw, tmp_path):
    (raw / "A.txt").write_text("1 bad 3 4")
    (raw / "B.txt").write_text("5 6 end 9")
    (raw / "C.txt").unlink()
    builder = prepare(raw, tmp_path / "data", strict=False)
    dataset = open_prepared("toy", tmp_path / "data")
    assert [round(float(e["joints_world_mm"][0, 0])) for e in dataset.split("train")] == [1, 3, 4, 5, 6]
    assert [fault.split(":")[0].split("/")[-1] for fault in builder.info.metadata["faults"]] == [
        "A.txt", "B.txt", "C.txt is missing; write it",
    ]  # fmt: skip
    assert "3 broken or missing pieces" in dataset.description["warning"]


def test_nothing_left_is_an_error(raw, tmp_path):
    for name in "ABC":
        (raw / f"{name}.txt").write_text("skip")
    with pytest.raises(UserError, match="no frame was left to write .3 frames without a number"):
        prepare(raw, tmp_path / "data")


def test_boxes_snap_to_pixels_and_cutting_is_exact():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (30, 40, 3), np.uint8)
    box = whole_pixel_box(np.array([4.2, 6.9, 11.6]))
    np.testing.assert_allclose(box, [3.5, 6.5, 12])
    np.testing.assert_array_equal(crop_picture(image, box, 12), image[7:19, 4:16])
    outside = crop_picture(image, np.array([-3.5, -1.5, 12.0]), 12)
    assert not outside[:, :3].any() and not outside[:1].any()
    np.testing.assert_array_equal(outside[1:, 3:], image[:11, :9])
    with pytest.raises(UserError, match="outside the 40 x 30"):
        crop_picture(image, np.array([99.5, 0.5, 12]), 12)
    with pytest.raises(UserError, match="at most"):
        crop_picture(image, np.array([-0.5, -0.5, 1e9]), 12)


def test_shrinking_keeps_a_spot_where_the_crop_matrix_says():
    image = np.zeros((64, 64, 3), np.uint8)
    image[20:24, 32:36] = 255  # its middle is at (33.5, 21.5)
    box = np.array([7.5, 3.5, 48.0])
    crop = crop_picture(image, box, 12)[..., 0].astype(float)
    ys, xs = np.mgrid[:12, :12]
    found = np.array([(crop * xs).sum(), (crop * ys).sum()]) / crop.sum()
    np.testing.assert_allclose(found, apply_affine(crop_matrix(box, 12), np.array([[33.5, 21.5]]))[0], atol=1e-6)


def test_an_example_carries_the_crops_exact_camera_and_masks_the_unknown():
    camera = Camera(np.eye(3), np.zeros(3), np.array([[500.0, 0, 31], [0, 500, 29], [0, 0, 1]]), np.zeros(5))
    joints = np.array([[0.0, 0, 4000], [100, -50, 4100], [np.nan] * 3, [200, 0, 4000]])
    known = np.array([True, True, False, True])
    px = camera_to_image(joints, camera.intrinsics)
    example = person_example(
        np.zeros((60, 60, 3), np.uint8), np.array([20.5, 10.5, 30]), 15, joints_world_mm=joints, valid=known,
        joints2d_px=px, valid2d=known, camera=camera, head_size_px=10.0, camera_name="c", subject="s", action="a",
        sequence="q", frame=3,
    )  # fmt: skip
    again = camera_to_image(joints[known], example["camera"]["intrinsics"])
    np.testing.assert_allclose(example["joints2d_px"][known], again, atol=1e-5)
    assert not example["joints2d_px"][2].any() and not example["joints_world_mm"][2].any()
    np.testing.assert_array_equal(example["visible"], [True, True, False, False])  # the last lies outside the crop
    assert example["head_size_px"] == 5 and example["camera"]["model"] == "perspective"
    with pytest.raises(UserError, match="q/c/000003: a 3D joint is not finite"):
        person_example(
            np.zeros((60, 60, 3), np.uint8), np.array([20.5, 10.5, 30]), 15, joints_world_mm=joints,
            valid=np.ones(4, bool), joints2d_px=px, valid2d=known, camera_name="c", subject="s", action="a",
            sequence="q", frame=3,
        )  # fmt: skip


def test_png_keeps_every_bit():
    import cv2

    image = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    decoded = cv2.imdecode(np.frombuffer(encode_picture(image, ".png"), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded[..., ::-1], image)


def alive(group):
    """The processes of a group that still run; one that nobody has collected does not."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def test_a_kill_loses_no_finished_part(raw, tmp_path):
    """The program killed while B is under way, its workers left alone: A's shard stays, and the next run goes on."""
    (raw / "B.txt").write_text(" ".join(["slow"] * 200))
    code = (
        "import pathlib, sys\n"
        "from fusion_jax.prepare_raw import prepare_with\n"
        "import test_pose_builder as here\n"
        "if __name__ == '__main__':\n"
        "    prepare_with(here.Toy, *map(pathlib.Path, sys.argv[1:]), here.ToySettings(), workers=1)\n"
    )
    (tmp_path / "run.py").write_text(code)
    here = pathlib.Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, tmp_path / "run.py", raw, tmp_path / "data"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    config = tmp_path / "data" / "toy" / "16px_step1"
    try:
        deadline = time.monotonic() + 60
        while not list(config.glob(".unfinished*/00001.*.partial")):
            assert time.monotonic() < deadline and process.poll() is None, "B was never begun"
            time.sleep(0.02)
        process.kill()
        process.wait()
        while alive(process.pid):  # a worker that outlived the program would write into the next run
            assert time.monotonic() < deadline, "a worker goes on without its program"
            time.sleep(0.1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    (done,) = config.glob(".unfinished*/*.array_record")
    kept = done.stat().st_ino
    with pytest.raises(UserError, match="no prepared toy"):
        open_prepared("toy", tmp_path / "data")
    (raw / "B.txt").write_text("5 6")
    prepare_with(Toy, raw, tmp_path / "data", ToySettings())
    dataset = open_prepared("toy", tmp_path / "data")
    assert [round(float(e["joints_world_mm"][0, 0])) for e in dataset.split("train")] == [1, 2, 3, 4, 5, 6]
    assert kept in {path.stat().st_ino for path in (config / "1.0.0").iterdir()}, "A's very file"
    assert not list(config.glob(".unfinished*"))


def test_a_dead_worker_is_named(raw, tmp_path):
    (raw / "B.txt").write_text("1 die 2")
    with pytest.raises(UserError, match="a process that prepares data was killed"):
        prepare(raw, tmp_path / "data", workers=1)


def shards_of(raw, folder, **options):
    source = ToySource(raw, ToySettings())
    return write_shards(source, source.parts(), folder, **{"workers": 0, "strict": True, "show": False, **options})


@pytest.mark.parametrize("damage", ["cut shard", "cut marker", "no shard", "marker of nothing"])
def test_a_shard_that_is_not_whole_is_made_again(raw, tmp_path, damage):
    """What a power failure leaves: names that were written before their contents."""
    before = shards_of(raw, tmp_path)
    whole = before[1].path.read_bytes()
    if damage == "cut shard":
        before[1].path.write_bytes(whole[:-1])
    elif damage == "no shard":
        before[1].path.unlink()
    else:
        before[1].path.with_suffix(".json").write_text('{"part": ' if damage == "cut marker" else "[]")
    after = shards_of(raw, tmp_path)
    assert after == before and after[1].path.read_bytes() == whole


def test_a_strict_run_takes_over_no_faults(raw, tmp_path):
    (raw / "B.txt").write_text("5 bad 6")
    found = shards_of(raw, tmp_path, strict=False)
    assert [shard.lost for shard in found] == [0, 2, 0] and found[1].faults, "4 were expected of each at most"
    with pytest.raises(UserError, match="B.txt: frame 1 is bad"):
        shards_of(raw, tmp_path)


def test_what_was_prepared_in_part_is_not_taken_for_whole(raw, tmp_path, capsys):
    (raw / "C.txt").write_text("7 bad 8")
    prepare_with(Toy, raw, tmp_path / "data", ToySettings(), partial=True)
    said = capsys.readouterr().out
    assert "broken or missing: " in said and "left out: 2 frames of broken or missing pieces" in said
    prepare_with(Toy, raw, tmp_path / "data", ToySettings(), partial=True)
    (raw / "C.txt").write_text("7 7 8")
    with pytest.raises(UserError, match="was prepared with --partial, without 1 pieces .*delete that folder"):
        prepare_with(Toy, raw, tmp_path / "data", ToySettings())


def test_the_same_files_give_the_same_fingerprint(raw, tmp_path):
    prints = []
    for name, workers in (("one", 0), ("two", 2)):
        prepare_with(Toy, raw, tmp_path / name, ToySettings(), workers=workers)
        prints.append(open_prepared("toy", tmp_path / name).fingerprint)
    (raw / "B.txt").write_text("5 skip skip 7")
    prepare_with(Toy, raw, tmp_path / "three", ToySettings())
    assert prints[0] == prints[1] != open_prepared("toy", tmp_path / "three").fingerprint


def test_two_runs_at_once_are_refused(raw, tmp_path):
    import fcntl

    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another run prepares the same data"):
            shards_of(raw, tmp_path)
    assert len(shards_of(raw, tmp_path)) == 3


def test_a_split_of_another_name_is_no_split(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(ToySource, "parts", lambda self: [Part("training", "A", "A", "A", 0, 1, 2, ())])
    with pytest.raises(UserError, match="part A is of split 'training', expected train, validation, test"):
        prepare(raw, tmp_path / "data")


def test_a_full_disk_and_an_unreadable_file_are_told_apart(raw, tmp_path, monkeypatch):
    from array_record.python import array_record_module

    class Full(array_record_module.ArrayRecordWriter):
        def write(self, record):
            raise RuntimeError("RESOURCE_EXHAUSTED: No space left on device")

    def unreadable(self, part, tally):
        raise OSError(5, "Input/output error", str(raw / "A.txt"))
        yield

    with monkeypatch.context() as patch:
        patch.setattr(array_record_module, "ArrayRecordWriter", Full)
        with pytest.raises(UserError, match="cannot write to .*No space left on device"):
            prepare_with(Toy, raw, tmp_path / "data", ToySettings())
    monkeypatch.setattr(ToySource, "read", unreadable)
    with pytest.raises(UserError, match="A.txt cannot be read .Input/output error."):
        prepare_with(Toy, raw, tmp_path / "data", ToySettings())
