"""Signals before there is anything to save, and output that cannot be written."""

import io
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import small

from fusion_jax import cli, presets
from fusion_jax.checkpoint import Checkpoints
from fusion_jax.interrupt import stop_requests
from fusion_jax.lasting_output import lasting_output
from fusion_jax.stopping import TerminatedError, received, stoppable
from fusion_jax.work_folder import load_run

ROOT = pathlib.Path(__file__).parent.parent
ALONE = """
import os, pathlib, signal, sys
from fusion_jax.stopping import stoppable
pathlib.Path("stopped_here.py").write_text("import os, signal; os.kill(os.getpid(), signal.{signal}); x = 1")
with stoppable():
    {body}
"""


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, TerminatedError), (signal.SIGINT, KeyboardInterrupt)])
def test_t03_a_signal_before_the_first_step_stops_the_command(number, error):
    before = signal.getsignal(number)
    with pytest.raises(error), stoppable():
        try:
            os.kill(os.getpid(), number)
        except Exception:
            pytest.fail("nothing that goes on after errors may go on")
    assert signal.getsignal(number) is before and received() == []


def test_t03_a_signal_that_the_interpreter_dropped_stops_the_loop():
    with stoppable():
        with pytest.raises(TerminatedError):
            os.kill(os.getpid(), signal.SIGTERM)  # as if what it raised had been lost
        with stop_requests() as stop_requested:
            assert stop_requested(1) == signal.SIGTERM
    with stop_requests() as stop_requested:
        assert stop_requested(1) is None


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_t03_a_signal_while_modules_are_imported_has_its_code_too(tmp_path, name, code):
    """Raised in the middle of an extension's initialisation an error becomes another one, or aborts the process."""
    script = ALONE.format(signal=name, body="import stopped_here")
    done = run(script, tmp_path)
    assert done.returncode == code and done.stderr == f"fusion-jax: {cli.STOPPED}\n"


def test_a_fork_is_ended_as_usual(tmp_path):
    body = "pid = os.fork(); pid or os.kill(os.getpid(), signal.SIGTERM); print(os.WTERMSIG(os.waitpid(pid, 0)[1]))"
    assert run(ALONE.format(signal="SIGTERM", body=body), tmp_path).stdout == f"{int(signal.SIGTERM)}\n"


def run(script, folder):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])}
    return subprocess.run([sys.executable, "-c", script], cwd=folder, env=env, capture_output=True, text=True)


class Lost(io.StringIO):
    """A stream whose writes fail."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


@pytest.mark.parametrize("stream", ["full", "closed"])
def test_a_training_outlives_its_output(tmp_path, monkeypatch, stream):
    """A log on a full disk; a stream that is not there at all."""
    monkeypatch.setattr(presets, "with_overrides", lambda *args, **kwargs: small.config(strategy="image"))
    monkeypatch.setattr(sys, "stderr", Lost(OSError(28, "No space left on device")) if stream == "full" else None)
    options = ["--data-dir", str(small.data_dir()), "--workdir", str(tmp_path), "--log-every", "1"]
    assert cli.main(["train", *options]) == 0
    assert Checkpoints(tmp_path, load_run(tmp_path)[0]).steps == [6]


def test_lost_output_is_told_unless_its_reader_went_away(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Lost(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="standard output: No space"), lasting_output():
        print("a table")
    monkeypatch.setattr(sys, "stdout", Lost(BrokenPipeError()))
    with lasting_output():
        print("a table")
    with pytest.raises(KeyError), lasting_output():  # what happened in the block matters more
        print(os.environ["no such thing"])


@pytest.mark.parametrize("option", ["--workdir", "--data-dir"])
def test_a_folder_whose_name_is_not_utf8_is_refused_before_work_is_lost(tmp_path, capsys, option):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/w\xff")
    assert cli.main(["train", option, name]) == 2
    assert "is not UTF-8; rename it" in capsys.readouterr().err
