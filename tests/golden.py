"""The smallest run, as a version of the program wrote it: every later version has to read it.

python tests/golden.py VERSION writes one into tests/golden/VERSION, to be committed with that version.
"""

import functools
import json
import pathlib
import sys

import jax
import numpy as np

FOLDER = pathlib.Path(__file__).parent / "golden"


def config():
    """Two layers of two streams on 8 px pictures, learned fusion."""
    import dataclasses

    from fusion_jax.config import Config, InputConfig, NetworkConfig, OptimConfig
    from fusion_jax.network import Conv, Dense
    from fusion_jax.presets import two_streams

    network = NetworkConfig(two_streams((Conv(2, 3), Dense(2))), beta=1.25)
    inputs = InputConfig(image_size=8, heatmap_size=8)
    return dataclasses.replace(Config("golden", network, inputs, OptimConfig(skip_dead=0.01)), steps=7)


def state(config):
    """After five steps; every number tells its place."""
    from fusion_jax.state import create_state

    shapes = jax.eval_shape(functools.partial(create_state, config), jax.random.key(0))
    leaves, tree = jax.tree.flatten(shapes.replace(rng=None))

    def filled(place, leaf):
        values = np.arange(np.prod(leaf.shape, dtype=int)).reshape(leaf.shape) / 64 + place
        return jax.numpy.asarray(values, leaf.dtype)

    made = jax.tree.unflatten(tree, [filled(place, leaf) for place, leaf in enumerate(leaves)])
    return made.replace(step=jax.numpy.int32(5), rng=jax.random.key(9))


def write(version):
    """A run of this version."""
    from fusion_jax.checkpoint import Checkpoints, weights_digest
    from fusion_jax.fusion import LiveLayers
    from fusion_jax.leakage import Seen
    from fusion_jax.work_folder import DatasetRecord, OwnRecord, save_run

    folder, made = FOLDER / version, state(config())
    record = DatasetRecord("synthetic_humans/golden", "data", "0123456789abcdef")
    seen = [Seen("synthetic_humans/golden", "synthetic_humans", False, ("S01",), {"S01/walking": [(0, 9)]})]
    save_run(folder, config(), record, seen)
    checkpoints = Checkpoints(folder, config())
    checkpoints.own_record = OwnRecord(config(), record, seen)
    checkpoints.save(5, made, 5, LiveLayers(2, 2), 123.5)
    checkpoints.close()
    for path in folder.rglob("commit_success.txt"):  # where and when it was written; a restore does without
        path.unlink()
    (folder / "expected.json").write_text(json.dumps({"weights": weights_digest(made), "key": 9}) + "\n")


if __name__ == "__main__":
    write(sys.argv[1])
