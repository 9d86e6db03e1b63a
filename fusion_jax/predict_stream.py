"""A video of any length to an MP4 with overlay and turning 3D, a line of JSON a frame, and one NPZ, in flat memory."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from data_pipelines.video import Video
from fusion_jax.errors import UserError
from fusion_jax.picture_input import Input
from fusion_jax.pose_npz import NpzStream
from fusion_jax.pose_record import PersonPose, PersonView, unplaced_notes
from fusion_jax.predict_video import PoseVideo, compose_frame, frame_size
from fusion_jax.predictor import Person, Predictor
from fusion_jax.records import one_line
from fusion_jax.smooth import OneEuro, Smoothed, Tracks

TURN_SECONDS = 8.0
"""The 3D view turns once in so long."""
_REMEMBERED = 15  # frames for which somebody the detector loses is looked for where they were
_FALLBACK_FPS, _LOWEST_FPS, _HIGHEST_FPS = 25.0, 0.1, 1000.0
_MOST_PIXELS = 40_000_000  # of a frame; a batch of larger ones would fill the memory
_TALL_MM = 1900.0  # about what a crop's side is of a person's, to bring pixels to the filter's scale


class VideoDone(NamedTuple):
    """What became of a video: people found over all frames, whether that was done now, what to know, a sentence each"""

    people: int
    fresh: bool
    notes: list[str]


def predict_video(
    one: Input,
    predictor: Predictor,
    out: pathlib.Path,
    boxes: Sequence[np.ndarray] | None,
    *,
    smooth: bool,
    key: dict[str, Any],
    show: bool = True,
) -> VideoDone:
    """Writes OUT/<stem>.mp4, .jsonl and .npz.

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
      UserError: the video cannot be read, holds no frame or too large ones, or an output cannot be written.
    """
    log = out / f"{one.stem}.jsonl"
    kept = _kept(log, key, [out / f"{one.stem}.mp4", out / f"{one.stem}.npz"])
    if kept is not None:
        return VideoDone(kept["people_in_all"], False, _cut_off(one, kept))
    with Video(one.path) as video:
        width, height = video.size
        if width * height > _MOST_PIXELS:
            raise UserError(
                f"{one.path} has frames of {width} x {height} px, more than {_MOST_PIXELS} px; make it smaller"
            )
        fps = min(max(video.fps or _FALLBACK_FPS, _LOWEST_FPS), _HIGHEST_FPS)
        frames: Iterator[np.ndarray] = (picture for _, picture in video.frames(itertools.count()))
        first = next(frames, None)
        if first is None:
            raise UserError(f"{one.path} holds no frame that can be decoded; it is cut off or of another kind")
        frames = itertools.chain([first], frames)
        log.unlink(missing_ok=True)  # first: a stop halfway must not leave the old mark beside new files
        partial = log.with_name(f".{log.name}.partial")
        follower = Follower(fps, smooth)
        people = 0
        bar = tqdm(
            total=max(0, video.num_frames) or None,
            desc=one_line(one.label),
            unit="frame",
            disable=not (show and sys.stderr.isatty()),
        )
        try:
            with (
                bar,
                partial.open("w") as lines,
                NpzStream(out / f"{one.stem}.npz", **predictor.shared) as stream,
                PoseVideo(out / f"{one.stem}.mp4", frame_size(first.shape[1], first.shape[0]), fps) as writer,
            ):
                _line(lines, {"video": one.label, "fps": fps, "notes": predictor.notes, "made_by": key})
                for number, (image, views) in enumerate(predict_frames(frames, predictor, follower, boxes)):
                    writer.write(compose_frame(image, views, 360 * number / (fps * TURN_SECONDS)))
                    people_in_it = [view.pose.to_json() for view in views]
                    _line(lines, {"frame": number, "people": people_in_it, "notes": unplaced_notes(views)})
                    for view in views:
                        stream.append(one.label, number, view.pose)
                    people += len(views)
                    bar.update()
                end = {"frames": number + 1, "people_in_all": people}
                if video.num_frames - end["frames"] > max(2, 0.01 * video.num_frames):
                    end["announced"] = video.num_frames
                _line(lines, end)
            os.replace(partial, log)  # last: where it stands, the video is done
        finally:
            partial.unlink(missing_ok=True)
    return VideoDone(people, True, _cut_off(one, end))


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
        for image in batch:
            places.append(follower.place(predictor.find(image, boxes)))
        views = iter(predictor.look(list(itertools.chain.from_iterable(places))))
        for image, found in zip(batch, places, strict=True):
            # Not before: numbers that a later frame lets go would take their filters with them.
            yield image, [follower.settle(next(views), track) for track in follower.number(found)]


class Follower:
    """What is remembered from frame to frame: who is where, and the filters of their joints. It does not grow."""

    def __init__(self, fps: float, smooth: bool):
        """`fps`: frames a second; `smooth`: whether `settle` takes jitter out."""
        self._dt, self._smooth = 1 / fps, smooth
        self._tracks = Tracks(max_missed=_REMEMBERED)
        self._last: list[np.ndarray] = []
        self._age = self._frame = 0
        self._filters: dict[tuple[int, str], tuple[int, OneEuro, Smoothed]] = {}  # with the frame of the last value

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
        """Who each of them is, in the next frame."""
        self._frame += 1
        numbers = self._tracks.update(np.array([person.box for person in people]).reshape(-1, 4))
        self._filters = {key: state for key, state in self._filters.items() if key[0] in self._tracks.numbers}
        return numbers

    def settle(self, view: PersonView, track: int) -> PersonView:
        """The person with their number and, if asked for, smoothed over the frames before."""
        pose = dataclasses.replace(view.pose, track=track)
        return view._replace(pose=self._smoothed(pose, track) if self._smooth else pose)

    def _smoothed(self, pose: PersonPose, track: int) -> PersonPose:
        in2d = OneEuro(beta=OneEuro.beta * _TALL_MM / pose.crop[2])  # so many mm are a pixel
        position = pose.position_mm
        if position is None:
            self._filters.pop((track, "position_mm"), None)
        else:
            position = self._filtered((track, "position_mm"), position, OneEuro())
        return dataclasses.replace(
            pose,
            pose_mm=self._filtered((track, "pose_mm"), pose.pose_mm, OneEuro()),
            joints2d_px=self._filtered((track, "joints2d_px"), pose.joints2d_px, in2d),
            position_mm=position,
        )

    def _filtered(self, key: tuple[int, str], values: np.ndarray, new: OneEuro) -> np.ndarray:
        """Smoothed values, by `new` where they are the first ones, else by the filter that began then."""
        known = self._filters.get(key)
        if known is None:
            used, state = new, new.start(values)
        else:
            frame, used, state = known
            state = used.step(state, values, self._dt * (self._frame - frame))
        self._filters[key] = self._frame, used, state
        return state.values


def _cut_off(one: Input, end: dict[str, int]) -> list[str]:
    """What a reader has to know by the last line of a video's .jsonl."""
    if "announced" not in end:
        return []
    told = f"{one.label}: {end['frames']} frames could be decoded of the {end['announced']} that the file announces"
    return [f"{told}; it is probably cut off or damaged"]


def _line(file: Any, data: dict[str, Any]) -> None:
    print(json.dumps(data, allow_nan=False), file=file)


def _kept(log: pathlib.Path, key: dict[str, Any], others: Sequence[pathlib.Path]) -> dict[str, int] | None:
    """The last line of a video that was done before in the same way; None where it was not."""
    if not all(path.is_file() for path in (log, *others)):
        return None
    try:
        with log.open("rb") as file:
            first = json.loads(file.readline(10**6))
            file.seek(-min(log.stat().st_size, 200), os.SEEK_END)
            last = json.loads(file.read().splitlines()[-1])
        whole = all(type(last[name]) is int for name in ("frames", "people_in_all", *last))
        return last if whole and first["made_by"] == json.loads(json.dumps(key)) else None
    except (ValueError, KeyError, TypeError, OSError, IndexError, RecursionError):
        return None
