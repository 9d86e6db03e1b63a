"""The smallest 2D networks that several test files share, and their steps, compiled once a process."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from fusion_jax.config import Config, HourglassConfig, InputConfig, OptimConfig
from fusion_jax.heatmap_steps import heatmap_train_step
from fusion_jax.skeletons import skeleton
from fusion_jax.state import create_state

MPII = skeleton("mpii16")
INPUTS = InputConfig(image_size=16, skeleton="mpii16", heatmap_size=4)
TRACES = []
# Of what is run a few times compiling is the cost. Not for gradients: there the level may turn a tie of max_pool's.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def _counted(state, batch):
    TRACES.append(1)
    return heatmap_train_step(state, batch)


STEP = jax.jit(_counted)


def config(**fields):
    """A run of two stacks, 8 wide, which halve 4 px maps once; fields of HourglassConfig."""
    network = HourglassConfig(**{"stacks": 2, "features": 8, "depth": 1, **fields})
    optim = OptimConfig(schedule="constant", warmup_steps=0, learning_rate=1e-2)
    return Config("small", network, INPUTS, optim, batch_size=8)


@functools.cache
def state(config):
    """create_state's result with values drawn by NumPy: compiling their initialisation costs more than the tests."""
    state = jax.eval_shape(functools.partial(create_state, config), jax.random.key(0))
    rng = np.random.default_rng(0)
    ones = {"scale": 1, "var": 1, "pose_std_mm": 1, "alpha": 0.1, "beta": 0.5}

    def draw(path, leaf):
        name = path[-1].key
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if name == "kernel" else 0.1
        drawn = rng.normal(0, scale, leaf.shape) if name in ("kernel", "bias") else 0
        return jnp.asarray(np.broadcast_to(drawn + ones.get(name, 0), leaf.shape), leaf.dtype)

    return state.replace(
        step=jnp.zeros((), jnp.int32),
        params=jax.tree_util.tree_map_with_path(draw, state.params),
        constants=jax.tree_util.tree_map_with_path(draw, state.constants),
        opt_state=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state.opt_state),
        rng=jax.random.key(0),
    )


def arrays(tree):
    """Leaves as NumPy."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def assert_same_bits(a, b):
    for x, y in zip(arrays(a), arrays(b), strict=True):
        np.testing.assert_array_equal(x, y)


@dataclasses.dataclass(frozen=True)
class Brightness:
    """Stands in for a 2D network: map k is a colour of the picture at a quarter of its size, times (k + 1) / 16."""

    def apply(self, variables, picture):
        b, h, w, _ = picture.shape
        small = picture.reshape(b, h // 4, 4, w // 4, 4, 3).mean((2, 4))
        return (small[..., jnp.arange(16) % 3] * (jnp.arange(16) + 1) / 16)[None]

    @staticmethod
    def of(image):
        """What it sees in uint8 pictures (B, H, W, 3), averaged with the mirrored ones, by NumPy."""
        b, h, w, _ = image.shape
        small = image.reshape(b, h // 4, 4, w // 4, 4, 3).mean((2, 4)) / 255
        other = list(MPII.flip)
        one = small[..., np.arange(16) % 3] * (np.arange(16) + 1) / 16
        return (one + one[..., other]) / 2
