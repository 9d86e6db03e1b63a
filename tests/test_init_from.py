"""Starting from another run's weights: the network computes what the old one did, joints matched by name."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
import small
from etils import epath

from fusion_jax.checksums import write_checksums
from fusion_jax.errors import UserError
from fusion_jax.geometry import root_relative
from fusion_jax.init_from import pose_map, transfer
from fusion_jax.network import Conv, Dense
from fusion_jax.optim import HEATMAP_NETWORK
from fusion_jax.presets import two_streams
from fusion_jax.skeletons import SKELETONS, convert_joints, skeleton
from fusion_jax.state import create_state
from fusion_jax.train import LoopOptions, train
from fusion_jax.work_folder import DatasetRecord, load_run, load_seen, save_run

QUIET = LoopOptions(show=False, eval_every=0)


def state_of(config, seed, spread):
    """A state with random weights and, as if from other data, pose statistics of its own."""
    shape = (skeleton(config.inputs.skeleton).num_joints, 3)
    rng = np.random.default_rng(seed)
    mean, std = rng.normal(0, 200, shape), rng.uniform(20, spread, shape)
    return create_state(config, jax.random.key(seed), mean.astype(np.float32), std.astype(np.float32))


def predict(state, params, inputs):
    return np.asarray(state.network.apply({"params": params, "constants": state.constants}, inputs))


def inputs_of(config, seed=0):
    rng, size = np.random.default_rng(seed), config.inputs.image_size
    maps = skeleton(config.inputs.heatmap_skeleton).num_joints
    return {"image": rng.random((3, size, size, 3)), "heatmap": rng.random((3, size, size, maps))}


def moved(old, new, old_config, config):
    return transfer(old.params, old.constants, old_config, new.params, new.constants, config)


def test_new_statistics_leave_the_predictions_as_they_were(small_config):
    config = small_config()
    old, new = state_of(config, 1, 300), state_of(config, 2, 90)
    params, lines = moved(old, new, config, config)
    inputs = inputs_of(config)
    np.testing.assert_allclose(
        predict(new, params, inputs), root_relative(predict(old, old.params, inputs), (0,)), atol=0.05
    )
    assert "left new" not in " ".join(lines) and lines[0].startswith("took over")
    assert params["alpha"] == old.params["alpha"] and params["beta"] == old.params["beta"]


@pytest.mark.parametrize("layout", ["humaneva15", "lsp14", "mpii16"])
def test_another_skeleton_predicts_the_old_poses_converted(small_config, layout):
    config = small_config()
    other = dataclasses.replace(config, inputs=dataclasses.replace(config.inputs, skeleton=layout))
    old, new = state_of(config, 1, 300), state_of(other, 2, 90)
    params, lines = moved(old, new, config, other)
    source, target = skeleton("human36m17"), skeleton(layout)
    before = predict(old, old.params, inputs_of(config))
    expected = root_relative(convert_joints(before, source, target), target.root_indices)
    np.testing.assert_allclose(predict(new, params, inputs_of(config)), expected, atol=0.05)
    assert target.joints[3] in lines[1] and "new:" not in lines[1]


def test_joints_that_the_old_layout_lacks_stay_new(small_config):
    config = small_config()
    other = dataclasses.replace(config, inputs=dataclasses.replace(config.inputs, skeleton="lsp14"))
    old, new = state_of(other, 1, 300), state_of(config, 2, 90)
    params, lines = moved(old, new, other, config)
    assert lines[1].endswith("new: spine, nose")
    after, fresh = (predict(new, p, inputs_of(config)) for p in (params, new.params))
    layout = skeleton("human36m17")
    wrist = layout.index("left_wrist")
    hips = predict(old, old.params, inputs_of(config))[:, [2, 3]].mean(1)
    np.testing.assert_allclose(after[:, wrist], predict(old, old.params, inputs_of(config))[:, 11] - hips, atol=0.05)
    kernels = [np.asarray(p["fusion_3"]["kernel"]).reshape(-1, 17, 3) for p in (params, new.params)]
    for joint in ("spine", "nose"):
        np.testing.assert_array_equal(*(k[:, layout.index(joint)] for k in kernels))
    assert not np.allclose(after[:, wrist], fresh[:, wrist], atol=1)


def test_heatmap_channels_are_matched_by_joint(small_config):
    config = small_config()
    other = dataclasses.replace(config, inputs=dataclasses.replace(config.inputs, heatmap_skeleton="lsp14"))
    old, new = state_of(config, 1, 300), state_of(other, 2, 300)
    params, _ = moved(old, new, config, other)
    mpii, lsp = skeleton("mpii16"), skeleton("lsp14")
    for layer, first in (("heatmap_1", 0), ("fusion_1", 3)):
        before, after = (np.asarray(p[layer]["kernel"]) for p in (old.params, params))
        for joint in ("right_ankle", "left_wrist", "head_top"):
            np.testing.assert_array_equal(
                after[:, :, first + lsp.index(joint)], before[:, :, first + mpii.index(joint)]
            )
        neck = first + lsp.index("neck")  # mpii16 has no joint of that name
        np.testing.assert_array_equal(after[:, :, neck], np.asarray(new.params[layer]["kernel"])[:, :, neck])


def test_what_does_not_fit_is_named_and_nothing_at_all_is_an_error(small_config):
    config = small_config()
    wider = dataclasses.replace(
        config, network=dataclasses.replace(config.network, streams=two_streams((Conv(4, 2), Dense(9))))
    )
    old, new = state_of(config, 1, 300), state_of(wider, 2, 300)
    _, lines = moved(old, new, config, wider)
    assert "left new: image_2, heatmap_2, fusion_2" in lines and "output joints by name: none, new: all" in lines
    other = dataclasses.replace(
        config,
        network=dataclasses.replace(config.network, strategy="image", streams=two_streams((Conv(5, 3), Dense(9)))),
    )
    with pytest.raises(UserError, match="no layer fits; the run has .*image_1.*this network"):
        moved(old, state_of(other, 3, 300), config, other)


@pytest.mark.parametrize("source", SKELETONS)
@pytest.mark.parametrize("target", SKELETONS)
def test_the_pose_map_is_the_conversion(source, target):
    one, other = skeleton(source), skeleton(target)
    matrix, unknown = pose_map(one, other)
    pose = np.random.default_rng(0).normal(0, 300, (one.num_joints, 3))
    placed = [joint not in unknown for joint in other.joints]
    np.testing.assert_allclose(matrix.sum(1), 0, atol=1e-12, err_msg="a shift of the old pose changes nothing")
    if not unknown:
        expected = root_relative(convert_joints(pose, one, other), other.root_indices)
        np.testing.assert_allclose((matrix @ pose)[placed], expected[placed], atol=1e-9)


def test_alpha_and_beta_start_anew_where_they_were_chosen_or_the_depth_differs(small_config):
    config = small_config()
    chosen = small_config(beta=1.75)
    deeper = small_config(streams=two_streams((Conv(4, 2), Dense(8), Dense(8))))
    for other in (chosen, deeper):
        old, new = state_of(config, 1, 300), state_of(other, 2, 300)
        old = old.replace(params={**old.params, "alpha": np.float32(7), "beta": np.float32(0.25)})
        params, lines = moved(old, new, config, other)
        assert params["alpha"] == new.params["alpha"] and params["beta"] == new.params["beta"]
        assert lines[-1] == "alpha, beta start anew" and "alpha" not in " ".join(lines[:-1])
    assert not any("left new" in line for line in moved(old, state_of(chosen, 2, 300), config, chosen)[1])


def test_an_output_over_new_layers_is_new(small_config):
    """Only first layers have another window: 3 x 3, and other heatmaps; layer 2 and the output would fit."""
    config = small_config()
    other = small_config(streams=two_streams((Conv(4, 3), Dense(8))), heatmap_skeleton="lsp14")
    old, new = state_of(config, 1, 300), state_of(other, 2, 300)
    params, lines = moved(old, new, config, other)
    np.testing.assert_array_equal(params["fusion_2"]["dense"]["kernel"], old.params["fusion_2"]["dense"]["kernel"])
    np.testing.assert_array_equal(params["fusion_3"]["kernel"], new.params["fusion_3"]["kernel"])
    assert "output joints by name: none, new: all" in lines and "left new: image_1, heatmap_1, fusion_1" in lines


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_2d_network_trained_along_is_nobodys_layer(small_config, before, after):
    """Whichever of the runs has one: the others' layers are taken over all the same, and it is the new run's."""
    config = small_config()
    old, new = state_of(config, 1, 300), state_of(config, 2, 90)
    expected, plain = moved(old, new, config, config)
    theirs, ours = ({"out_0": {"kernel": np.full((1, 1, 8, 16), value)}} for value in (1.0, 2.0))
    old = old.replace(params=old.params | ({HEATMAP_NETWORK: theirs} if before else {}))
    new = new.replace(params=new.params | ({HEATMAP_NETWORK: ours} if after else {}))
    params, lines = moved(old, new, config, config)
    assert (params.pop(HEATMAP_NETWORK, None) is ours) if after else (HEATMAP_NETWORK not in params)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    told = ["its 2D network is not taken over; --heatmap-workdir says which one is used"] if before else []
    assert lines == plain + told


def test_a_folder_without_checkpoints_is_left_as_it_is(tmp_path):
    save_run(tmp_path / "bare", small.config(), DatasetRecord("a", "b", "c"), [])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="no finished checkpoint in .*bare"):
        train(small.config(init_from=str(tmp_path / "bare")), small.data_dir(), tmp_path / "run", QUIET)
    assert sorted((tmp_path / "bare").rglob("*")) == [path for path in before if path.parent != tmp_path]


def test_a_run_starts_from_another_and_remembers_whom_that_had_seen(tmp_path, capsys, monkeypatch):
    first = small.config(steps=2)
    train(first, small.data_dir(), tmp_path / "one", QUIET)
    second = small.config(steps=1, init_from=str(tmp_path / "one"), learning_rate=1e-12, fusion_learning_rate=1e-12)
    monkeypatch.chdir(tmp_path)
    loud = dataclasses.replace(QUIET, show=True)
    capsys.readouterr()
    state = train(dataclasses.replace(second, init_from="one"), small.data_dir(), tmp_path / "two", loud)
    assert load_run(tmp_path / "two")[0].init_from == str(tmp_path / "one")
    assert int(state.step) == 1 and "after 2 steps: took over" in capsys.readouterr().out
    seen = load_seen(tmp_path / "two")
    assert len(seen) == 2 and seen[0].subjects == seen[1].subjects == ("S01",)
    again = train(second, small.data_dir(), tmp_path / "two", QUIET)
    assert capsys.readouterr().out == ""
    for one, other in zip(jax.tree.leaves(state.params), jax.tree.leaves(again.params), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(UserError, match="holds no run"):
        train(small.config(init_from=str(tmp_path / "none")), small.data_dir(), tmp_path / "three", QUIET)
    assert not (tmp_path / "three" / "config.json").exists()
    for name in ("one", "two"):
        (tmp_path / name / "trained_on.json").unlink()
    with pytest.raises(UserError, match="one/trained_on.json is missing: .*resume it with the same fusion-jax train"):
        load_seen(tmp_path / "one")
    train(first, small.data_dir(), tmp_path / "one", QUIET)
    assert load_seen(tmp_path / "one") == seen[1:]
    train(second, small.data_dir(), tmp_path / "two", QUIET)
    assert load_seen(tmp_path / "two") == seen, "as its checkpoint tells"
    (tmp_path / "two" / "trained_on.json").unlink()
    checkpoint = tmp_path / "two" / "checkpoints" / "1"
    shutil.rmtree(checkpoint / "run")  # as older versions wrote none
    write_checksums(epath.Path(checkpoint))
    with pytest.raises(UserError, match="two/trained_on.json is missing and cannot be written again"):
        train(second, small.data_dir(), tmp_path / "two", QUIET)


def test_fusion_layers_of_other_streams_are_not_taken_over():
    """The fusion stream reads its streams side by side: of two that changed places it would read the wrong channels."""
    base = small.config()
    turned = tuple(reversed(base.network.streams))
    config = dataclasses.replace(base, network=dataclasses.replace(base.network, streams=turned))
    old, new = (jax.eval_shape(lambda k, c=c: create_state(c, k), jax.random.key(0)) for c in (base, config))
    rng = np.random.default_rng(0)
    before, after = (jax.tree.map(lambda x: rng.normal(size=x.shape), tree.params) for tree in (old, new))
    constants = {"pose_mean_mm": np.zeros((17, 3)), "pose_std_mm": np.ones((17, 3))}
    params, lines = transfer(before, constants, base, after, constants, config)
    for name in params:
        source = after if name.startswith("fusion_") else before
        jax.tree.map(np.testing.assert_array_equal, params[name], source[name])
    assert "left new: fusion_1, fusion_2" in "; ".join(lines)
