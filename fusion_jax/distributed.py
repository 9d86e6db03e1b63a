"""Several processes that work as one, as on a pod: joining, what they have to agree on, and leaving together.

Every process runs the same command. Without `joined` there is one process, and every function here is free. SIGTERM
and Ctrl-C are interrupt.py's.

Nothing waits without end:
- JOIN_S for all processes to come;
- HEARTBEAT_S for one that was killed, or whose machine is gone: jax's coordination service then ends the others
  (signal SIGABRT, exit code 134) and names it;
- LEAVE_S where a collective itself notices that a process is gone: PeerFailedError, with the next one's exit code;
- POLL_S + GRACE_S for one that stopped by an error of its own: the others say which, and exit with PEER_FAILED;
- LEAVE_S for the rest to notice that this one leaves;
- WRITE_S for process 0 to write what all of them worked out;
- SHUTDOWN_S for all to reach the end.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from fusion_jax.errors import PeerFailedError, UserError, exit_code
from fusion_jax.records import differences

JOIN_S, HEARTBEAT_S, POLL_S, GRACE_S, LEAVE_S, SHUTDOWN_S = 300, 60, 1.0, 5.0, 15, 60
WRITE_S = 3600
PEER_FAILED = PeerFailedError.exit_code
_OWN = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNIMPLEMENTED")
"""How errors of jax's runtime begin that starting again would only repeat, such as a device's full memory."""
_FAILED, _LEAVING, _WRITTEN = "fusion_jax/failed", "fusion_jax/leaving", "fusion_jax/written"
_EXPLICIT = "--coordinator HOST:PORT --num-processes N --process-id I"


@contextlib.contextmanager
def joined(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout_s: int = JOIN_S,
) -> Iterator[None]:
    """The block runs in all processes at once; before it none may have touched a device.

    Without arguments jax finds out who they are, on TPU pods, under Slurm, Open MPI or Kubernetes. With all three
    nothing is looked for, and every process sees all devices of its machine. An error that leaves the block ends the
    program soon after it was shown, with the error's `exit_code` (1 where it has none), so that no other process waits
    for this one.

    Args:
      coordinator: HOST:PORT at which process 0 listens and which all of them reach.
      num_processes: how many there are.
      process_id: this one's number, from 0.
      timeout_s: how long to wait for the others; then the program ends with code 2, as for bad input.

    Raises:
      UserError: no cluster was found, or the arguments do not fit together.
      PeerFailedError: in the place of an error of jax's runtime within a collective.
    """
    explicit = _check(coordinator, num_processes, process_id)
    with _giving_up(coordinator, timeout_s):
        try:
            jax.distributed.initialize(
                coordinator,
                num_processes,
                process_id,
                cluster_detection_method="deactivate" if explicit else None,
                initialization_timeout=timeout_s + 30,  # past it jax aborts the process, with no error to catch
                heartbeat_timeout_seconds=HEARTBEAT_S,
                shutdown_timeout_seconds=SHUTDOWN_S,
            )
        except (ValueError, TypeError, KeyError, RuntimeError, OSError) as error:
            raise UserError(_not_joined(error)) from error
    with _watching():
        try:
            yield
        except BaseException as error:
            if not collective_failed(error):
                _leave_by(error)
                raise
            first = (str(error).splitlines() or [""])[0][:300]
            failed = PeerFailedError(
                f"process {jax.process_index()}: a collective of all processes failed, most likely as another one is "
                f"gone: {first}; start all of them again"
            )
            _leave_by(failed)
            raise failed from error


def writes() -> bool:
    """Whether this process is the one that writes files that all share, and tells people what happens."""
    return jax.process_index() == 0


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """The block, in which process 0 writes for all: they leave it together, WRITE_S after the first at the latest.

    Without it the others would wait for process 0 at their end, where jax aborts all of them after SHUTDOWN_S.
    """
    yield
    if jax.process_count() > 1:
        _jax_state().client.wait_at_barrier(f"{_WRITTEN}/{next(_numbers)}", WRITE_S * 1000)


_numbers = itertools.count()  # a barrier's name counts once


def collective_failed(error: BaseException) -> bool:
    """Whether an error is one of jax's runtime that says most likely that another process is gone."""
    return (
        isinstance(error, jax.errors.JaxRuntimeError)
        and jax.process_count() > 1
        and ("Gloo" in str(error) or not str(error).startswith(_OWN))
    )


def check_agreed(what: Any) -> None:
    """Raises UserError, in every process, where they differ in some JSON data, naming what differs with both values."""
    if jax.process_count() == 1:
        return
    told = gather_rows({"data": np.array([json.dumps(what)])})["data"]
    for index, other in enumerate(told):
        if lines := differences(json.loads(str(told[0])), json.loads(str(other))):
            raise UserError(
                f"process 0 and process {index} do not agree on {'; '.join(lines)}. Give all of them the same command, "
                "the same data and a --workdir in a folder that they share"
            )


def gather_rows(rows: Mapping[str, np.ndarray], order_by: str | None = None) -> dict[str, np.ndarray]:
    """The rows of all processes, process after process, or in the order of one of the arrays.

    Args:
      rows: (N, ...) arrays by name, of the same names, types and further axes in every process; N may differ. Texts
        may differ in their length.
      order_by: name of an array (N,).
    """
    if jax.process_count() == 1:
        return dict(rows)
    names = sorted(rows)
    sizes = np.array([len(rows[names[0]]), *(rows[name].dtype.itemsize for name in names)], np.int32)
    sizes = np.asarray(multihost_utils.process_allgather(sizes))  # (processes, 1 + arrays)
    counts, longest = sizes[:, 0], int(sizes[:, 0].max())
    columns, types = [], []
    for name, bytes_each in zip(names, sizes[:, 1:].max(0), strict=True):
        value = rows[name]
        types.append(np.dtype(f"U{bytes_each // 4}") if value.dtype.kind == "U" else value.dtype)
        padded = np.zeros((longest, *value.shape[1:]), types[-1])
        padded[: len(value)] = value
        columns.append(padded.view(np.uint8).reshape(longest, -1) if value.ndim > 1 else _bytes(padded))
    # As bytes: a device would cut float64 to float32, and knows no texts.
    everything = np.asarray(multihost_utils.process_allgather(np.concatenate(columns, 1)))
    kept = np.concatenate([part[:count] for part, count in zip(everything, counts, strict=True)])
    ends = np.cumsum([column.shape[1] for column in columns])
    found = {}
    for name, kind, part in zip(names, types, np.split(kept, ends[:-1], 1), strict=True):
        found[name] = np.ascontiguousarray(part).view(kind).reshape(len(kept), *rows[name].shape[1:])
    order = slice(None) if order_by is None else np.argsort(found[order_by], kind="stable")
    return {name: found[name][order] for name in rows}


def preemption_service() -> bool:
    """Whether jax itself notices SIGTERM and tells all processes; its config can turn that off."""
    return jax.process_count() > 1 and bool(getattr(jax.config, "jax_enable_preemption_service", True))


def agreed_stop(step: int, received: int | None, every: int, sigterm: int) -> int | None:
    """The signal by which all processes stop after this same step, or None; all of them ask after every step.

    Args:
      step: steps done.
      received: the signal that this process was sent and jax's service does not look for.
      every: after so many steps they tell each other what they received.
      sigterm: what to answer where jax's service was told to stop.
    """
    if preemption_service() and multihost_utils.reached_preemption_sync_point(step):
        return sigterm
    if step % every:
        return None
    return int(np.max(multihost_utils.process_allgather(np.int32(received or 0)))) or None


def _bytes(values: np.ndarray) -> np.ndarray:
    """(N,) of any type to (N, bytes of one)."""
    return values[:, None].view(np.uint8)


def _check(coordinator: str | None, num_processes: int | None, process_id: int | None) -> bool:
    """Whether it is said who the processes are. Raises UserError where only a part is, or it cannot be."""
    given = [value is not None for value in (coordinator, num_processes, process_id)]
    if not any(given):
        return False
    if coordinator is None or num_processes is None or process_id is None:
        raise UserError(f"either nothing or all three have to say who the processes are: {_EXPLICIT}")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"--coordinator is {coordinator!r}, expected HOST:PORT, a free port of process 0's machine")
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process-id is {process_id} of --num-processes {num_processes}, expected 0 to {num_processes - 1}; give "
            "each process a number of its own"
        )
    return True


def _not_joined(error: Exception) -> str:
    if isinstance(error, ValueError) and "should be defined" in str(error):
        return (
            "--distributed found no cluster: expected a TPU pod, Slurm's srun, Open MPI's mpirun or an indexed job of "
            'Kubernetes with pip install "jax[k8s]"; start it there, or say who the processes are: ' + _EXPLICIT
        )
    return f"--distributed cannot join the other processes: {error}\nElse say who they are: {_EXPLICIT}"


@contextlib.contextmanager
def _giving_up(coordinator: str | None, timeout_s: int) -> Iterator[None]:
    """Ends the program with code 2 where the block takes longer: jax would end it by SIGABRT and name nothing."""

    def give_up() -> None:
        address = coordinator or _jax_state().coordinator_address or "unknown"
        host, _, port = address.rpartition(":")
        answers = False
        with contextlib.suppress(OSError, ValueError), socket.create_connection((host, int(port)), 3):
            answers = True
        why = (
            "process 0 answers there, so others have not come: start all of them within that time, with the same number"
            if answers
            else "nobody answers there: is process 0 running, is this its address, is the port open between machines?"
        )
        told = f"the processes were not all there after {timeout_s} s; coordinator {address}: {why}"
        _exit(2, f"fusion-jax: {told}")

    timer = threading.Timer(timeout_s, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def _watching() -> Iterator[None]:
    """While the block runs, the program ends soon after another process has said that it failed.

    This one may wait for the other within a collective, where no exception reaches it, so a thread has to look.
    """
    ended, client = threading.Event(), _jax_state().client

    def watch() -> None:
        while not ended.wait(POLL_S):
            with contextlib.suppress(Exception):  # the key is not there, or the service is not: then jax ends us
                told = client.key_value_try_get(_FAILED)
                if not ended.wait(GRACE_S):  # all of them may have met the same error; then each shows its own
                    _wait_for_others(client)
                    _exit(PEER_FAILED, f"fusion-jax: stopped, because another process failed: {told}")

    if jax.process_count() > 1:
        threading.Thread(target=watch, name="other processes", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _leave_by(error: BaseException) -> None:
    """Tells the others that this process ends by an error, and makes it end at once when the interpreter does.

    jax's own end waits for all processes to reach it, and those may wait for this one.
    """
    client = _jax_state().client
    code = error.code if isinstance(error, SystemExit) else exit_code(error)
    first = (str(error).splitlines() or [""])[0][:300]
    told = f"process {jax.process_index()}: {type(error).__name__}: {first}"

    def end() -> None:
        with contextlib.suppress(Exception):  # another one may have told before; or the service is gone
            client.key_value_set(_FAILED, told)
        _wait_for_others(client)
        _exit(code if isinstance(code, int) else 1)

    atexit.register(end)  # the last one registered runs first, so before jax's


def _wait_for_others(client: Any) -> None:
    """Until all are about to leave, LEAVE_S at most: the service ends with process 0, and aborts who is still there."""
    if jax.process_count() > 1:
        with contextlib.suppress(Exception):
            client.wait_at_barrier(_LEAVING, LEAVE_S * 1000)
        if writes():
            time.sleep(1)  # its answer is still on the way to the others


def _exit(code: int, message: str = "") -> None:
    if message:
        print(message, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _jax_state() -> Any:
    """Where jax keeps its coordination service. No public function leads to its keys and barriers; Orbax does alike."""
    from jax._src import distributed

    return distributed.global_state
