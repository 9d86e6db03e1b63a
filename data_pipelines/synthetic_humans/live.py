"""`synthetic_humans/live`: scenes drawn on the host, pictures rendered on the device while training; no files."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from data_pipelines.prepared import PoseDataset
from data_pipelines.synthetic_humans.frames import to_uint8
from data_pipelines.synthetic_humans.people import sample_person, stack_people
from data_pipelines.synthetic_humans.render import Scene, render_batch, render_batch_with_parts
from data_pipelines.synthetic_humans.scenes import Views, camera_ring, make_scenes, stack_cameras
from data_pipelines.synthetic_humans.sequences import (
    SyntheticSettings,
    family,
    sequences,
    split_subjects,
    subject_name,
)
from fusion_jax.geometry import root_relative, world_to_camera
from fusion_jax.skeletons import skeleton

_SKELETON = skeleton("human36m17")
_TOGETHER = 128  # views drawn by one generator; fewer at once cost more for each


class LiveSplit:
    """A bank of poses; each is shown by a new camera, in a new room and light, whenever it is asked for.

    `split[i]` is the i-th pose seen in the way that belongs to i, so evaluation always sees the same pictures;
    `batch` draws new ones. Both give samples as the loader's, with a `scene` in the place of the image.
    """

    def __init__(self, split: str, settings: SyntheticSettings):
        self._settings, self._number = settings, ("train", "validation", "test").index(split)
        numbers = split_subjects(settings.num_subjects)[split]
        self._people = {subject_name(n): sample_person(settings.seed, n) for n in numbers}
        self._poses: list[np.ndarray] = []
        self._labels: list[dict[str, Any]] = []
        for sequence in sequences(settings, split, None):
            name = f"{sequence.subject}/{sequence.name}"
            for frame, joints in enumerate(sequence.joints_mm):
                self._poses.append(joints)
                self._labels.append(
                    {"subject": sequence.subject, "action": sequence.action, "sequence": name, "frame": frame}
                )

    def __len__(self) -> int:
        return len(self._poses)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng((self._settings.seed, self._number, int(index)))
        batch, views = self._seen([int(index)], rng)
        labels = {"head_size_px": views.head_size_px[0], **self._labels[int(index)]}
        return {**jax.tree.map(lambda field: field[0], batch), **labels}

    def batch(self, indices: Any, rng: np.random.Generator) -> dict[str, Any]:
        """A batch of the poses at `indices` (B,) from random cameras."""
        return self._seen(indices, rng)[0]

    def part(self, indices: Any, rng: np.random.Generator, own: slice) -> dict[str, Any]:
        """The rows `own` of a new batch of the poses at `indices` (B,): a process draws little beside what it owns.

        Drawn in groups, each by a generator of its own, those of which nothing is owned left out.
        """
        starts = range(0, len(indices), _TOGETHER)
        rngs = [rng] if len(starts) == 1 else [np.random.default_rng(s) for s in rng.integers(2**63, size=len(starts))]
        parts = []
        for start, group_rng in zip(starts, rngs, strict=True):
            rows = slice(max(0, own.start - start), max(0, own.stop - start))
            group = indices[start : start + _TOGETHER]
            if rows.start < len(group) and rows.stop > 0:
                parts.append(jax.tree.map(lambda field, rows=rows: field[rows], self.batch(group, group_rng)))
        return parts[0] if len(parts) == 1 else jax.tree.map(lambda *fields: np.concatenate(fields), *parts)

    def _seen(self, indices: Any, rng: np.random.Generator) -> tuple[dict[str, Any], Views]:
        """`batch`, and the views that it is of."""
        joints = np.stack([self._poses[int(i)] for i in indices])
        people = stack_people([self._people[self._labels[int(i)]["subject"]] for i in indices])
        cameras = stack_cameras([camera_ring(rng, 1)[0] for _ in indices])
        scenes, views = make_scenes(people, joints, cameras, self._settings.size, rng)
        pose = root_relative(world_to_camera(joints, views.camera), _SKELETON.root_indices)
        known = np.ones(joints.shape[:2], bool)
        batch = {
            "scene": scenes,
            "joints2d": views.joints2d,
            "valid2d": known,
            "pose_mm": pose.astype(np.float32),
            "valid": known,
        }
        return batch, views


@functools.partial(jax.jit, static_argnames="size")
def pictures(scenes: Scene, size: int) -> jax.Array:
    """Pictures (B, size, size, 3) uint8 of a batch of scenes."""
    return to_uint8(render_batch(scenes, size))


@functools.partial(jax.jit, static_argnames="size")
def pictures_and_parts(scenes: Scene, size: int) -> tuple[jax.Array, jax.Array]:
    """`pictures`, and their label maps (B, size, size) uint8 of body parts."""
    drawn, parts = render_batch_with_parts(scenes, size)
    return to_uint8(drawn), parts


def open_live(image_size: int, seed: int, num_subjects: int = 64) -> PoseDataset:
    """The live dataset: more people than the prepared one has, a camera and a room of its own for every picture."""
    settings = SyntheticSettings(size=image_size, num_subjects=num_subjects, seed=seed)
    numbers = split_subjects(num_subjects)
    return PoseDataset(
        name="synthetic_humans/live",
        skeleton=_SKELETON,
        image_size=image_size,
        splits={split: LiveSplit(split, settings) for split in numbers},
        subjects={split: [subject_name(n) for n in members] for split, members in numbers.items()},
        description={
            "frames": f"{settings.frames} of each sequence at {settings.fps:g} fps",
            "cameras": "one for each picture, drawn anew",
            "motion": "procedural actions",
        },
        family=family(seed),
        fingerprint=f"live-{image_size}px-{num_subjects}s-seed{seed}",
        render=functools.partial(pictures, size=image_size),
        render_with_parts=functools.partial(pictures_and_parts, size=image_size),
        offers=("parts",),
    )
