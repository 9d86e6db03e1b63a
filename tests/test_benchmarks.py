"""What benchmarks claim before they time anything: that PyTorch's twin is our network, and what devices send."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusion_jax.network import Conv, Dense, Stream
from fusion_jax.sharding import batch_sharding, data_mesh, replicated
from fusion_jax.steps import train_step


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parent.parent / "benchmarks")


def a_twin(config):
    pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[benchmarks]'")
    from twin import Twin, copy_weights
    from weights import random_state

    state = random_state(config)
    twin = Twin(config)
    copy_weights(twin, state)
    return twin, state


def streams():
    """Padded on both sides or one, pooled with a remainder, of other widths."""
    layers = [(Conv(c, 3, pool=1, padding="SAME"), Conv(c, 4, stride=2, padding="SAME"), Dense(8)) for c in (4, 2)]
    return tuple(Stream(name, own) for name, own in zip(("image", "heatmap"), layers, strict=True))


def test_the_twin_is_our_network(small_config):
    config = small_config(streams=streams())
    twin, state = a_twin(config)
    from twin import check_equal
    from weights import made_batch

    batches = [made_batch(config, 2, seed) for seed in range(2)]
    differences = check_equal(twin, state, batches, tolerance=1e-5)
    assert len(differences) == 1 + len(jax.tree.leaves(state.params)), "the poses and every parameter"
    kernel = twin.blocks["image_2"].linear.weight
    kernel.data = kernel.data.flip(2)
    with pytest.raises(ValueError, match="differs by .* nothing is timed"):
        check_equal(twin, state, batches)


def test_the_twin_trains_as_we_do(small_config):
    """Two steps with a clipped gradient and the training's lambda.

    Adam's steps are as large as the rate even where a gradient is all rounding, so a few numbers may differ by as much.
    """
    config = small_config(clip_norm=1e5)
    twin, state = a_twin(config)
    from twin import Trainer, in_our_layout, twin_inputs
    from weights import made_batch

    batch, trainer, step = made_batch(config, 4), Trainer(twin, config), jax.jit(train_step)
    inputs, *labels = twin_inputs(state, batch)
    before = state.params
    for _ in range(2):
        loss = trainer.step(inputs, *labels)
        state, measured = step(state, batch)
        np.testing.assert_allclose(float(loss), measured["loss"], rtol=1e-4)
    theirs = jax.tree.leaves(in_our_layout(twin, lambda tensor: tensor.detach()))
    ours = jax.tree.leaves(state.params)
    apart = np.concatenate([np.abs(a.numpy() - b).ravel() for a, b in zip(theirs, ours, strict=True)])
    moved = np.concatenate(
        [np.abs(np.asarray(a - b)).ravel() for a, b in zip(ours, jax.tree.leaves(before), strict=True)]
    )
    assert (apart > 1e-5).mean() < 0.01 and np.median(moved) > 1e-3


def test_bytes_of_a_reduction_over_four_devices():
    from collectives import collectives

    mesh = data_mesh()

    def step(weights, x):
        return jax.grad(lambda w: ((x @ w) ** 2).mean())(weights)

    whole, split = replicated(mesh), batch_sharding(mesh)
    compiled = jax.jit(step, in_shardings=(whole, split), out_shardings=whole).lower(jnp.ones((6, 5)), jnp.ones((8, 6)))
    (found,) = collectives(compiled.compile().as_text(), mesh.size)
    assert (found.kind, found.size, found.devices, found.times) == ("all-reduce", 6 * 5 * 4, 4, 1)
    assert found.sent == 2 * 3 / 4 * 120


HLO = """HloModule jit_step, entry_computation_layout={()->f32[]}

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%body (arg: (s32[], f32[8])) -> (s32[], f32[8]) {
  %gathered = f32[8]{0} all-gather(%part), channel_id=2, replica_groups=[2,2]<=[4], dimensions={0}
}

%test (arg: (s32[], f32[8])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (p: f32[8]) -> f32[] {
  %w = (s32[], f32[8]{0}) while(%t), condition=%test, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %all = (bf16[2,3]{1,0}, f32[]) all-reduce(%x, %y), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
}
"""


def test_bytes_within_loops_and_of_tuples():
    from collectives import collectives

    found = {one.kind: one for one in collectives(HLO, 4)}
    assert found["all-gather"][1:] == (32, 2, 3) and found["all-gather"].sent == 3 * 32 / 2
    assert found["all-reduce"][1:] == (2 * 6 + 4, 4, 1)
    with pytest.raises(ValueError, match="body sends within a loop of unknown length"):
        collectives(HLO.replace("known_trip_count", "other"), 4)


def test_json_says_where_and_when(tmp_path):
    from timing import write_json

    write_json(tmp_path / "x.json", [{"images_per_s": 3.0}])
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["rows"] == [{"images_per_s": 3.0}] and {"date", "machine", "versions"} <= found.keys()
