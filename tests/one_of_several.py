"""A process of several that train the small run by the real command; which fault it has is said by the first argument.

python one_of_several.py FAULT DATA_DIR WORKDIR STEPS [OPTIONS OF fusion-jax train]
"""

import dataclasses
import pathlib
import sys
import time

sys.path[:0] = [str(pathlib.Path(__file__).parent.parent), str(pathlib.Path(__file__).parent)]

import jax

fault, data_dir, workdir, steps, *options = sys.argv[1:]
if fault == "late":
    time.sleep(4)
if fault == "no_service":
    jax.config.update("jax_enable_preemption_service", False)

import small

from fusion_jax import cli, presets, sharding
from fusion_jax.errors import UserError

sharding.SPLIT_FROM = 64
presets.with_overrides = lambda *args, **kwargs: small.config(steps=int(steps))
if fault == "breaks":  # once training is under way, in this process alone
    from fusion_jax import train

    real = train.training_data

    def breaking(*args):
        for number, batch in enumerate(real(*args)):
            if number == 3:
                raise UserError("a picture of this process cannot be read")
            yield batch

    train.training_data = breaking
if fault == "another_seed":
    presets.with_overrides = lambda *args, **kwargs: dataclasses.replace(small.config(steps=int(steps)), seed=5)
sys.exit(cli.main(["train", "--distributed", "--data-dir", data_dir, "--workdir", workdir, *options]))
