"""The doctor's checks of what surrounds the program: versions, memory, disks, caches. The standard library alone."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import re
import sys
import tempfile

import fusion_jax
from fusion_jax import host_memory
from fusion_jax.compile_cache import cache_folder
from fusion_jax.finding import Finding

NAMED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")
"""Packages whose versions are always told."""
_CV = "opencv-contrib-python-headless"
_PROJECT = pathlib.Path(__file__).parent.parent
_SHM_BYTES = 512 * 2**20  # a worker holds about three batches there, 5 MB each for 128 pictures of 112 px


def versions(project: pathlib.Path = _PROJECT) -> Finding:
    """The packages that are there, and whether they are what pyproject.toml, or the installed package, asks for."""
    told = [f"python {platform.python_version()}", f"fusion-jax {fusion_jax.__version__}"]
    told += [f"{name} {_installed(name) or 'missing'}" for name in (*NAMED, _CV)]
    wrong, needed = [], []
    if sys.version_info < (3, 11):  # noqa: UP036  # whoever starts it from a checkout may have an older one
        return Finding("versions", "problem", told[0], "install Python 3.11 or newer, and the package with it")
    for name, least in _asked(project).items():
        have = _installed(name)
        if have is None:
            wrong.append(f"{name} is missing")
        elif _order(have) < _order(least):
            wrong.append(f"{name} is {have}, {least} or newer is needed")
        else:
            continue
        needed.append(f"'{name}>={least}'")
    if wrong:
        advice = f"pip install --upgrade {' '.join(needed)}"
        return Finding("versions", "problem", f"{'; '.join(wrong)}; {', '.join(told)}", advice)
    return Finding("versions", "ok", ", ".join(told))


def tested_versions(project: pathlib.Path = _PROJECT) -> Finding | list[Finding]:
    """Whether the packages are those of requirements.txt, with which the tests ran; nothing where it is not at hand."""
    path = project / "requirements.txt"
    if not path.exists():
        return []
    pinned = dict(line.strip().split("==") for line in path.read_text().splitlines() if "==" in line)
    asked = {_same(name) for name in (*_asked(project), *NAMED)}
    differ = [
        f"{name} {have} (tested {wanted})"
        for name, wanted in pinned.items()
        if _same(name) in asked and (have := _installed(name)) not in (None, wanted)
    ]
    if differ:
        advice = f"only if something is odd: pip install -r {path}"
        return Finding("tested versions", "warning", f"not those the tests ran with: {', '.join(differ)}", advice)
    return Finding("tested versions", "ok", "those the tests ran with (requirements.txt)")


def memory() -> Finding:
    """RAM that can still be had."""
    found = host_memory.ram()
    if found is None:
        return Finding("memory", "ok", "this system does not tell")
    text = f"{found.available / 1e9:.1f} of {found.total / 1e9:.1f} GB RAM free, {os.cpu_count()} cores"
    if found.available < 2e9:
        return Finding("memory", "warning", text, "2 GB are needed for the demo; end other programs")
    return Finding("memory", "ok", text)


def disk(what: str, folder: pathlib.Path) -> Finding:
    """Free space where a folder is, or would be made; whether it can be written."""
    name, free = f"{what} disk", host_memory.disk(folder).available
    text = f"{free / 1e9:.1f} GB free for {folder}"
    if problem := _unwritable(folder):
        if what == "data":  # which is read alone, once it is prepared
            return Finding(name, "warning", f"{text}; {problem}", "enough to train on what is there, not to prepare")
        return Finding(name, "problem", f"{text}; {problem}", "choose another folder, or change its permissions")
    if free < 5e8:
        return Finding(name, "problem", text, "free some space: a run of the smallest network takes 0.3 GB")
    if free < 1e10:
        return Finding(name, "warning", text, "four checkpoints of preset paper take 6 GB, Human3.6M's crops more")
    return Finding(name, "ok", text)


def shared_memory(folder: pathlib.Path = pathlib.Path("/dev/shm")) -> Finding:
    """Worker processes hand their batches over in shared memory; a container often has 64 MB of it."""
    advice = "train with --workers 0, or give more: docker run --shm-size=2g"
    if not folder.is_dir():
        return Finding("shared memory", "warning", f"there is no {folder}, which --workers needs", advice)
    free = host_memory.disk(folder).available
    text = f"{free / 1e6:.0f} MB free in {folder}, for --workers"
    return (
        Finding("shared memory", "warning", text, advice) if free < _SHM_BYTES else Finding("shared memory", "ok", text)
    )


def compile_cache(folder: pathlib.Path | None = None) -> Finding:
    """Whether compiled programs are kept."""
    name, folder = "compile cache", folder or cache_folder()
    if folder is None:
        advice = "unset JAX_ENABLE_COMPILATION_CACHE to keep them"
        return Finding(name, "ok", "turned off, so every start compiles its programs", advice)
    if problem := _unwritable(folder):
        advice = "XDG_CACHE_HOME or JAX_COMPILATION_CACHE_DIR names another folder"
        return Finding(name, "warning", f"{folder}: {problem}, so every start compiles its programs", advice)
    kept = [path for path in folder.rglob("*-cache")] if folder.is_dir() else []
    size = sum(path.stat().st_size for path in kept)
    return Finding(name, "ok", f"{len(kept)} programs, {size / 1e6:.0f} MB in {folder}")


def video() -> Finding:
    """Whether videos are written as H.264."""
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        text = "no ffmpeg: videos are read, and written as MPEG-4 part 2, which browsers do not play"
        return Finding("video", "ok", text, f"for H.264: {install('video')}")
    import imageio_ffmpeg

    return Finding("video", "ok", f"ffmpeg {imageio_ffmpeg.get_ffmpeg_version()}: videos are written as H.264")


def install(extra: str, project: pathlib.Path = _PROJECT) -> str:
    """The command that installs one of the package's extras, from where the package is."""
    place = project if (project / "pyproject.toml").exists() else "fusion-jax"
    return f"pip install {'-e ' if place == project else ''}'{place}[{extra}]'"


def _unwritable(folder: pathlib.Path) -> str:
    """Why no file can be made in a folder, or where it would be made; empty where one can."""
    there = pathlib.Path(os.path.abspath(folder))
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(bytes(4096))
    except OSError as error:
        return f"it cannot be written ({error.strerror})"
    return ""


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _asked(project: pathlib.Path) -> dict[str, str]:
    """The packages that have to be there, with their least versions."""
    path = project / "pyproject.toml"
    if path.exists():
        import tomllib

        lines = tomllib.loads(path.read_text())["project"]["dependencies"]
    else:
        lines = [line for line in importlib.metadata.requires("fusion-jax") or [] if "extra ==" not in line]
    matches = (re.match(r"([A-Za-z0-9._-]+)\s*>=\s*([0-9.]+)", line) for line in lines)
    return {found[1]: found[2] for found in matches if found}


def _order(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _same(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
