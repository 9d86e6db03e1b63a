"""One of several processes that train the small run by the real command, perhaps with a fault of its own.

python one_of_several.py FAULT DATA_DIR WORKDIR STEPS [OPTIONS OF fusion-jax train]
"""

import sys
import time

import jax
import numpy as np
import small

from fusion_jax import cli, distributed, presets, sharding, train
from fusion_jax.errors import UserError

fault, data_dir, workdir, steps, *options = sys.argv[1:]
sharding.SPLIT_FROM = 64  # all of the small network is below what is worth it
distributed.HEARTBEAT_S = 10  # a kill need not cost the tests a minute
seed = 5 if fault == "another_seed" else 0
presets.with_overrides = lambda *args, **kwargs: small.config(steps=int(steps), seed=seed)
all_is_well = train.training_data


def breaking(*args):
    for number, batch in enumerate(all_is_well(*args), start=1):
        if number == 4 and fault == "breaks":
            raise UserError("a picture of this process cannot be read")
        if number == 4 and fault == "collective":
            raise jax.errors.JaxRuntimeError("FAILED_PRECONDITION: Gloo AllGather failed: Connection closed by peer")
        if number == 4 and fault == "poisoned":
            batch["pose_mm"][1, 5] = np.inf
        yield batch


if fault == "late":
    time.sleep(4)
if fault == "no_service":
    jax.config.update("jax_enable_preemption_service", False)
if fault in ("breaks", "collective", "poisoned"):  # once training is under way
    train.training_data = breaking
sys.exit(cli.main(["train", "--distributed", "--data-dir", data_dir, "--workdir", workdir, *options]))
