"""`python -m fusion_jax`."""

import sys

from fusion_jax.cli import main


def run() -> None:
    """The `fusion-jax` script."""
    sys.exit(main())


if __name__ == "__main__":  # loader worker processes import this module again
    sys.exit(main())
