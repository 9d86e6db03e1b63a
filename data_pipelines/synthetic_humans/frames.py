"""Sequences to rendered examples of `schema.pose_features`, in full batches so that one compiled program serves."""

from __future__ import annotations

import collections
import functools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np

from data_pipelines.synthetic_humans.render import Scene, joint_visibility, render_batch_with_parts
from data_pipelines.synthetic_humans.scenes import Views, camera_ring, make_scenes
from data_pipelines.synthetic_humans.sequences import Sequence, SyntheticSettings, rng_of
from fusion_jax.geometry import Camera

CAMERAS = 4
BATCH = 32
JPEG_QUALITY = 95
# Label maps are flat: measured at 64 px, without a filter they take half the bytes.
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]


class Shot(NamedTuple):
    """One frame before it is drawn: its scene (no batch axis), exact crop, and what the example says of it."""

    scene: Scene
    view: Views
    joints_mm: np.ndarray
    labels: dict[str, Any]


def shots(sequence: Sequence, settings: SyntheticSettings) -> Iterator[Shot]:
    """Every frame of a sequence from the subject's four cameras, each camera with light and room of its own."""
    subject = int(sequence.subject[1:])
    ring = camera_ring(rng_of(settings.seed, subject, "cameras"))
    for number, camera in enumerate(ring, start=1):
        rng = rng_of(settings.seed, subject, f"{sequence.name}/cam{number}")
        scenes, views = make_scenes(sequence.person, sequence.joints_mm, camera, settings.size, rng, one_room=True)
        for frame, joints_mm in enumerate(sequence.joints_mm):
            labels = {
                "camera_name": f"cam{number}",
                "subject": sequence.subject,
                "action": sequence.action,
                "sequence": f"{sequence.subject}/{sequence.name}",
                "frame": frame,
            }
            yield Shot(_row(scenes, frame), _row(views, frame), joints_mm, labels)


def examples(all_shots: Iterable[Shot], size: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """(unique key, example) of every shot, in order; drawing, encoding and the caller's writing overlap."""
    pending: collections.deque = collections.deque()
    with ThreadPoolExecutor(2) as pool:
        for batch in _batches(all_shots, BATCH):
            full = batch + [batch[-1]] * (BATCH - len(batch))
            scenes = jax.tree.map(lambda *rows: np.stack(rows), *(shot.scene for shot in full))
            joints = np.stack([shot.joints_mm for shot in full])
            pending.append((batch, draw(scenes, joints, size)))
            if len(pending) > 2:  # keeps the device busy while these are encoded and written
                yield from _finished(pending.popleft(), size, pool)
        while pending:
            yield from _finished(pending.popleft(), size, pool)


@functools.partial(jax.jit, static_argnums=2)
def draw(scenes: Scene, joints_mm: jax.Array, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What is seen of scenes and their world joints (B, 17, 3) mm.

    Returns:
      Pictures (B, size, size, 3) uint8, label maps of body parts (B, size, size) uint8, and which joints are in sight
      (B, 17) bool.
    """
    pictures, parts = render_batch_with_parts(scenes, size)
    return to_uint8(pictures), parts, jax.vmap(joint_visibility)(scenes, joints_mm)


def to_uint8(picture: jax.Array) -> jax.Array:
    """Pictures in [0, 1] as 0 .. 255."""
    return (jax.numpy.clip(picture, 0, 1) * 255 + 0.5).astype(jax.numpy.uint8)


def _finished(job: tuple[list[Shot], Any], size: int, pool: ThreadPoolExecutor) -> Iterator[tuple[str, dict[str, Any]]]:
    batch = job[0]
    pictures, parts, seen = (np.asarray(value)[: len(batch)] for value in job[1])
    for shot, jpeg, png, visible in zip(batch, pool.map(_jpeg, pictures), map(_png, parts), seen, strict=True):
        labels, joints2d = shot.labels, shot.view.joints2d
        inside = ((joints2d >= -0.5) & (joints2d <= size - 0.5)).all(-1)
        key = f"{labels['sequence']}/{labels['camera_name']}/{labels['frame']:06d}"
        camera = Camera(*(np.asarray(field, np.float64) for field in shot.view.camera))
        yield (
            key,
            {
                "image": jpeg,
                "parts": png,
                "joints_world_mm": shot.joints_mm.astype(np.float32),
                "joints2d_px": joints2d,
                "valid": np.ones(len(joints2d), bool),
                "valid2d": np.ones(len(joints2d), bool),
                "visible": visible & inside,
                "camera": {**camera._asdict(), "model": "perspective"},
                "head_size_px": np.float32(shot.view.head_size_px),
                "box": np.asarray(shot.view.box, np.float64),
                **labels,
            },
        )


def _jpeg(picture: np.ndarray) -> bytes:
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    if not done:
        raise RuntimeError("OpenCV could not encode a picture as JPEG")
    return data.tobytes()


def _png(parts: np.ndarray) -> bytes:
    done, data = cv2.imencode(".png", parts, _PNG)
    if not done:
        raise RuntimeError("OpenCV could not encode a label map as PNG")
    return data.tobytes()


def _batches(shots: Iterable[Shot], size: int) -> Iterator[list[Shot]]:
    batch = []
    for shot in shots:
        batch.append(shot)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _row(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda field: field[index], tree)
