"""The options of commands that can run in several processes at once, and the one way in which they do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from fusion_jax.errors import UserError, check_field


@dataclasses.dataclass(frozen=True)
class Processes:
    """Several processes that work as one."""

    distributed: bool = False
    """Work in several processes, which all run this command and share --workdir. On a TPU pod, under Slurm, Open MPI
    and Kubernetes they find each other; elsewhere say who they are by the next three."""
    coordinator: str | None = None
    """HOST:PORT at which process 0 is reached: a free port of its machine."""
    num_processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """This process's number, from 0."""
    join_timeout: int | None = None
    """Seconds in which all processes have to come; none: 300."""

    def run(self, command: Callable[[], None]) -> None:
        """The command, once all processes are there. Raises UserError for options that do nothing or do not fit."""
        if not self.distributed:
            for name in ("coordinator", "num_processes", "process_id", "join_timeout"):
                if (value := getattr(self, name)) is not None:
                    option = f"--{name.replace('_', '-')} {value}"
                    raise UserError(f"{option} would do nothing: it is for --distributed; leave it away")
            return command()
        from fusion_jax.distributed import JOIN_S, joined

        timeout = JOIN_S if self.join_timeout is None else self.join_timeout
        check_field(timeout >= 1, "join_timeout", timeout, ">= 1")
        with joined(self.coordinator, self.num_processes, self.process_id, timeout):
            return command()
