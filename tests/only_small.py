"""`fusion-jax` as it is, but for the network: any preset is the small one, of six steps."""

import sys

import small

from fusion_jax import cli, presets

presets.with_overrides = lambda *args, **kwargs: small.config(strategy="image")
sys.exit(cli.main(sys.argv[1:]))
