"""Published weights of the stacked hourglass: each array in its place, PyTorch's heatmaps, and a run like any other."""

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import published_hourglass
import pytest
from flax.traverse_util import flatten_dict
from published_hourglass import shapes, state_dict
from torch_writer import OrderedDict, import_torch, tensor, write

from data_pipelines.mpii.dummy_data import write_dummy
from data_pipelines.mpii.settings import MpiiSettings
from data_pipelines.mpii.source import MpiiSource
from data_pipelines.mpii.splits import PUBLISHED_LIST, read_list
from data_pipelines.prepared import PoseDataset
from data_pipelines.provenance import merge
from fusion_jax import checkpoint, sharding
from fusion_jax.checkpoint import restore_run
from fusion_jax.config import HourglassConfig
from fusion_jax.errors import UserError
from fusion_jax.hourglass import Hourglass
from fusion_jax.import_hourglass import PREFIXES, hourglass_config, hourglass_variables, import_hourglass, torch_name
from fusion_jax.leakage import check_test
from fusion_jax.scoring import open_scored
from fusion_jax.skeletons import skeleton
from fusion_jax.torch_file import read_torch_file
from fusion_jax.work_folder import IMPORTED, load_run, load_seen

LIST = pathlib.Path(__file__).parent.parent.parent / "shared" / "hourglass_state_dict.txt"


@pytest.fixture(scope="module")
def small():
    """A state_dict of two narrow stacks of depth 1."""
    return state_dict(2, features=16, depth=1)


def test_the_names_of_these_tests_are_the_published_ones():
    if not LIST.is_file():
        pytest.skip("the list of the published names is not beside this checkout")
    published = re.findall(r"^(\S+) \(([\d, ]*)\)$", LIST.read_text(), re.M)
    assert len(published) > 700
    assert {name: tuple(map(int, re.findall(r"\d+", shape))) for name, shape in published} == shapes(2)


@pytest.mark.parametrize("stacks", [1, 2, 8])
def test_every_array_finds_its_place_and_none_is_left(stacks):
    stored = state_dict(stacks, features=16)
    places = flatten_dict(hourglass_variables(stored))
    used = {torch_name(path) for path in places}
    left = stored.keys() - used
    assert len(used) == len(places) and used <= stored.keys()
    narrow = {name for name in left if ".skip_layer." in name}  # read where widths differ: in the stem
    assert not {name for name in narrow if re.match(r"pre\.[14]\.", name)}
    assert left - narrow == {name for name in stored if name.endswith("num_batches_tracked")}
    for path, array in places.items():
        original = stored[torch_name(path)]
        np.testing.assert_array_equal(array, original.transpose(2, 3, 1, 0) if original.ndim == 4 else original)


def test_the_variables_are_the_networks(small):
    network, picture = Hourglass(2, 16, 1), jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    wanted = jax.eval_shape(network.init, jax.random.key(0), picture)
    shown = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), hourglass_variables(small))
    assert shown == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), wanted)


def test_places_by_hand():
    names = {
        "params/pre_0/conv/kernel": "pre.0.conv.weight",
        "params/pre_0/bn/scale": "pre.0.bn.weight",
        "params/pre_1/skip/bias": "pre.1.skip_layer.conv.bias",
        "params/pre_4/conv2/kernel": "pre.4.conv2.conv.weight",
        "batch_stats/hourglass_7/low2/low2/up1/bn3/var": "hgs.7.0.low2.low2.up1.bn3.running_var",
        "params/features_10_residual/bn1/bias": "features.10.0.bn1.bias",
        "params/features_1_conv/conv/bias": "features.1.1.conv.bias",
        "batch_stats/features_0_conv/bn/mean": "features.0.1.bn.running_mean",
        "params/out_3/kernel": "outs.3.conv.weight",
        "params/merge_features_0/kernel": "merge_features.0.conv.conv.weight",
        "params/merge_preds_6/bias": "merge_preds.6.conv.conv.bias",
    }
    assert {place: torch_name(tuple(place.split("/"))) for place in names} == names


def test_the_network_is_told_from_names_and_shapes(small):
    assert hourglass_config(small) == (HourglassConfig(stacks=2, features=16, depth=1), 16)
    other = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes(1, 32, 14, 2).items()}
    assert hourglass_config(other) == (HourglassConfig(stacks=1, features=32, depth=2), 14)
    assert hourglass_variables(other)["params"]["out_0"]["kernel"].shape == (1, 1, 32, 14)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_usual_prefix(small, prefix):
    found = hourglass_variables({prefix + name: array for name, array in small.items()})
    jax.tree.map(np.testing.assert_array_equal, found, hourglass_variables(small))


def test_what_is_never_read_may_be_missing(small):
    never = re.compile(r"(?!pre\.[14]\.).*\.skip_layer\.|.*\.num_batches_tracked$")
    spare = {name: array for name, array in small.items() if not never.match(name)}
    assert len(small) - len(spare) == (3 * 13 + 3) + 2 * 11  # of batch norms, and of residuals of even width
    jax.tree.map(np.testing.assert_array_equal, hourglass_variables(spare), hourglass_variables(small))


def refused(stored, words):
    with pytest.raises(UserError, match=words) as error:
        hourglass_variables(stored)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_what_does_not_fit_is_named_with_both_shapes(small):
    name = "hgs.1.0.low2.conv2.conv.weight"
    refused(
        {k: v for k, v in small.items() if k != name},
        rf"2 hourglasses of depth 1 .*: {name} \(8, 8, 3, 3\) is missing$",
    )
    refused(small | {name: np.zeros((8, 8, 1, 1), "f4")}, rf"{name} is \(8, 8, 1, 1\), expected \(8, 8, 3, 3\)")
    refused(small | {"head.weight": np.zeros((3, 4), "f4")}, r"'head.weight' \(3, 4\) is unknown")
    refused(small | {"x\ny": np.zeros(1, "f4")}, r"'x\\ny' \(1,\) is unknown")
    refused(small | {f"other.{i}": np.zeros(1, "f4") for i in range(9)}, "unknown; and 6 more$")
    for spare in ("pre.3.skip_layer.conv.weight", "pre.3.bn1.num_batches_tracked"):
        refused(small | {spare: np.zeros((8, 7), "f4")}, rf"'{spare}' \(8, 7\) is unknown")
    refused(
        small | {"x.skip_layer.conv.bias": np.zeros(8, "f4"), "y.num_batches_tracked": np.array(1)}, "unknown; 'y.num"
    )
    refused({k: v for k, v in small.items() if not k.startswith("outs.1")}, "1 hourglasses.*'hgs.1.0.up1.bn1.weight'")
    refused({"module." + k if "hgs" in k else k: v for k, v in small.items()}, "of no stacked hourglass")


def test_another_network_is_no_hourglass(small):
    refused({}, "of no stacked hourglass: it lacks pre.0.conv.weight; it holds nothing")
    refused({"conv1.weight": np.zeros(1)}, "it holds 'conv1.weight'")
    refused({name: array for name, array in small.items() if name.startswith("pre.")}, "expected 1 to 16 stacks")
    refused(small | {"outs.0.conv.weight": np.zeros(4, "f4")}, "expected 1 to 16 stacks")
    refused(small | {"outs.0.conv.weight": np.zeros((16, 5, 1, 1), "f4")}, "network.features is 5")
    refused(small | {"epoch": 3}, "'epoch' of type int, expected tensors")
    refused(small | {3: np.zeros(1)}, "'3' of type ndarray")


def test_numbers_that_cannot_be_weights(small):
    name = "pre.0.bn.running_var"
    for bad in (-1e-3, np.nan, np.inf):
        refused(small | {name: np.array([1, 1, 1, bad], np.float32)}, f"{name} holds numbers that are not finite")
    refused(small | {name: np.full(4, 1e300)}, "not finite")
    refused(small | {name: np.ones(4, np.int64)}, f"{name} is of type int64")
    half = hourglass_variables({k: v.astype(np.float16) if v.dtype == np.float32 else v for k, v in small.items()})
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {np.dtype(np.float32)}


# PyTorch itself.


def test_heatmaps_are_pytorchs(tmp_path):
    torch = import_torch()
    arrays = state_dict(2, seed=3, features=16)
    stored = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    for new in (True, False):
        saved = {"state_dict": {f"model.module.{name}": array for name, array in stored.items()}, "epoch": 4}
        torch.save(saved, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
        read = read_torch_file(tmp_path / "a.pt")["state_dict"]
        for name, array in arrays.items():
            np.testing.assert_array_equal(read.pop(f"model.module.{name}"), array)
        assert not read
    pictures = np.random.default_rng(1).uniform(0, 1, (1, 64, 128, 3)).astype(np.float32)
    with torch.no_grad():
        wanted = published_hourglass.heatmaps(torch, stored, torch.from_numpy(pictures.transpose(0, 3, 1, 2)), 2)
    found = jax.jit(Hourglass(2, 16).apply)(hourglass_variables(arrays), pictures)
    assert found.shape == (2, 1, 16, 32, 16)
    for ours, theirs in zip(np.asarray(found), wanted, strict=True):
        theirs = theirs.numpy().transpose(0, 2, 3, 1)
        assert theirs.std() > 0.1
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.std())


# A run.


@pytest.fixture(scope="module")
def one():
    """A state_dict of one narrow stack of depth 1."""
    return state_dict(1, features=16, depth=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory, one):
    folder = tmp_path_factory.mktemp("import")
    tensors = {f"model.module.{name}": tensor(name, array) for name, array in one.items()}
    path = write(folder / "checkpoint.pth.tar", {"state_dict": OrderedDict(tensors), "epoch": 200}, "legacy")
    return path, import_hourglass(path, folder / "runs" / "hourglass")


def test_the_imported_run_opens_like_a_trained_one(run, one):
    _, workdir = run
    config, record = load_run(workdir)
    assert config.task == "heatmaps" and config.preset == "hourglass-1" and record.name == config.dataset == "mpii"
    assert config.network == HourglassConfig(stacks=1, features=16, depth=1) and config.inputs.image_size == 256
    assert record.fingerprint == IMPORTED
    with pytest.raises(UserError, match="no data of its own; name some: --dataset mpii"):
        open_scored(config, record, None, None, workdir)
    state = restore_run(workdir, config, sharding.data_mesh())
    assert int(state.step) == 0
    found = {"params": state.params, **state.constants}
    jax.tree.map(np.testing.assert_array_equal, found, hourglass_variables(one))
    source = json.loads((workdir / "imported.json").read_text())
    assert source["file"] == "checkpoint.pth.tar" and source["epoch"] == 200 and len(source["sha256"]) == 64
    assert not list(workdir.parent.glob(".*"))


def test_it_may_be_tested_on_mpiis_test_people_and_on_no_other(run, tmp_path):
    write_dummy(tmp_path)
    parts = MpiiSource(tmp_path, MpiiSettings(validation_count=3)).parts()
    frames = {
        split: merge((part.recording, part.first, part.last) for part in parts if part.split == split)
        for split in ("train", "validation", "test")
    }
    dataset = PoseDataset(
        name="mpii/any", skeleton=skeleton("mpii16"), image_size=8, splits={}, description={}, fingerprint="",
        subjects={}, family=MpiiSource.family or MpiiSource.name, provenance=frames,
    )  # fmt: skip
    seen = load_seen(run[1])
    check_test(seen, dataset, "test")
    for split in ("train", "validation"):
        with pytest.raises(UserError, match=f"{split} split was trained on .as mpii."):
            check_test(seen, dataset, split)
    assert len(read_list(PUBLISHED_LIST)) == seen[0].provenance["people"][0][0]


def test_a_folder_in_use_is_left_alone_and_a_bad_file_leaves_none(run, tmp_path):
    with pytest.raises(UserError, match="hourglass is in use"):
        import_hourglass(*run)
    path = tmp_path / "a.pt"
    cases = {
        "of no stacked hourglass": {"conv1.weight": tensor("0", np.zeros(1))},
        "holds a list, expected a dictionary": [1],
        "predicts 14 joints, expected the 16 of mpii16": {
            name: tensor(name, np.zeros(shape, np.float32)) for name, shape in shapes(1, 4, 14, 1).items()
        },
    }
    for words, contents in cases.items():
        with pytest.raises(UserError, match=f"a.pt: .*{words}"):
            import_hourglass(write(path, contents, "zip"), tmp_path / "out")
    with pytest.raises(UserError, match="a.pt is damaged"):
        path.write_bytes(path.read_bytes()[:-100])
        import_hourglass(path, tmp_path / "out")
    assert [found.name for found in tmp_path.iterdir()] == ["a.pt"]


def test_nothing_is_left_where_saving_fails(tmp_path, one, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint.Checkpoints, "save", fail)
    path = write(tmp_path / "a.pt", {name: tensor(name, array) for name, array in one.items()}, "zip")
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="disk full"):
        import_hourglass(path, tmp_path / "out")
    assert sorted(found.name for found in tmp_path.rglob("*")) == ["a.pt", "out"]
