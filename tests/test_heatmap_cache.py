"""Predicted heatmaps kept beside a dataset: right, small, made once, and never another's or a damaged one unnoticed."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import pickle
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import small_hourglass
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines import heatmap_store
from data_pipelines.augment import Change
from data_pipelines.heatmap_store import (
    LARGEST_ERROR,
    WithHeatmaps,
    open_heatmaps,
    pack,
    picture_check,
    unpack,
    write_heatmaps,
)
from data_pipelines.loader import eval_batches, train_iterator
from data_pipelines.prepared import open_prepared
from data_pipelines.samples import decode_image, example_name, make_sample
from fusion_jax import heatmap_cache
from fusion_jax.augmentation import AugmentConfig
from fusion_jax.config import HeatmapNet
from fusion_jax.errors import UserError
from fusion_jax.heatmap_cache import cache_key, with_cache
from fusion_jax.heatmap_net import OpenNet
from fusion_jax.heatmap_steps import heatmap_predict_step
from fusion_jax.sharding import data_mesh, global_batch, jit_eval_step
from fusion_jax.skeletons import skeleton

MPII = small_hourglass.MPII
BRIGHTNESS = small_hourglass.Brightness()


@pytest.fixture(scope="module")
def dataset():
    return open_prepared("synthetic_humans", small.data_dir())


def network(module=BRIGHTNESS, weights="0123456789abcdef", **inputs):
    """An opened 2D network of 16 px; without arguments one whose heatmaps are known by hand."""
    config = small_hourglass.config()
    net = HeatmapNet("runs/net", weights, config.hourglass, dataclasses.replace(config.inputs, **inputs))
    return OpenNet(net, config, small_hourglass.state(config).replace(network=module), [])


def cached(dataset, folder, net=None, splits=("test",), show=False):
    return with_cache(dataset, folder, net or network(), splits, data_mesh(), show)


def file_of(dataset, folder, net=None, split="test"):
    return folder / dataset.name / "heatmaps" / cache_key(dataset, net or network()) / f"{split}.array_record"


@pytest.fixture(scope="module")
def made(dataset, tmp_path_factory):
    """A folder with the heatmaps of `test`, to be copied, not changed."""
    folder = tmp_path_factory.mktemp("made")
    cached(dataset, folder)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    shutil.copytree(made, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def nothing_is_predicted(monkeypatch):
    def refuse(*args):
        raise AssertionError("heatmaps are made again")

    monkeypatch.setattr(heatmap_cache, "write_heatmaps", refuse)


def maps(seed, size=16, count=16):
    """Made-up heatmaps as a good network predicts them: Gaussians of 1 px with peaks of 0.4 to 1."""
    rng = np.random.default_rng(seed)
    joints = rng.uniform(0, size - 1, (count, 2))
    x, y = (np.exp(-0.5 * (np.arange(size) - joints[:, axis, None]) ** 2) for axis in (0, 1))
    return (np.einsum("kh,kw->hwk", y, x) * rng.uniform(0.4, 1, count)).astype(np.float32)


# --- a record -------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**16), size=st.sampled_from([1, 4, 7]), count=st.integers(1, 16))
def test_a_record_gives_back_its_heatmaps(seed, size, count):
    """To half a level of 256; what is outside [0, 1] comes back as 0 and 1, and those two come back exactly."""
    heatmap = np.random.default_rng(seed).uniform(-0.3, 1.3, (size, size, count)).astype(np.float32)
    got, picture = unpack(pack(heatmap, seed), heatmap.shape)
    assert got.dtype == np.float32 and got.shape == heatmap.shape and picture == seed
    clipped = heatmap.clip(0, 1)
    assert LARGEST_ERROR == 1 / 510 and np.abs(got - clipped).max() <= LARGEST_ERROR + 1e-6
    edges = (clipped == 0) | (clipped == 1)
    np.testing.assert_array_equal(got[edges], clipped[edges])
    again, _ = unpack(pack(got, 0), heatmap.shape)
    np.testing.assert_array_equal(again, got)  # nothing is lost a second time


def test_half_a_level_is_reached():
    heatmap = np.full((1, 1, 1), 100.4999 / 255, np.float32)
    got, _ = unpack(pack(heatmap, 0), (1, 1, 1))
    assert 0.999 * LARGEST_ERROR < abs(got - heatmap).max() <= LARGEST_ERROR


@pytest.mark.parametrize(("size", "most"), [(16, 800), (64, 1400)])
def test_records_are_small(size, most):
    """As floats a 16 px one takes 16 KiB, a 64 px one 256 KiB."""
    assert np.mean([len(pack(maps(seed, size), 0)) for seed in range(20)]) < most


@given(st.binary(max_size=64))
def test_bytes_that_are_no_record(data):
    with pytest.raises(ValueError):
        unpack(data, (4, 4, 16))


def record_of(data, picture=0):
    """Any bytes with checks that are right."""
    return struct.pack("<II", picture, zlib.crc32(data, picture)) + data


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"no zlib", id="no zlib"),
        pytest.param(zlib.compress(bytes(255)), id="too short"),
        pytest.param(zlib.compress(bytes(257)), id="too long"),
        pytest.param(zlib.compress(bytes(256))[:-4], id="cut off"),
        pytest.param(zlib.compress(bytes(10**8)), id="100 MB"),  # in 100 kB; only 257 bytes of it are unpacked
    ],
)
def test_records_with_right_checks_and_wrong_contents(data):
    with pytest.raises(ValueError):
        unpack(record_of(data), (4, 4, 16))
    assert unpack(record_of(zlib.compress(bytes(256))), (4, 4, 16))[0].sum() == 0


@given(seed=st.integers(0, 2**16), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_of_a_record_is_noticed(seed, where, bit):
    record = bytearray(pack(maps(seed, 8), seed))
    record[int(where * len(record))] ^= 1 << bit
    with pytest.raises(ValueError):
        unpack(bytes(record), (8, 8, 16))


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_examples_carry_what_the_network_predicts(dataset, folder):
    """Of the stored picture, averaged with the mirrored one's."""
    result = cached(dataset, folder)
    assert result.split("train") is dataset.split("train") and result.split("validation") is dataset.split("validation")
    assert "heatmap" not in dataset.split("test")[0]
    examples = result.split("test")
    assert len(examples) == len(dataset.split("test")) == 56
    for index in (0, 31, 32, 55):  # of both batches
        example, plain = examples[index], dataset.split("test")[index]
        assert example.keys() == plain.keys() | {"heatmap", "heatmap_predicted"} and example["image"] == plain["image"]
        image = decode_image(plain["image"], 16, "")[None]
        heatmap = example["heatmap"]
        assert heatmap.shape == (4, 4, 16) and heatmap.dtype == np.float32
        np.testing.assert_allclose(heatmap, small_hourglass.Brightness.of(image)[0], atol=LARGEST_ERROR + 1e-5)
    for index in (56, -1):
        with pytest.raises(IndexError):
            examples[index]
    assert len(list(examples)) == 56  # Python's own iteration ends at an IndexError


def test_nothing_of_an_example_depends_on_its_batch(dataset, tmp_path, monkeypatch):
    """Of an hourglass: what is kept is what it predicts in a batch of that picture alone, four times."""
    monkeypatch.setattr(heatmap_cache, "_BATCH", 4)
    state = small_hourglass.state(small_hourglass.config(stacks=1))
    last = {name: value / 30 + 0.5 * (name == "bias") for name, value in state.params["out_0"].items()}
    state = state.replace(params=state.params | {"out_0": last})  # now most values are between 0 and 1
    few = dataclasses.replace(dataset, splits={"test": [dataset.split("test")[i] for i in range(6)]})
    examples = cached(few, tmp_path, network()._replace(state=state)).split("test")
    kept = np.stack([example["heatmap"] for example in examples])
    predict, mesh = jit_eval_step(data_mesh(), heatmap_predict_step), data_mesh()
    for example, heatmap in zip(examples, kept, strict=True):
        image = decode_image(example["image"], 16, "")[None].repeat(4, 0)
        for alone in np.asarray(predict(state, global_batch({"image": image}, mesh))):
            np.testing.assert_allclose(heatmap, alone, atol=LARGEST_ERROR + 1e-4)
    assert ((kept > 0) & (kept < 1)).mean() > 0.8 and kept.std(0).mean() > 0.01


def test_batches_of_any_size_give_the_same(dataset, folder, tmp_path, monkeypatch):
    """But for what lies between two levels, which rounding in float32 puts into one or the other."""
    want = np.stack([example["heatmap"] for example in cached(dataset, folder).split("test")])
    for size in (4, 64):
        monkeypatch.setattr(heatmap_cache, "_BATCH", size)
        found = cached(dataset, tmp_path / str(size)).split("test")
        got = np.stack([example["heatmap"] for example in found])
        assert np.abs(got - want).max() < 1.01 / 255 and (got == want).mean() > 0.99


def test_made_again_it_has_the_same_bytes(dataset, folder, tmp_path):
    cached(dataset, tmp_path / "again")
    assert file_of(dataset, tmp_path / "again").read_bytes() == file_of(dataset, folder).read_bytes()


def test_what_is_there_is_reused(dataset, folder, nothing_is_predicted):
    examples = cached(dataset, folder, splits=["test", "no such split"]).split("test")
    assert examples[7]["heatmap"].max() > 0.1
    assert [path.name for path in file_of(dataset, folder).parent.iterdir()] == ["test.array_record"]


def test_several_splits(dataset, folder):
    both = cached(dataset, folder, splits=("validation", "test"))
    assert {path.stem for path in file_of(dataset, folder).parent.iterdir()} == {"validation", "test"}
    joined = both.split("test+validation")
    assert (joined[0]["heatmap"] == both.split("test")[0]["heatmap"]).all()
    assert (joined[56]["heatmap"] == both.split("validation")[0]["heatmap"]).all()


def test_empty_splits_and_none_at_all(dataset, tmp_path):
    hollow = dataclasses.replace(dataset, splits={"train": [], "test": dataset.split("test")})
    assert cached(hollow, tmp_path, splits=("train",)).splits == hollow.splits
    assert cached(hollow, tmp_path, splits=()).splits == hollow.splits
    assert not list(tmp_path.iterdir())


def test_other_networks_and_data_lie_beside(dataset, folder):
    other, changed = network(weights="f" * 16), dataclasses.replace(dataset, fingerprint="e" * 16)
    cached(dataset, folder, other)
    cached(changed, folder)
    files = [file_of(dataset, folder), file_of(dataset, folder, other), file_of(changed, folder)]
    assert len(set(files)) == 3 and all(path.is_file() for path in files)
    assert len(list((folder / dataset.name / "heatmaps").iterdir())) == 3


def test_a_prepared_dataset_with_heatmaps_beside_it_opens_as_before(dataset, tmp_path):
    from fusion_jax.prepare import prepare_synthetic_humans

    shutil.copytree(small.data_dir() / "synthetic_humans", tmp_path / "synthetic_humans")
    cached(dataset, tmp_path)
    assert (tmp_path / dataset.name / "heatmaps").is_dir()
    assert open_prepared("synthetic_humans", tmp_path).fingerprint == dataset.fingerprint
    prepare_synthetic_humans(tmp_path, size=16, num_subjects=3, frames=1)


def test_progress_tells_how_fast_and_how_large(dataset, tmp_path, capsys):
    cached(dataset, tmp_path, show=True)
    first, *_, last = capsys.readouterr().err.splitlines()
    who = "runs/net, step 0, weights 0123456789abcdef"
    assert first == f"heatmaps of 56 test examples of {dataset.name} by {who}, once"
    assert re.search(r"^written .*test.array_record: 56 examples in \d+ s \(\d+ examples/s\), 0.1 MB$", last)
    cached(dataset, tmp_path / "quiet")
    assert capsys.readouterr().err == ""


# --- loading --------------------------------------------------------------------------------------------------------


def test_examples_pickle_and_are_read_by_many_threads(dataset, folder):
    examples = cached(dataset, folder).split("test")
    want = [examples[i]["heatmap"] for i in range(56)]
    data = pickle.dumps(examples)
    assert len(data) < 10_000, "a worker gets where to look, not what is there"
    copy = pickle.loads(data)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for i, got in enumerate(pool.map(lambda i: copy[i % 56]["heatmap"], range(4 * 56))):
            np.testing.assert_array_equal(got, want[i % 56])


def test_the_loader_moves_heatmaps_as_it_moves_the_picture(dataset, folder):
    result, target = cached(dataset, folder), skeleton("human36m17")
    batch = next(eval_batches(result, "test", target=target, image_size=16, batch_size=4))
    np.testing.assert_array_equal(batch["heatmap"][3], result.split("test")[3]["heatmap"])
    example = result.split("test")[3]
    turned = make_sample(example, target, target, 16, 16, Change(flip=True))["heatmap"]
    np.testing.assert_allclose(turned, example["heatmap"][:, ::-1, list(MPII.flip)], atol=1e-6)
    data = train_iterator(
        result, target=target, image_size=16, augment=AugmentConfig(), batch_size=4, seed=0, split="test"
    )
    batch = next(data)
    assert batch["heatmap"].shape == (4, 4, 4, 16) and batch["heatmap"].dtype == np.float32
    data.close()


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "change", "shown"),
    [
        ("weights", {"weights": "f" * 16}, '"0123456789abcdef" -> "ffffffffffffffff"'),
        ("input_px", {"image_size": 32}, "16 -> 32"),
        ("size_px", {"heatmap_size": 8}, "4 -> 8"),
    ],
)
def test_another_networks_file_in_its_place(dataset, folder, nothing_is_predicted, field, change, shown):
    net = network(**change)
    path = file_of(dataset, folder, net)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(file_of(dataset, folder).read_bytes())
    with pytest.raises(UserError, match=rf"test.array_record holds other heatmaps.*{field}: {shown}.*delete that file"):
        cached(dataset, folder, net)


def test_another_networks_settings(dataset, folder, nothing_is_predicted):
    net, other = network(), small_hourglass.config(compute_dtype="bfloat16").hourglass
    net = net._replace(net=dataclasses.replace(net.net, network=other))
    with pytest.raises(UserError, match='network.compute_dtype: "float32" -> "bfloat16"'):
        cached(dataset, folder, net)


def test_another_datasets_file_in_its_place(dataset, folder, nothing_is_predicted):
    other = dataclasses.replace(dataset, fingerprint="e" * 16)
    shutil.copytree(file_of(dataset, folder).parent, file_of(other, folder).parent)
    with pytest.raises(UserError, match=rf'fingerprint: "{dataset.fingerprint}" -> "{"e" * 16}"'):
        cached(other, folder)
    fewer = dataclasses.replace(dataset, splits={"test": [dataset.split("test")[i] for i in range(50)]})
    with pytest.raises(UserError, match=r"count: 56 -> 50; records: 57 -> 51"):
        cached(fewer, folder)
    shutil.copy(file_of(dataset, folder), file_of(dataset, folder, split="validation"))
    with pytest.raises(UserError, match='split: "test" -> "validation"'):
        cached(dataset, folder, splits=("validation",))


def test_heatmaps_of_another_picture(dataset, folder, nothing_is_predicted):
    """A fingerprint looks at some examples only; each heatmap knows its picture."""
    examples = [dataset.split("test")[i] for i in range(56)]
    examples[20], examples[21] = examples[21], examples[20]
    result = cached(dataclasses.replace(dataset, splits={"test": examples}), folder)
    assert "heatmap" in result.split("test")[19]
    told = rf"example 20, {re.escape(example_name(examples[20]))}, are of a picture with the CRC-32 "
    told += rf"{picture_check(examples[21]):08x}, the dataset's has {picture_check(examples[20]):08x}; delete"
    with pytest.raises(UserError, match=told):
        result.split("test")[20]


@pytest.mark.parametrize("harm", ["empty", "text", "half", "end", "folder"])
def test_a_file_that_is_not_whole(dataset, folder, nothing_is_predicted, harm):
    path = file_of(dataset, folder)
    data = path.read_bytes()
    path.unlink()
    if harm == "folder":
        path.mkdir()
    else:
        path.write_bytes({"empty": b"", "text": b"<html>", "half": data[: len(data) // 2], "end": data[:-1]}[harm])
    with pytest.raises(UserError, match="test.array_record is damaged or no file of heatmaps.*delete that file"):
        cached(dataset, folder)


@pytest.mark.parametrize("number", range(8))
def test_a_file_without_a_header(tmp_path, number):
    from array_record.python import array_record_module

    path = tmp_path / "test.array_record"
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    first = [b"", b"{", b"[1]", b"null", b"\xff", b"[" * 60000, b'{"a":' * 10000, b" " * 70000]
    writer.write(first[number])
    writer.close()
    with pytest.raises(UserError, match="test.array_record is damaged or no file of heatmaps"):
        open_heatmaps(path, {"count": 0})


def test_a_flipped_byte_never_changes_a_heatmap(dataset, folder):
    """Wherever it is: what is read is right, or an error names the file, and the example where it is one's."""
    path = file_of(dataset, folder)
    data, examples = path.read_bytes(), dataset.split("test")
    header = read_header(path)
    want = [example["heatmap"] for example in WithHeatmaps(examples, path, header)]
    used = np.flatnonzero(np.frombuffer(data, np.uint8))  # most of the file is filling
    rng, noticed = np.random.default_rng(0), 0
    for place in [*rng.choice(used, 60, replace=False), *rng.choice(used[-100:], 10, replace=False)]:
        harmed = bytearray(data)
        harmed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(harmed)
        try:
            opened = WithHeatmaps(examples, path, header)
        except UserError as error:
            assert str(path) in str(error)
            noticed += 1
            continue
        for i in range(56):
            try:
                np.testing.assert_array_equal(opened[i]["heatmap"], want[i])
            except UserError as error:
                assert f"{path}: the heatmaps of example {i}, {example_name(examples[i])}, are damaged" in str(error)
                noticed += 1
    assert noticed > 30


def read_header(path):
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return json.loads(ArrayRecordDataSource([str(path)])[0])


def test_data_that_cannot_be_kept(dataset, tmp_path, monkeypatch):
    live = dataclasses.replace(dataset, render=lambda scene: scene)
    with pytest.raises(UserError, match="is rendered anew in every step.*when training: --heatmap-mode frozen"):
        cached(live, tmp_path)
    stored = dataclasses.replace(
        dataset, splits={"test": [dict(dataset.split("test")[0], heatmap=np.zeros((4, 4, 16)))]}
    )
    with pytest.raises(
        UserError, match="synthetic_humans/16px.* brings heatmaps of its own in test.*when training: --heatmap"
    ):
        cached(stored, tmp_path)
    with pytest.raises(UserError, match="of lsp14, kept heatmaps have to be of mpii16; .* when training: --heatmap"):
        cached(dataset, tmp_path, network(heatmap_skeleton="lsp14"))
    assert not list(tmp_path.iterdir())


def test_of_several_processes_none_writes(dataset, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert "heatmap" in cached(dataset, folder).split("test")[0]  # what is there, all of them read
    with pytest.raises(UserError, match="is not there yet, and 2 processes.*when training: with --stop-after 1"):
        cached(dataset, tmp_path / "other")
    assert not (tmp_path / "other").exists()


# --- writing --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class NotFinite(small_hourglass.Brightness):
    """Predicts NaN where a picture is brightest."""

    def apply(self, variables, picture):
        maps = super().apply(variables, picture)
        return jnp.where(maps == maps.max(), jnp.nan, maps)


def test_heatmaps_that_are_not_finite(dataset, tmp_path):
    told = r"weights 0123456789abcdef predicts heatmaps that are not finite of S\d+/.*/cam"
    with pytest.raises(UserError, match=told):
        cached(dataset, tmp_path, network(NotFinite()))
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError, RuntimeError])
def test_an_end_in_the_middle_leaves_nothing(tmp_path, error):
    """Nor is an error from elsewhere taken for one of the disk."""

    def records():
        yield pack(maps(0), 0)
        assert len(list(tmp_path.iterdir())) == 1, "it is under way"
        raise error("stop")

    with pytest.raises(error, match="stop"):
        write_heatmaps(tmp_path / "test.array_record", {"count": 2}, records())
    assert not list(tmp_path.iterdir())


def test_a_count_that_does_not_hold(tmp_path):
    with pytest.raises(ValueError, match="1 records were written, the header says 2"):
        write_heatmaps(tmp_path / "test.array_record", {"count": 2}, [pack(maps(0), 0)])
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_does_not_count_and_goes_in_time(dataset, tmp_path):
    """Half a file under a name of its own: of an hour ago it is deleted, of just now it may be somebody's work."""
    path = file_of(dataset, tmp_path)
    path.parent.mkdir(parents=True)
    fresh, old = (path.with_name(f".{path.name}.{name}.partial") for name in ("fresh", "old"))
    for partial in (fresh, old):
        partial.write_bytes(b"half")
    an_hour_ago = time.time() - heatmap_store._FORGOTTEN_S - 5
    os.utime(old, (an_hour_ago, an_hour_ago))
    assert "heatmap" in cached(dataset, tmp_path).split("test")[55]
    assert set(path.parent.iterdir()) == {path, fresh}


def test_a_kill_in_the_middle_leaves_no_file(tmp_path):
    script = tmp_path / "write.py"
    script.write_text(
        "import os, pathlib, signal, sys\n"
        "from data_pipelines.heatmap_store import write_heatmaps\n"
        "def records():\n"
        "    yield from [os.urandom(10_000)] * 200\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_heatmaps(pathlib.Path(sys.argv[1]), {'count': 200}, records())\n"
    )
    path, root = tmp_path / "kept" / "test.array_record", pathlib.Path(__file__).parent.parent
    run = subprocess.run(
        [sys.executable, script, path], cwd=root, env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}, timeout=120
    )
    assert run.returncode == -signal.SIGKILL
    (partial,) = path.parent.iterdir()
    assert not path.exists() and partial.name.endswith(".partial")


def test_two_at_once_do_no_harm(tmp_path):
    """Both write all of it, each in a file of its own; whoever reads sees nothing or all."""
    path, both, header = tmp_path / "test.array_record", threading.Barrier(2), {"count": 3}

    def write(_):
        def records():
            for seed in range(3):
                both.wait(30)
                yield pack(maps(seed), seed)

        return write_heatmaps(path, header, records())

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        sizes = list(pool.map(write, range(2)))
    records = open_heatmaps(path, header)
    assert [unpack(records[i + 1], (16, 16, 16))[1] for i in range(3)] == [0, 1, 2]
    assert sizes[0] == sizes[1] == path.stat().st_size and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written(dataset, tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(
        UserError, match="cannot write heatmaps to .*free space or choose another --data-dir; or when training: "
    ):
        cached(dataset, tmp_path / "data")


def test_a_full_disk(tmp_path):
    full = pathlib.Path("/dev/full")
    if not full.exists():
        pytest.skip("/dev/full is of Linux")
    with pytest.raises(OSError):
        heatmap_store._write(full, {"count": 0}, [os.urandom(10**6)])
