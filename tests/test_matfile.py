"""MATLAB v5 files: what scipy writes and reads comes back alike, and no damage does more than a UserError."""

import random
import struct
import zlib

import numpy as np
import pytest
import scipy.io

import data_pipelines.matfile as matfile
from data_pipelines.matfile import MatStruct, as_numbers, list_mat_variables, load_mat_variable
from fusion_jax.errors import UserError

_POINT = [("x", "O"), ("y", "O"), ("is_visible", "O")]
_VARIABLES = {
    "scalar": 1.5,
    "joints": np.random.default_rng(0).normal(size=(3, 14, 5)),
    "whole": np.arange(10.0),  # stored as bytes
    "bytes": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "single": np.float32([[1.5, np.nan]]),
    "words": np.array(["ab", "cd"]),
    "RELEASE": {
        "name": "a.jpg",
        "points": np.array([[(1.0, 2.0, "1"), (3.0, 4.0, np.zeros((0, 0)))]], dtype=_POINT),
        "cell": np.array(["a", np.zeros((0, 0)), {"deep": 3}], dtype=object),
        "empty": np.zeros((0, 0)),
        "nobody": np.zeros((0, 0), dtype=_POINT),
        "blank": "",
    },
}


def write(path, variables=_VARIABLES, **options):
    scipy.io.savemat(path, variables, **options)
    return path


def assert_same(ours, theirs):
    if isinstance(ours, MatStruct):
        assert ours._fieldnames == theirs._fieldnames
        for name in ours._fieldnames:
            assert_same(getattr(ours, name), getattr(theirs, name))
        return
    assert np.shape(ours) == np.shape(theirs)
    if isinstance(ours, np.ndarray) and ours.dtype == object:
        for one, other in zip(ours.ravel(), theirs.ravel(), strict=True):
            assert_same(one, other)
    else:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("squeeze_me", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_every_kind_of_variable_reads_as_scipy_reads_it(tmp_path, packed, squeeze_me):
    path = write(tmp_path / "a.mat", do_compression=packed)
    theirs = scipy.io.loadmat(path, struct_as_record=False, squeeze_me=squeeze_me)
    for name in _VARIABLES:
        assert_same(load_mat_variable(path, name, squeeze_me=squeeze_me), theirs[name])
    listed = {variable.name: variable for variable in list_mat_variables(path)}
    assert list(listed) == list(_VARIABLES)
    assert listed["joints"].shape == (3, 14, 5) and listed["joints"].kind == "numeric"
    assert listed["RELEASE"].kind == "struct" and listed["words"].kind == "char"


def test_what_is_no_such_file_is_said(tmp_path):
    path = tmp_path / "joints.mat"
    with pytest.raises(UserError, match=r"joints.mat is missing"):
        load_mat_variable(path, "joints")
    path.write_text("<!DOCTYPE html><html>log in</html>")
    with pytest.raises(UserError, match=r"joints.mat is a web page"):
        load_mat_variable(path, "joints")
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(200))
    with pytest.raises(UserError, match=r"v7.3 .HDF5. file, expected v5; .* save it with -v7"):
        load_mat_variable(path, "joints")
    scipy.io.savemat(path, {"joints": np.ones(3)}, format="4")
    with pytest.raises(UserError, match=r"no MATLAB v5 file"):
        load_mat_variable(path, "joints")
    write(path, {"points": np.ones(3)})
    with pytest.raises(UserError, match=r"holds no variable 'joints' but 'points'"):
        load_mat_variable(path, "joints")
    write(path, {"joints": np.ones(3) * 1j})
    with pytest.raises(UserError, match=r"no real numbers"):
        load_mat_variable(path, "joints")
    with pytest.raises(UserError, match=r"x: joints holds no numbers"):
        as_numbers(np.array(["a"]), "x: joints")


def test_a_cut_file_says_so(tmp_path):
    path = write(tmp_path / "a.mat", do_compression=False)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"a.mat is damaged .it is cut off.; download it again"):
        list_mat_variables(path)


def matrix(matrix_class, shape, rest):
    body = struct.pack("<IIII", 6, 8, matrix_class, 0) + struct.pack(f"<II{len(shape)}i", 5, 4 * len(shape), *shape)
    body += b"\0" * (-len(body) % 8) + struct.pack("<II", 1, 1) + b"v".ljust(8, b"\0") + rest
    return struct.pack("<II", 14, len(body)) + body


def mat_file(path, element):
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + element)
    return path


def test_announced_sizes_are_not_believed(tmp_path, monkeypatch):
    cells = mat_file(tmp_path / "cells.mat", matrix(1, (2**30, 2), b""))
    with pytest.raises(UserError, match=r"announces \(1073741824, 2\), more than it holds"):
        load_mat_variable(cells, "v")
    numbers = mat_file(tmp_path / "numbers.mat", matrix(6, (2**30, 2**30), struct.pack("<IId", 9, 8, 1.0)))
    with pytest.raises(UserError, match=r"announces .* and holds 8 bytes"):
        load_mat_variable(numbers, "v")
    monkeypatch.setattr(matfile, "MAX_BYTES", 10_000)
    packed = zlib.compress(matrix(6, (1, 100_000), struct.pack("<II", 2, 100_000) + bytes(100_000)))
    bomb = mat_file(tmp_path / "bomb.mat", struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(UserError, match=r"unpacks to more than 10000 bytes"):
        load_mat_variable(bomb, "v")


def test_nesting_has_an_end(tmp_path):
    inner = matrix(6, (1, 1), struct.pack("<IId", 9, 8, 1.0))
    for _ in range(200):
        inner = matrix(1, (1, 1), inner)
    with pytest.raises(UserError, match=r"nests deeper than 32"):
        load_mat_variable(mat_file(tmp_path / "deep.mat", inner), "v")


@pytest.mark.parametrize("packed", [False, True])
def test_random_damage_is_a_user_error_or_a_value(tmp_path, packed):
    good = write(tmp_path / "a.mat", {"RELEASE": _VARIABLES["RELEASE"]}, do_compression=packed).read_bytes()
    rng, refused = random.Random(1), 0
    bad = tmp_path / "bad.mat"
    for _ in range(500):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.choice([0, 127, 255, rng.randrange(256)])
        bad.write_bytes(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data)
        try:
            load_mat_variable(bad, "RELEASE", squeeze_me=True)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and "bad.mat" in str(error)
    assert refused > 200
