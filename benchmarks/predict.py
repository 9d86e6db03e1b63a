"""Prediction stage by stage, and whole: pictures and a video of a rendered person to files.

Networks that are not given are fresh ones of the presets: untrained weights take the same time.

python benchmarks/predict.py
"""

import contextlib
import dataclasses
import functools
import inspect
import itertools
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Literal
from unittest import mock

import cv2
import jax
import numpy as np
import tyro
from timing import header, measure

from data_pipelines.crops import encode_picture
from data_pipelines.synthetic_humans.footage import act, film
from data_pipelines.video import Video
from fusion_jax import predict, predict_stream, predictor
from fusion_jax.checkpoint import Checkpoints
from fusion_jax.config import Config
from fusion_jax.geometry import Camera
from fusion_jax.network_pair import NetworkPair
from fusion_jax.people import cut, find_people, person_crop, whole_picture_box
from fusion_jax.picture_input import read_photo
from fusion_jax.pictures import png_bytes
from fusion_jax.pose_record import PersonView
from fusion_jax.predict import predict_files
from fusion_jax.predict_pictures import picture_figure
from fusion_jax.predict_video import PoseVideo, compose_frame, frame_size
from fusion_jax.predictor import Predictor
from fusion_jax.presets import preset as named_preset
from fusion_jax.skeletons import skeleton
from fusion_jax.state import create_state
from fusion_jax.work_folder import DatasetRecord, save_run

Stage = Literal["decode", "detect", "crop", "heatmaps", "fusion", "png", "frame", "mp4", "pictures", "video"]
STAGES: tuple[Stage, ...] = (
    *("decode", "detect", "crop", "heatmaps", "fusion"),
    *("png", "frame", "mp4", "pictures", "video"),
)
SIZES = (640, 480), (1920, 1080)
FPS = 25.0
MP4_FRAMES = 24  # in one call of the stage mp4
WHOLE_RUNS = 4  # the first one compiles; the median of the others counts
# Where a whole run's time goes: what is called under which name, and what to call it.
PARTS: tuple[tuple[object, str, str], ...] = (
    *((predict, "read_photo", "decode"), (Video, "frames", "decode"), (predictor, "find_people", "detect")),
    *((predictor, "cut", "crop"), (predict, "cut", "page"), (predict, "write_page", "page")),
    *((NetworkPair, "heatmaps", "heatmaps"), (NetworkPair, "poses", "fusion")),
    *((predict, "picture_figure", "draw PNG"), (predict, "png_bytes", "draw PNG")),
    *((predict_stream, "compose_frame", "draw frame"), (PoseVideo, "write", "write MP4")),
    *((PoseVideo, "__exit__", "write MP4"),),
)


@dataclasses.dataclass(frozen=True)
class Args:
    """Time prediction."""

    workdir: pathlib.Path | None = None
    """Run of a fusion network; without it fresh weights of `preset`."""
    heatmap_workdir: pathlib.Path | None = None
    """Run of a 2D network; without it the fusion run's own, or fresh weights of `hourglass`."""
    preset: str = "tiny"
    hourglass: str = "hourglass-tiny"
    stages: tuple[Stage, ...] = STAGES
    pictures: int = 16
    """In the folder that is predicted as a whole."""
    frames: int = 48
    """Of the video."""
    batch_size: int = 8
    """People at a time."""
    repeats: int = 5
    """Of each stage; whole runs are repeated three times."""


def main(args: Args) -> None:
    print(header())
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        pose, heatmaps, untrained = args.workdir, args.heatmap_workdir, args.workdir is None
        if pose is None:
            pose = fresh_run(named_preset(args.preset), folder / "pose")
            heatmaps = heatmaps or fresh_run(named_preset(args.hourglass), folder / "hourglass")
        network = Predictor(pose, heatmaps, batch_size=args.batch_size)
        inputs, config = network.pair.heatmap_inputs, network.pair.config
        print(
            f"{config.preset} at {config.inputs.image_size} px; 2D network at {inputs.image_size} px, "
            f"heatmaps {inputs.heatmap_size} px" + "; untrained weights" * untrained
        )
        pictures = {size: rendered(size, args.pictures) for size in SIZES}
        if set(args.stages) - {"pictures", "video"}:
            print(f"{'each stage alone, one person a picture':46s}{'first s':>9s}{'ms a person':>13s}{'people/s':>10s}")
        for stage, what, people, function in alone(network, pictures, folder):
            if stage in args.stages:
                timing = measure(function, repeats=args.repeats)
                each = timing.median / people
                print(f"{f'{stage}, {what}':46s}{timing.first:9.2f}{each * 1e3:13.2f}{1 / each:10.1f}")
        if "pictures" in args.stages:
            path = write_pictures(folder / "pictures", pictures[SIZES[0]])
            whole("pictures", path, args.pictures, network, folder)
        if "video" in args.stages:
            path = write_video(folder / "walk.avi", pictures[SIZES[0]], args.frames)
            whole("frames", path, args.frames, network, folder)
    print(f"load at the end {os.getloadavg()[0]:.1f}")


def fresh_run(config: Config, workdir: pathlib.Path) -> pathlib.Path:
    """A work folder with untrained weights, as `train` would leave it."""
    workdir.mkdir()
    save_run(workdir, config, DatasetRecord("none", "", ""), [])
    checkpoints = Checkpoints(workdir, config)
    checkpoints.save(0, jax.jit(create_state, static_argnums=0)(config, jax.random.key(0)), 0)
    checkpoints.wait()
    checkpoints.close()
    return workdir


def rendered(size: tuple[int, int], count: int) -> list[np.ndarray]:
    """Pictures (H, W, 3) of (W, H) px of somebody who walks, two thirds as tall as the picture."""
    person, joints = act("walking", count, FPS, seed=0)
    joints[..., :2] -= joints[:, :1, :2]  # on the spot
    forward = np.array([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]])
    intrinsics = np.array([[1.8 * size[1], 0, (size[0] - 1) / 2], [0, 1.8 * size[1], (size[1] - 1) / 2], [0, 0, 1]])
    camera = Camera(forward, np.array([4700.0, 0, 900]), intrinsics, np.zeros(5))
    return list(film(person, joints, camera, size, seed=0))


def alone(
    network: Predictor, pictures: dict[tuple[int, int], list[np.ndarray]], folder: pathlib.Path
) -> Iterator[tuple[Stage, str, int, Callable]]:
    """(stage, what of, people in one call, the call) for every stage by itself."""
    pair = network.pair
    inputs, config = pair.heatmap_inputs, pair.config.inputs
    for (width, height), (image, *_) in pictures.items():
        path = folder / f"{width}.jpg"
        path.write_bytes(encode_picture(image))
        what = f"JPEG {width} x {height}, {path.stat().st_size / 1e3:.0f} kB"
        yield "decode", what, 1, functools.partial(read_photo, path)
        found = len(find_people(image))
        yield "detect", f"{width} x {height}, {found} found", 1, functools.partial(find_people, image)
        square = square_of(image)
        what = f"{square[2]:.0f} px of {width} x {height} -> {inputs.image_size} px"
        yield "crop", what, 1, functools.partial(cut, image, square, inputs.image_size)
    image = pictures[SIZES[0]][0]
    joints = skeleton(inputs.heatmap_skeleton).num_joints
    for count in sorted({1, network.batch_size}):
        crops = {size: cut(image, square_of(image), size) for size in (inputs.image_size, config.image_size)}
        yield "heatmaps", f"batch {count}", count, functools.partial(pair.heatmaps, [crops[inputs.image_size]] * count)
        maps = [np.zeros((inputs.heatmap_size, inputs.heatmap_size, joints), np.float32)] * count
        fused = [crops[config.image_size]] * count
        yield "fusion", f"batch {count}", count, functools.partial(pair.poses, fused, maps)
    for (width, height), images in pictures.items():
        views = network.look(network.find(images[0], [box_of(images[0])]))
        yield "png", f"of {width} x {height}", 1, functools.partial(draw_png, images[0], views)
        yield "frame", f"of {width} x {height}", 1, functools.partial(compose_frame, images[0], views, 30.0)
        turning = enumerate(itertools.islice(itertools.cycle(images), MP4_FRAMES))
        frames = [compose_frame(image, views, 2.0 * number) for number, image in turning]
        what = "{} x {}, {}".format(*frame_size(width, height), PoseVideo(folder / "a.mp4", (2, 2), FPS).codec)
        yield "mp4", what, len(frames), functools.partial(write_frames, folder / "a.mp4", frames)


def box_of(image: np.ndarray) -> np.ndarray:
    """The box of the person in the picture, or all of it where the detector finds none."""
    return next(iter(find_people(image)), whole_picture_box((image.shape[1], image.shape[0])))


def square_of(image: np.ndarray) -> np.ndarray:
    """The square that the networks see."""
    return person_crop(box_of(image), (image.shape[1], image.shape[0]))


def draw_png(image: np.ndarray, views: list[PersonView]) -> bytes:
    """A picture's PNG, as `predict_files` draws it."""
    return png_bytes(picture_figure(image, views), dpi=100)


def write_frames(path: pathlib.Path, frames: list[np.ndarray]) -> None:
    """An MP4, from opening the file to its end."""
    with PoseVideo(path, (frames[0].shape[1], frames[0].shape[0]), FPS) as video:
        for frame in frames:
            video.write(frame)


def write_pictures(folder: pathlib.Path, pictures: list[np.ndarray]) -> pathlib.Path:
    """A folder of JPEG files."""
    folder.mkdir()
    for number, image in enumerate(pictures):
        (folder / f"{number}.jpg").write_bytes(encode_picture(image))
    return folder


def write_video(path: pathlib.Path, pictures: list[np.ndarray], count: int) -> pathlib.Path:
    """An MPEG-4 video of `count` frames, the pictures again and again."""
    out = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, pictures[0].shape[1::-1])
    for image in itertools.islice(itertools.cycle(pictures), count):
        out.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    out.release()
    return path


def whole(unit: str, path: pathlib.Path, count: int, network: Predictor, folder: pathlib.Path) -> None:
    """Times `predict_files` and prints where the time of the run with the median time went."""
    runs = []
    for _ in range(WHOLE_RUNS):
        with tempfile.TemporaryDirectory(dir=folder) as out, taken_apart() as spent:
            began = time.perf_counter()
            outcome = predict_files([path], network, pathlib.Path(out), show=False)
            runs.append((time.perf_counter() - began, spent))
    (first, _), *rest = runs
    took, spent = sorted(rest, key=lambda run: run[0])[len(rest) // 2]
    people = outcome.people
    print(
        f"{count} {unit} of {SIZES[0][0]} x {SIZES[0][1]} px, {people} people: first run {first:.1f} s, then "
        f"{took:.1f} s; {count / took:.1f} {unit}/s, {people / took:.1f} people/s"
    )
    parts = sorted(spent.items(), key=lambda part: -part[1][0])
    parts.append(("all else", (took - sum(seconds for seconds, _ in spent.values()), 0)))
    for name, (seconds, calls) in parts:
        share, each = 100 * seconds / took, 1e3 * seconds / people
        print(f"  {name:14s}{share:6.1f} %{each:10.1f} ms a person" + f"{calls:6d} calls" * bool(calls))


@contextlib.contextmanager
def taken_apart() -> Iterator[dict[str, tuple[float, int]]]:
    """Within the block every call of `PARTS` is timed until its result is ready: part -> (seconds, calls)."""
    spent: dict[str, tuple[float, int]] = {}

    def note(part: str, began: float) -> None:
        seconds, calls = spent.get(part, (0.0, 0))
        spent[part] = seconds + time.perf_counter() - began, calls + 1

    def timed(function: Callable, part: str) -> Callable:
        def call(*args, **kwargs):
            began = time.perf_counter()
            try:
                return jax.block_until_ready(function(*args, **kwargs))
            finally:
                note(part, began)

        def steps(*args, **kwargs):
            read = timed(functools.partial(next, function(*args, **kwargs), None), part)
            while (item := read()) is not None:
                yield item

        return steps if inspect.isgeneratorfunction(function) else call

    with contextlib.ExitStack() as stack:
        for owner, name, part in PARTS:
            stack.enter_context(mock.patch.object(owner, name, timed(getattr(owner, name), part)))
        yield spent


if __name__ == "__main__":
    main(tyro.cli(Args))
