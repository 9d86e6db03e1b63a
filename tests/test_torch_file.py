"""Files of torch.save: what they hold comes out, nothing in them runs, and no damage does more than a UserError."""

import io
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch_writer import (
    WRITERS,
    OrderedDict,
    Storage,
    Tensor,
    import_torch,
    pickled,
    storage,
    tensor,
    write,
    write_legacy,
    write_zip,
)

import fusion_jax.torch_file as torch_file
import fusion_jax.torch_pickle as torch_pickle
from fusion_jax.errors import UserError
from fusion_jax.torch_file import read_torch_file

FORMS = pytest.mark.parametrize("form", list(WRITERS))
WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
CHECKPOINT = {
    "state_dict": OrderedDict({"weight": tensor("0", WEIGHT), "steps": tensor("1", np.array(7))}),
    "optimizer": {
        "state": {140213: {"step": 3, "exp_avg": tensor("2", -WEIGHT)}},
        "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "amsgrad": False, "params": [140213], "foreach": None}],
    },
    "epoch": 12,
}


@FORMS
def test_a_checkpoint_comes_out_as_it_was(tmp_path, form):
    found = read_torch_file(write(tmp_path / "a.pt", CHECKPOINT, form))
    assert list(found) == list(CHECKPOINT) and found["epoch"] == 12
    assert type(found["state_dict"]) is dict and list(found["state_dict"]) == ["weight", "steps"]
    np.testing.assert_array_equal(found["state_dict"]["weight"], WEIGHT)
    steps = found["state_dict"]["steps"]
    assert steps.shape == () and steps.dtype == np.int64 and steps == 7
    assert found["optimizer"]["param_groups"] == CHECKPOINT["optimizer"]["param_groups"]
    np.testing.assert_array_equal(found["optimizer"]["state"][140213]["exp_avg"], -WEIGHT)


@FORMS
@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "?"])
def test_every_type_of_number(tmp_path, form, dtype):
    array = np.array([[0, 1, 100], [3, 1, 2]]).astype(dtype)
    (found,) = read_torch_file(write(tmp_path / "a.pt", [tensor("0", array)], form))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@FORMS
def test_numbers_that_numpy_has_no_type_for(tmp_path, form):
    upper_halves = np.array([0x3FC0, 0xC040, 0x7F80], np.uint16)  # of 1.5, -3 and infinity as float32
    made = [tensor("0", upper_halves, "BFloat16"), tensor("1", np.array([0, 1, 2], np.uint8), "Bool")]
    numbers, truths = read_torch_file(write(tmp_path / "a.pt", made, form))
    assert numbers.dtype == np.float32 and numbers.tolist() == [1.5, -3, np.inf]
    assert truths.dtype == np.bool_ and truths.tolist() == [False, True, True]


@FORMS
def test_views_of_one_storage_are_arrays_of_their_own(tmp_path, form):
    shared = storage("0", np.arange(12, dtype=np.float32))
    made = {
        "whole": Tensor(shared, 0, (3, 4), (4, 1), parameter=True),
        "turned": Tensor(shared, 0, (4, 3), (1, 4)),
        "part": Tensor(shared, 5, (2, 2), (4, 2)),
        "number": Tensor(shared, 11, (), ()),
        "repeated": Tensor(shared, 1, (2, 3), (0, 1)),
        "empty": Tensor(shared, 12, (0, 4), (4, 1)),
    }
    found = read_torch_file(write(tmp_path / "a.pt", made, form))
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = [whole, whole.T, [[5, 7], [9, 11]], 11, [[1, 2, 3], [1, 2, 3]], np.zeros((0, 4))]
    for array, wanted in zip(found.values(), expected, strict=True):
        np.testing.assert_array_equal(array, wanted)
        assert array.flags.owndata and array.flags.writeable and array.flags.c_contiguous
    found["whole"][:] = 0
    assert found["turned"].any()


def test_an_archive_gives_only_what_is_used(tmp_path):
    unused = storage("5", np.full(99, 7, np.uint8))
    path = write(tmp_path / "a.pt", [1, Tensor(unused, 3, (0, 2), (2, 1))], "zip")
    path.write_bytes(path.read_bytes().replace(b"\7" * 99, b"\6" * 99))  # its checksum is wrong now
    number, empty = read_torch_file(path)
    assert number == 1 and empty.shape == (0, 2) and empty.dtype == np.uint8


# Nothing runs.


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@FORMS
@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_code_in_a_pickle_does_not_run(tmp_path, form, protocol):
    path = WRITERS[form](tmp_path / "a.pt", pickle.dumps({"state_dict": Runs(tmp_path / "ran")}, protocol), {})
    with pytest.raises(UserError, match=r"a.pt (holds the Python object 'posix.mkdir', which is|holds Python objects)"):
        read_torch_file(path)
    assert not (tmp_path / "ran").exists()


@FORMS
@pytest.mark.parametrize(
    "name",
    ["builtins eval", "torch load", "collections OrderedDict.update", "torch._utils _rebuild_tensor_v2.__globals__",
     "models.posenet PoseNet", "torch.nn.modules FloatStorage"],
)  # fmt: skip
def test_other_names_are_refused_by_name(tmp_path, form, name):
    module, attribute = name.split()
    path = WRITERS[form](tmp_path / "a.pt", f"\x80\x02c{module}\n{attribute}\n.".encode("latin1"), {})
    with pytest.raises(UserError, match=f"'{module}.{attribute}'.*state_dict"):
        read_torch_file(path)
    as_texts = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, attribute))
    with pytest.raises(UserError, match=f"'{module}.{attribute}'"):
        read_torch_file(WRITERS[form](path, b"\x80\x04" + as_texts + b"\x93.", {}))


REBUILD, ORDERED = b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n"


@FORMS
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (REBUILD + b"}X\1\0\0\0a]sb.", "treats a method as a dict"),  # attributes for a function of ours
        (ORDERED + b".", "bare storage or type"),
        (ORDERED + b")R" + ORDERED + b"q\0h\0s.", "has a dictionary with"),
        (ORDERED + b"](X\1\0\0\0aK\1\x86e\x85R.", "written by Python 2"),
        (b"ctorch\nFloatStorage\n)R.", "damaged"),
        (b"ctorch\nComplexFloatStorage\n.", "type 'ComplexFloat', expected Double, Float"),
        (b"(X\6\0\0\0moduleNNNtQ.", "whole pickled model"),
        (b"(X\7\0\0\0storageNNNNtQ.", "storage that cannot be"),
        (b"(X\7\0\0\0storageNNNN)tQ.", "views of storages as PyTorch wrote before 0.4"),
        (b"(X\7\0\0\0storagetQ.", "damaged"),
        (b")Q.", "damaged"),
        (REBUILD + b"(NK\0))NNtR.", "impossible shape"),
        (REBUILD + b"(tR.", "damaged"),
        (b"ctorch._utils\n_rebuild_parameter\n](K\1e\x88N\x87R.", "treats a list as a ndarray"),
        (b"ctorch\nSize\n]\x85R.", "treats a list as a tuple"),
        (b"K\1K\2.", "damaged"),
        (b"h\5.", "damaged"),
        (b"}]K\1s.", "dictionary with a list"),
        (b"}(K\1u.", "damaged"),
        (b"K\1N\x86(K\2e.", "treats a tuple as a list"),
        (b"", "without an end|damaged"),
    ],
)
def test_a_malformed_pickle_is_refused(tmp_path, form, body, words):
    with pytest.raises(UserError, match=words):
        read_torch_file(WRITERS[form](tmp_path / "a.pt", b"\x80\x02" + body, {}))


@FORMS
def test_small_pickles_cannot_take_long_or_fill_the_memory(tmp_path, form, monkeypatch):
    def refused(body, words):
        with pytest.raises(UserError, match=words):
            read_torch_file(WRITERS[form](tmp_path / "a.pt", b"\x80\x02" + body, {}))

    doubled = b")" + b"q\0h\0\x86" * 60  # a tuple of itself twice, 60 times: hashing it would take 2^60 steps
    refused(b"}" + doubled + b"K\1s.", "dictionary with a tuple as key")
    refused(b"}\x8a\x14" + b"\xff" * 19 + b"\0K\1s.", "dictionary with a int as key")  # hashes of these can collide
    refused(b"X\xff\xff\xff\x7fa.", "damaged")
    refused(b"\x8d" + b"\xff" * 8 + b"a.", "damaged")
    body = b"]r\xff\xff\xff\xff."  # the highest number there is for something to remember
    assert read_torch_file(WRITERS[form](tmp_path / "a.pt", b"\x80\x02" + body, {})) == []
    deep = b"]" * 100_000 + b"a" * 99_999 + b"."
    assert len(read_torch_file(WRITERS[form](tmp_path / "a.pt", b"\x80\x02" + deep, {}))) == 1
    monkeypatch.setattr(torch_pickle, "MAX_INSTRUCTIONS", 1000)
    refused(deep, "far longer than a checkpoint's")


# Tensors that cannot be.

FOUR = storage("0", np.arange(4, dtype=np.float32))


@FORMS
@pytest.mark.parametrize(
    ("offset", "shape", "strides", "words"),
    [
        (1, (4,), (1,), "reaches beyond its storage '0'"),
        (0, (2, 3), (2, 1), "reaches beyond"),
        (0, (2,), (4,), "reaches beyond"),
        (4, (), (), "reaches beyond"),
        (2**61, (1,), (1,), "reaches beyond"),
        (0, (2**40, 2**40), (0, 0), "more than 4 times its own size"),
        (0, (2**61, 0), (0, 0), "damaged"),
        (-1, (2,), (1,), "impossible shape"),
        (0, (-2,), (1,), "impossible shape"),
        (3, (2,), (-1,), "impossible shape"),
        (0, (2.0,), (1,), "impossible shape"),
        (0, (True,), (1,), "impossible shape"),
        (2**70, (2,), (1,), "impossible shape"),
        (0, (2,), (1, 1), "impossible shape"),
        (0, (1,) * 40, (1,) * 40, "impossible shape"),
        (0, "ab", "cd", "impossible shape"),
        (None, None, None, "damaged"),
    ],
)
def test_a_tensor_stays_within_its_storage(tmp_path, form, offset, shape, strides, words):
    with pytest.raises(UserError, match=words):
        read_torch_file(write(tmp_path / "a.pt", [Tensor(FOUR, offset, shape, strides)], form))


@FORMS
def test_a_storage_is_as_large_as_the_file_has_bytes_for(tmp_path, form):
    def refused(words, *storages):
        with pytest.raises(UserError, match=words):
            read_torch_file(write(tmp_path / "a.pt", [Tensor(one, 0, (1,), (1,)) for one in storages], form))

    refused("larger than its", FOUR._replace(size=2**40))
    refused("larger than its", *(FOUR._replace(key=str(key), size=100) for key in range(40)))
    refused("cut off in storage '0'", FOUR._replace(size=5))
    refused("two types or sizes", FOUR, FOUR._replace(kind="Int"))
    refused("two types or sizes", FOUR, FOUR._replace(size=3))
    refused("cannot be", FOUR._replace(size=-1))
    refused("cannot be", FOUR._replace(size=2.0))


def test_an_archive_is_what_torch_save_writes(tmp_path):
    path, (body, storages) = tmp_path / "a.pt", pickled(CHECKPOINT)

    def refused(words, storages=storages, **options):
        with pytest.raises(UserError, match=words):
            read_torch_file(write_zip(path, body, storages, **options))

    refused("compressed member 'byteorder'", compression=zipfile.ZIP_DEFLATED)
    refused("big-endian", extra={"byteorder": "big"})
    refused("lacks its member 'data/0'", storages={})
    refused("cut off in storage '0': 3 of 24", {**storages, "0": Storage("0", "Float", b"abc", 0)})
    refused("member 'data/0' of 25 bytes, expected 24", {**storages, "0": Storage("0", "Float", b"a" * 25, 0)})
    refused("TorchScript", extra={"code/__torch__.py": ""})
    refused("without one data.pkl", extra={"more/data.pkl": ""})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "")
    with pytest.raises(UserError, match="without one data.pkl"):
        read_torch_file(path)


def test_a_flipped_byte_in_an_archives_numbers_is_noticed(tmp_path):
    path = write(tmp_path / "a.pt", CHECKPOINT, "zip")
    data = bytearray(path.read_bytes())
    data[data.index(WEIGHT.tobytes()) + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"damaged .*CRC"):
        read_torch_file(path)


def test_an_archive_with_a_long_list_of_members_is_not_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "MAX_LIST", 1000)
    path = write(tmp_path / "a.pt", [tensor(str(i), WEIGHT) for i in range(40)], "zip")
    with pytest.raises(UserError, match="list of members is .* bytes long, expected 1000"):
        read_torch_file(path)


def test_a_file_that_is_far_too_large_is_not_read(tmp_path, monkeypatch):
    path = write(tmp_path / "a.pt", CHECKPOINT, "zip")
    monkeypatch.setattr(torch_file, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match="bytes long, expected 1000 at most"):
        read_torch_file(path)


def test_the_old_format_is_what_torch_save_wrote(tmp_path):
    path, (body, storages) = tmp_path / "a.pt", pickled(CHECKPOINT, legacy=True)
    data = write_legacy(path, body, storages).read_bytes()

    def refused(old, new, words):
        assert data.count(old) == 1
        path.write_bytes(data.replace(old, new))
        with pytest.raises(UserError, match=words):
            read_torch_file(path)

    magic, version = pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2)
    refused(magic, pickle.dumps([1, 2], 2), "a pickle but not of torch.save")
    refused(version, pickle.dumps(1000, 2), "of format 1000, expected 1001")
    refused(struct.pack("<q", 6) + WEIGHT.tobytes(), struct.pack("<q", 7) + WEIGHT.tobytes(), "7 numbers in storage")
    keys = pickle.dumps(["0", "1", "2"], 2)
    for others in (["0", "1"], ["0", "1", "2", "2"], ["0", "1", "3"], [0, 1, 2], ("0", "1", "2"), None):
        refused(keys, pickle.dumps(others, 2), "lists other storages")
    doubled = b")" + b"q\0h\0\x86" * 60  # comparing two of these would take 2^60 steps
    refused(keys, b"\x80\x02](" + doubled + doubled + b"e.", "lists other storages")


def test_files_of_another_kind_are_called_by_name(tmp_path):
    path = tmp_path / "checkpoint.pth.tar"

    def refused(words):
        with pytest.raises(UserError, match=f"checkpoint.pth.tar {words}"):
            read_torch_file(path)

    refused("is missing")
    path.mkdir()
    refused("is missing or is no file")
    path.rmdir()
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    refused("is a tar archive")
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    kinds = {
        "is empty": b" \n",
        "is a web page": b"\xef\xbb\xbf\n<!DOCTYPE html><html>",
        "is packed with gzip": b"\x1f\x8b\x08abc",
        "is a safetensors file": struct.pack("<Q", len(header)) + header + b"\0" * 4,
        "begins with neither": b"version https://git-lfs.github.com/spec/v1",
        "holds Python objects": pickle.dumps(OSError("a"), 2),
    }
    for words, data in kinds.items():
        path.write_bytes(data)
        refused(words)


# No damage does more than a UserError.


def read_or_refuse(path, data):
    path.write_bytes(data)
    try:
        return read_torch_file(path)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 500
        return None


@FORMS
def test_a_file_cut_short_anywhere_is_refused(tmp_path, form):
    data = write(tmp_path / "a.pt", CHECKPOINT, form).read_bytes()
    for length in range(0, len(data), 3):
        assert read_or_refuse(tmp_path / "b.pt", data[:length]) is None, length


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, {form: write(folder / form, CHECKPOINT, form).read_bytes() for form in WRITERS}


@FORMS
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=4), st.integers(0, 4)),
                        min_size=1, max_size=4))  # fmt: skip
def test_damage_raises_nothing_else(whole, form, changes):
    folder, files = whole
    data = bytearray(files[form])
    for place, new, removed in changes:
        at = int(place * len(data))
        data[at : at + removed] = new
    read_or_refuse(folder / "damaged.pt", bytes(data))


@FORMS
def test_every_byte_turned_over_raises_nothing_else(whole, form):
    folder, files = whole
    data = files[form]
    for at in range(0, len(data), 2):
        read_or_refuse(folder / "damaged.pt", data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])


@given(st.binary(max_size=300))
def test_noise_in_the_place_of_the_pickle_raises_nothing_else(whole, noise):
    folder, _ = whole
    for form, writer in WRITERS.items():
        read_or_refuse(folder / "noise.pt", writer(folder / form, b"\x80\x02" + noise, {}).read_bytes())
    read_or_refuse(folder / "noise.pt", noise)


# PyTorch itself.


@pytest.mark.parametrize("new", [True, False], ids=list(WRITERS))
def test_what_pytorch_writes_reads_as_pytorch_reads_it(tmp_path, new):
    torch = import_torch()
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 3, 5, 5)).square().sum().backward()
    optimizer.step()
    numbers = torch.arange(24).reshape(2, 3, 4)
    kinds = [torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int16, torch.int8, torch.uint8]
    saved = {
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "kinds": [numbers.to(kind) for kind in [*kinds, torch.bool]],
        "views": (numbers.permute(2, 0, 1), numbers[:, 1:, ::2], numbers[1, 2, 3], numbers[:0]),
        "other": [model[0].weight, numbers.shape, None, "text", -1, 2**70, 0.5, True],
    }
    torch.save(saved, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
    compare(read_torch_file(tmp_path / "a.pt"), saved, torch)


def compare(ours, theirs, torch):
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, np.ndarray)
        wanted = theirs.detach()
        np.testing.assert_array_equal(ours, (wanted.float() if wanted.dtype == torch.bfloat16 else wanted).numpy())
        assert ours.shape == tuple(theirs.shape)
    elif isinstance(theirs, dict):
        assert type(ours) is dict and list(ours) == list(theirs)
        for key in theirs:
            compare(ours[key], theirs[key], torch)
    elif isinstance(theirs, (list, tuple)):
        assert isinstance(theirs, type(ours)) and len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            compare(one, other, torch)
    else:
        assert type(ours) is type(theirs) and ours == theirs


def test_what_pytorch_makes_of_a_model_is_refused(tmp_path):
    torch = import_torch()
    model = torch.nn.Conv2d(1, 1, 1)
    for new in (True, False):
        torch.save(model, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
        with pytest.raises(UserError, match=r"torch.nn.modules.conv.Conv2d|whole pickled model"):
            read_torch_file(tmp_path / "a.pt")


def test_pytorch_reads_what_the_tests_write(tmp_path):
    """The writer of these tests is held to the same format."""
    torch = import_torch()
    for form in WRITERS:
        found = torch.load(write(tmp_path / "a.pt", CHECKPOINT, form), weights_only=True)
        np.testing.assert_array_equal(found["state_dict"]["weight"].numpy(), WEIGHT)
        assert found["state_dict"]._metadata == {"": {"version": 1}}
