"""A person as JSON and many as one .npz: the same numbers back, names and no orders, no half file taken for whole."""

import copy
import json
import math
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion_jax.errors import UserError
from fusion_jax.pose_npz import NpzStream, write_npz
from fusion_jax.pose_record import PersonPose, from_json
from fusion_jax.skeletons import SKELETONS

NETWORKS = {"pose_network": "runs/a, step 1, sha256 1a", "heatmap_network": "runs/b, step 2, sha256 2b"}
SHARED = {"skeleton": "human36m17", "heatmap_skeleton": "mpii16", **NETWORKS}
finite32 = st.floats(-1e6, 1e6, width=32)


def person(seed=0, **fields):
    rng = np.random.default_rng(seed)
    layouts = (SKELETONS.get(fields.get(name, SHARED[name])) for name in ("skeleton", "heatmap_skeleton"))
    j, k = (layout.num_joints if layout else 0 for layout in layouts)
    made = {
        "pose_mm": rng.normal(0, 500, (j, 3)),
        "joints2d_px": rng.uniform(0, 640, (k, 2)),
        "confidence": rng.random(k),
        "box": rng.uniform(1, 100, 4),
        "box_source": "detected",
        "crop": rng.uniform(1, 100, 3),
    }
    return PersonPose(**{**SHARED, **made, **fields})


def same(a, b):
    for name in PersonPose.__dataclass_fields__:
        x, y = getattr(a, name), getattr(b, name)
        assert type(x) is type(y) and np.array_equal(x, y), name
        assert not isinstance(x, np.ndarray) or x.dtype == y.dtype
    return True


@given(st.integers(0, 2**32), finite32, finite32, st.sampled_from(sorted(SKELETONS)), st.sampled_from([None, 0, 7]))
def test_json_gives_the_same_person_back(seed, x, y, layout, track):
    position = None if track is None else [x, y, 1000]
    one = person(seed, skeleton=layout, position_mm=position, track=track, crop=[x, y, 3])
    text = json.dumps(one.to_json(), allow_nan=False)
    same(one, from_json(json.loads(text), "file"))


def test_json_needs_no_knowledge_of_orders():
    one = person(pose_mm=np.arange(51).reshape(17, 3), joints2d_px=np.arange(32).reshape(16, 2) / 10)
    data = json.loads(json.dumps(one.to_json()))
    assert data["joints_mm"]["right_hip"] == [3, 4, 5]
    assert data["joints2d_px"]["right_knee"] == [0.2, 0.3], "the shortest decimals"
    assert data["root"] == ["pelvis"] and data["unit"] == "mm" and "y down" in data["frame"]
    # However the joints are sorted in the file:
    data["joints_mm"] = dict(sorted(data["joints_mm"].items()))
    same(one, from_json(data, "file"))


def test_absolute_is_pose_and_position():
    assert person().absolute_mm is None
    one = person(position_mm=[10, -20, 3000])
    np.testing.assert_array_equal(one.absolute_mm, one.pose_mm + np.float32([10, -20, 3000]))


def test_a_person_does_not_change_with_the_array_it_was_made_of():
    pose = np.zeros((17, 3), np.float32)
    one = person(pose_mm=pose)
    pose += 1
    assert not one.pose_mm.any()


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("skeleton", "human36m", "skeleton: expected one of"),
        ("skeleton", "lsp14", r"shape of pose_mm is \(17, 3\), expected \(14, 3\)"),
        ("pose_mm", np.zeros((16, 3)), "shape of pose_mm"),
        ("pose_mm", np.full((17, 3), np.nan), "pose_mm is .*finite"),
        ("pose_mm", np.full((17, 3), 1e300), "pose_mm is .*finite"),
        ("pose_mm", [["a"] * 3] * 17, "pose_mm"),
        ("pose_mm", np.full((17, 3), "a"), "pose_mm"),
        ("joints2d_px", np.zeros((16, 3)), "joints2d_px"),
        ("confidence", np.full(16, 1.01), "confidence .*from 0 to 1"),
        ("confidence", np.full(16, -0.01), "confidence"),
        ("box", [0, 0, 0, 5], "box .*width"),
        ("box", [0, 0, 5], "box"),
        ("box_source", "guessed", "box_source is 'guessed', expected 'given' or 'detected' or "),
        ("crop", [0, 0, -1], "crop .*side"),
        ("position_mm", [0, 0, np.inf], "position_mm"),
        ("track", -1, "track"),
        ("track", True, "track"),
        ("track", 1.0, "track"),
    ],
)
def test_a_bad_field_is_named(field, value, text):
    with pytest.raises(UserError, match=text) as caught:
        person(**({"pose_mm": np.zeros((17, 3))} | {field: value}))
    assert "\n" not in str(caught.value)


def replaced(path, value):
    """The change of a person's JSON that puts `value` at a path of keys; `...` removes it."""

    def change(data):
        *way, last = path
        for key in way:
            data = data[key]
        if value is ...:
            del data[last]
        else:
            data[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("skeleton",), "coco", "f.skeleton: expected one of .*got 'coco'"),
        (("skeleton",), {}, "f.skeleton"),
        (("skeleton",), "lsp14", "f.root"),
        (("unit",), "m", "f.unit: expected 'mm', got 'm'"),
        (("frame",), "world", "f.frame"),
        (("root",), ["left_hip"], "f.root"),
        (("pixels",), 3, "f.pixels"),
        (("box",), [1, 2, 3, 4], "f.box: expected an object with x, y, width, height"),
        (("box", "height"), ..., "f.box: missing 'height'"),
        (("box", "depth"), 3, "f.box: unknown name 'depth'"),
        (("box", "width"), -1, "f: box is"),
        (("box", "x"), True, "f.box.x: expected a number, got True"),
        (("joints_mm", "nose"), ..., "f.joints_mm: missing 'nose'"),
        (("joints_mm", "nose"), [1, 2], "f.joints_mm.nose: expected a list of 3 numbers"),
        (("joints_mm", "nose"), [1, 2, "3"], r"f.joints_mm.nose\[2\]: expected a number, got '3'"),
        (("joints_mm", "nose"), [1, 2, math.nan], r"f.joints_mm.nose\[2\]"),
        (("joints_mm", "nose"), [1, 2, math.inf], r"f.joints_mm.nose\[2\]"),
        (("joints_mm", "nose"), [1, 2, 10**400], r"f.joints_mm.nose\[2\]"),
        (("joints_mm", "nose"), [1, 2, 1e39], "f: pose_mm"),
        (("confidence", "head_top"), 1.5, "f: confidence"),
        (("confidence", "head_top"), None, "f.confidence.head_top"),
        (("position_mm",), [1, 2], "f.position_mm"),
        (("position_mm",), "far", "f.position_mm"),
        (("track",), 1.5, "f: track"),
        (("box_source",), [], "f: box_source"),
        (("pose_network",), 7, "f.pose_network: expected a text, got 7"),
        (("heatmap_network",), ..., "f: missing 'heatmap_network'"),
        (("mood",), "good", "f: unknown name 'mood'"),
    ],
)
def test_json_that_is_not_ours_is_refused_by_field(path, value, text):
    data = copy.deepcopy(person().to_json())
    replaced(path, value)(data)
    with pytest.raises(UserError, match=text) as caught:
        from_json(data, "f")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("data", [None, [], "x", 3, {}, [[]] * 1000])
def test_json_of_another_kind_is_refused(data):
    with pytest.raises(UserError, match=r"^f: "):
        from_json(data, "f")


def test_npz_holds_everybody(tmp_path):
    path = tmp_path / "new" / "people.npz"
    people = [
        ("a.jpg", 0, person(1)),
        ("ünter.png", 0, person(2, position_mm=[1, 2, 3000], box_source="picture")),
        ("long name of a video.mp4", 12, person(3, track=5)),
    ]
    write_npz(path, people, **SHARED)
    with np.load(path, allow_pickle=False) as file:
        data = dict(file)
    for name in ("pose_mm", "joints2d_px", "confidence", "box", "crop"):
        expected = np.stack([getattr(one, name) for *_, one in people])
        assert data[name].dtype == expected.dtype and np.array_equal(data[name], expected), name
    assert data["picture"].tolist() == [name for name, *_ in people]
    assert data["frame"].tolist() == [0, 0, 12] and data["track"].tolist() == [-1, -1, 5]
    assert data["box_source"].tolist() == ["detected", "picture", "detected"]
    assert data["position_known"].tolist() == [False, True, False]
    np.testing.assert_array_equal(data["position_mm"], [[np.nan] * 3, [1, 2, 3000], [np.nan] * 3])
    assert tuple(data["joints"]) == SKELETONS["human36m17"].joints and tuple(data["root"]) == ("pelvis",)
    assert tuple(data["joints2d"]) == SKELETONS["mpii16"].joints
    assert {name: str(data[name]) for name in SHARED} == SHARED
    assert str(data["unit"]) == "mm" and "z away" in str(data["pose_frame"])
    assert [file.name for file in path.parent.iterdir()] == ["people.npz"]


def test_npz_of_nobody_is_readable(tmp_path):
    write_npz(tmp_path / "none.npz", [], **SHARED)
    with np.load(tmp_path / "none.npz", allow_pickle=False) as data:
        assert data["pose_mm"].shape == (0, 17, 3) and data["picture"].shape == (0,)


def test_npz_is_the_same_bytes_again(tmp_path):
    for name in ("a", "b"):
        write_npz(tmp_path / name, [("x", 0, person())], **SHARED)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_interrupted_npz_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "p.npz"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), NpzStream(path, **SHARED) as stream:
        stream.append("v.mp4", 0, person())
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_an_npz_that_cannot_be_finished_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("disk full")

    stream = NpzStream(tmp_path / "p.npz", **SHARED)
    with pytest.raises(OSError, match="disk full"), stream:
        stream.append("v.mp4", 0, person())
        monkeypatch.setattr(zipfile.ZipFile, "open", full)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("other", [{"pose_network": "runs/c"}, {"skeleton": "lsp14"}])
def test_npz_mixes_no_networks_or_layouts(tmp_path, other):
    (name,) = other
    with pytest.raises(UserError, match=name), NpzStream(tmp_path / "p.npz", **SHARED) as stream:
        stream.append("v.mp4", 0, person())
        stream.append("v.mp4", 1, person(**other))


def test_npz_waits_on_disk_and_not_in_memory(tmp_path):
    tracemalloc = pytest.importorskip("tracemalloc")
    one = person()
    with NpzStream(tmp_path / "p.npz", **SHARED) as stream:
        stream.append("v.mp4", 0, one)
        tracemalloc.start()
        for frame in range(1, 3000):
            stream.append("v.mp4", frame, one)
        stream._write()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    row = sum(getattr(one, name).nbytes for name in ("pose_mm", "joints2d_px", "confidence", "box", "crop"))
    assert peak < 3000 * row / 2, "3000 rows would be 1.4 MB"
