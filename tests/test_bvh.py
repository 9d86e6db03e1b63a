"""BVH parsing and forward kinematics: positions by hand and by SciPy, and every way a file can be wrong."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from data_pipelines import bvh as bvh_module
from data_pipelines.bvh import forward_kinematics, joint_frames, parse_bvh, read_bvh
from fusion_jax.errors import UserError

POSITION = "Xposition Yposition Zposition"
TINY = """HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT Chest
  {
    OFFSET 0 10 0
    CHANNELS 3 Zrotation Yrotation Xrotation
    End Site
    {
      OFFSET 0 0 5
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.025
1 2 3 0 0 0 0 0 0
1 2 3 90 90 90 90 0 0
"""
MUTABLE = TINY.encode()


def test_fields():
    bvh = parse_bvh(TINY)
    assert bvh.names == ("Hips", "Chest", "Chest_end")
    assert bvh.parents == (-1, 0, 1)
    np.testing.assert_array_equal(bvh.offsets, [[0, 0, 0], [0, 10, 0], [0, 0, 5]])
    assert [len(channels) for channels in bvh.channels] == [6, 3, 0]
    assert bvh.channels[1] == ("Zrotation", "Yrotation", "Xrotation")
    assert bvh.frame_time == 0.025
    assert bvh.values.shape == (2, 9) and bvh.values.dtype == np.float64


def test_kinematics_z_y_x_by_hand():
    # Rz Ry Rx, 90 degrees each. (0,10,0): Rx -> (0,0,10), Ry -> (10,0,0), Rz -> (0,10,0).
    # (0,0,5): the chest's Rz keeps it, Rx -> (0,-5,0), Ry keeps it, Rz -> (5,0,0).
    rest, turned = forward_kinematics(parse_bvh(TINY))
    np.testing.assert_allclose(rest, [[1, 2, 3], [1, 12, 3], [1, 12, 8]], atol=1e-12)
    np.testing.assert_allclose(turned, [[1, 2, 3], [1, 12, 3], [6, 12, 3]], atol=1e-12)


def test_kinematics_z_x_y_by_hand():
    # Rz Rx Ry, 90 degrees each. (0,10,0): Ry keeps it, Rx -> (0,0,10), Rz keeps it.
    # (0,0,5): Ry -> (5,0,0), Rx keeps it, Rz -> (0,5,0).
    text = TINY.replace("Zrotation Yrotation Xrotation", "Zrotation Xrotation Yrotation")
    turned = forward_kinematics(parse_bvh(text))[1]
    np.testing.assert_allclose(turned, [[1, 2, 3], [1, 2, 13], [1, 7, 13]], atol=1e-12)


def test_root_offset_adds_to_its_position():
    text = TINY.replace("OFFSET 0 0 0", "OFFSET 100 0 0")
    np.testing.assert_allclose(forward_kinematics(parse_bvh(text))[0, 0], [101, 2, 3])


@pytest.mark.parametrize("order", ["XYZ", "XZY", "YXZ", "YZX", "ZXY", "ZYX"])
def test_rotations_agree_with_scipy(order):
    channels = " ".join(f"{axis}rotation" for axis in order)
    angles = np.random.default_rng(0).uniform(-180, 180, (2, 6))
    rows = "\n".join(" ".join(map(repr, (0.0, 0.0, 0.0, *map(float, row)))) for row in angles)
    text = TINY.replace("Zrotation Yrotation Xrotation", channels).split("1 2 3")[0] + rows
    _, rotations = joint_frames(parse_bvh(text))
    hips, chest = (Rotation.from_euler(order, angles[:, part], degrees=True) for part in (slice(3), slice(3, 6)))
    np.testing.assert_allclose(rotations[:, 0], hips.as_matrix(), atol=1e-12)
    np.testing.assert_allclose(rotations[:, 1], (hips * chest).as_matrix(), atol=1e-12)


@pytest.mark.parametrize(("read", "expected"), [("0 11 0", 11.0), ("0 1 0", 11.0)])
def test_positions_below_the_root_are_translations_or_displacements(read, expected):
    # OFFSET 0 10 0 with 0 11 0 is the whole translation; with 0 1 0 it is a displacement of the joint.
    text = TINY.replace("CHANNELS 3 Z", f"CHANNELS 6 {POSITION} Z").split("1 2 3")[0].replace("s: 2", "s: 1")
    bvh = parse_bvh(text + f"0 0 0 0 0 0 {read} 0 0 0\n")
    np.testing.assert_allclose(forward_kinematics(bvh)[0, 1], [0, expected, 0], atol=1e-12)


def test_line_ends_blanks_and_case_do_not_matter():
    wanted = parse_bvh(TINY)
    mixed = "\ufeff" + TINY.replace("\n", " \t\r\n\r\n").replace("Frames: 2", "Frames:\t2").replace("J", "j")
    for text in (mixed, TINY.replace("\n", "\r"), TINY.replace("{\n", "{ ").rstrip("\n")):
        got = parse_bvh(text)
        assert got.names == wanted.names and got.channels == wanted.channels
        np.testing.assert_array_equal(got.values, wanted.values)


def deep(levels: int) -> str:
    joints = "".join(f"JOINT j{i} {{ OFFSET 0 1 0 CHANNELS 0\n" for i in range(levels))
    return TINY.replace("  JOINT Chest", joints + "  JOINT Chest").replace("MOTION", " }" * levels + "\nMOTION")


def edit(old: str, new: str) -> str:
    assert old in TINY
    return TINY.replace(old, new, 1)


LAST = "1 2 3 90 90 90 90 0 0\n"
BROKEN = {
    "empty": ("", "an empty one"),
    "blank": (" \r\n\t\n", "an empty one"),
    "another format": ("v 0 0 0\n", "line 1: expected HIERARCHY.*came 'v'; this is not a BVH file"),
    "hierarchy cut short": (TINY[:120], "line 6: expected {, came the end of the file"),
    "one brace too few": (edit("}\nMOTION", "MOTION"), "line 15: expected JOINT or End or }, came 'MOTION'"),
    "one brace too many": (edit("}\nMOTION", "} }\nMOTION"), "line 15: expected MOTION, came '}'"),
    "two roots": (edit("MOTION", "ROOT B"), "line 16: expected MOTION, came 'ROOT'"),
    "no name": (edit("ROOT Hips", "ROOT"), "line 3: expected a joint's name, came '{'"),
    "same name twice": (edit("JOINT Chest", "JOINT Hips"), "line 6: .*name once, came 'Hips' again"),
    "two end sites": (
        edit("    End", "    End Site { OFFSET 0 0 0 }\n    End"),
        "line 11.*'Chest_end' again",
    ),
    "offset of two": (edit("OFFSET 0 10 0", "OFFSET 0 10"), "line 9.*OFFSET z of Chest.*came 'CHANNELS'"),
    "offset not a number": (edit("OFFSET 0 10 0", "OFFSET 0 1O 0"), "line 8.*OFFSET y of Chest.*came '1O'"),
    "offset not finite": (edit("OFFSET 0 10 0", "OFFSET 0 nan 0"), "line 8.*came 'nan'"),
    "offset absurd": (edit("OFFSET 0 10 0", "OFFSET 0 1e30 0"), "line 8.*came '1e30'"),
    "unknown channel": (edit("Xposition", "Wposition"), "line 5.*channel of Hips.*came 'Wposition'"),
    "channel twice": (edit("Yposition", "Xposition"), "line 5.*at most once, came 'Xposition'"),
    "too few channels": (edit("CHANNELS 6", "CHANNELS 5"), "line 5: .*came 'Xrotation'"),
    "too many channels": (edit("CHANNELS 6", "CHANNELS 7"), "line 5.*from 0 to 6, came '7'"),
    "channels not a count": (edit("CHANNELS 6", "CHANNELS -6"), "line 5.*came '-6'"),
    "no frames": (edit("Frames: 2", "Frames: 0"), "line 17.*Frames as a whole number from 1, came '0'"),
    "frames not whole": (edit("Frames: 2", "Frames: 2.0"), "line 17.*came '2.0'"),
    "frames absurd": (edit("Frames: 2", "Frames: 1000000000000"), "1000000000000 frames.*only 3.. bytes"),
    "frames very absurd": (edit("Frames: 2", "Frames: " + "9" * 6000), "line 17.*came '9999"),
    "frame time zero": (edit("0.025", "0"), "line 18.*Frame Time.*came '0'"),
    "frame time negative": (edit("0.025", "-0.025"), "line 18.*came '-0.025'"),
    "frame time infinite": (edit("0.025", "inf"), "line 18.*came 'inf'"),
    "motion on the time's line": (edit("0.025", "0.025 7"), "line 18.*end of the line.*came '7'"),
    "one line too few": (edit(LAST, ""), "2 lines of motion .Frames.*only 1"),
    "one line too many": (edit(LAST, LAST * 2), "line 21: expected the end after 2 lines.*came '1 ...'"),
    "one number too few": (edit(LAST, LAST[2:]), "line 20: expected 9 numbers.*frame 1, came 8 numbers"),
    "one number too many": (edit(LAST, "5 " + LAST), "line 20: .*came 10 numbers"),
    "not a number": (edit("90 0 0", "90 0 x"), "line 20.*frame 1, channel 8, came 'x'"),
    "grouped digits": (edit("90 0 0", "90 1_0 0"), "line 20.*channel 7, came '1_0'"),
    "not finite": (edit("90 0 0", "nan 0 0"), "line 20.*channel 6, came 'nan'"),
    "infinite": (edit("90 0 0", "-inf 0 0"), "line 20.*channel 6, came '-inf'"),
    "absurd": (edit("90 0 0", "1e300 0 0"), "line 20.*channel 6, came '1e300'"),
    "binary": (edit("Hips", "Hi\0ps"), "binary data"),
    "no channels": (
        "HIERARCHY ROOT a { OFFSET 0 0 0 CHANNELS 0 }\nMOTION\nFrames: 1\nFrame Time: 1\n",
        "line 1: expected at least one channel",
    ),
    "bottomless": (deep(100_000), "nested at most 256 deep"),
    "crowded": (
        edit("  JOINT Chest", "".join(f"JOINT j{i} {{ OFFSET 0 1 0 CHANNELS 0 }}\n" for i in range(5000))),
        "at most 4096 joints",
    ),
    "one endless line": ("HIERARCHY " + "x" * 2**20, "lines of at most 1048576 bytes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_with_their_place(case):
    text, message = BROKEN[case]
    with pytest.raises(UserError, match=f"(?s)^arm.bvh.*{message}") as caught:
        parse_bvh(text, "arm.bvh")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_names_that_are_not_text_are_refused(tmp_path):
    path = tmp_path / "latin.bvh"
    path.write_bytes(TINY.encode().replace(b"Chest", b"H\xfcfte"))
    with pytest.raises(UserError, match="latin.bvh, line 6: expected a joint's name in UTF-8"):
        read_bvh(path)


def test_deep_but_allowed():
    assert len(parse_bvh(deep(200)).names) == 203


def test_read_bvh_equals_parse_bvh(tmp_path):
    path = tmp_path / "a.bvh"
    path.write_text(TINY)
    np.testing.assert_array_equal(read_bvh(path).values, parse_bvh(TINY).values)
    assert read_bvh(path).source == str(path)


def test_paths_that_are_no_files(tmp_path):
    for path in (tmp_path, tmp_path / "absent.bvh"):
        with pytest.raises(UserError, match="no such regular file"):
            read_bvh(path)


def test_file_size_is_capped(tmp_path, monkeypatch):
    path = tmp_path / "a.bvh"
    path.write_text(TINY)
    monkeypatch.setattr(bvh_module, "MAX_FILE_BYTES", len(TINY))
    assert len(read_bvh(path).values) == 2
    monkeypatch.setattr(bvh_module, "MAX_FILE_BYTES", len(TINY) - 1)
    with pytest.raises(UserError, match="expected at most"):
        read_bvh(path)


def test_frames_times_joints_are_capped(monkeypatch):
    monkeypatch.setattr(bvh_module, "MAX_JOINT_FRAMES", 2 * 3)
    assert len(parse_bvh(TINY).values) == 2
    monkeypatch.setattr(bvh_module, "MAX_JOINT_FRAMES", 2 * 3 - 1)
    with pytest.raises(UserError, match="line 17: expected at most 1 frames of 3 joints, came 2"):
        parse_bvh(TINY)


def test_five_megabytes_take_well_under_a_second():
    row = " ".join(["-12.345678"] * 9) + "\n"
    count = 5_000_000 // len(row)
    text = TINY.replace("Frames: 2", f"Frames: {count}").split("1 2 3")[0] + row * count
    start = time.process_time()
    assert parse_bvh(text).values.shape == (count, 9)
    assert time.process_time() - start < 1.0


@st.composite
def mutations(draw):
    """TINY with a few bytes changed, cut, repeated, or words swapped for hostile ones."""
    data = bytearray(MUTABLE)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 12)))
        words = [b"nan", b"}", b"{", b"-1", b"1e400", b"\xff", b"JOINT", b"End Site", b"MOTION", b"\n", b""]
        new = draw(st.one_of(st.binary(max_size=6), st.sampled_from([*words, bytes(data[start:stop]) * 3])))
        data[start:stop] = new
    return bytes(data[: draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))])


@settings(max_examples=400, deadline=None)
@given(mutations())
def test_any_file_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "mutated.bvh"
    path.write_bytes(data)
    try:
        bvh = read_bvh(path)
    except UserError as error:
        assert "mutated.bvh" in str(error)
        return
    assert bvh.values.shape[1] == sum(map(len, bvh.channels)) and bvh.frame_time > 0
    assert np.isfinite(forward_kinematics(bvh)).all()


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_refused(text):
    with pytest.raises(UserError):
        parse_bvh(text)
