"""Four pretend CPU devices, programs that compile fast, reproducible hypothesis, the small run several files train.

Most of the suite's time is compilation, so
- what was compiled once is kept in a folder for as long as the tests run: both workers and the programs that tests
  start find it there (a folder named in JAX_COMPILATION_CACHE_DIR is used instead, and outlives the run);
- programs are compiled with little optimisation, except in the modules marked `optimised`: those that compare
  bits or floats of differently compiled programs, or go a user's whole way.
"""

import dataclasses
import functools
import os
import tempfile

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # pytest-xdist's workers get the environment of the first process
    _compiled = tempfile.TemporaryDirectory(prefix="fusion_jax_compiled_", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
os.environ |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0"}

import jax  # reads the environment
import jax.numpy as jnp
import numpy as np
import pytest
import small
from hypothesis import settings

jax.config.update("jax_num_cpu_devices", 4)  # before anything touches a device

settings.register_profile("fusion", deadline=None, max_examples=15, derandomize=True, database=None)
settings.load_profile("fusion")

LONG = ["test_two_networks", "test_datasets_end_to_end", "test_predictor", "test_notebooks", "test_train", "test_cli"]


def pytest_collection_modifyitems(items):
    """The longest files first (pytest-xdist is told to keep them so): begun last, one leaves a worker idle."""
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


@pytest.fixture(autouse=True, scope="module")
def optimisation(request):
    """Little of it, unless the module is marked `optimised`; the programs that a test starts follow."""
    little = request.node.get_closest_marker("optimised") is None
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(little))
    if little != jax.config.read("jax_disable_most_optimizations"):
        jax.config.update("jax_disable_most_optimizations", little)
        jax.clear_caches()  # they do not know which way a program was compiled


@pytest.fixture(autouse=True, scope="module")
def shared_dataset():
    """The one that all files of tests read, as it was prepared."""
    yield
    small.tidy_data_dir()


@pytest.fixture
def small_config():
    """Config of a two-layer learned network on 12 px pictures; keywords replace fields of any of its records."""
    from fusion_jax.augmentation import AUGMENTATIONS
    from fusion_jax.config import Config, InputConfig, NetworkConfig, OptimConfig
    from fusion_jax.network import Conv, Dense
    from fusion_jax.presets import two_streams

    def make(**fields):
        records = {
            "network": NetworkConfig(two_streams((Conv(4, 2), Dense(8)))),
            "inputs": InputConfig(image_size=12, heatmap_size=8),
            "optim": OptimConfig(schedule="constant", warmup_steps=0),
        }
        for part, record in records.items():
            names = {field.name for field in dataclasses.fields(record)} & fields.keys()
            records[part] = dataclasses.replace(record, **{name: fields.pop(name) for name in names})
        base = Config("small", augment=AUGMENTATIONS["none"], steps=50, batch_size=8, **records)
        return dataclasses.replace(base, **fields)

    return make


@pytest.fixture
def small_state():
    """create_state's result with weights drawn by NumPy: compiling their initialisation costs more than the tests."""
    from fusion_jax.state import create_state

    def make(config):
        state = jax.eval_shape(functools.partial(create_state, config), jax.random.key(0))
        rng = np.random.default_rng(0)

        def draw(path, leaf):
            name, fan_in = path[-1].key, np.prod(leaf.shape[:-1])
            known = {"alpha": config.network.alpha_init, "beta": 1.5, "mix_logits": 0, "bias": 0}
            value = known[name] if name in known else rng.normal(0, np.sqrt(2 / fan_in), leaf.shape)
            return jnp.asarray(np.broadcast_to(value, leaf.shape), leaf.dtype)

        constants = {"pose_mean_mm": jnp.zeros((17, 3)), "pose_std_mm": jnp.ones((17, 3))}
        return state.replace(
            step=jnp.zeros((), jnp.int32),
            params=jax.tree_util.tree_map_with_path(draw, state.params),
            constants=constants,
            opt_state=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state.opt_state),
            rng=jax.random.key(0),
        )

    return make
