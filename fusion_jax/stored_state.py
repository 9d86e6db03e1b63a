"""What a checkpoint that may be from elsewhere announces, held to what it is, before memory is made for it."""

from __future__ import annotations

import math
import os
from typing import Any

import jax
from etils import epath

from fusion_jax.checksums import files_below
from fusion_jax.errors import UserError

MAX_RATIO = 100
"""Bytes in memory to bytes on disk: moments that are still zero take no room there, trained weights nearly all."""
_ALWAYS = 2**28  # bytes that are read in any case


def check_stored(folder: epath.PathLike, target: Any) -> None:
    """Raises UserError where a checkpoint's files are far too small for its state: arrays of nothing but zeros.

    Of arrays that were never written, only announced, a reader makes zeros, as many as are asked for.

    Args:
      folder: the checkpoint's.
      target: the state's arrays or their shapes.
    """
    needed = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(target))
    if needed <= _ALWAYS:
        return
    stored = sum(_size(epath.Path(folder) / name) for name in files_below(epath.Path(folder)))
    if needed > MAX_RATIO * stored + _ALWAYS:
        raise UserError(
            f"the checkpoint {folder} holds {stored} bytes, its config announces a state of {needed}; they do not "
            "belong together, use the config.json that was written with these weights"
        )


def _size(path: epath.Path) -> int:
    """Bytes of a file. etils' own stat wants a name for the files' owner, which a container need not have."""
    with path.open("rb") as file:
        return file.seek(0, os.SEEK_END)


def position(data: Any, where: str) -> int:
    """The number of the next training batch in a checkpoint's JSON. Raises UserError where it is something else."""
    found = data.get("next_batch") if isinstance(data, dict) else None
    if type(found) is not int or not 0 <= found < 2**62:
        raise UserError(f"the checkpoint {where}: next_batch is {found!r:.80}, expected a whole number; it is damaged")
    return found
