"""One training at a time in a work folder: two would overwrite each other's checkpoints and numbers."""

from __future__ import annotations

import contextlib
import fcntl
import pathlib
from collections.abc import Iterator

from fusion_jax.errors import UserError


@contextlib.contextmanager
def workdir_lock(workdir: pathlib.Path, option: str = "--workdir") -> Iterator[None]:
    """Holds WORKDIR/.lock for the block; the system lets go of it however the process ends.

    On a file system that knows no locks nothing is held.

    Args:
      workdir: made where it is not there.
      option: by which it was given, for the message.

    Raises:
      UserError: another process trains there, or .lock is no ordinary file.
      OSError: the folder cannot be made or written.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / ".lock"
    if path.exists() and not path.is_file():  # a pipe would wait for ever
        raise UserError(f"{path} is no ordinary file, expected one or none; delete it, or choose another {option}")
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process trains in {workdir}; wait for it, or choose another {option}") from None
        except OSError:  # some network file systems
            pass
        yield
