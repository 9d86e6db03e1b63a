"""The doctor's checks that need JAX: imports, devices, two steps of training, a checkpoint."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
import os
import pathlib
import shutil
import tempfile
import time

from fusion_jax.doctor_host import install
from fusion_jax.finding import Finding

_IMPORTED = {
    **{"numpy": "numpy", "jax": "jax jaxlib", "flax": "flax", "optax": "optax", "orbax.checkpoint": "orbax-checkpoint"},
    **{"grain": "grain", "array_record": "array-record", "tensorflow_datasets": "tensorflow-datasets"},
    **{"cv2": "opencv-contrib-python-headless", "PIL": "pillow", "scipy": "scipy", "matplotlib": "matplotlib"},
}
"""Module: what pip calls it."""
_PER_DEVICE = 2  # examples of the trial steps


def imports() -> Finding:
    """Whether the packages that are there can be loaded: one built for another NumPy or system cannot."""
    began, broken, again = time.perf_counter(), [], []
    for name in _IMPORTED:
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken package raises anything
            broken.append(f"{name} ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]})")
            again.append(_IMPORTED[name])
    if broken:
        advice = f"install what is named first again: pip install --upgrade --force-reinstall {' '.join(again)}"
        return Finding("imports", "problem", f"cannot be loaded: {', '.join(broken)}", advice)
    return Finding("imports", "ok", f"all {len(_IMPORTED)} packages load, in {time.perf_counter() - began:.1f} s")


def devices(dev: pathlib.Path = pathlib.Path("/dev")) -> Finding:
    """What JAX computes on, and whether it overlooks a GPU or TPU."""
    import jax

    try:
        found = jax.devices()
    except RuntimeError as error:
        wanted = os.environ.get("JAX_PLATFORMS")
        told = f" (JAX_PLATFORMS={wanted})" if wanted else ""
        text = f"JAX starts no device{told}: {(str(error).splitlines() or [''])[0][:300]}"
        advice = (
            "see that JAX_PLATFORMS names what is there, that the driver works (nvidia-smi) and that no other program "
            "holds the device; JAX_PLATFORMS=cpu fusion-jax doctor tells whether the rest works"
        )
        return Finding("devices", "problem", text, advice)
    kinds = {device.device_kind for device in found}
    text = f"{len(found)} x {', '.join(sorted(kinds))} ({found[0].platform})"
    limit = (found[0].memory_stats() or {}).get("bytes_limit")
    text += f", {limit / 1e9:.1f} GB each for JAX" if limit else ""
    advice = _overlooked(dev) if found[0].platform == "cpu" else ""
    return Finding("devices", "warning" if advice else "ok", text, advice)


def _overlooked(dev: pathlib.Path) -> str:
    """What to do about an accelerator of this machine that JAX does not use; empty where there is none."""
    gpu = (dev / "nvidia0").exists() or shutil.which("nvidia-smi") is not None
    tpu = (dev / "accel0").exists()
    if not gpu and not tpu:
        return ""
    kind, extra = ("an NVIDIA GPU", "cuda") if gpu else ("an accelerator (/dev/accel0)", "tpu")
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return f"there is {kind}, and JAX_PLATFORMS=cpu hides it: unset JAX_PLATFORMS"
    plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin") if gpu else ("libtpu",)
    if not any(importlib.util.find_spec(name) for name in plugins):
        return f"there is {kind}, and JAX cannot use it yet: {install(extra)}"
    return (
        f"there is {kind} and JAX's package for it, but JAX did not start it: see whether the driver is new enough "
        f"(nvidia-smi), and whether pip list shows the same version for jaxlib and {plugins[0]}"
    )


def training() -> Finding:
    """Two steps of a small fusion network on noise, on all devices, as training runs them."""
    import dataclasses

    import jax

    from fusion_jax.batch import fake_batch
    from fusion_jax.network import Conv, Dense
    from fusion_jax.presets import two_streams, with_overrides
    from fusion_jax.sharding import data_mesh, global_batch, jit_train_step, replicated
    from fusion_jax.state import create_state

    mesh, small = data_mesh(), two_streams((Conv(8, 3), Dense(16, 0.5)))  # a preset would compile for a minute
    config = with_overrides("tiny", image_size=24, heatmap_size=24)
    config = dataclasses.replace(config, network=dataclasses.replace(config.fusion, streams=small))
    # Optimising a program that draws numbers once takes longer than it saves.
    quick = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
    create = jax.jit(functools.partial(create_state, config), out_shardings=replicated(mesh), compiler_options=quick)
    state, seconds, losses = create(jax.random.key(0)), [], []
    for seed in range(2):
        batch = global_batch(fake_batch(config, _PER_DEVICE * len(mesh.local_devices), seed), mesh)
        began = time.perf_counter()
        state, measured = jax.block_until_ready(jit_train_step(mesh)(state, batch))
        seconds.append(time.perf_counter() - began)
        losses.append(float(measured["loss"]))
    text = (
        f"two steps of a small network on {mesh.size} x {mesh.devices.flat[0].device_kind}: {seconds[0]:.2f} s with "
        f"compiling, then {seconds[1]:.3f} s; loss {losses[0]:.4g}, {losses[1]:.4g}"
    )
    if not all(map(math.isfinite, losses)) or int(state.step) != 2:
        advice = "the device or its driver computes wrongly: update both, and try JAX_PLATFORMS=cpu fusion-jax doctor"
        return Finding("training", "problem", text, advice)
    return Finding("training", "ok", text)


def checkpoint(folder: pathlib.Path | None = None) -> Finding:
    """A state of preset tiny is saved, read back and compared bit for bit; in a new folder in `folder`, or for /tmp."""
    import jax
    import numpy as np

    from fusion_jax.checkpoint import Checkpoints
    from fusion_jax.presets import preset
    from fusion_jax.sharding import data_mesh, replicated
    from fusion_jax.state import state_shapes

    config, mesh, rng = preset("tiny"), data_mesh(), np.random.default_rng(0)
    shapes = state_shapes(config)
    drawn = jax.tree.map(
        lambda leaf: rng.normal(0, 9, leaf.shape).astype(leaf.dtype), shapes.replace(rng=None)
    ).replace(rng=jax.random.key(7))
    state = jax.device_put(drawn, replicated(mesh))
    with tempfile.TemporaryDirectory(prefix=".fusion_jax_doctor_", dir=folder) as place:
        began, checkpoints = time.perf_counter(), Checkpoints(pathlib.Path(place), config)
        try:
            checkpoints.save(2, state, 2)
            checkpoints.wait()
            back, next_batch = checkpoints.restore(shapes, mesh)
        finally:
            checkpoints.close()
        seconds = time.perf_counter() - began
        size = sum(path.stat().st_size for path in pathlib.Path(place).rglob("*") if path.is_file())
        text = f"{size / 1e6:.0f} MB written to {pathlib.Path(place).parent} and read back in {seconds:.1f} s"
    pairs = zip(jax.tree.leaves(_plain(state)), jax.tree.leaves(_plain(back)), strict=True)
    if next_batch != 2 or not all(np.array_equal(a, b) for a, b in pairs):
        advice = "do not train there: test the disk, or choose another --workdir"
        return Finding("checkpoint", "problem", f"{text}, but not the same", advice)
    return Finding("checkpoint", "ok", f"{text}, the same bit for bit")


def _plain(state):
    import jax

    return jax.device_get(state.replace(rng=jax.random.key_data(state.rng)))
