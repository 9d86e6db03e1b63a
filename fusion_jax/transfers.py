"""A loop whose arrays move between host and devices only where its code says so.

An implicit transfer (a NumPy array handed to a compiled step, a float taken from a device's array) is easily written,
makes the loop wait for the device, and is seen in no result. JAX can make it an error: explicit ones, by
`jax.device_put`, `jax.device_get` and `jax.make_array_from_process_local_data`, are what is left. On a CPU reading a
result copies nothing, so there JAX can refuse only what goes to a device or from one to another.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")


@contextlib.contextmanager
def explicit_transfers() -> Iterator[Callable[[Hashable], AbstractContextManager]]:
    """In the block, and in this thread, an implicit transfer is a jax.errors.JaxRuntimeError.

    The yielded function gives the context of one step of a program: the first time that a program is named anything
    may move, since JAX then traces it and places its constants.
    """
    begun: set[Hashable] = set()

    def step(program: Hashable) -> AbstractContextManager:
        if program in begun:
            return contextlib.nullcontext()
        begun.add(program)
        return jax.transfer_guard("allow")

    with jax.transfer_guard("disallow"):
        yield step


def any_transfers(function: Callable[P, R]) -> Callable[P, R]:
    """A function that may move arrays as it likes, for work that no step waits for in `explicit_transfers`."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.transfer_guard("allow"):
            return function(*args, **kwargs)

    return call
