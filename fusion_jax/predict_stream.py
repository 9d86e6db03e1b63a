"""A video of any length to an MP4 with overlay and turning 3D, a line of JSON a frame, and one NPZ, in flat memory."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from data_pipelines.video import Video
from fusion_jax.errors import UserError
from fusion_jax.picture_input import Input
from fusion_jax.pose_record import NpzStream, PersonPose, PersonView
from fusion_jax.predict_video import PoseVideo, compose_frame, frame_size
from fusion_jax.predictor import Person, Predictor
from fusion_jax.smooth import OneEuro, Smoothed, Tracks

TURN_SECONDS = 8.0
"""The 3D view turns once in so long."""
_REMEMBERED = 15  # frames for which somebody the detector loses is looked for where they were
_FALLBACK_FPS = 25.0
_TALL_MM = 1900.0  # about what a crop's side is of a person's, to bring pixels to the filter's scale


def predict_video(
    one: Input,
    predictor: Predictor,
    out: pathlib.Path,
    boxes: Sequence[np.ndarray] | None,
    *,
    smooth: bool,
    key: dict[str, Any],
    show: bool = True,
) -> tuple[int, bool]:
    """Writes OUT/<stem>.mp4, .jsonl and .npz; returns (people found over all frames, whether it was done now).

    The first line of the .jsonl says what made it; a video that is done already in the same way is kept. An
    unfinished one starts anew.

    Args:
      one: the video.
      predictor: the networks.
      out: folder.
      boxes: (4,) px, where people are in every frame; None to look for them in each.
      smooth: whether to take jitter out, see `smooth.OneEuro`.
      key: what made it.
      show: a progress bar.

    Raises:
      UserError: the video cannot be read or holds no frame, or an output cannot be written.
    """
    log = out / f"{one.stem}.jsonl"
    kept = _kept(log, key, [out / f"{one.stem}.mp4", out / f"{one.stem}.npz"])
    if kept is not None:
        return kept, False
    with Video(one.path) as video:
        fps = video.fps or _FALLBACK_FPS
        frames: Iterator[np.ndarray] = (picture for _, picture in video.frames(itertools.count()))
        first = next(frames, None)
        if first is None:
            raise UserError(f"{one.path} holds no frame that can be decoded; it is cut off or of another kind")
        frames = itertools.chain([first], frames)
        shared = {"skeleton": predictor.config.inputs.skeleton, "heatmap_skeleton": predictor.heatmap_skeleton}
        shared |= {"pose_network": predictor.pose_network, "heatmap_network": predictor.heatmap_network}
        partial = log.with_name(f".{log.name}.partial")
        follower = Follower(fps, smooth)
        people = 0
        bar = tqdm(
            total=video.num_frames or None, desc=one.path.name, unit="frame", disable=not (show and sys.stderr.isatty())
        )
        try:
            with (
                bar,
                partial.open("w") as lines,
                NpzStream(out / f"{one.stem}.npz", **shared) as stream,
                PoseVideo(out / f"{one.stem}.mp4", frame_size(first.shape[1], first.shape[0]), fps) as writer,
            ):
                _line(lines, {"video": one.path.name, "fps": fps, "notes": predictor.notes, "made_by": key})
                for number, (image, views) in enumerate(predict_frames(frames, predictor, follower, boxes)):
                    writer.write(compose_frame(image, views, 360 * number / (fps * TURN_SECONDS)))
                    _line(lines, {"frame": number, "people": [view.pose.to_json() for view in views]})
                    for view in views:
                        stream.append(one.path.name, number, view.pose)
                    people += len(views)
                    bar.update()
                _line(lines, {"frames": number + 1, "people_in_all": people})
            os.replace(partial, log)  # last: where it stands, the video is done
        finally:
            partial.unlink(missing_ok=True)
    return people, True


def predict_frames(
    frames: Iterator[np.ndarray], predictor: Predictor, follower: Follower, boxes: Sequence[np.ndarray] | None = None
) -> Iterator[tuple[np.ndarray, list[PersonView]]]:
    """(picture, its people, numbered by who they are) for each of any stream of pictures, a batch of them at a time.

    Args:
      frames: (H, W, 3) uint8, RGB, in time's order; from a file, a camera, or anywhere.
      predictor: the networks.
      follower: remembers people between frames.
      boxes: where people are in every frame; None to look for them.
    """
    while batch := list(itertools.islice(frames, predictor.batch_size)):
        places: list[list[Person]] = []
        numbers: list[list[int]] = []
        for image in batch:
            found = follower.place(predictor.find(image, boxes))
            places.append(found)
            numbers.append(follower.number(found))
        views = iter(predictor.look(list(itertools.chain.from_iterable(places))))
        for image, tracks in zip(batch, numbers, strict=True):
            yield image, [follower.settle(next(views), track) for track in tracks]


class Follower:
    """What is remembered from frame to frame: who is where, and the filters of their joints. It does not grow."""

    def __init__(self, fps: float, smooth: bool):
        """`fps`: frames a second; `smooth`: whether `settle` takes jitter out."""
        self._dt, self._smooth = 1 / fps, smooth
        self._tracks = Tracks(max_missed=_REMEMBERED)
        self._last: list[np.ndarray] = []
        self._age = 0
        self._filters: dict[int, tuple[OneEuro, Smoothed, OneEuro, Smoothed]] = {}

    def place(self, people: list[Person]) -> list[Person]:
        """The same people; where nobody was found, those of the last frames in which somebody was, for a while."""
        if any(person.source == "picture" for person in people):
            self._age += 1
            if self._last and self._age <= _REMEMBERED:
                return [Person(people[0].image, box, "tracked") for box in self._last]
            return people
        self._last, self._age = [person.box for person in people], 0
        return people

    def number(self, people: Sequence[Person]) -> list[int]:
        """Who each of them is."""
        numbers = self._tracks.update(np.array([person.box for person in people]).reshape(-1, 4))
        self._filters = {n: state for n, state in self._filters.items() if n in self._tracks.numbers}
        return numbers

    def settle(self, view: PersonView, track: int) -> PersonView:
        """The person with their number and, if asked for, smoothed over the frames before."""
        pose = dataclasses.replace(view.pose, track=track)
        return view._replace(pose=self._smoothed(pose, track) if self._smooth else pose)

    def _smoothed(self, pose: PersonPose, track: int) -> PersonPose:
        known = self._filters.get(track)
        if known is None:
            in3d = OneEuro()
            in2d = OneEuro(beta=in3d.beta * _TALL_MM / pose.crop[2])  # so many mm are a pixel
            state3d, state2d = in3d.start(pose.pose_mm), in2d.start(pose.joints2d_px)
        else:
            in3d, state3d, in2d, state2d = known
            state3d = in3d.step(state3d, pose.pose_mm, self._dt)
            state2d = in2d.step(state2d, pose.joints2d_px, self._dt)
        self._filters[track] = (in3d, state3d, in2d, state2d)
        return dataclasses.replace(pose, pose_mm=state3d.values, joints2d_px=state2d.values)


def _line(file: Any, data: dict[str, Any]) -> None:
    print(json.dumps(data, allow_nan=False), file=file)


def _kept(log: pathlib.Path, key: dict[str, Any], others: Sequence[pathlib.Path]) -> int | None:
    """How many people were found in a video that was done before in the same way; None where it was not."""
    if not all(path.is_file() for path in (log, *others)):
        return None
    try:
        with log.open("rb") as file:
            first = json.loads(file.readline(10**6))
            file.seek(-min(log.stat().st_size, 200), os.SEEK_END)
            last = json.loads(file.read().splitlines()[-1])
        return int(last["people_in_all"]) if first["made_by"] == json.loads(json.dumps(key)) else None
    except (ValueError, KeyError, TypeError, OSError, IndexError):
        return None
