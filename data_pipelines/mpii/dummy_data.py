"""A small MPII in the true formats, made up: our own rendered people, and every oddity of the annotation struct.

python -m data_pipelines.mpii.dummy_data FOLDER
"""

from __future__ import annotations

import io
import pathlib
import sys
import tarfile
import zipfile
from typing import Any, NamedTuple

import cv2
import numpy as np

from data_pipelines.crops import encode_picture
from data_pipelines.mpii.files import LABELS_ARCHIVE, LABELS_FILE, LABELS_FOLDER, PICTURES_ARCHIVE
from data_pipelines.mpii.splits import PUBLISHED_LIST, read_list
from data_pipelines.synthetic_humans.footage import act, film
from fusion_jax.geometry import Camera, world_to_image
from fusion_jax.skeletons import convert_joints, skeleton

SIZE = (320, 400)  # of a picture of one person; those of two are twice as wide
NUM_PICTURES = 36
MARKER = (255, 0, 255)  # RGB of the spot on the right wrist
WRIST = skeleton("mpii16").index("right_wrist")
CAMERA = Camera(
    np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]),
    np.array([-4600.0, 0, 1100]),
    np.array([[560.0, 0, 160], [0, 560, 190], [0, 0, 1]]),
    np.zeros(5),
)
_ACTS = ("walking", "waving", "boxing")

# What is odd about the people of a training or test picture, by 0-based index into annolist; '' for nothing.
QUIRKS: dict[int, tuple[str, ...]] = {
    1: ("",),
    2: ("", "one point"),
    3: (),  # nobody
    4: ("no points",),
    5: ("no scale",),
    6: ("", ""),  # the first is a test person
    7: ("text visibility",),
    8: ("no visibility",),
    9: ("scrambled",),
    10: ("no head box",),
    11: ("left edge",),
    12: ("missing joints", "whole numbers"),
    13: ("hidden",),
    14: ("empty points",),
    15: ("", "outside the picture"),
    16: ("no activity",),
    18: ("",),
    19: ("", ""),
    **{index: ("",) for index in (17, 27, 29, 30, 35)},  # test people
}


class TruthPerson(NamedTuple):
    """Somebody in a picture, as drawn: px of the full picture, (0, 0) the centre of its first pixel.

    Attributes:
      place: 0-based (annolist, annorect).
      image: file name.
      joints_mm: (17, 3) `human36m17`, world.
      camera: that filmed them; its principal point takes the place in the picture in.
      joints_px: (16, 2) `mpii16`, zeros where not labelled.
      labelled, visible: (16,).
      center, scale: as annotated, before the hourglass's correction.
      head_box: (4,) x1 y1 x2 y2, or None.
      quirk: a word of QUIRKS.
    """

    place: tuple[int, int]
    image: str
    joints_mm: np.ndarray
    camera: Camera
    joints_px: np.ndarray
    labelled: np.ndarray
    visible: np.ndarray
    center: np.ndarray
    scale: float
    head_box: np.ndarray | None
    quirk: str


class Truth(NamedTuple):
    """What was written: everybody drawn by place, and the names of the pictures of all annolist entries."""

    people: dict[tuple[int, int], TruthPerson]
    names: list[str]


def write_dummy(folder: pathlib.Path, *, archives: bool = False, markers: bool = False, origin: int = 1) -> Truth:
    """Writes images/ and the annotations into `folder`, or the two archives of the download.

    Args:
      archives: as the archives, nothing unpacked.
      markers: a spot on everybody's right wrist.
      origin: label of the first pixel's centre.
    """
    folder = pathlib.Path(folder)
    truth, pictures = _draw(markers)
    labels = labels_bytes(release(truth, origin))
    folder.mkdir(parents=True, exist_ok=True)
    if archives:
        with tarfile.open(folder / PICTURES_ARCHIVE, "w:gz") as packed:
            for name, data in pictures.items():
                entry = tarfile.TarInfo(f"images/{name}")
                entry.size = len(data)
                packed.addfile(entry, io.BytesIO(data))
        with zipfile.ZipFile(folder / LABELS_ARCHIVE, "w") as packed:
            packed.writestr(f"{LABELS_FOLDER}/{LABELS_FILE}", labels)
    else:
        (folder / "images").mkdir(exist_ok=True)
        for name, data in pictures.items():
            (folder / "images" / name).write_bytes(data)
        (folder / LABELS_FOLDER).mkdir(exist_ok=True)
        (folder / LABELS_FOLDER / LABELS_FILE).write_bytes(labels)
    return truth


def _draw(markers: bool) -> tuple[Truth, dict[str, bytes]]:
    """(everybody, the JPEG files by name)."""
    published = {listed.annolist_index: listed.image for listed in read_list(PUBLISHED_LIST)}
    names = [published.get(index, f"{900_000_000 + index}.jpg") for index in range(NUM_PICTURES)]
    places = [(index, place) for index, quirks in sorted(QUIRKS.items()) for place in range(len(quirks))]
    shots = _shots(len(places))
    people, pictures = {}, {}
    for index, quirks in sorted(QUIRKS.items()):
        strips = []
        for place in range(len(quirks)):
            strip, joints_mm = shots[places.index((index, place))]
            shift = np.array([[1, 0, place * SIZE[0]], [0, 1, 0], [0, 0, 1.0]])
            camera = CAMERA._replace(intrinsics=shift @ CAMERA.intrinsics)
            people[index, place] = _person((index, place), names[index], joints_mm, camera, quirks[place])
            strips.append(strip)
        picture = np.concatenate(strips, axis=1) if strips else np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
        for place in range(len(quirks)) if markers else ():
            x, y = (int(round(float(v) * 16)) for v in people[index, place].joints_px[WRIST])
            cv2.circle(picture, (x, y), 4 * 16, MARKER, -1, cv2.LINE_AA, 4)
        pictures[names[index]] = encode_picture(picture)
    return Truth(people, names), pictures


def _shots(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(picture, joints (17, 3) mm) of some moments."""
    each = -(-count // len(_ACTS))
    shots = []
    for seed, action in enumerate(_ACTS):
        person, joints = act(action, each, 2.0, seed)
        joints[..., :2] -= joints[:, :1, :2]  # each on the same spot, so that nobody leaves the picture
        shots += list(zip(film(person, joints, CAMERA, SIZE, seed), joints, strict=True))
    return shots[:count]


def _person(place: tuple[int, int], image: str, joints_mm: np.ndarray, camera: Camera, quirk: str) -> TruthPerson:
    mm = convert_joints(joints_mm, skeleton("human36m17"), skeleton("mpii16"))
    px = world_to_image(mm, camera)
    center, scale = px[[2, 3, 7]].mean(0), float(np.ptp(px[:, 1])) * 1.1 / 200
    half = 0.7 * np.linalg.norm(px[9] - px[8])
    middle = px[[8, 9]].mean(0)
    head_box = None if quirk == "no head box" else np.array([*(middle - half), *(middle + half)])
    labelled, visible = np.ones(16, bool), np.ones(16, bool)
    if quirk == "one point":
        labelled = np.arange(16) == WRIST
    elif quirk in ("no points", "empty points"):
        labelled = np.zeros(16, bool)
    elif quirk == "missing joints":
        labelled[[0, 5, 9]] = False
    elif quirk in ("hidden", "text visibility"):
        visible[[1, 4, 14]] = False
    elif quirk == "left edge":
        px[0, 0] = 0.0  # 1 as labelled
    elif quirk == "outside the picture":
        px[[0, 5], 1] = SIZE[1] + 10
    elif quirk == "whole numbers":
        px = np.round(px)
    px = np.where(labelled[:, None], px, 0)
    return TruthPerson(
        place, image, joints_mm, camera, px, labelled, visible & labelled, center, scale, head_box, quirk
    )


def release(truth: Truth, origin: int = 1) -> dict[str, Any]:
    """RELEASE for `savemat`: a scalar struct of struct and cell arrays, empty ones as MATLAB writes them."""
    pictures, apart, acts, train = [], [], [], []
    for index, name in enumerate(truth.names):
        people = [truth.people[index, place] for place in range(len(QUIRKS.get(index, ())))]
        if index in QUIRKS:
            rects = struct_array([_rect(person, origin) for person in people])
        else:  # the official test part: at most a rough place
            rects = struct_array([{"scale": 2.0, "objpos": {"x": 100.0, "y": 90.0}}] * (index % 3))
        pictures.append({"image": {"name": name}, "annorect": rects, "frame_sec": 1.0, "vidx": index + 1.0})
        apart.append(np.arange(1.0, len(people) + 1)[None] if len(people) != 1 else 1.0)
        quirks = QUIRKS.get(index, ())
        known = bool(quirks) and "no activity" not in quirks
        category, activity = ("walking", "walking, general") if known else (_EMPTY, _EMPTY)
        acts.append({"act_name": activity, "cat_name": category, "act_id": 1.0 if known else -1.0})
        train.append(index in QUIRKS)
    return {
        "annolist": struct_array(pictures),
        "img_train": np.array([train], np.uint8),
        "version": "12",
        "single_person": _cells(apart),
        "act": struct_array(acts).T,
        "video_list": _cells(["made_up"] * len(truth.names)).T,
    }


_EMPTY = np.zeros((0, 0))


def _rect(person: TruthPerson, origin: int) -> dict[str, Any]:
    rect: dict[str, Any] = {}
    box = person.head_box
    for number, name in enumerate(("x1", "y1", "x2", "y2")):
        rect[name] = _EMPTY if box is None else box[number] + origin
    if person.quirk == "no scale":
        rect |= {"scale": _EMPTY, "objpos": _EMPTY}
    else:
        x, y = person.center + origin
        rect |= {"scale": person.scale, "objpos": {"x": x, "y": y}}
    if person.quirk == "empty points":
        rect["annopoints"] = {"point": _EMPTY}
    elif person.quirk != "no points":
        rect["annopoints"] = {"point": struct_array(_points(person, origin))}
    return rect


def _points(person: TruthPerson, origin: int) -> list[dict[str, Any]]:
    order = np.flatnonzero(person.labelled)
    if person.quirk == "scrambled":
        order = np.random.default_rng(1).permutation(order)
    points = []
    for joint in order:
        x, y = person.joints_px[joint] + origin
        point = {"x": x, "y": y, "id": float(joint)}
        if person.quirk == "whole numbers":
            point = {"x": np.uint16(x), "y": np.uint16(y), "id": np.uint8(joint)}
        if person.quirk != "no visibility":
            seen = bool(person.visible[joint])
            point["is_visible"] = str(int(seen)) if person.quirk == "text visibility" else float(seen)
        if joint in (8, 9):
            point["is_visible"] = _EMPTY  # never told of the head
        points.append(point)
    return points


def struct_array(records: list[dict[str, Any]]) -> np.ndarray:
    """A (1, N) struct array for `savemat`; each record has all fields, those it lacks are empty. No record is []."""
    if not records:
        return _EMPTY
    names = list(dict.fromkeys(name for record in records for name in record))
    array = np.empty((1, len(records)), [(name, object) for name in names])
    for number, record in enumerate(records):
        for name in names:
            array[name][0, number] = record.get(name, _EMPTY)
    return array


def _cells(values: list[Any]) -> np.ndarray:
    cells = np.empty((len(values), 1), object)
    for number, value in enumerate(values):
        cells[number, 0] = value
    return cells


def labels_bytes(struct: dict[str, Any]) -> bytes:
    """A MATLAB v5 file that holds `struct` as RELEASE."""
    import scipy.io

    file = io.BytesIO()
    scipy.io.savemat(file, {"RELEASE": struct}, do_compression=True, long_field_names=True)
    return file.getvalue()


if __name__ == "__main__":
    write_dummy(pathlib.Path(sys.argv[1]))
    print(f"written {sys.argv[1]}; go on with: fusion-jax prepare mpii --manual-dir {sys.argv[1]} --data-dir DIR")
