"""Photos and a clip to try prediction on: rendered people whom no training of the embedded dataset has seen."""

from __future__ import annotations

import pathlib

import numpy as np

from data_pipelines.synthetic_humans.footage import act, film
from fusion_jax.geometry import Camera, world_to_image
from fusion_jax.pictures import pixels_png
from fusion_jax.predict_video import PoseVideo
from fusion_jax.records import write_bytes, write_json

SIZE = (640, 480)
_FPS = 25.0
_FOCAL_PX = 560.0
_STRANGERS = 9_000  # seeds of people, far from those of the dataset's
_SCENES = (("walking", 3), ("gesturing", 1), ("phoning", 2), ("reaching", 5))  # action, which person
_CLIP = ("walking", 7, 75)  # action, which person, frames


def write_photos(folder: pathlib.Path) -> pathlib.Path:
    """Writes pictures and a video of people, camera.json and boxes.json into `folder`, unless they are there."""
    done = folder / "boxes.json"
    if done.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    boxes = {}
    for number, (action, who) in enumerate(_SCENES):
        person, joints = act(action, 8, 5.0, _STRANGERS + who)
        camera = _camera(0.4 * number - 0.5)
        joints = joints[4:5]
        (picture,) = film(person, joints, camera, SIZE, seed=_STRANGERS + number)
        name = f"{action}.png"
        write_bytes(folder / name, pixels_png(picture))
        boxes[name] = [_box(world_to_image(joints[0], camera))]
    action, who, frames = _CLIP
    person, joints = act(action, frames, _FPS, _STRANGERS + who)
    with PoseVideo(folder / "clip.mp4", SIZE, _FPS) as video:
        for picture in film(person, joints, _camera(0.2), SIZE, seed=_STRANGERS):
            video.write(picture)
    middle = [(side - 1) / 2 for side in SIZE]
    camera_file = {"fx": _FOCAL_PX, "fy": _FOCAL_PX, "cx": middle[0], "cy": middle[1], "image_size": list(SIZE)}
    write_json(folder / "camera.json", camera_file)
    write_json(done, boxes)  # last: where it stands, all is there
    return folder


def _camera(azimuth: float) -> Camera:
    """4.2 m away and 1.4 m high, looking at the middle of a person at the origin."""
    center = np.array([4200 * np.sin(azimuth), -4200 * np.cos(azimuth), 1400.0])
    forward = np.array([0, 0, 900.0]) - center
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    intrinsics = np.array([[_FOCAL_PX, 0, (SIZE[0] - 1) / 2], [0, _FOCAL_PX, (SIZE[1] - 1) / 2], [0, 0, 1]])
    return Camera(np.stack([right, np.cross(forward, right), forward]), center, intrinsics, np.zeros(5))


def _box(joints_px: np.ndarray, flesh: float = 0.07) -> list[float]:
    """[x, y, width, height] around joints (17, 2) px and the flesh beyond them, a share of the longer side."""
    low, high = joints_px.min(0), joints_px.max(0)
    around = flesh * float((high - low).max())
    return [round(float(v), 1) for v in (*(low - around), *(high - low + 2 * around))]
