"""From a picture in memory to the poses of the people in it: find, cut, heatmaps, fusion, back to the picture's px."""

from __future__ import annotations

import pathlib
import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fusion_jax.errors import UserError
from fusion_jax.geometry import apply_affine, crop_matrix, root_relative, square_box
from fusion_jax.network_pair import NetworkPair, Seen
from fusion_jax.people import MARGIN, MOST_BOXES, check_box, cut, find_people, person_crop, whole_picture_box
from fusion_jax.place import KnownCamera, Placement, root_position_mm
from fusion_jax.pose_record import BoxSource, PersonPose, PersonView
from fusion_jax.skeletons import skeleton

_SURE = 0.25  # confidence from which a joint counts for finding the crop anew
_JOINTS_MARGIN = 0.16
"""Share of the square around somebody's joints added at each side: flesh beyond the joints and people.MARGIN together,
the middle of what the synthetic people are trained with."""


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
      pair: the networks, and what they say of themselves.
      batch_size: people at a time.
      settings: what else changes the results, as plain JSON data.
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
        self.batch_size, self._camera, self._detect, self._refine = batch_size, camera, detect, refine
        self.settings: dict[str, Any] = {"detect": detect, "refine": refine, "camera": _camera_numbers(camera)}
        by = None if heatmap_workdir is None else pathlib.Path(heatmap_workdir)
        self.pair = NetworkPair(pathlib.Path(workdir), by, batch_size)

    @property
    def notes(self) -> list[str]:
        """What a reader of the results has to know, a sentence each."""
        return self.pair.notes

    @property
    def shared(self) -> dict[str, str]:
        """What all people's records have in common, see `pose_npz.NpzStream`."""
        pair = self.pair
        return {
            "skeleton": pair.config.inputs.skeleton,
            "heatmap_skeleton": pair.heatmap_inputs.heatmap_skeleton,
            "pose_network": pair.pose_network,
            "heatmap_network": pair.heatmap_network,
        }

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
        seen = self._see(people, squares)
        again = [
            place
            for place, person in enumerate(people)
            if self._refine and person.source != "given" and self._recrop(squares, place, seen[place])
        ]
        better = self._see([people[place] for place in again], [squares[place] for place in again])
        for place, one in zip(again, better, strict=True):
            seen[place] = one
        size = self.pair.config.inputs.image_size
        crops = [
            one.crop if len(one.crop) == size else cut(person.image, square, size)
            for person, square, one in zip(people, squares, seen, strict=True)
        ]
        poses = self.pair.poses(crops, [one.heatmap for one in seen])
        return [self._view(*row) for row in zip(people, squares, seen, poses, strict=True)]

    def _see(self, people: Sequence[Person], squares: Sequence[np.ndarray]) -> list[Seen]:
        size = self.pair.heatmap_inputs.image_size
        pairs = zip(people, squares, strict=True)
        return self.pair.heatmaps([cut(person.image, square, size) for person, square in pairs])

    def _recrop(self, squares: list[np.ndarray], place: int, seen: Seen) -> bool:
        """Sets a square anew around the joints seen in it; False where too few are sure, or it would hardly change."""
        sure = seen.confidence >= _SURE
        if sure.sum() < len(sure) / 2:
            return False
        old = squares[place]
        joints = apply_affine(np.linalg.inv(crop_matrix(old, self.pair.heatmap_inputs.image_size)), seen.joints_px)
        new = square_box(joints, _JOINTS_MARGIN, sure)
        moved = np.abs(new[:2] + new[2] / 2 - old[:2] - old[2] / 2).max() / old[2]
        if not 0.3 <= new[2] / old[2] <= 1.3 or (0.93 <= new[2] / old[2] <= 1.07 and moved < 0.03):
            return False
        squares[place] = new
        return True

    def _view(self, person: Person, square: np.ndarray, seen: Seen, pose_mm: np.ndarray) -> PersonView:
        shared = self.shared
        layout, layout2d = skeleton(shared["skeleton"]), skeleton(shared["heatmap_skeleton"])
        to_picture = np.linalg.inv(crop_matrix(square, self.pair.heatmap_inputs.image_size))
        joints = apply_affine(to_picture, seen.joints_px.astype(np.float64))
        pose_mm = root_relative(pose_mm, layout.root_indices)
        place = Placement(None)
        if self._camera is not None:
            camera = self._camera.camera
            place = root_position_mm(
                pose_mm, layout, joints, layout2d, seen.confidence, camera.intrinsics, camera.distortion
            )
        pose = PersonPose(
            skeleton=layout.name,
            pose_mm=pose_mm,
            heatmap_skeleton=layout2d.name,
            joints2d_px=joints,
            confidence=seen.confidence,
            box=person.box,
            box_source=person.source,
            crop=square,
            pose_network=shared["pose_network"],
            heatmap_network=shared["heatmap_network"],
            position_mm=place.position_mm,
        )
        return PersonView(pose, seen.crop, seen.heatmap, place.reason)


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


def _square(person: Person) -> np.ndarray:
    size = person.image.shape[1], person.image.shape[0]
    return person_crop(person.box, size, 0.0 if person.source == "picture" else MARGIN)
