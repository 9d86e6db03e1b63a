"""The 2D network and the fusion network together: training on its heatmaps, scoring with others, weights told apart."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import small
import trained_pair
from trained_pair import QUIET

from fusion_jax.card import card, check_card
from fusion_jax.checkpoint import load_run, load_seen, restore_run, weights_digest
from fusion_jax.config import HeatmapConfig, HourglassConfig, InputConfig, preset
from fusion_jax.errors import UserError
from fusion_jax.evaluate import evaluate_run
from fusion_jax.heatmap_net import heatmap_source, open_heatmap_net
from fusion_jax.init_hourglass import transfer_hourglass
from fusion_jax.optim import HEATMAP_NETWORK
from fusion_jax.records import from_json, to_json
from fusion_jax.sharding import data_mesh
from fusion_jax.state import create_state
from fusion_jax.train import train


@pytest.fixture(scope="module")
def hourglass(tmp_path_factory):
    return trained_pair.hourglass(tmp_path_factory.mktemp("hourglass") / "run", steps=2)


@pytest.fixture(scope="module")
def cached(tmp_path_factory, hourglass):
    return trained_pair.pose(tmp_path_factory.mktemp("cached") / "run", heatmaps=hourglass)


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_a_2d_network_resumes_bit_for_bit(tmp_path, hourglass):
    config, _ = load_run(hourglass)
    train(config, small.data_dir(), tmp_path, dataclasses.replace(QUIET, stop_after=1))
    state = train(config, small.data_dir(), tmp_path, QUIET)
    unbroken = restore_run(hourglass, config, data_mesh())
    same((state.params, state.constants, state.opt_state), (unbroken.params, unbroken.constants, unbroken.opt_state))
    assert weights_digest(state) == weights_digest(unbroken)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2] and {"loss", "joint_error_px", "grad_norm"} <= rows[0].keys()


def test_trained_on_cached_heatmaps_and_scored_with_each(cached, hourglass):
    config, _ = load_run(cached)
    assert config.heatmaps.net.weights == open_heatmap_net(hourglass, data_mesh()).net.weights
    assert config.inputs.heatmap_size == 8, "as the 2D network predicts them"
    own = evaluate_run(cached)
    assert own["name"] == "test" and f"predicted by {hourglass}" in own["protocol"]["input"]
    for source in ("true", "noisy"):
        other = evaluate_run(cached, heatmaps=source)
        assert other["name"] == f"test_{source}" and (cached / "eval" / f"test_{source}.json").exists()
        assert other["mpjpe_mm"] != own["mpjpe_mm"]
        assert "true 2D joints" in other["protocol"]["input"]
    named = evaluate_run(cached, heatmaps="predicted", heatmap_workdir=hourglass)
    assert named["name"] == "test" and named["mpjpe_mm"] == own["mpjpe_mm"], "the same network, however it is named"


def test_scores_do_not_depend_on_the_batch_size_with_noise_either(cached):
    scores = [evaluate_run(cached, heatmaps="noisy", batch_size=size)["mpjpe_mm"] for size in (4, 12)]
    np.testing.assert_allclose(*scores, rtol=1e-5)


@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_the_2d_network_in_the_step(tmp_path, hourglass, mode):
    """Frozen weights stay those of the run they are from; trained along they move, batch statistics never."""
    workdir = trained_pair.pose(tmp_path / "run", heatmaps=hourglass, mode=mode)
    state = restore_run(workdir, load_run(workdir)[0], data_mesh())
    before = open_heatmap_net(hourglass, data_mesh()).state
    same(state.constants[HEATMAP_NETWORK]["batch_stats"], before.constants["batch_stats"])
    if mode == "frozen":
        assert HEATMAP_NETWORK not in state.params
        same(state.constants[HEATMAP_NETWORK]["params"], before.params)
    else:
        moved = [
            np.abs(np.asarray(a) - np.asarray(b)).max()
            for a, b in zip(jax.tree.leaves(state.params[HEATMAP_NETWORK]), jax.tree.leaves(before.params), strict=True)
        ]
        assert 0 < max(moved) <= 1.1e-4, "at its own learning rate"
    result = evaluate_run(workdir)
    assert result["name"] == "test" and str(hourglass) in result["protocol"]["input"]


def test_other_weights_in_the_2d_networks_folder_are_refused(tmp_path, cached, hourglass):
    config, _ = load_run(cached)
    other = dataclasses.replace(config.heatmaps.net, weights="0123456789abcdef")
    changed = dataclasses.replace(config, heatmaps=dataclasses.replace(config.heatmaps, net=other))
    with pytest.raises(UserError, match=r"other weights now \(.* after step 2\) than .* with \(0123456789abcdef\)"):
        train(changed, small.data_dir(), tmp_path, QUIET)
    assert not (tmp_path / "config.json").exists()


def test_whom_the_2d_network_has_seen_counts(cached, hourglass):
    names = [part.dataset for part in load_seen(cached)]
    assert load_seen(hourglass)[0] in load_seen(cached) and names


def test_a_2d_network_that_has_seen_the_test_people_is_no_judge(tmp_path, cached, hourglass):
    """A pose network that has not, fed by one that has: the score would say nothing."""
    import shutil

    shutil.copytree(hourglass, tmp_path / "leaky")
    record = json.loads((tmp_path / "leaky" / "trained_on.json").read_text())
    record[0]["subjects"] = [f"S{n:02}" for n in range(1, 40)]
    (tmp_path / "leaky" / "trained_on.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="was trained on"):
        evaluate_run(cached, heatmaps="predicted", heatmap_workdir=tmp_path / "leaky")


@pytest.mark.parametrize(
    ("source", "given", "message"),
    [("predicted", False, "--heatmap-workdir RUN"), ("noisy", True, "of use for heatmaps 'predicted' alone")],
)
def test_a_source_without_its_network_or_with_a_useless_one(hourglass, source, given, message):
    with pytest.raises(UserError, match=message):
        heatmap_source(small.config(), source, workdir=hourglass if given else None)
    with pytest.raises(UserError, match="2D network"):
        heatmap_source(preset("hourglass-tiny"), "noisy")


def test_a_2d_network_reads_no_heatmaps(hourglass):
    with pytest.raises(UserError, match="reads no heatmaps"):
        evaluate_run(hourglass, heatmaps="true")
    with pytest.raises(UserError, match="makes heatmaps and reads none"):
        dataclasses.replace(preset("hourglass-tiny"), heatmaps=HeatmapConfig("noisy"))


def test_configs_survive_json(cached, hourglass):
    for workdir in (cached, hourglass):
        config, _ = load_run(workdir)
        assert from_json(type(config), json.loads(json.dumps(to_json(config))), "c") == config


# Cards.


def test_a_card_names_what_the_weights_read_and_write():
    pose, heatmaps = card(preset("tiny")), card(preset("hourglass-2"))
    assert pose["pose"]["joints"][0] == "pelvis" and pose["pose"]["unit"] == "mm"
    assert heatmaps["heatmaps"]["size_px"] == 64 and heatmaps["input_px"] == 256 and "pose" not in heatmaps


def test_weights_of_another_kind_are_refused_with_both_values(tmp_path, hourglass):
    import shutil

    shutil.copytree(hourglass, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    config["inputs"]["heatmap_sigma_px"] = 2.5
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"weights of another kind .*heatmaps.sigma_px: 1.0 -> 2.5 \(checkpoint"):
        evaluate_run(tmp_path / "run")
    with pytest.raises(UserError, match="missing"):
        check_card(None, preset("tiny"), "here")


# One 2D network's weights in another.


def variables(joints="mpii16", features=8, seed=0):
    inputs = InputConfig(image_size=16, skeleton=joints, heatmap_skeleton=joints, heatmap_size=4)
    config = dataclasses.replace(preset("hourglass-tiny"), network=HourglassConfig(2, features, 1), inputs=inputs)
    shapes = jax.eval_shape(lambda key: create_state(config, key), jax.random.key(0))
    rng = np.random.default_rng(seed)
    draw = lambda leaf: rng.normal(size=leaf.shape).astype(np.float32)  # noqa: E731
    return config, jax.tree.map(draw, dict(shapes.params)), jax.tree.map(draw, dict(shapes.constants))


def test_all_of_an_equal_network_is_taken_over():
    config, old, old_constants = variables(seed=1)
    _, new, new_constants = variables(seed=2)
    params, constants, lines = transfer_hourglass(old, old_constants, config, new, new_constants, config)
    same((params, constants), (old, old_constants))
    assert len(lines) == 1 and lines[0].startswith("took over")


def test_heatmaps_are_matched_by_joint_name():
    old_config, old, old_constants = variables("mpii16", seed=1)
    config, new, new_constants = variables("lsp14", seed=2)
    params, constants, lines = transfer_hourglass(old, old_constants, old_config, new, new_constants, config)
    same(constants, old_constants)
    # mpii16: 10 right wrist, 9 head top; lsp14: 6 right wrist, 13 head top, 12 neck, which MPII has not
    for name, axis in (("out_0", -1), ("merge_preds_0", -2)):
        kernel, before, fresh = (np.moveaxis(tree[name]["kernel"], axis, 0) for tree in (params, old, new))
        np.testing.assert_array_equal(kernel[[6, 13]], before[[10, 9]])
        np.testing.assert_array_equal(kernel[12], fresh[12])
    np.testing.assert_array_equal(params["out_1"]["bias"][[6, 13]], old["out_1"]["bias"][[10, 9]])
    np.testing.assert_array_equal(params["merge_preds_0"]["bias"], old["merge_preds_0"]["bias"])
    assert "new joints: neck" in lines


def test_a_network_of_another_width_gives_nothing():
    old_config, old, old_constants = variables(features=12)
    config, new, new_constants = variables()
    new = {name: value for name, value in new.items() if not name.startswith("merge_preds")}
    with pytest.raises(UserError, match="no layer of hourglass-tiny fits"):
        transfer_hourglass({}, {}, old_config, new, new_constants, config)


def test_init_from_between_tasks_is_refused(tmp_path, hourglass):
    config = dataclasses.replace(small.config(), init_from=str(hourglass))
    with pytest.raises(UserError, match="learned task heatmaps, this run learns pose; .* --heatmap-workdir"):
        train(config, small.data_dir(), tmp_path, QUIET)


def test_a_2d_network_starts_from_another(tmp_path, hourglass):
    config = dataclasses.replace(load_run(hourglass)[0], init_from=str(hourglass), steps=1, seed=5)
    state = train(config, small.data_dir(), tmp_path, QUIET)
    before = open_heatmap_net(hourglass, data_mesh()).state
    moved = np.abs(np.asarray(state.params["pre_0"]["conv"]["kernel"] - before.params["pre_0"]["conv"]["kernel"])).max()
    assert 0 < moved <= 1.1 * config.optim.learning_rate, "one step away from where the other ended"
