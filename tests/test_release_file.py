"""The released model: what Python 2 pickled comes out, nothing in it runs, and no damage is more than a UserError."""

import base64
import io
import pickle
import zipfile
import zlib

import numpy as np
import pytest
import release_writer as release

import fusion_jax.release_file as release_file
import fusion_jax.release_pickle as release_pickle
from fusion_jax.errors import UserError
from fusion_jax.release_file import read_release

# cPickle.dumps(array, 0), 1 and 2 of Python 2.7.18 and NumPy 1.11.3, of GOLDEN as an object array.
GOLDEN = [
    np.arange(8, dtype="f4").reshape(2, 1, 2, 2),
    np.array([0.5, -1], "f4"),
    np.array([[0, 3], [1, 4], [2, 5]], "f4"),  # stored by columns
    np.array([1.5, 2, 3], "f4"),
    np.array(0.1, "f4"),
    np.float32(4.6),  # pickled as a number
]
PICKLES = {
    0: (
        "c-pO!PiurQ5XJBFMdGEB7}vVcvR=Jds8^xH(UpShhU^Fm{qT){khIlX4<i}#@_RGzu<LJn^zm+L|JJwksf<x0e3%;V-"
        "GfYz1X_THvktmyxz_=BDF@0~$$;Lqw5?U85zwlvXw)_65WJkd#SE<4Dy;NmWfF4s#URVF^hv;6kpwDJ&cSPS1dW9?zdW8-k6;2#-"
        "vFqY`Pb0l$1DHkC!eqQoD~D-`xWzx`y<&7iK}rM<u>RxHBao&rP^EMye&da41b5ZxNgNzUJprvuP6x{P5k?c$M#~g-"
        "`fNay^e{&LUeIh*}|z_=Xbat*$1jt85>rc#hqA)@HiJald>4jGFfIgfuhp?2KMpQWB"
    ),
    1: (
        "c-l+OE6pva)Jx7UO4Z9P%_+%DEGkN@<ccp!P0r6NE-5NaF5xO<)JO&^<H}2cNEb3`cr%oQGA5M-"
        "6*6mhGirFVl|YrGlvEa^auu>@gfjVCcr$o20+q08cr%AG*7*7PdHn|hFyU=qlH_S%z!h7_rjfy@k%43)JJ>`fZ$=<yD#-"
        "vDm1Y7piUVwv4XRNL5TimB7{H*x9!NL<5fC>3@d6+|0K^X*N|Mm5;)GaLlEDEsfCH!zsJUT3hC(i|LT0E^L#|K>Ty|k-"
        "<%Vd5*}(&J3|te2VjiGkO{hwivuDoOmLw%(kD}t_#GJ$;u0mc7)DYss5kjFX#>SH!fC~6iOOo^eV%d>;"
    ),
    2: (
        "c-m`VO3o|IEvVE>&M!*U%Pq|*$xJLNO049HFG@|$&nqq|DorloDrAJH;>t^b$QCkrGqi>>Cbb6@GHZA<db71c6{M6@7Nl|&vV=1ETX-"
        "{gGXfQ`YIrk;GS>L{`FZ^Z0x;oiUy{@rTgax7!I*(CiXCW_hBp(?JSK0Zk_@0BX(muZIKYP3pc=veG$d4k0Sp@KfrJAP0dWHmF96~LK>Wa=B"
        "nib5PLO+<S~EC0Lpgw2fZ7`NqbcD6DPi_zYRlm02$jHPKAI+OuqLp%JV2}A%F&eZ0F`Ni6tSE=bH=tL2}kf3Cnx447I78wqJ#n;j!+0?F*cs"
        ";&=yq4pIVZn2LMF|k46"
    ),
}
PICKLES = {protocol: zlib.decompress(base64.b85decode(text)) for protocol, text in PICKLES.items()}


@pytest.mark.parametrize("protocol", PICKLES)
def test_pickles_of_python_2(tmp_path, protocol):
    found = read_release(release.write_pickle(tmp_path / "a.npz", PICKLES[protocol]))
    assert [array.dtype for array in found] == ["f4"] * 6
    for array, wanted in zip(found, GOLDEN, strict=True):
        np.testing.assert_array_equal(array, wanted)
        assert array.shape == wanted.shape


@pytest.mark.parametrize("protocol", [3, 4])
def test_pickles_of_python_3_and_other_floats(tmp_path, protocol):
    arrays = [np.arange(3, dtype=kind) for kind in ("<f2", "<f4", ">f4", "<f8")] + [np.array(2.5), np.float64(3)]
    objects = np.empty(7, object)
    objects[:] = [*arrays, 4.5]
    found = read_release(release.write_pickle(tmp_path / "a.npz", pickle.dumps(objects, protocol)))
    for array, wanted in zip(found, [*arrays, 4.5], strict=True):
        np.testing.assert_array_equal(array, wanted)


def test_every_byte_order_and_header_that_numpy_wrote(tmp_path):
    for kind in (b"O", b"|O", b"|O8", b"|O4"):
        header = b"{'descr': '" + kind + b"', 'fortran_order': False, 'shape': (6L,), }"
        assert len(read_release(release.write_pickle(tmp_path / "a.npz", PICKLES[2], header=header))) == 6


def unreadable(path, words):
    with pytest.raises(UserError, match=words) as error:
        read_release(path)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(path)) and len(str(error.value)) < 400


class Runs:
    """Pickled, this asks to write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_nothing_in_it_runs(tmp_path, protocol):
    written = tmp_path / "written"
    objects = np.empty(2, object)
    objects[:] = [GOLDEN[0], Runs(written)]
    for value in (Runs(written), [Runs(written)], objects):
        data = pickle.dumps(value, protocol)
        unreadable(release.write_pickle(tmp_path / "a.npz", data), "which is not read for safety|is not done|expected")
    assert not written.exists()
    pickle.loads(pickle.dumps(Runs(written), protocol)).close()
    assert written.exists(), "as Python's own reader would have done"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "Python object 'os.system', which is not read for safety"),
        (b"cnumpy\nload\n.", "'numpy.load'"),
        (b"cnumpy\nndarray\n(tR.", "makes an array in an unknown way"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\ntR.", "Python objects where an array is expected"),
        (b"}.", r"\(EMPTY_DICT\)"),
        (b"Pxyz\n.", r"\(PERSID\)"),
        (b"(i__builtin__\neval\n.", r"\(INST\)"),
        (b"I1\n.", "something else than a list of arrays"),
        (b"]I1\nb.", "sets attributes of a list"),
        (b"I1\n(tR.", "is damaged"),
        (b"t.", "is damaged"),
        (b"g7\n.", "is damaged"),
        (b"\xff.", r"unknown instruction b'\\xff'"),
        (b"S'abc\n.", "text without an end"),
        (b"S\n.", "text without an end"),
        (b"T\xff\xff\xff\x7f.", "announces 2147483647 bytes"),
        (b"T\xff\xff\xff\x00.", "is cut off"),
        (b"I" + b"9" * 5000 + b"\n.", "is damaged"),
        (b"(" * 30_000, "far longer than a model"),
        (b"", "is cut off"),
    ],
)
def test_pickles_of_anything_else(tmp_path, data, words):
    unreadable(release.write_pickle(tmp_path / "a.npz", data), words)


def test_arrays_of_anything_else(tmp_path):
    def objects(*values):
        made = np.empty(len(values), object)
        made[:] = values
        return made

    nested, records = objects(objects(GOLDEN[0])), np.zeros(2, [("a", "f4"), ("b", "f4")])
    cases = [
        (np.arange(3.0), "something else than a list"),
        (objects(np.arange(3)), "numbers of type 'i8', expected one of f2, f4, f8"),
        (objects(np.array(["a"])), "numbers of type 'U1'"),
        (objects(np.zeros(2, complex)), "numbers of type 'c16'"),
        (objects(records), r"\(EMPTY_DICT\)"),
        (nested, "no array of numbers in place 0"),
        (objects(GOLDEN[0], None), "no array of numbers in place 1"),
        (objects(3), "no array of numbers in place 0"),
        (objects(*GOLDEN).reshape(2, 3), r"objects of shape \(2, 3\)"),
    ]
    for value, words in cases:
        unreadable(release.write_pickle(tmp_path / "a.npz", pickle.dumps(value, 4)), words)
    named = PICKLES[2].replace(b"<NNN", b"<N)N")
    unreadable(release.write_pickle(tmp_path / "a.npz", named), "array of records")
    np.savez(tmp_path / "b.npz", params=np.arange(3.0))
    unreadable(tmp_path / "b.npz", "holds one array of '<f8', expected a list of arrays")


def test_shapes_that_the_bytes_belie(tmp_path):
    data = PICKLES[2]
    assert data.count(b"K\x02K\x01K\x02K\x02t") == 1
    for shape, words in {
        b"K\x02K\x01K\x02K\x03t": "holds 32 bytes for 12 numbers",
        b"J\xff\xff\xff\xffK\x01K\x02K\x02t": "impossible shape",
        b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7fK\x02t": "holds 32 bytes for 19807",
        b"NK\x01t": "impossible shape",
        b"K\x01" * 40 + b"t": "impossible shape",
    }.items():
        changed = data.replace(b"K\x02K\x01K\x02K\x02t", shape)
        unreadable(release.write_pickle(tmp_path / "a.npz", changed), words)


def test_the_same_bytes_do_not_count_as_memory_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(release_pickle, "MAX_BYTES", 1000)
    objects = np.empty(40, object)
    objects[:] = [GOLDEN[0]] * 40
    unreadable(
        release.write_pickle(tmp_path / "a.npz", pickle.dumps(objects, 4)), "arrays of 1280 bytes, expected 1000"
    )


def test_damage_anywhere_is_one_line(tmp_path):
    whole = release.write_pickle(tmp_path / "a.npz", PICKLES[2]).read_bytes()
    path = tmp_path / "b.npz"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        unreadable(path, "is damaged|is cut off|is empty|is no file")
    rng = np.random.default_rng(0)
    flipped = [bytes([*whole[:i], whole[i] ^ int(rng.integers(1, 256)), *whole[i + 1 :]]) for i in range(len(whole))]
    for data in flipped:
        path.write_bytes(data)
        try:
            found = read_release(path)
        except UserError as error:
            assert "\n" not in str(error)
        else:  # in what the archive says of itself and nobody reads
            np.testing.assert_array_equal(found[0], GOLDEN[0])
    for length in range(len(PICKLES[2])):
        unreadable(release.write_pickle(path, PICKLES[2][:length]), "is cut off|is damaged")
    for i in range(0, len(PICKLES[0]), 2):  # with a checksum that is right
        changed = PICKLES[0][:i] + bytes([rng.integers(256)]) + PICKLES[0][i + 1 :]
        try:
            read_release(release.write_pickle(path, changed))
        except UserError as error:
            assert "\n" not in str(error)


def test_the_checksum_of_a_long_file_is_compared(tmp_path):
    path = release.write_pickle(tmp_path / "a.npz", PICKLES[2] + bytes(20_000))
    assert len(read_release(path)) == 6
    data, number = path.read_bytes(), np.float32(7).tobytes()
    assert data.count(number) == 1
    path.write_bytes(data.replace(number, np.float32(8).tobytes()))
    unreadable(path, "Bad CRC-32")


def test_files_of_another_kind(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    for data, words in {
        b"": "is empty",
        b"<!DOCTYPE html><html>": "is a web page",
        PICKLES[2]: "is no file of numpy.savez",
        b"PK\x03\x04 and nothing": "is damaged",
    }.items():
        path.write_bytes(data)
        unreadable(path, words)
    unreadable(tmp_path, "is missing or is no file")
    unreadable(tmp_path / "none", "is missing or is no file")
    unreadable(release.write_pickle(path, PICKLES[2], "weights.npy"), "holds 'weights.npy', expected params.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("params.npy", b"no array")
    unreadable(path, "params.npy that is no array")
    unreadable(release.write_pickle(path, b".", header=b"x" * 5000), "header of 50.. bytes")
    bomb = release.write_pickle(path, PICKLES[2] + bytes(10**6), compression=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 10_000
    unreadable(bomb, "has a compressed params.npy")
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(100):
            archive.writestr(f"{number}.npy", b"")
    monkeypatch.setattr(release_file, "_MAX_LIST", 1000)
    unreadable(path, "list of members is 5190 bytes long, expected 1000")
    monkeypatch.setattr(release_file, "MAX_BYTES", 100)
    unreadable(path, r"is \d+ bytes long, expected 100 at most")


def test_the_arrays_are_views_of_the_files_bytes():
    """So that memory is that of the file, once."""
    found = release_pickle.read_arrays(io.BytesIO(PICKLES[2]))
    assert not any(array.flags.writeable or array.flags.owndata for array in found)
