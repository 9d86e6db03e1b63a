"""Networks with random weights for the benchmarks, and batches whose inputs are made already."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from fusion_jax.batch import fake_batch
from fusion_jax.config import Config
from fusion_jax.inputs import network_inputs
from fusion_jax.network import Dense
from fusion_jax.state import TrainState, create_state


def random_state(config: Config, **scalars: float) -> TrainState:
    """The state before the first step, kernels as He's initialisation draws them, no bias zero.

    Drawn by NumPy: compiling `create_state` would cost more than some benchmarks.

    Args:
      config: of a fusion network.
      **scalars: `alpha` and `beta` in place of the config's.
    """
    state = jax.eval_shape(functools.partial(create_state, config), jax.random.key(0))
    rng, depth = np.random.default_rng(0), len(config.fusion.streams[0].layers)
    start = (depth + 1) / 2 if config.fusion.beta is None else config.fusion.beta
    known = {"alpha": config.fusion.alpha_init, "beta": start, "pose_std_mm": 100.0, **scalars}

    def draw(path, leaf):
        name = path[-1].key
        if name in known:
            return jnp.full(leaf.shape, known[name], leaf.dtype)
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if name == "kernel" else 0.1
        return jnp.asarray(rng.standard_normal(leaf.shape, np.float32) * np.float32(scale))

    return state.replace(
        step=jnp.zeros((), jnp.int32),
        params=jax.tree_util.tree_map_with_path(draw, state.params),
        constants=jax.tree_util.tree_map_with_path(draw, state.constants),
        opt_state=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state.opt_state),
        rng=jax.random.key(0),
    )


def made_batch(config: Config, batch_size: int, seed: int = 0) -> dict[str, jax.Array]:
    """A fake batch with pictures and heatmaps as the network reads them, so that a step has nothing to prepare.

    One joint is unknown. `parts` stays a label map: the step makes streams of it itself.
    """
    batch = fake_batch(config, batch_size, seed)
    batch["valid"][0, 1] = False
    inputs = network_inputs(batch, config.inputs)
    batch |= {name: inputs[name] for name in ("image", "heatmap")}
    return {name: jnp.asarray(value) for name, value in batch.items() if name not in ("joints2d", "valid2d")}


def without_dropout(config: Config) -> Config:
    """The config with no feature dropped: two frameworks draw differently, and could not be compared."""
    streams = tuple(
        dataclasses.replace(
            stream,
            layers=tuple(dataclasses.replace(x, dropout=0.0) if isinstance(x, Dense) else x for x in stream.layers),
        )
        for stream in config.fusion.streams
    )
    return dataclasses.replace(config, network=dataclasses.replace(config.fusion, streams=streams))
