"""Compiled programs kept on disk: where, how much, what spoils them, and that they compute what fresh ones do."""

import os
import pathlib
import subprocess
import sys

import pytest
import small

from fusion_jax import compile_cache
from fusion_jax.compile_cache import forget_oldest, use_compilation_cache

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def warnings_as_they_were(monkeypatch):
    monkeypatch.setattr(compile_cache.warnings, "showwarning", compile_cache.warnings.showwarning)


def test_the_folder_is_the_users_and_of_this_kind_of_cpu(tmp_path, monkeypatch):
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    folder = use_compilation_cache(environ)
    assert folder.parent == tmp_path / "fusion-jax" / "xla" and environ["JAX_COMPILATION_CACHE_DIR"] == str(folder)
    assert folder.stat().st_mode & 0o077 == 0 and not list(folder.iterdir())
    monkeypatch.setattr(compile_cache.platform, "machine", lambda: "another")
    assert use_compilation_cache({"XDG_CACHE_HOME": str(tmp_path)}) != folder
    monkeypatch.setenv("HOME", str(tmp_path))
    assert use_compilation_cache({"XDG_CACHE_HOME": "relative"}).is_relative_to(tmp_path / ".cache")


def test_a_folder_of_ones_own_and_none_at_all(tmp_path):
    own = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "own"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "2"}
    assert use_compilation_cache(own) == tmp_path / "own" and own["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "2"
    off = {"XDG_CACHE_HOME": str(tmp_path), "JAX_ENABLE_COMPILATION_CACHE": "False"}
    assert use_compilation_cache(off) is None and len(off) == 2 and not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_said_so(capsys):
    environ = {"XDG_CACHE_HOME": "/dev/null"}
    assert use_compilation_cache(environ) is None and "JAX_COMPILATION_CACHE_DIR" not in environ
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ") and "/dev/null/fusion-jax/xla" in line and "XDG_CACHE_HOME" in line


def test_the_oldest_are_forgotten(tmp_path):
    for age, name in enumerate("dbca"):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    os.utime(tmp_path / "a", (2e9, 1))  # written first, read last
    forget_oldest(tmp_path, 25)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "d"]


def test_a_cached_program_computes_the_same_bits_and_a_damaged_one_is_replaced(tmp_path):
    code = """
import pathlib, sys
from fusion_jax.compile_cache import use_compilation_cache
folder = use_compilation_cache()
import jax, numpy as np, small
jax.config.update("jax_num_cpu_devices", 2)
from fusion_jax.train import LoopOptions, train
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if name.endswith("/cache_hits") else None)
data, work = map(pathlib.Path, sys.argv[1:])
options = LoopOptions(show=False, eval_every=0)

def final(name):
    jax.clear_caches()
    hits.clear()
    state = train(small.config(steps=2, strategy="image"), data, work / name, options)
    return [np.asarray(x).tobytes() for x in jax.tree.leaves((state.params, state.opt_state))], len(hits)

fresh, few = final("fresh")
cached, many = final("cached")
assert fresh == cached and few == 0 and many >= 2, (few, many)

seven = jax.jit(lambda x: x + 6)
for _ in range(3):
    jax.clear_caches()
    assert seven(1) == 7
    entries = list(folder.glob("jit__lambda*-cache"))
    assert len(entries) == 1, entries
    entries[0].write_bytes(entries[0].read_bytes()[:-20])
"""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-c", code, small.data_dir(), tmp_path / "runs"],
        env={**environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    (line,) = run.stderr.splitlines()
    assert line.startswith("warning: ") and str(tmp_path) in line and "reading" in line
