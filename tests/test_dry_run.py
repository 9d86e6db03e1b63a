"""T23: the step is compiled and never run; what it needs is told, and refused where it does not fit."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import small
import small_hourglass

from fusion_jax import cost, dry_run, host_memory
from fusion_jax.cli import main
from fusion_jax.config import HeatmapConfig, HeatmapNet
from fusion_jax.errors import UserError
from fusion_jax.network import Dense
from fusion_jax.presets import two_streams, with_overrides
from fusion_jax.scoring import place_batch
from fusion_jax.sharding import data_mesh, jit_train_step
from fusion_jax.start import open_training_data, training_data
from fusion_jax.state import create_state


def dense(small_config, **fields):
    """A network that compiles in a moment."""
    return small_config(streams=two_streams((Dense(160), Dense(8))), **fields)


def test_t23_the_numbers_are_those_of_the_step(small_config, monkeypatch):
    """Parameters as counted from the layers; memory for two batches, on four devices and on one."""
    config, four, one = dense(small_config), data_mesh(), data_mesh(jax.devices()[:1])
    found = dry_run.measure_step(config, four)
    assert found.parameters == cost.parameters(config)
    moments = 3 * 4 * found.parameters  # Adam's two beside them, float32
    assert moments <= found.state_bytes <= 1.02 * moments
    batch = sum(np.prod(leaf.shape) * leaf.dtype.itemsize for leaf in dry_run.batch_shapes(config).values())
    assert abs(found.arguments - found.state_bytes - batch / 4) < 100  # the step's number, a key
    assert found.needed >= found.arguments + found.temporaries and 0 < found.reused <= found.outputs
    alone = dry_run.measure_step(config, one)
    assert alone.arguments - found.arguments == pytest.approx(0.75 * batch, abs=100)
    assert alone.state_bytes == found.state_bytes and alone.gflops == found.gflops > 0
    large = dry_run.measure_step(dataclasses.replace(config, batch_size=64), one)
    assert large.needed - alone.needed > 7 * batch and large.gflops > 4 * alone.gflops


def test_t23_what_does_not_fit_is_refused_with_both_numbers_and_advice(small_config, monkeypatch, capsys):
    config, mesh = dense(small_config), data_mesh()
    found = dry_run.measure_step(config, mesh)
    monkeypatch.setattr(dry_run, "measure_step", lambda *_: found)
    size = f"{found.needed / 1e6:.1f} MB"
    with pytest.raises(UserError, match=rf"8 examples needs {size} of each of 4 cpu, .*limit is 0.5 MB .*--batch-size"):
        dry_run.dry_run(config, mesh, memory_limit=0.0005)
    assert f"a device     {size} while a step runs" in capsys.readouterr().out, "the report comes before the refusal"
    text = dry_run.dry_run(config, mesh, memory_limit=2)
    assert f"fits: {100 * found.needed / 2e9:.1f} % of the limit" in text and f"{found.parameters:,}" in text
    assert "fits, with little to spare" in dry_run.dry_run(config, mesh, memory_limit=found.needed * 1.1e-9)
    half = dataclasses.replace(config, network=dataclasses.replace(config.network, compute_dtype="bfloat16"))
    with pytest.raises(UserError, match="try a smaller --batch-size, --shard-params or more devices$"):
        dry_run.dry_run(half, mesh, memory_limit=1e-6)
    for limit in (0, -1, float("nan")):
        with pytest.raises(UserError, match="--memory-limit is .*expected a positive number of GB"):
            dry_run.dry_run(config, mesh, memory_limit=limit)
    monkeypatch.setattr(dry_run, "ram", lambda: host_memory.Memory(10**9, 4000))
    with pytest.raises(UserError, match="of free RAM for each of 4 devices"):
        dry_run.dry_run(config, mesh)
    assert dry_run.device_limit(mesh)[0] == 1000
    monkeypatch.setattr(dry_run, "ram", lambda: None)
    assert "limit        unknown" in dry_run.dry_run(config, mesh)


def test_t23_a_split_state_takes_less_of_each_device(small_config, monkeypatch):
    config, mesh = dense(small_config), data_mesh()
    whole, split = (dry_run.measure_step(config, mesh, shard_params) for shard_params in (False, True))
    large = [x for x in jax.tree.leaves(dry_run.state_shapes(config).params) if x.size >= 2**16]
    assert large and split.state_bytes == whole.state_bytes
    assert whole.arguments - split.arguments == 0.75 * 3 * 4 * sum(leaf.size for leaf in large)  # with both moments
    monkeypatch.setattr(dry_run, "measure_step", lambda *_: split)
    with pytest.raises(UserError, match="--compute-dtype bfloat16 or more devices$"):
        dry_run.dry_run(config, mesh, memory_limit=1e-6, shard_params=True)


def test_t23_a_batch_that_does_not_divide(small_config):
    with pytest.raises(UserError, match="a batch of 6 does not divide over 4 devices; choose a multiple of 4"):
        dry_run.measure_step(dense(small_config, batch_size=6), data_mesh())


def test_t23_the_compilers_own_refusal_is_one_line(small_config, monkeypatch):
    def full(self, *args, **kwargs):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm\nmore lines")

    monkeypatch.setattr(jax.stages.Lowered, "compile", full)
    with pytest.raises(UserError, match=r"does not fit in the memory of cpu \(RESOURCE_EXHAUSTED.* hbm\); try") as told:
        dry_run.measure_step(dense(small_config), data_mesh())
    assert "more lines" not in str(told.value)


@pytest.mark.parametrize("kind", ["photo and heatmaps", "body parts", "2D network"])
def test_t23_shapes_are_those_that_training_has(kind):
    """To the last type, so that the compiled program is the one that training asks for."""
    config = small.config(streams="image,parts" if kind == "body parts" else None)
    if kind == "2D network":
        base = with_overrides("hourglass-tiny", batch_size=4, image_size=64)
        config = dataclasses.replace(base, network=dataclasses.replace(base.network, features=8, depth=1))
    datasets, _ = open_training_data(config, small.data_dir())
    batch = place_batch(next(training_data(config, datasets)), datasets[0][0], data_mesh())
    got = dry_run.batch_shapes(config)
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == {n: (x.shape, x.dtype) for n, x in got.items()}
    scale = (np.zeros((17, 3), np.float32),) * 2 if config.task == "pose" else (None, None)
    real = jax.eval_shape(functools.partial(create_state, config), jax.random.key(1), *scale)
    told = [[(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(s)] for s in (real, dry_run.state_shapes(config))]
    assert told[0] == told[1]


def test_t23_heatmaps_of_a_2d_network_count(small_config):
    """Kept ones come with the batch; a 2D network in the step brings its weights, and larger pictures."""
    inputs = dataclasses.replace(small_hourglass.INPUTS, image_size=32, heatmap_size=8)
    net = HeatmapNet("nowhere", "", small_hourglass.config().hourglass, inputs)
    config = dense(small_config, heatmap_size=8)
    kept = dataclasses.replace(config, heatmaps=HeatmapConfig("predicted", net=net))
    assert dry_run.batch_shapes(kept)["heatmap"].shape == (8, 8, 8, 16)
    assert dry_run.batch_shapes(kept)["image"].shape == (8, 12, 12, 3)
    frozen = dataclasses.replace(config, heatmaps=HeatmapConfig("predicted", "frozen", net=net))
    assert dry_run.batch_shapes(frozen)["image"].shape == (8, 32, 32, 3)
    step = jit_train_step(data_mesh())
    for each in (kept, frozen):
        assert step.trace(dry_run.state_shapes(each), dry_run.batch_shapes(each)).jaxpr.eqns


def test_t23_the_command_writes_nothing_and_needs_no_data(tmp_path, capsys):
    args = ["train", "--dry-run", "--data-dir", tmp_path / "none", "--workdir", tmp_path / "run", "--batch-size", "8"]
    args = [*map(str, args), "--strategy", "heatmap", "--image-size", "32"]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert "8 examples on 4 x cpu, 2 each" in out and "fits:" in out and "GFLOP a step" in out
    assert main([*args, "--memory-limit", "0.001"]) == 2
    assert "the limit is 1.0 MB (--memory-limit)" in capsys.readouterr().err
    assert main(["train", "--memory-limit", "3"]) == 2 and "is for --dry-run" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_ram_of_a_container_is_its_control_groups(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    assert host_memory.ram(tmp_path) is None
    write("proc/meminfo", "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   800 kB\n")
    assert host_memory.ram(tmp_path) == (1_024_000, 819_200)
    write("proc/self/cgroup", "12:memory,x:/old\n3:cpu:/\n0::/outer/inner\n")
    assert host_memory.ram(tmp_path) == (1_024_000, 819_200)
    write("sys/fs/cgroup/outer/inner/memory.max", "max\n")
    write("sys/fs/cgroup/outer/memory.max", "500000\n")
    write("sys/fs/cgroup/outer/memory.current", "300000\n")
    write("sys/fs/cgroup/outer/memory.stat", "anon 7\ninactive_file 50000\n")
    assert host_memory.ram(tmp_path) == (500_000, 250_000)
    write("sys/fs/cgroup/memory/old/memory.limit_in_bytes", f"{2**63 - 4096}\n")
    assert host_memory.ram(tmp_path) == (500_000, 250_000)
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "200000\n")
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", "300000\n")
    assert host_memory.ram(tmp_path) == (200_000, 0)
    real = host_memory.ram()
    assert real is None or 0 < real.available <= real.total
    assert host_memory.disk(tmp_path / "not" / "there").available > 0
