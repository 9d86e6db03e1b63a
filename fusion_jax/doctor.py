"""What of this machine, this installation and its data works, and what to mend.

The checks that load JAX and other compiled code run in a process of their own, so that one that crashes or hangs is a
finding as any; the checks after it then run in another.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence

from fusion_jax import doctor_host
from fusion_jax.finding import Finding, run_check

PATIENCE_S = 300.0
"""After so long without a word a check counts as hanging."""
_MARK = "fusion-jax-doctor"  # begins the lines that count among what libraries print


@dataclasses.dataclass(frozen=True)
class Examined:
    """What to look at. Folders need not be there."""

    data_dir: pathlib.Path = pathlib.Path("data")
    workdir: pathlib.Path = pathlib.Path("runs")
    manual_dir: pathlib.Path | None = None
    """Files to prepare `dataset` from."""
    dataset: str | None = None


def diagnose(examined: Examined) -> Iterator[Finding]:
    """Every finding, as soon as it is there."""
    for name, check in _own_checks(examined):
        yield from run_check(name, check)
    yield from apart(list(_checks_apart(examined)), examined)


def _own_checks(examined: Examined) -> list[tuple[str, Callable]]:
    """Those that need the standard library alone."""
    host = doctor_host
    return [
        ("versions", host.versions),
        ("tested versions", host.tested_versions),
        ("memory", host.memory),
        ("data disk", lambda: host.disk("data", examined.data_dir)),
        ("work disk", lambda: host.disk("work", examined.workdir)),
        ("shared memory", host.shared_memory),
        ("compile cache", host.compile_cache),
        ("video", host.video),
    ]


def _checks_apart(examined: Examined) -> dict[str, Callable]:
    """Those that run in another process, by name; what they need is loaded when they run."""

    def data():
        from fusion_jax.doctor_data import prepared_data

        return prepared_data(examined.data_dir)

    def raw():
        from fusion_jax.doctor_data import raw_files

        assert examined.dataset is not None and examined.manual_dir is not None
        return raw_files(examined.dataset, examined.manual_dir)

    def with_jax(name: str, *args) -> Callable:
        def check():
            from fusion_jax import doctor_jax

            return getattr(doctor_jax, name)(*args)

        return check

    there = pathlib.Path(os.path.abspath(examined.workdir))
    while not there.exists() and there != there.parent:
        there = there.parent
    checks: dict[str, Callable] = {name: with_jax(name) for name in ("imports", "devices", "training")}
    checks |= {"checkpoint": with_jax("checkpoint", there), "data": data}
    return checks | ({"files": raw} if examined.manual_dir is not None else {})


def apart(
    names: Sequence[str],
    examined: Examined,
    command: Sequence[str] = (sys.executable, "-m", "fusion_jax.doctor"),
    patience_s: float = PATIENCE_S,
) -> Iterator[Finding]:
    """Findings of checks that run in other processes: of `command`, followed by what to look at and the checks' names.

    A process that dies or says nothing for patience_s is a problem of the check that it was at.
    """
    left = list(names)
    # So that a look at a machine that trains does not take its GPU's memory.
    env = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
    while left:
        at, begun = None, False
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                [*command, _to_text(examined), *left], stdout=subprocess.PIPE, stderr=errors, text=True, env=env
            )
            hung = threading.Event()
            assert process.stdout is not None
            with process, process.stdout:
                watch = _Watch(process, patience_s, hung)
                for line in process.stdout:
                    watch.heard()
                    if line.startswith(f"{_MARK} begin "):
                        at, begun = line.split()[2], True
                        left.remove(at)
                    elif line.startswith(f"{_MARK} found "):
                        yield Finding(**json.loads(line.removeprefix(f"{_MARK} found ")))
                    elif line.startswith(f"{_MARK} end "):
                        at = None
                watch.stop()
            code = process.returncode
            errors.seek(0)
            last = ([line.strip() for line in errors.read().splitlines() if line.strip()] or ["no more is known"])[-1]
        if at is not None or not begun:
            yield _died(at or "start", code, hung.is_set(), patience_s, last[:300])
        if not begun:  # another one would not begin either
            return


class _Watch:
    """Kills a process that is not heard of for too long."""

    def __init__(self, process: subprocess.Popen, patience_s: float, hung: threading.Event):
        self._process, self._patience_s, self._hung = process, patience_s, hung
        self._timer: threading.Timer | None = None
        self.heard()

    def heard(self) -> None:
        self.stop()
        self._timer = threading.Timer(self._patience_s, self._end)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self._hung.set()
        self._process.kill()


def _died(name: str, code: int, hung: bool, patience_s: float, last: str) -> Finding:
    if hung:
        advice = "another program may hold the device; end it, or try JAX_PLATFORMS=cpu fusion-jax doctor"
        return Finding(name, "problem", f"nothing was heard for {patience_s:.0f} s, so it was ended: {last}", advice)
    how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
    advice = "a compiled package does not fit this processor or system (install jaxlib again), or memory ran out"
    return Finding(name, "problem", f"the process died ({how}): {last}", advice)


def report_line(finding: Finding) -> str:
    """A finding for people to read."""
    advice = f"\n{'':26}-> {finding.advice}" if finding.advice else ""
    return f"{finding.status:8} {finding.name:16} {finding.text}{advice}"


def summary(findings: Sequence[Finding]) -> str:
    """The last line of a report."""
    problems, warnings = ([f.name for f in findings if f.status == kind] for kind in ("problem", "warning"))
    if problems:
        return f"{len(problems)} to mend: {', '.join(problems)}"
    return "nothing to mend" + (f"; look at {', '.join(warnings)}" if warnings else "")


def _to_text(examined: Examined) -> str:
    return json.dumps({k: None if v is None else str(v) for k, v in dataclasses.asdict(examined).items()})


def _from_text(text: str) -> Examined:
    told = json.loads(text)
    manual_dir = None if told["manual_dir"] is None else pathlib.Path(told["manual_dir"])
    return Examined(pathlib.Path(told["data_dir"]), pathlib.Path(told["workdir"]), manual_dir, told["dataset"])


def _say(line: str) -> None:
    print(line, flush=True)


def _run_apart(examined: Examined, names: Sequence[str]) -> None:
    """The other process: says which check begins and ends, and what it found."""
    checks = _checks_apart(examined)
    for name in names:
        _say(f"\n{_MARK} begin {name}")  # on a line of its own, whatever a library printed before
        for finding in run_check(name, checks[name]):
            _say(f"\n{_MARK} found {json.dumps(dataclasses.asdict(finding))}")
        _say(f"\n{_MARK} end {name}")


if __name__ == "__main__":
    _run_apart(_from_text(sys.argv[1]), sys.argv[2:])
