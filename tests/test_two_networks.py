"""The 2D network and the fusion network together: training on its heatmaps, scoring with others, weights told apart."""

import dataclasses
import json
import shutil
import types

import jax
import numpy as np
import pytest
import small
import trained_pair
from etils import epath
from trained_pair import QUIET

from fusion_jax import init_hourglass
from fusion_jax.card import card, check_card, check_heatmaps_fit
from fusion_jax.checkpoint import restore_run, weights_digest
from fusion_jax.checksums import write_checksums
from fusion_jax.config import HeatmapConfig, HourglassConfig, InputConfig
from fusion_jax.errors import UserError
from fusion_jax.evaluate import evaluate_run
from fusion_jax.heatmap_feed import open_feed
from fusion_jax.heatmap_net import heatmap_source, open_heatmap_net
from fusion_jax.init_hourglass import transfer_hourglass
from fusion_jax.optim import HEATMAP_NETWORK
from fusion_jax.presets import preset
from fusion_jax.records import from_json, to_json
from fusion_jax.sharding import data_mesh
from fusion_jax.state import create_state
from fusion_jax.train import train
from fusion_jax.work_folder import load_run, load_seen

RATES = ("learning_rate", "fusion_learning_rate", "heatmap_learning_rate")


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


@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_a_run_with_the_2d_network_in_its_step_resumes_without_that_networks_run(tmp_path, hourglass, mode):
    """Whose weights have changed since; another network in its place is refused, and so is a new run with its name."""
    net = shutil.copytree(hourglass, tmp_path / "net")
    config = load_run(trained_pair.pose(tmp_path / "unbroken", net, mode, steps=2))[0]
    given = heatmap_source(config, "predicted", mode, net)
    train(given, small.data_dir(), tmp_path / "run", dataclasses.replace(QUIET, stop_after=1))
    trained_pair.hourglass(tmp_path / "further", steps=1)
    shutil.rmtree(net / "checkpoints")
    shutil.copytree(tmp_path / "further" / "checkpoints", net / "checkpoints")
    state = train(given, small.data_dir(), tmp_path / "run", QUIET)
    unbroken = restore_run(tmp_path / "unbroken", config, data_mesh())
    same((state.params, state.constants, state.opt_state), (unbroken.params, unbroken.constants, unbroken.opt_state))
    assert load_run(tmp_path / "run")[0] == config
    for folder, message in (("run", "another config: .*weights"), ("new", "other weights now")):
        known = config.heatmaps.net.weights if folder == "new" else "0123456789abcdef"
        named = dataclasses.replace(config.heatmaps.net, weights=known)
        changed = dataclasses.replace(config, heatmaps=dataclasses.replace(config.heatmaps, net=named))
        with pytest.raises(UserError, match=message):
            train(changed, small.data_dir(), tmp_path / folder, QUIET)


def test_a_finetuned_run_started_from_another_has_its_own_2d_network_whole(tmp_path, hourglass):
    """Weights and batch statistics of the one that --heatmap-workdir names, none of the old run's."""
    old = trained_pair.pose(tmp_path / "old", heatmaps=hourglass, mode="finetune")
    other = trained_pair.hourglass(tmp_path / "other", steps=1)
    config = heatmap_source(load_run(old)[0], "predicted", "finetune", other)
    optim = dataclasses.replace(config.optim, **dict.fromkeys(RATES, 1e-12))
    state = train(
        dataclasses.replace(config, init_from=str(old), optim=optim), small.data_dir(), tmp_path / "new", QUIET
    )
    fusion, want = restore_run(old, load_run(old)[0], data_mesh()), open_heatmap_net(other, data_mesh()).state
    same(state.constants[HEATMAP_NETWORK], want.constants)
    for params, before in (
        (state.params[HEATMAP_NETWORK], want.params),
        (state.params["image_1"], fusion.params["image_1"]),
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), dict(params), dict(before))


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


def test_every_part_of_a_split_is_asked_about(tmp_path, cached, hourglass):
    """Also beside a part that the run was trained on, and in another dataset whose parts are called the same."""
    shutil.copytree(hourglass, tmp_path / "leaky")
    record = json.loads((tmp_path / "leaky" / "trained_on.json").read_text())
    record[0]["subjects"] = ["S03"]
    (tmp_path / "leaky" / "trained_on.json").write_text(json.dumps(record))
    fed = {"heatmaps": "predicted", "heatmap_workdir": tmp_path / "leaky"}
    for split in ("test", "train+test"):
        with pytest.raises(UserError, match="S03 of .*test split was trained on"):
            evaluate_run(cached, split, **fed)
    with pytest.raises(UserError, match="was trained on"):
        evaluate_run(cached, "train+test", dataset="synthetic_humans", **fed)


def test_a_lost_list_of_who_was_seen_is_made_again_whole(tmp_path, hourglass):
    """By what the checkpoint tells; one of an older version does not, so the 2D network's own run is asked."""
    workdir = trained_pair.pose(tmp_path / "run", heatmaps=shutil.copytree(hourglass, tmp_path / "net"))
    seen = load_seen(workdir)
    record = json.loads((tmp_path / "net" / "trained_on.json").read_text())
    extra = [{**record[0], "dataset": "mpii/x", "family": "mpii"}]
    (tmp_path / "net" / "trained_on.json").write_text(json.dumps(record + extra))
    (workdir / "trained_on.json").unlink()
    train(load_run(workdir)[0], small.data_dir(), workdir, QUIET)
    assert load_seen(workdir) == seen
    (workdir / "trained_on.json").unlink()
    shutil.rmtree(workdir / "checkpoints" / "1" / "run")
    write_checksums(epath.Path(workdir / "checkpoints" / "1"))
    train(load_run(workdir)[0], small.data_dir(), workdir, QUIET)
    assert "mpii/x" in [part.dataset for part in load_seen(workdir)]


def test_who_was_seen_is_known_without_the_2d_networks_run(tmp_path, hourglass):
    """Where the network is in the step nothing of its own run is needed."""
    net = shutil.copytree(hourglass, tmp_path / "net")
    workdir = trained_pair.pose(tmp_path / "run", heatmaps=net, mode="frozen")
    seen = load_seen(workdir)
    (workdir / "trained_on.json").unlink()
    shutil.rmtree(net)
    train(load_run(workdir)[0], small.data_dir(), workdir, QUIET)
    assert load_seen(workdir) == seen


def test_nothing_is_predicted_for_a_run_that_cannot_go_on(tmp_path, cached, hourglass):
    other = trained_pair.hourglass(tmp_path / "other", heatmap_sigma_px=1.0)
    config = dataclasses.replace(load_run(cached)[0], seed=9)
    config = heatmap_source(config, "predicted", "cache", other)
    folders = sorted(small.data_dir().glob("*/*/heatmaps/*"))
    with pytest.raises(UserError, match="another config: .*seed"):
        train(config, small.data_dir(), cached, QUIET)
    assert sorted(small.data_dir().glob("*/*/heatmaps/*")) == folders


def test_a_moved_2d_network_is_asked_for(tmp_path, cached, hourglass):
    config, _ = load_run(cached)
    gone = dataclasses.replace(config.heatmaps.net, workdir=str(tmp_path / "gone"))
    changed = dataclasses.replace(config, heatmaps=dataclasses.replace(config.heatmaps, net=gone))
    with pytest.raises(UserError, match="no longer in .*gone; say where it is now: --heatmap-workdir"):
        train(changed, small.data_dir(), tmp_path / "run", QUIET)


def test_scores_with_different_2d_networks_lie_side_by_side(tmp_path, cached):
    other = trained_pair.hourglass(tmp_path / "other", steps=1)
    result = evaluate_run(cached, heatmaps="predicted", heatmap_workdir=other)
    digest = open_heatmap_net(other, data_mesh()).net.weights
    assert result["name"] == f"test_predicted_{digest[:8]}" and (cached / "eval" / f"{result['name']}.json").exists()


# Cards.


def test_a_card_names_what_the_weights_read_and_write():
    pose, heatmaps = card(preset("tiny")), card(preset("hourglass-2"))
    assert pose["pose"]["joints"][0] == "pelvis" and pose["pose"]["unit"] == "mm"
    assert heatmaps["heatmaps"]["size_px"] == 64 and heatmaps["input_px"] == 256 and "pose" not in heatmaps


def test_weights_of_another_kind_are_refused_with_both_values(tmp_path, hourglass):
    shutil.copytree(hourglass, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    config["inputs"]["heatmap_sigma_px"] = 2.5
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"weights of another kind .*heatmaps.sigma_px: 1.0 -> 2.5 \(checkpoint"):
        evaluate_run(tmp_path / "run")
    with pytest.raises(UserError, match="missing"):
        check_card(None, preset("tiny"), "here")


def test_a_card_is_compared_by_names_and_numbers_not_by_its_sentences(cached):
    config, _ = load_run(cached)
    found = card(config)
    assert found["heatmaps"]["weights"] == config.heatmaps.net.weights and found["heatmaps"]["source"] == "predicted"
    reworded = found | {"crop": "another sentence", "picture": "x"}
    reworded["heatmaps"] = found["heatmaps"] | {"values": "x"}
    check_card(reworded | {"pose": found["pose"] | {"frame": "x"}}, config, "here")
    for part, field, value in (
        ("heatmaps", "source", "noisy"),
        ("heatmaps", "weights", "0123456789abcdef"),
        ("heatmaps", "size_px", 9),
        ("pose", "root", ["neck"]),
        ("pose", "unit", "m"),
    ):
        with pytest.raises(UserError, match=f"here holds weights of another kind .*: {part}.{field}: "):
            check_card(found | {part: found[part] | {field: value}}, config, "here")


def test_a_checkpoint_without_checksums_may_be_old_and_one_that_lost_its_card_is_damaged(tmp_path, hourglass):
    shutil.copytree(hourglass, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoints" / "2"
    shutil.rmtree(checkpoint / "card")
    with pytest.raises(UserError, match="no finished checkpoint in .*; 2 lacks its file card/metadata; bring a copy"):
        evaluate_run(tmp_path / "run")
    (checkpoint / "checksums.json").unlink()  # as an older version wrote them
    with pytest.raises(
        UserError, match="; 2 is not finished: it has no checksums.json .*of an older version of the program"
    ):
        evaluate_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({"heatmap_skeleton": "lsp14"}, "trained with the joints of lsp14, or train"),
        ({"heatmap_sigma_px": 2.0}, "trained with --heatmap-sigma 2, or train"),
        ({"heatmap_size": 32}, "trained with --heatmap-sigma 0.5, or train"),
    ],
)
def test_the_advice_on_a_2d_network_that_does_not_fit(fields, advice):
    """hourglass-tiny makes blobs of 1 px in maps of 16 px, of the joints of mpii16."""
    pose = preset("tiny")
    pose = dataclasses.replace(pose, inputs=dataclasses.replace(pose.inputs, **fields))
    with pytest.raises(
        UserError, match=f"{advice} the fusion network on this one's heatmaps: .*--heatmap-workdir RUN$"
    ):
        check_heatmaps_fit(pose, preset("hourglass-tiny"), "RUN")


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


@pytest.mark.parametrize("joints", ["mpii16", "lsp14"])
def test_a_network_of_another_width_gives_nothing(joints):
    """Though the biases of the layers that write heatmaps would fit."""
    old_config, old, old_constants = variables(features=12)
    config, new, new_constants = variables(joints)
    with pytest.raises(UserError, match="no layer of hourglass-tiny fits"):
        transfer_hourglass(old, old_constants, old_config, new, new_constants, config)


def test_a_layer_without_one_joint_of_the_old_ones_is_left_new(monkeypatch):
    """Layouts that share no name: what writes and reads heatmaps is new, the rest is taken over."""
    config, old, old_constants = variables(seed=1)
    _, new, new_constants = variables(seed=2)
    apart = {"old": [f"a{n}" for n in range(16)], "new": [f"b{n}" for n in range(16)]}
    monkeypatch.setattr(init_hourglass, "skeleton", lambda name: types.SimpleNamespace(joints=apart[name]))
    configs = [types.SimpleNamespace(preset=n, inputs=types.SimpleNamespace(heatmap_skeleton=n)) for n in apart]
    params, _, lines = transfer_hourglass(old, old_constants, configs[0], new, new_constants, configs[1])
    same(params["out_0"], new["out_0"])
    same(params["pre_0"], old["pre_0"])
    assert lines[1] == "left new: merge_preds_0, out_0, out_1" and "out_" not in lines[0]


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


@pytest.mark.parametrize("source", ["true", "noisy"])
def test_a_run_without_a_2d_network_says_what_it_was_trained_on(source):
    config = dataclasses.replace(small.config(), heatmaps=HeatmapConfig(source))
    with pytest.raises(UserError, match=r"true joints or stored, so it has|joints with noise, so it has") as told:
        open_feed(config, "predicted", None, data_mesh())
    assert ",," not in str(told.value)
