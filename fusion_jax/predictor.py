"""From a picture in memory to the poses of the people in it: find, cut, heatmaps, fusion, back to the picture's px."""

from __future__ import annotations

import functools
import pathlib
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fusion_jax import sharding
from fusion_jax.batch import Batch
from fusion_jax.checkpoint import load_run, restore_run, weights_digest
from fusion_jax.config import HeatmapConfig
from fusion_jax.errors import UserError, check_field
from fusion_jax.geometry import apply_affine, crop_matrix, root_relative, square_box
from fusion_jax.heatmap_net import check_net_fits, open_heatmap_net, reopen_heatmap_net
from fusion_jax.heatmap_steps import heatmap_predict_step
from fusion_jax.heatmaps import decode_heatmaps
from fusion_jax.inputs import predict_heatmaps
from fusion_jax.people import MARGIN, MOST_BOXES, check_box, cut, find_people, person_crop, whole_picture_box
from fusion_jax.place import KnownCamera, root_position_mm
from fusion_jax.pose_record import BoxSource, PersonPose, PersonView
from fusion_jax.skeletons import skeleton
from fusion_jax.state import TrainState, heatmap_network_variables
from fusion_jax.steps import predict_step

_SURE = 0.25  # confidence from which a joint counts for finding the crop anew
_JOINTS_MARGIN = 0.16
"""Share of the square around somebody's joints added at each side: flesh beyond the joints and people.MARGIN together,
the middle of what the synthetic people are trained with."""


_AS_GIVEN = HeatmapConfig()


class Person(NamedTuple):
    """Somebody to be looked at.

    Attributes:
      image: (H, W, 3) uint8, RGB.
      box: (4,) [x, y, width, height] px, edges.
      source: who says so.
    """

    image: np.ndarray
    box: np.ndarray
    source: BoxSource


class Predictor:
    """A fusion network and a 2D network, loaded once, for any number of pictures.

        people = Predictor("runs/demo/learned", "runs/demo/hourglass")(fusion_jax.read_photo("photo.jpg"))
        people[0].pose_mm, people[0].joints2d_px

    Attributes:
      config: of the fusion network's run.
      pose_network, heatmap_network: which weights, in words; every result carries them.
      heatmap_skeleton: layout of the 2D joints.
      batch_size: people at a time.
      settings: what else changes the results, as plain JSON data.
      notes: what a reader of the results has to know, a sentence each.
    """

    def __init__(
        self,
        workdir: pathlib.Path | str,
        heatmap_workdir: pathlib.Path | str | None = None,
        *,
        batch_size: int = 8,
        camera: KnownCamera | None = None,
        detect: bool = True,
        refine: bool = True,
    ):
        """Loads the networks.

        Args:
          workdir: of a run of a fusion network.
          heatmap_workdir: of a run of a 2D network; None for the one that the run was trained with.
          batch_size: people at a time. Batches are filled up to it, so that nothing is compiled twice.
          camera: of the pictures; with it people's absolute positions are worked out.
          detect: whether to look for people where no box is given; else the whole picture is taken for one.
          refine: whether the crop of a box that nobody gave is set anew around the joints seen in it, and looked at
            again.

        Raises:
          UserError: a folder without a finished run, no 2D network, or two networks that do not go together.
        """
        check_field(1 <= batch_size <= 4096, "batch_size", batch_size, "in [1, 4096]")
        self.batch_size, self._camera, self._detect, self._refine = batch_size, camera, detect, refine
        self.settings: dict[str, Any] = {"detect": detect, "refine": refine, "camera": _camera_numbers(camera)}
        workdir = pathlib.Path(workdir)
        self.config, _ = load_run(workdir)
        mesh = sharding.data_mesh(jax.local_devices()[:1])
        if self.config.task == "heatmaps":
            raise UserError(
                f"{workdir} holds a 2D network; give it as --heatmap-workdir, and a fusion network's run as --workdir"
            )
        self._state = restore_run(workdir, self.config, mesh)
        self.pose_network = f"{workdir}, step {int(self._state.step)}, weights {weights_digest(self._state)}"
        self.notes: list[str] = []
        self._heatmap_state, self._heatmap_inputs, self.heatmap_network = self._open_heatmaps(heatmap_workdir, mesh)
        self.heatmap_skeleton = self._heatmap_inputs.heatmap_skeleton

    @property
    def shared(self) -> dict[str, str]:
        """What all people's records have in common, see `pose_record.NpzStream`."""
        return {
            "skeleton": self.config.inputs.skeleton,
            "heatmap_skeleton": self.heatmap_skeleton,
            "pose_network": self.pose_network,
            "heatmap_network": self.heatmap_network,
        }

    def _open_heatmaps(self, folder, mesh):
        source = self.config.heatmaps
        if source.in_step and source.net is not None:
            if folder is not None:
                raise UserError(
                    f"this run has its own 2D network within ({source.mode}); leave --heatmap-workdir {folder} away"
                )
            return None, source.net.inputs, f"within {self.pose_network}"
        if folder is not None:
            opened = open_heatmap_net(pathlib.Path(folder), mesh)
            if source.net is not None and opened.net.weights != source.net.weights:
                self.notes.append(
                    f"the fusion network was trained on heatmaps of {source.net.workdir} (weights "
                    f"{source.net.weights}) and is given those of {opened.identity}"
                )
        elif source.net is not None:
            opened = reopen_heatmap_net(source.net, mesh)
        else:
            raise UserError(
                f"the fusion network was trained on heatmaps from {source.source} joints, which a photo does not come "
                "with; give a 2D network: --heatmap-workdir RUN (made by fusion-jax train --task heatmaps)"
            )
        check_net_fits(self.config, opened)
        if source.source != "predicted":
            self.notes.append(
                f"the fusion network was trained on heatmaps from {source.source} joints and is given predicted ones, "
                "which it has never seen"
            )
        return opened.state, opened.config.inputs, opened.identity

    def __call__(self, image: np.ndarray, boxes: Sequence[np.ndarray] | None = None) -> list[PersonPose]:
        """The people in a picture (H, W, 3) uint8, RGB.

        Args:
          image: the picture, upright.
          boxes: (4,) [x, y, width, height] px, edges, one a person; None to look for people.

        Raises:
          UserError: the picture is none, a box is none, lies outside it or is the 1001st, it is of another size than
            the camera's pictures, or a network's weights are damaged.
        """
        return [view.pose for view in self.look(self.find(image, boxes))]

    def find(self, image: np.ndarray, boxes: Sequence[np.ndarray] | None = None) -> list[Person]:
        """Where to look in a picture: at the given boxes, at the people that the detector finds, or at all of it."""
        if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            what = f"{image.shape} {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
            raise UserError(f"a picture has to be (H, W, 3) uint8, RGB; got {what}")
        size = image.shape[1], image.shape[0]
        if self._camera is not None:
            self._camera.check_size("the picture", size)
        if boxes is not None:
            return [Person(image, box, "given") for box in _given_boxes(boxes, size)]
        found = find_people(image) if self._detect else []
        if found:
            return [Person(image, box, "detected") for box in found]
        return [Person(image, whole_picture_box(size), "picture")]

    def look(self, people: Sequence[Person]) -> list[PersonView]:
        """What the networks see in people, in the same order, also of different pictures."""
        squares = [_square(person) for person in people]
        seen = self._heatmaps([(p.image, square) for p, square in zip(people, squares, strict=True)])
        again = [
            place
            for place, person in enumerate(people)
            if self._refine and person.source != "given" and self._recrop(squares, place, seen[place])
        ]
        for place, better in zip(again, self._heatmaps([(people[i].image, squares[i]) for i in again]), strict=True):
            seen[place] = better
        return self._poses(people, squares, seen)

    def _recrop(self, squares: list[np.ndarray], place: int, seen: _Seen) -> bool:
        """Sets a square anew around the joints seen in it; False where too few are sure, or it would hardly change."""
        sure = seen.confidence >= _SURE
        if sure.sum() < len(sure) / 2:
            return False
        old = squares[place]
        joints = apply_affine(np.linalg.inv(crop_matrix(old, self._heatmap_inputs.image_size)), seen.joints_px)
        new = square_box(joints, _JOINTS_MARGIN, sure)
        moved = np.abs(new[:2] + new[2] / 2 - old[:2] - old[2] / 2).max() / old[2]
        if not 0.3 <= new[2] / old[2] <= 1.3 or (0.93 <= new[2] / old[2] <= 1.07 and moved < 0.03):
            return False
        squares[place] = new
        return True

    def _heatmaps(self, crops: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[_Seen]:
        size = self._heatmap_inputs.image_size
        found = []
        for chunk, count in _chunks([cut(image, square, size) for image, square in crops], self.batch_size):
            if self._heatmap_state is None:
                heatmaps = _own_heatmaps(self._state, {"image": chunk})
            else:
                heatmaps = _heatmaps(self._heatmap_state, {"image": chunk})
            _check_finite(np.asarray(heatmaps), self.heatmap_network)
            joints, peaks = _decode(heatmaps, size)
            rows = zip(chunk, *(np.asarray(value) for value in (heatmaps, joints, peaks)), strict=True)
            found += [_Seen(*row) for row in rows][:count]
        return found

    def _poses(self, people: Sequence[Person], squares: list[np.ndarray], seen: list[_Seen]) -> list[PersonView]:
        size = self.config.inputs.image_size
        crops = [
            one.crop if len(one.crop) == size else cut(person.image, square, size)
            for person, square, one in zip(people, squares, seen, strict=True)
        ]
        views: list[PersonView] = []
        chunks = zip(_chunks(crops, self.batch_size), _chunks([s.heatmap for s in seen], self.batch_size), strict=True)
        for (images, count), (heatmaps, _) in chunks:
            poses = np.asarray(_pose(self._state, {"image": images, "heatmap": heatmaps}))[:count]
            _check_finite(poses, self.pose_network)
            for pose in poses:
                place = len(views)
                views.append(self._view(people[place], squares[place], seen[place], pose))
        return views

    def _view(self, person: Person, square: np.ndarray, seen: _Seen, pose_mm: np.ndarray) -> PersonView:
        inputs = self.config.inputs
        layout, layout2d = skeleton(inputs.skeleton), skeleton(self._heatmap_inputs.heatmap_skeleton)
        to_picture = np.linalg.inv(crop_matrix(square, self._heatmap_inputs.image_size))
        joints = apply_affine(to_picture, seen.joints_px.astype(np.float64))
        pose_mm = root_relative(pose_mm, layout.root_indices)
        position = None
        if self._camera is not None:
            camera = self._camera.camera
            position = root_position_mm(
                pose_mm, layout, joints, layout2d, seen.confidence, camera.intrinsics, camera.distortion
            ).position_mm
        pose = PersonPose(
            skeleton=layout.name,
            pose_mm=pose_mm,
            heatmap_skeleton=layout2d.name,
            joints2d_px=joints,
            confidence=seen.confidence,
            box=person.box,
            box_source=person.source,
            crop=square,
            pose_network=self.pose_network,
            heatmap_network=self.heatmap_network,
            position_mm=position,
        )
        return PersonView(pose, seen.crop, seen.heatmap)


class _Seen(NamedTuple):
    """One crop (S, S, 3) uint8, its heatmaps (h, w, K), their joints (K, 2) px of the crop, and their peaks (K,)."""

    crop: np.ndarray
    heatmap: np.ndarray
    joints_px: np.ndarray
    confidence: np.ndarray


def _given_boxes(boxes: Sequence[np.ndarray], size: tuple[int, int]) -> list[np.ndarray]:
    """Boxes (4,) float64 of whatever was given for a picture of (width, height) px."""
    try:
        rows = [np.asarray(box, np.float64) for box in boxes]
    except (TypeError, ValueError, OverflowError):
        rows = [np.zeros(0)]
    if any(row.shape != (4,) for row in rows):
        raise UserError(f"boxes {reprlib.repr(boxes)}: expected a list of [x, y, width, height] in px, one a person")
    if len(rows) > MOST_BOXES:
        raise UserError(f"{len(rows)} boxes were given for a picture, expected at most {MOST_BOXES}")
    for row in rows:
        check_box(row, size)
    return rows


def _camera_numbers(known: KnownCamera | None) -> dict[str, Any] | None:
    if known is None:
        return None
    camera, size = known.camera, known.image_size
    numbers = {"intrinsics": camera.intrinsics.tolist(), "distortion": camera.distortion.tolist()}
    return numbers | {"image_size": None if size is None else list(size)}


def _check_finite(values: np.ndarray, network: str) -> None:
    if not np.isfinite(values).all():
        raise UserError(f"the network {network} gives numbers that are not finite; its weights are damaged, use others")


def _square(person: Person) -> np.ndarray:
    size = person.image.shape[1], person.image.shape[0]
    return person_crop(person.box, size, 0.0 if person.source == "picture" else MARGIN)


def _chunks(rows: list[np.ndarray], size: int) -> Iterator[tuple[np.ndarray, int]]:
    """(batch, how many of it are real): of `size`, filled up by repeating the last one, or of one where that is all.

    With two sizes alone, no number of people makes the networks compile more than twice.
    """
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield np.stack(part + [part[-1]] * (0 if len(rows) == 1 else size - len(part))), len(part)


@jax.jit
def _heatmaps(state: TrainState, batch: Batch) -> jax.Array:
    return heatmap_predict_step(state, batch)


@jax.jit
def _own_heatmaps(state: TrainState, batch: Batch) -> jax.Array:
    """Of the 2D network within a fusion network's state: as in training, without the mirrored picture."""
    net = state.heatmaps.net
    assert net is not None and state.heatmap_network is not None
    return predict_heatmaps(state.heatmap_network, heatmap_network_variables(state), batch["image"], net.inputs)


@functools.partial(jax.jit, static_argnums=1)
def _decode(heatmaps: jax.Array, image_size: int) -> tuple[jax.Array, jax.Array]:
    return decode_heatmaps(heatmaps, image_size)


@jax.jit
def _pose(state: TrainState, batch: Batch) -> jax.Array:
    # The heatmaps are there already, from whichever network: the state must not make them anew.
    return predict_step(state.replace(heatmap_network=None, heatmaps=_AS_GIVEN), batch)
