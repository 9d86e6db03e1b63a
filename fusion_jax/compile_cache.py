"""Compiled programs kept on disk, so that a command that was run before compiles nothing when it is run again.

JAX's own persistent cache, set up through JAX's own variables before JAX is imported, and only by the program
`fusion-jax`: whoever imports the package decides for themselves. It lies in $XDG_CACHE_HOME/fusion-jax/xla, by default
~/.cache/fusion-jax/xla. JAX_COMPILATION_CACHE_DIR puts it elsewhere and leaves its size to JAX;
JAX_ENABLE_COMPILATION_CACHE=false turns it off. The files are code that is run: keep others from writing there.

JAX looks a program up by the program itself, its compile options, XLA's flags, the version of jaxlib and a fingerprint
of the devices. Nothing promises that this fingerprint tells CPUs apart by their instructions, and code for one CPU can
stop with an illegal instruction on another. A home folder may be shared between machines, so each kind of CPU has a
folder of its own in there. A cached program is the very code that compiling gave, so its results are bit for bit the
same.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import platform
import re
import sys
import tempfile
import warnings
from collections.abc import Mapping, MutableMapping

MAX_BYTES = 512 * 1024**2
_JAX_COMPLAINT = re.compile(r"Error (reading|writing) persistent compilation cache entry for '([^']*)'")


def use_compilation_cache(environ: MutableMapping[str, str] = os.environ) -> pathlib.Path | None:
    """Tells JAX, which must not be imported yet, to keep compiled programs; returns the folder, None if none is used.

    What was used last stays, up to MAX_BYTES. A folder that cannot be written is said so once and not used.
    """
    folder = cache_folder(environ)
    if folder is None:
        return None
    environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # many small programs add up
    if "JAX_COMPILATION_CACHE_DIR" not in environ:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(bytes(1 << 20))
        except OSError as error:
            why = f"compiled programs cannot be kept in {folder} ({error.strerror}), so every start compiles them"
            print(f"warning: {why}; XDG_CACHE_HOME or JAX_COMPILATION_CACHE_DIR names another folder", file=sys.stderr)
            return None
        forget_oldest(folder, MAX_BYTES)
        environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    _complain_once(folder)
    return folder


def cache_folder(environ: Mapping[str, str] = os.environ) -> pathlib.Path | None:
    """Where the program keeps what JAX compiles; None where it is told to keep nothing."""
    if environ.get("JAX_ENABLE_COMPILATION_CACHE", "true").lower() in ("n", "no", "f", "false", "off", "0"):
        return None
    if "JAX_COMPILATION_CACHE_DIR" in environ:
        return pathlib.Path(environ["JAX_COMPILATION_CACHE_DIR"])
    return _user_cache(environ) / "fusion-jax" / "xla" / _cpu_kind()


def forget_oldest(folder: pathlib.Path, max_bytes: int) -> None:
    """Deletes the files that were read or written longest ago, until the others are at most `max_bytes` together.

    JAX can bound its cache itself, but then takes a lock to read, needs another package for it, and stops writing for
    good once a kill has left half an entry.
    """
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process tidies up too
            if path.is_file():
                about = path.stat()
                found.append((max(about.st_atime, about.st_mtime), about.st_size, path))
    kept = 0
    for _, size, path in sorted(found, reverse=True):
        kept += size
        if kept > max_bytes:
            path.unlink(missing_ok=True)


def _complain_once(folder: pathlib.Path) -> None:
    """JAX warns of every program that it cannot read or write, and goes on. One line is enough.

    Half an entry, as a kill or a full disk leaves it, would stay and be complained of for ever, so it is deleted.
    """
    show, told = warnings.showwarning, False

    def show_once(message, *args, **kwargs):
        nonlocal told
        found = _JAX_COMPLAINT.match(str(message))
        if found is None:
            return show(message, *args, **kwargs)
        with contextlib.suppress(OSError):
            for path in folder.glob(f"{found[2]}-*-cache"):
                path.unlink()
        if not told:
            print(f"warning: not all compiled programs are kept in {folder}: {message}", file=sys.stderr)
        told = True

    warnings.showwarning = show_once


def _user_cache(environ: Mapping[str, str]) -> pathlib.Path:
    """The folder for caches, by the XDG rules: a path that is not absolute counts as none."""
    given = pathlib.Path(environ.get("XDG_CACHE_HOME", ""))
    return given if given.is_absolute() else pathlib.Path(os.path.expanduser("~")) / ".cache"


def _cpu_kind() -> str:
    """A name for CPUs of the same model and instructions."""
    words = [platform.machine()]
    try:
        first_core = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        told = ("model name", "flags", "Features", "CPU implementer", "CPU part")
        words += [line for line in first_core if line.startswith(told)]
    except OSError:  # not Linux
        words += [platform.processor()]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]
