"""The authors' published model: every array in its place, the release's own poses, and a run like any other."""

import copy
import json

import jax
import numpy as np
import pytest
import release_writer as release
import small
from small_hourglass import quick_jit

import fusion_jax.import_release as module
import fusion_jax.release_protocol as release_protocol
from data_pipelines.prepared import PoseDataset
from data_pipelines.provenance import merge
from data_pipelines.tekin_release.settings import TekinReleaseSettings
from data_pipelines.tekin_release.source import TekinReleaseSource
from fusion_jax import sharding
from fusion_jax.checkpoint import restore_run
from fusion_jax.cli import main
from fusion_jax.errors import UserError
from fusion_jax.import_release import JOINTS, TRAINED_ON, TYPES, converted, import_release, release_variables
from fusion_jax.leakage import check_test, unknown_overlap
from fusion_jax.skeletons import skeleton
from fusion_jax.state import make_network
from fusion_jax.work_folder import IMPORTED, load_run, load_seen

BOTH = pytest.mark.parametrize("name", TYPES)

# The network.


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(1)
    size = (2, release.SIDE, release.SIDE)
    return {
        name: rng.uniform(0, 1, (*size, channels)).astype(np.float32) for name, channels in release.CHANNELS.items()
    }


@pytest.fixture(scope="module", params=TYPES)
def pair(request, inputs):
    """The release's pose, our function from variables to ours, and our variables."""
    name = request.param
    params, config = release.params(name), release.config(name)
    images = {key: value.transpose(0, 3, 1, 2) for key, value in inputs.items()}
    wanted = release.forward(name, params, images["image"], images["heatmap"])
    network = make_network(config.network, config.inputs)
    apply = quick_jit(network.apply)
    return wanted, lambda variables: np.asarray(apply(variables, inputs)).reshape(2, -1), converted(params, config)


def furthest(ours, wanted):
    """The largest difference, as a share of how much the poses vary."""
    return np.abs(ours - wanted).max() / wanted.std()


def test_poses_are_the_releases(pair):
    wanted, ours, variables = pair
    assert wanted.std() > 0.1 and np.abs(wanted[0] - wanted[1]).max() > 0.01 * wanted.std()
    assert furthest(ours(variables), wanted) < 1e-4


def rows_as_stored(dense, channels):
    dense["kernel"] = dense["kernel"].reshape(2, 2, channels, -1).transpose(2, 0, 1, 3).reshape(dense["kernel"].shape)


# What an importer could get wrong, done to variables that are right.
MISTAKES = {
    "a kernel is not flipped": lambda p: p["heatmap_2"].update(kernel=p["heatmap_2"]["kernel"][::-1, ::-1]),
    "a kernel is transposed": lambda p: p["image_2"].update(kernel=p["image_2"]["kernel"].transpose(1, 0, 2, 3)),
    "rows are as stored": lambda p: rows_as_stored(p["image_4"]["dense"], 5),
    "the fusion stream's rows are as stored": lambda p: rows_as_stored(p["fusion_4"]["dense"], 10),
    "dropout's kernel is not halved": lambda p: p["fusion_5"]["dense"].update(
        kernel=2 * p["fusion_5"]["dense"]["kernel"]
    ),
    "dropout's bias is not halved": lambda p: p["image_4"]["dense"].update(bias=2 * p["image_4"]["dense"]["bias"]),
    "another layer is halved": lambda p: p["image_7"]["dense"].update(kernel=p["image_7"]["dense"]["kernel"] / 2),
    "1 - w_0 is forgotten": lambda p: p["fusion_1"].update(kernel=p["fusion_1"]["kernel"] / 0.82),
    "1 - w_0 is put on the bias": lambda p: p["fusion_1"].update(bias=p["fusion_1"]["bias"] * 0.82),
    "heatmaps come first": lambda p: p["fusion_1"].update(kernel=np.roll(p["fusion_1"]["kernel"], 3, axis=2)),
    "streams are swapped": lambda p: p.update(image_2=p["heatmap_2"], heatmap_2=p["image_2"]),
    "alpha is not squared": lambda p: p.update(alpha=np.float32(0.8)),
    "layers are counted from 0": lambda p: p.update(beta=p["beta"] + 1),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_would_be_seen(pair, mistake):
    wanted, ours, variables = pair
    params = copy.deepcopy(variables["params"])
    MISTAKES[mistake](params)
    assert furthest(ours(variables | {"params": params}), wanted) > 1e-3


def test_any_number_of_layers_may_be_fused_sharply():
    """alpha and beta far out: w_0 is 0 or 1, and nothing overflows."""
    config = release.config("paper")
    for alpha, beta, first in ((30, 4.6, 1.0), (-30, 4.6, 1.0), (30, -5, 0.0), (0, 4.6, 0.5)):
        params = release.params("paper", alpha, beta)
        found = converted(params, config)["params"]
        assert found["alpha"] == alpha**2 and found["beta"] == np.float32(beta)
        wanted = first * params[28][:, :, ::-1, ::-1].transpose(2, 3, 1, 0)
        np.testing.assert_allclose(found["fusion_1"]["kernel"], wanted, atol=1e-30)


def test_the_joints_are_ours():
    assert skeleton("human36m17").joints == JOINTS


@BOTH
def test_variables_have_the_networks_names_and_shapes(name):
    config = release.config(name)
    network = make_network(config.network, config.inputs)
    shapes = {k: jax.ShapeDtypeStruct((1, 29, 29, c), np.float32) for k, c in release.CHANNELS.items()}
    wanted = jax.eval_shape(network.init, jax.random.key(0), shapes)
    found = converted(release.params(name), config)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), found) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), dict(wanted)
    )


# Shapes of the published networks.


def published(name):
    """Arrays of the right shapes that take no memory."""
    dense = {"paper": (2048, 2048, 512, 512), "paper-wide": (512, 2048, 4096, 512, 512)}[name]
    shapes = release.shapes(name, (9, 5, 5), (36, 72, 72), dense, 7200)
    return [np.broadcast_to(np.float32(0), shape) for shape in shapes]


def refused(params, words):
    with pytest.raises(UserError, match=words) as error:
        release_variables(params)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@BOTH
def test_every_published_shape_is_expected(name):
    """One array alone is of a wrong shape, and it alone is named."""
    params = published(name)
    assert len(params) == {"paper": 46, "paper-wide": 52}[name]
    first_dense = {"paper": "(7200, 2048)", "paper-wide": "(7200, 512)"}[name]
    for place, words in ((0, "image stream, layer 1, kernel"), (6, "image stream, layer 4, kernel"), (-1, "beta")):
        changed = list(params)
        changed[place] = np.zeros((3, 2), np.float32)
        expected = {0: "(36, 3, 9, 9)", 6: first_dense, -1: "()"}[place]
        number = place % len(params)
        refused(changed, rf"^does not fit preset {name}: array {number} \({words}\) is float32 \(3, 2\), expected ")
        with pytest.raises(UserError) as error:
            release_variables(changed)
        assert str(error.value).endswith(f"expected {expected} of floats")


def test_what_fits_neither_is_told_what_it_was_compared_with():
    params = published("paper")
    refused(params[:-2], r"^holds 44 arrays, expected 46 \(preset paper\) or 52 \(preset paper-wide\)$")
    refused([], "^holds 0 arrays")
    refused(params[::-1], r"fit preset paper: array 0 \(image stream, layer 1, kernel\).*; and 4\d more$")
    refused([*params[:14], *params[28:42], *params[14:28], *params[42:]], "array 14 .heatmap stream, layer 1, kernel.")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_numbers_that_cannot_be_weights(bad):
    params, config = release.params("paper"), release.config("paper")
    params[3] = np.full(4, bad, np.float64)
    with pytest.raises(UserError, match=r"preset paper: array 3 .image stream, layer 2, bias. holds .* not finite$"):
        converted(params, config)
    with pytest.raises(UserError, match="alpha 1e.20, whose square"):
        converted([*release.params("paper")[:-2], np.array(1e20), np.array(1.0)], config)
    with pytest.raises(UserError, match=r"array 3 .* is int64 \(4,\), expected \(4,\) of floats"):
        converted([*params[:3], np.ones(4, np.int64), *params[4:]], config)


# A run.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("import")
    path = release.write_params(folder / "model.npz", release.params("paper"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "preset", release.config)
        return path, import_release(path, folder / "runs" / "release")


def test_the_imported_run_opens_like_a_trained_one(run):
    path, workdir = run
    config, record = load_run(workdir)
    assert config.preset == "paper" and record.name == config.dataset == "tekin_release"
    assert config.network.strategy == "learned" and record.fingerprint == IMPORTED
    state = restore_run(workdir, config, sharding.data_mesh())
    wanted = converted(release.params("paper"), release.config("paper"))
    jax.tree.map(np.testing.assert_array_equal, {"params": state.params, "constants": state.constants}, wanted)
    source = json.loads((workdir / "imported.json").read_text())
    assert source["file"] == path.name and source["preset"] == "paper" and len(source["sha256"]) == 64
    assert source["alpha"] == pytest.approx(0.64) and source["beta"] == pytest.approx(2.4)
    assert not list(workdir.parent.glob(".*"))


def test_it_is_evaluated_both_ways(run, monkeypatch, capsys):
    monkeypatch.setattr(release_protocol, "EVERY", 1)
    monkeypatch.setattr(release_protocol, "BATCH", 1)
    args = ["evaluate", "--workdir", run[1], "--data-dir", small.data_dir(), "--dataset", "synthetic_humans"]
    assert main([*map(str, args), "--protocol", "release"]) == 0
    (written,) = (run[1] / "eval").glob("synthetic_humans_*_test.json")
    ours = json.loads(written.read_text())
    theirs, out = ours["release"], capsys.readouterr().out
    assert f"| as the release scores | {theirs['mpjpe_mm']:.1f} | " in out
    assert f"| as we score | {ours['mpjpe_mm']:.1f} | " in out and "- the release's frames: of whole batches" in out
    assert theirs["num_frames"] == ours["num_frames"] and theirs["mpjpe_mm"] > 0
    # The same but for pictures that are not rounded, and for the pelvis, which counts.
    assert theirs["pa_mpjpe_reflection_mm"] == pytest.approx(ours["pa_mpjpe_reflection_mm"], rel=0.01)
    assert theirs["mpjpe_mm"] != pytest.approx(ours["mpjpe_mm"], rel=1e-4)


def _dataset(subjects, frames, name="human36m/any", shared=False):
    return PoseDataset(
        name=name, skeleton=skeleton("human36m17"), image_size=8, splits={}, description={}, fingerprint="",
        subjects=subjects, family="human36m", provenance=frames, people_shared=shared,
    )  # fmt: skip


def test_it_may_be_tested_on_whom_the_release_never_saw(run, tmp_path):
    seen = load_seen(run[1])
    assert seen == [TRAINED_ON]
    people = {"train": ["S1", "S5"], "validation": ["S8"], "test": ["S9", "S11"]}
    human36m = _dataset(people, {split: {f"{name[0]}/Walking": [[0, 9]]} for split, name in people.items()})
    parts = TekinReleaseSource(tmp_path, TekinReleaseSettings()).parts()  # without files, one part for each
    frames = {part.split: merge([(part.recording, 0, 500)]) for part in parts} | {
        "validation": merge([(part.recording, 501, 600) for part in parts if part.split == "train"])
    }
    released = _dataset({}, frames, "tekin_release/any", shared=True)
    assert set(frames) == {"train", "validation", "test"}
    for dataset in (human36m, released):
        check_test(seen, dataset, "test")
        assert unknown_overlap(seen, dataset, "test") is None
        for split in ("train", "validation"):
            with pytest.raises(UserError, match=f"{split} split was trained on .as tekin_release."):
                check_test(seen, dataset, split)


def test_a_folder_in_use_is_left_alone_and_a_bad_file_leaves_none(run, tmp_path, capsys):
    with pytest.raises(UserError, match="release is in use"):
        import_release(*run)
    assert main(["import-release", str(run[0]), "--out", str(run[1])]) == 2
    path = release.write_params(tmp_path / "a.npz", [np.zeros(3, np.float32)])
    assert main(["import-release", str(path), "--out", str(tmp_path / "out")]) == 2
    path.write_bytes(path.read_bytes()[:-100])
    assert main(["import-release", str(path), "--out", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and "holds a run already" in lines[0]
    assert f"{path}: holds 1 arrays, expected 46 (preset paper) or 52 (preset paper-wide)" in lines[1]
    assert f"{path} is damaged" in lines[2]
    assert [found.name for found in tmp_path.iterdir()] == ["a.npz"]


def test_nothing_is_left_where_saving_fails(run, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(module, "preset", release.config)
    monkeypatch.setattr("fusion_jax.checkpoint.Checkpoints.save", fail)
    with pytest.raises(OSError, match="disk full"):
        import_release(run[0], tmp_path / "out")
    assert not list(tmp_path.iterdir())
