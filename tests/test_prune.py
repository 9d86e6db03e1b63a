"""Pruning: the smaller network answers as the whole one, the bound holds, and what is written is a run of its own."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import small_hourglass
from hypothesis import given
from hypothesis import strategies as st
from jax import lax

from fusion_jax import cost, fusion
from fusion_jax.checkpoint import Checkpoints, restore_run
from fusion_jax.cli import main
from fusion_jax.config import Config, HeatmapConfig, HeatmapNet, HourglassConfig, InputConfig, NetworkConfig
from fusion_jax.datasets import mixture_name, open_dataset
from fusion_jax.errors import UserError
from fusion_jax.evaluate import evaluate_run
from fusion_jax.init_from import adopt_live, init_from
from fusion_jax.leakage import Seen
from fusion_jax.network import Conv, Dense, FusionNet, Stream, fusion_layers
from fusion_jax.network_pair import NetworkPair
from fusion_jax.optim import HEATMAP_NETWORK
from fusion_jax.presets import preset
from fusion_jax.prune import alive, mixed_layers, mixing_weights, removed_layers
from fusion_jax.prune_bound import change_bound_mm, conv_norm, gaps, joint_norms, lipschitz_constants
from fusion_jax.prune_run import prune_run
from fusion_jax.records import read_json
from fusion_jax.run_record import read_run
from fusion_jax.sharding import data_mesh
from fusion_jax.state import make_network
from fusion_jax.train import LoopOptions
from fusion_jax.work_folder import DatasetRecord, load_run, load_seen, save_run

STREAMS = (
    Stream("image", (Conv(4, 2), Dense(6))),
    Stream("heatmap", (Conv(3, 2), Dense(5))),
    Stream("silhouette", (Conv(2, 2), Dense(2))),
)
L, SIDE = 2, 7
QUIET = LoopOptions(show=False, log_every=1, eval_every=0)


def config_of(strategy="learned", beta=None, streams=STREAMS):
    return Config("small", NetworkConfig(streams, strategy, beta), InputConfig(image_size=SIDE))


@functools.cache
def applied(network, mutable=False):
    """Compiled once for each network."""
    return jax.jit(lambda variables, x: network.apply(variables, x, mutable=mutable))


def drawn(config, seed=0, batch=3):
    """(parameters, constants, inputs), every number drawn anew."""
    rng = np.random.default_rng(seed)
    x = {n: jnp.asarray(rng.random((batch, *s)), jnp.float32) for n, s in cost.example_shapes(config).items()}
    shapes = jax.eval_shape(make_network(config.fusion, config.inputs).init, jax.random.key(0), x)
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.5, s.shape), s.dtype), dict(shapes["params"]))
    spread = jnp.asarray(rng.uniform(50, 300, (17, 3)), jnp.float32)
    return params, {"pose_mean_mm": spread - 200, "pose_std_mm": spread}, x


def output(config, params, constants, x):
    network = make_network(config.fusion, config.inputs)
    return np.asarray(applied(network)({"params": params, "constants": constants}, x))


@pytest.mark.parametrize("strategy", ["learned", "free"])
@pytest.mark.parametrize("beta", [0, 1, 2])
def test_a_hard_network_of_three_streams_is_the_fixed_one_before_and_after_pruning(strategy, beta):
    whole = config_of(strategy)
    params, constants, x = drawn(whole)
    hard = {"alpha": jnp.float32(1e4), "beta": jnp.float32(beta + 0.5)}
    if strategy == "free":
        hard = {"mix_logits": jnp.where(jnp.arange(1, L + 1) > beta, 200.0, -200.0)}
    params |= hard
    pruned, left = alive(whole, params, eps=0)
    assert pruned.fusion.live == fusion.live_layers(fusion.fixed_weights(beta, L)) and not mixed_layers(pruned)
    fixed = config_of("fixed", beta)
    own = {name: left[name] for name in left if name not in hard}
    wanted = jax.eval_shape(make_network(fixed.fusion, fixed.inputs).init, jax.random.key(0), x)["params"]
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, dict(wanted)), "nothing more, nothing less"
    answers = [
        output(whole, params, constants, x),
        output(pruned, left, constants, x),
        output(fixed, own, constants, x),
    ]
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], rtol=1e-5, atol=1e-3)
    assert set(removed_layers(whole, pruned)) == params.keys() - left.keys()
    assert cost.parameters(pruned) == sum(leaf.size for leaf in jax.tree.leaves(left))


def test_strategies_that_build_live_layers_alone_have_nothing_to_cut():
    for config in (config_of("fixed", 1.0), config_of("image")):
        params = {"fusion_3": {}}
        assert alive(config, params, 0.4) == (config, params)
        assert set(mixing_weights(config, params)) <= {0, 1}
    with pytest.raises(UserError, match=r"eps 0.5 is outside \[0, 0.5\)"):
        alive(config_of("fixed", 1.0), {}, 0.5)
    with pytest.raises(UserError, match="2D network"):
        alive(preset("hourglass-tiny"), {})
    with pytest.raises(UserError, match="not finite"):
        alive(config_of(), {"alpha": jnp.nan, "beta": jnp.float32(1)})


def test_a_pruned_network_is_pruned_further_from_where_it_stands():
    params = {"mix_logits": jnp.asarray([-3.0, 1.0])} | dict.fromkeys(
        [f"{s.name}_{l}" for s in STREAMS for l in (1, 2)] + ["fusion_1", "fusion_2", "fusion_3"], 0
    )
    once, left = alive(config_of("free"), params, 0.1)
    assert once.fusion.live == fusion.LiveLayers(2, 2) and "fusion_1" not in left and mixed_layers(once) == [2]
    np.testing.assert_allclose(mixing_weights(once, left), [0, 0.7311], atol=1e-4)
    twice, least = alive(once, left, 0.3)
    assert twice.fusion.live == fusion.LiveLayers(1, 2) and mixed_layers(twice) == []
    assert removed_layers(once, twice) == ["image_2", "heatmap_2", "silhouette_2"]
    assert set(least) == {"mix_logits", "image_1", "heatmap_1", "silhouette_1", "fusion_2", "fusion_3"}


# --- the bound ------------------------------------------------------------------------------------------------------


def bound_of(config, params, constants, x, pruned):
    sown = applied(make_network(config.fusion, config.inputs), ("intermediates",))
    _, state = sown({"params": params, "constants": constants}, x)
    gap = np.asarray(gaps(state["intermediates"], L))
    layers, live = fusion_layers(config.fusion.streams), pruned.fusion.live
    shape = (SIDE, SIDE, sum(s[-1] for s in cost.example_shapes(config).values()))
    lipschitz = lipschitz_constants(layers, params, shape, live.first_fusion)
    joints = joint_norms(params[f"fusion_{L + 1}"]["kernel"], constants["pose_std_mm"])
    return change_bound_mm(mixing_weights(config, params), live, gap, lipschitz, joints)


@given(
    logits=st.tuples(*[st.one_of(st.floats(-4, 4), st.sampled_from([-200.0, 200.0]))] * L),
    eps=st.sampled_from([0.0, 0.02, 0.2, 0.49]),
    seed=st.integers(0, 1000),
)
def test_no_joint_moves_further_than_the_bound(logits, eps, seed):
    config = config_of("free", streams=STREAMS[:2])
    params, constants, x = drawn(config, seed)
    params["mix_logits"] = jnp.asarray(logits, jnp.float32)
    pruned, left = alive(config, params, eps)
    before, after = output(config, params, constants, x), output(pruned, left, constants, x)
    rounding = 1e-5 * np.abs(before).max()
    change = np.linalg.norm(after - before, axis=-1)
    if pruned == config:
        assert (change == 0).all()
        return
    bound = bound_of(config, params, constants, x, pruned)
    assert (change <= bound + rounding).all()
    if eps == 0:
        assert (bound == 0).all(), "so that what changes is rounding"


def test_the_bound_by_hand():
    """One stream, one feature; D_1 = 2x, Z_1 = 5x, both layers linear on x > 0, output 7, deviation 10 mm."""
    stream = Stream("image", (Dense(1),))
    network = FusionNet((stream,), 1, "free")

    def dense(value):
        return {"kernel": jnp.full((1, 1), float(value)), "bias": jnp.zeros(1)}

    kernel = jnp.asarray([[7.0, 0, 0]])
    params = {
        "image_1": {"dense": dense(2)},
        "fusion_1": {"dense": dense(5)},
        "mix_logits": jnp.log(jnp.asarray([0.25])),
    }
    params["fusion_2"] = {"kernel": kernel, "bias": jnp.zeros(3)}
    constants = {"pose_mean_mm": jnp.zeros((1, 3)), "pose_std_mm": jnp.full((1, 3), 10.0)}
    x, weights = {"image": jnp.asarray([[1.0], [3.0]])}, np.array([0.2])  # sigmoid(log 1/4)
    _, sown = network.apply({"params": params, "constants": constants}, x, mutable=["intermediates"])
    gap = np.asarray(gaps(sown["intermediates"], 1))
    np.testing.assert_allclose(gap, [[3], [9]])
    joints = joint_norms(kernel, constants["pose_std_mm"])
    constant = lipschitz_constants(stream.layers, params, (1,), 1)
    assert constant == {1: 5.0} and joints == [70]
    for live, factor in ((fusion.LiveLayers(1, 2), 0.2), (fusion.LiveLayers(0, 1), 0.8)):
        before = network.apply({"params": params, "constants": constants}, x)
        after = network.clone(live=live).apply({"params": params, "constants": constants}, x)
        want = factor * gap * 70
        np.testing.assert_allclose(np.abs(after - before)[:, :, 0], want, rtol=1e-5)
        np.testing.assert_allclose(change_bound_mm(weights, live, gap, constant, joints), want, rtol=1e-6)


def test_the_bound_goes_through_the_layers_above():
    """w = (1/10, 1/2, 8/10), K = (., 3, 4); fusion layer 1 and data layer 3 go: (1/10 . 3/2 . 4) g_1 + (2/10) g_3."""
    gap = np.array([[2.0, 9.0, 5.0]])
    got = change_bound_mm(np.array([0.1, 0.5, 0.8]), fusion.LiveLayers(2, 2), gap, {2: 3.0, 3: 4.0}, np.array([1.0, 6]))
    np.testing.assert_allclose(got, [[0.1 * 2 * 1.5 * 4 + 0.2 * 5, 6 * (1.2 + 1.0)]])


def test_joints_relative_to_the_root_are_bounded_by_their_difference_from_it():
    kernel = np.random.default_rng(0).normal(size=(8, 9))
    norms = joint_norms(kernel, np.ones((3, 3)), root=(1,))
    assert norms[1] == 0
    np.testing.assert_allclose(norms[0], np.linalg.norm(kernel[:, :3] - kernel[:, 3:6], 2))


@pytest.mark.parametrize("k, stride, padding", [(3, 1, "VALID"), (3, 1, "SAME"), (2, 2, "VALID"), (3, 2, "SAME")])
def test_a_convolutions_norm_against_its_matrix(k, stride, padding):
    kernel = np.random.default_rng(k).normal(size=(k, k, 2, 3))
    unit = jnp.eye(5 * 6 * 2).reshape(-1, 5, 6, 2)
    dims = ("NHWC", "HWIO", "NHWC")
    rows = lax.conv_general_dilated(
        unit, jnp.asarray(kernel, jnp.float32), (stride,) * 2, padding, dimension_numbers=dims
    )
    true, bound = np.linalg.norm(rows.reshape(len(unit), -1), 2), conv_norm(kernel, 5, 6, stride, padding)
    assert true <= bound * (1 + 1e-5) and bound < 1.6 * true
    if stride == k:
        np.testing.assert_allclose(bound, true, rtol=1e-5)


# --- runs -----------------------------------------------------------------------------------------------------------


def write_run(workdir, config, alpha, beta):
    """A run that has done config.steps steps, as training leaves it, but with random weights: that costs nothing."""
    dataset = open_dataset(config.dataset, small.data_dir(), 16)
    config = dataclasses.replace(config, dataset=mixture_name([(dataset, 1.0)]))
    record = DatasetRecord(config.dataset, str(small.data_dir()), dataset.fingerprint)
    save_run(workdir, config, record, [Seen.of(dataset, ["train"])])
    state = small_hourglass.state(config)
    fused = {"alpha": jnp.float32(alpha), "beta": jnp.float32(beta)}
    spread = {"pose_std_mm": jnp.full((17, 3), 100.0)}
    moments = jax.tree.map(lambda leaf: leaf + 1, state.opt_state)
    state = state.replace(
        step=jnp.int32(config.steps),
        params={**state.params, **fused},
        constants={**state.constants, **spread},
        opt_state=moments,
    )
    checkpoints = Checkpoints(workdir, config)
    checkpoints.save(config.steps, state, config.steps)
    checkpoints.close()
    (workdir / "metrics.jsonl").write_text('{"kind": "train", "step": 2, "loss": 1, "alpha": 60, "beta": 1.4}\n')
    return workdir


@pytest.fixture(scope="module")
def sharp(tmp_path_factory):
    """A run that fuses at layer 1 but for 4e-11 of the fusion stream."""
    return write_run(tmp_path_factory.mktemp("sharp") / "run", small.config(steps=2), 60, 1.4)


@pytest.fixture(scope="module")
def cut(sharp):
    out = sharp.with_name("cut")
    assert main(["prune", "--workdir", str(sharp), "--out", str(out), "--batch-size", "56"]) == 0
    return out


def test_what_is_written_scores_as_the_run_it_is_from(sharp, cut):
    config, _ = load_run(cut)
    assert config.fusion.live == fusion.LiveLayers(1, 2) and config.init_from == str(sharp)
    numbers = read_json(cut / "pruned.json")
    assert numbers["removed"] == ["image_2", "heatmap_2", "fusion_1"] and "by_eps" not in numbers
    frames = numbers["frames"]
    assert (frames["split"], frames["frames"], frames["of"], frames["heatmaps"]) == ("test", 56, 56, "true")
    assert 0 < numbers["bound_mm"]["max"] < 1e-3 and numbers["change_mm"]["max"] < 1e-3
    for name in ("parameters", "gflops", "xla_gflops"):
        assert numbers[name]["after"] < numbers[name]["before"]
    assert min(numbers["images_per_s"].values()) > 0
    scored = evaluate_run(cut, batch_size=56)["mpjpe_mm"]
    np.testing.assert_allclose(list(numbers["mpjpe_mm"].values()), scored, rtol=1e-6)
    assert load_seen(cut) == load_seen(sharp)
    assert read_run(cut).train[-1]["step"] == 2, "as a report reads it"


def test_the_state_goes_on_by_name(sharp, cut):
    old, new = (restore_run(run, load_run(run)[0], data_mesh()) for run in (sharp, cut))
    assert int(new.step) == 2
    assert set(new.params) == {"alpha", "beta", "fusion_2", "fusion_3", "image_1", "heatmap_1"}
    for name, value in new.params.items():
        jax.tree.map(np.testing.assert_array_equal, value, old.params[name])
    assert all((np.asarray(leaf) == 1).all() for leaf in jax.tree.leaves(new.opt_state)), "moments and counts too"


def test_a_run_that_starts_from_a_pruned_one_is_cut_down_alike(cut, tmp_path):
    config, _ = load_run(cut)
    adopted = adopt_live(small.config(steps=1, init_from=str(cut)), tmp_path)
    assert adopted.fusion.live == config.fusion.live
    assert adopt_live(adopted, tmp_path) == adopted and adopt_live(small.config(), tmp_path) == small.config()
    moved = small.config(steps=1, init_from="no longer there")
    assert adopt_live(moved, cut).fusion.live == config.fusion.live, "a run that has begun stays as it is"
    fixed = small.config(strategy="fixed", beta=1.0, init_from=str(cut))
    assert adopt_live(fixed, tmp_path) == fixed
    state, _ = init_from(small_hourglass.state(adopted), adopted, cut, data_mesh(), show=False)
    old = restore_run(cut, config, data_mesh())
    assert set(state.params) == set(old.params)
    np.testing.assert_array_equal(
        state.params["fusion_2"]["dense"]["kernel"], old.params["fusion_2"]["dense"]["kernel"]
    )


def test_nothing_is_left_to_cut(cut, tmp_path, capsys):
    assert main(["prune", "--workdir", str(cut), "--out", str(tmp_path / "out")]) == 0
    assert "nothing is left to cut" in capsys.readouterr().out and not (tmp_path / "out").exists()


def test_fine_tuning_is_stopped_and_goes_on(sharp, tmp_path):
    def prune(out=tmp_path / "tuned", eps=0.1, steps=2, **options):
        return prune_run(
            sharp,
            out,
            eps,
            finetune_steps=steps,
            options=dataclasses.replace(QUIET, **options),
            show=False,
            frames=8,
            batch_size=56,
        )

    assert prune(stop_after=1).written
    config, _ = load_run(tmp_path / "tuned")
    assert (config.steps, config.init_from) == (2, str(sharp))
    assert int(restore_run(tmp_path / "tuned", config, data_mesh()).step) == 1
    assert prune().numbers["frames"]["frames"] == 8
    state = restore_run(tmp_path / "tuned", config, data_mesh())
    assert int(state.step) == 2 and "fusion_1" not in state.params
    moved = np.abs(
        state.params["fusion_2"]["dense"]["kernel"]
        - small_hourglass.state(load_run(sharp)[0]).params["fusion_2"]["dense"]["kernel"]
    )
    assert 0 < moved.max() < 0.01, "two steps away from the pruned weights"
    rows = [json.loads(line) for line in (tmp_path / "tuned" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    for other in ({"eps": 0.2}, {"steps": 3}, {"steps": None}, {"out": sharp}):
        with pytest.raises(UserError, match="in use by another run; give a new folder"):
            prune(**other)


@pytest.fixture(scope="module")
def soft(tmp_path_factory):
    """A run with alpha 0.1 and a 2D network that is trained along in its step."""
    net = HeatmapNet("somewhere", "0123456789abcdef", HourglassConfig(1, 8, 1), small_hourglass.INPUTS)
    config = small.config(steps=2)
    inputs = dataclasses.replace(config.inputs, heatmap_size=4)
    config = dataclasses.replace(config, inputs=inputs, heatmaps=HeatmapConfig("predicted", "finetune", net=net))
    return write_run(tmp_path_factory.mktemp("soft") / "run", config, 0.1, 1.5)


def test_a_soft_run_is_told_what_pruning_would_do(soft, tmp_path, capsys):
    assert main(["prune", "--workdir", str(soft), "--out", str(tmp_path / "out"), "--batch-size", "56"]) == 1
    said = capsys.readouterr().out
    assert not (tmp_path / "out").exists() and "layers 1, 2 still mix" in said and "--alpha-final" in said
    table = [line for line in said.splitlines() if line.startswith("| 0")]
    assert [row.split(" | ")[0] for row in table] == ["| 0.001", "| 0.01", "| 0.05", "| 0.1", "| 0.25", "| 0.49"]
    assert "| 0 |" in table[4] and "3 (image_2, heatmap_2, fusion_1)" in table[5]


def test_a_soft_run_with_its_own_2d_network_pruned_all_the_same(soft, tmp_path):
    outcome = prune_run(soft, tmp_path / "out", 0.49, show=False, batch_size=56)
    change, bound = outcome.numbers["change_mm"], outcome.numbers["bound_mm"]
    assert outcome.written and outcome.hard and 0.01 < change["max"] <= bound["max"] and change["mean"] <= bound["mean"]
    assert outcome.numbers["soft_layers"] == {"eps": 0.001, "layers": [1, 2]}
    assert outcome.numbers["by_eps"][-1]["change_mm"] == change
    config, _ = load_run(tmp_path / "out")
    assert HEATMAP_NETWORK in restore_run(tmp_path / "out", config, data_mesh()).params
    pair = NetworkPair(tmp_path / "out", None, 2)  # as predict loads them
    (pose,) = pair.poses([np.zeros((16, 16, 3), np.uint8)], [np.zeros((4, 4, 16), np.float32)])
    assert pose.shape == (17, 3)


def test_what_cannot_be_pruned_is_one_line(sharp, tmp_path, capsys):
    flat = tmp_path / "hourglass"
    save_run(flat, small_hourglass.config(), DatasetRecord("mpii", "data", ""), [])
    for arguments, message in (
        (["--workdir", flat], "is a 2D network, which fuses nothing"),
        (["--workdir", sharp, "--eps", "0.5"], "eps 0.5 is outside [0, 0.5)"),
        (["--workdir", sharp, "--eps", "nan"], "eps nan is outside"),
        (["--workdir", sharp, "--finetune-steps", "0"], "finetune_steps is 0, expected >= 1"),
        (["--workdir", sharp, "--finetune-steps", "1", "--dataset", "lsp"], "is for the proof alone"),
        (["--workdir", tmp_path], "holds no run"),
    ):
        assert main(["prune", "--out", str(tmp_path / "out"), *map(str, arguments)]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()
