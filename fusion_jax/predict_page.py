"""Everybody who was found as one HTML page that needs no network: pick a person, turn the pose, read its numbers."""

from __future__ import annotations

import json
import os
import pathlib
from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np

from fusion_jax import pose_pictures, report_page
from fusion_jax.geometry import apply_affine, crop_matrix
from fusion_jax.pictures import SIDE_COLORS
from fusion_jax.pose_record import PersonPose, PersonView
from fusion_jax.predict_pictures import LOW_CONFIDENCE, SOURCES, paint_joints, person_number
from fusion_jax.report_page import Section, definitions, paragraph, subtitle, table
from fusion_jax.skeletons import skeleton

MOST_PEOPLE = 200
"""So many people are put into a page; each takes some 40 kB of it."""
_MOST_PARAGRAPHS = 10  # more notes than this are folded
_CROP_PX = 512  # side of a crop in the page
_TASK = "Where the joints of everybody in these pictures are, in 3D and in the picture, as two networks see it."
_EXPLANATION = (
    (
        "Axes",
        "The camera's: x runs right, y runs down, z runs away from the camera, as the photo was taken. The camera need "
        "not have been level, so down is down in the photo and not always towards the ground.",
    ),
    (
        "Origin",
        "The person's root joint: the pelvis, or the middle of both hips where the joints listed have no pelvis. It is "
        "always 0, 0, 0.",
    ),
    ("Unit", "Millimetres in 3D; in 2D pixels of the original picture, (0, 0) is the centre of its top left pixel."),
    ("Left and right", "The person's own."),
    (
        "Size and depth",
        "One photo tells neither how tall somebody is nor how far away. Bone lengths and depth are those that the "
        "network has learned from the people it was trained with: a child is likely to come out with a grown-up's "
        "bones.",
    ),
    (
        "Distance",
        "Where the root is in front of the camera is said only where the camera's focal length is known, and rests on "
        "that learned size.",
    ),
    (
        "Confidence",
        f"The highest value of a joint's heatmap, 0 to 1. Joints below {LOW_CONFIDENCE} are drawn hollow: they are "
        "often hidden or in the wrong place, and the 3D pose suffers.",
    ),
)


def write_page(
    path: pathlib.Path, entries: Sequence[tuple[str, PersonView]], *, total: int, notes: Sequence[str]
) -> None:
    """Writes the page; an older one stays until the new one is whole.

    Args:
      path: of the HTML file.
      entries: picture's name and person, in the order of the picker; of more than `MOST_PEOPLE` the first are shown.
      total: how many people were found altogether, those that are not among `entries` included.
      notes: what the reader has to know besides, such as pictures that could not be read; one sentence each.
    """
    shown = entries[:MOST_PEOPLE]
    sections = [_people(shown, total), _reading(shown)]
    if notes:
        sections.insert(1, _notes(notes))
    top = [
        report_page.header(path.stem, _TASK, "fusion-jax predict"),
        report_page.contents(sections),
        report_page.cards(_big_numbers(shown, total, notes)),
    ]
    page = report_page.page(f"{path.stem} - fusion-jax predict", "\n".join(top), sections)
    partial = path.with_name(f".{path.name}.partial")
    try:
        # A file's name need not be text; what is none of it is written out, \udcff.
        partial.write_bytes(page.encode("utf-8", "backslashreplace"))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _big_numbers(shown: Sequence[tuple[str, PersonView]], total: int, notes: Sequence[str]) -> list[tuple[str, str]]:
    numbers = [(f"{total:,}", "person found" if total == 1 else "people found")]
    if shown:
        low = np.mean([(view.pose.confidence < LOW_CONFIDENCE).mean() for _, view in shown])
        numbers.append((f"{low:.0%}", f"of the 2D joints shown have a confidence below {LOW_CONFIDENCE}"))
    if notes:
        numbers.append((f"{len(notes):,}", "note" if len(notes) == 1 else "notes"))
    return numbers


def _people(shown: Sequence[tuple[str, PersonView]], total: int) -> Section:
    title, anchor = "People", "people"
    if not shown:
        return Section(title, anchor, [paragraph("Nobody was found in these pictures.", "note")], {})
    parts = [paragraph("Drag to turn, scroll to zoom. From the front is what the camera saw.")]
    if len(shown) < total:
        count = f"The first {len(shown):,} of {total:,} people" if len(shown) > 1 else f"One of {total:,} people"
        parts.append(
            paragraph(f"{count} can be seen here; all are in the JSON and NPZ files beside this page.", "note")
        )
    parts.append(_viewer(shown))
    return Section(title, anchor, parts, {})


def _notes(notes: Sequence[str]) -> Section:
    text = "\n".join(notes)
    few = len(notes) <= _MOST_PARAGRAPHS
    parts = [paragraph(note) for note in notes] if few else [report_page.folded(f"all {len(notes):,} notes", text)]
    return Section("Notes", "notes", parts, {})


def _reading(shown: Sequence[tuple[str, PersonView]]) -> Section:
    """What the numbers mean, and which networks they are from."""
    poses = [view.pose for _, view in shown]
    made = [
        ("3D network", "; ".join(sorted({pose.pose_network for pose in poses}))),
        ("2D network", "; ".join(sorted({pose.heatmap_network for pose in poses}))),
        ("Joints in 3D", ", ".join(sorted({pose.skeleton for pose in poses}))),
        ("Joints in 2D", ", ".join(sorted({pose.heatmap_skeleton for pose in poses}))),
    ]
    return Section("How to read this", "reading", [definitions([*_EXPLANATION, *(made if poses else [])])], {})


def _viewer(shown: Sequence[tuple[str, PersonView]]) -> str:
    poses = [view.pose for _, view in shown]
    traces = []
    for row, pose in enumerate(poses):
        everything = np.ones(len(pose.pose_mm), bool)
        traces += pose_pictures.predicted_traces(pose.pose_mm, everything, skeleton(pose.skeleton), visible=row == 0)
    figure = pose_pictures.viewer_figure(traces, np.concatenate([pose.pose_mm for pose in poses]))
    return report_page.viewer(
        report_page.plot(figure, "poses", with_code=True),
        _labels(shown),
        [_crop_jpeg(view) for _, view in shown],
        [(name, json.dumps(camera)) for name, camera in pose_pictures.CAMERAS.items()],
        len(SIDE_COLORS),
        [_numbers(pose) for pose in poses],
        large=True,
    )


def _labels(shown: Sequence[tuple[str, PersonView]]) -> list[str]:
    """The picture's name and the person's number in it."""
    places: Counter[str] = Counter()
    labels = []
    for name, view in shown:
        places[name] += 1
        labels.append(f"{name}: person {person_number(view.pose, places[name])}")
    return labels


def _crop_jpeg(view: PersonView) -> bytes:
    """The crop under its 2D joints as a JPEG file."""
    picture = cv2.resize(view.crop, (_CROP_PX, _CROP_PX), interpolation=cv2.INTER_LINEAR)
    joints_px = apply_affine(crop_matrix(view.pose.crop, _CROP_PX), view.pose.joints2d_px)
    paint_joints(picture, joints_px, view.pose, thickness=3)
    return cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def _numbers(pose: PersonPose) -> str:
    """Facts and tables of one person, as HTML."""
    left, top, width, height = pose.box
    facts = [
        ("2D joints", f"mean confidence {pose.confidence.mean():.2f}"),
        (
            "Box",
            f"{width:.0f} x {height:.0f} px, upper left corner at ({_plain(left, 1)}, {_plain(top, 1)}); "
            f"{SOURCES[pose.box_source]}",
        ),
    ]
    if pose.position_mm is not None:
        x, y, z = (f"{_plain(value / 1000, 2)} m" for value in pose.position_mm)
        distance = np.linalg.norm(pose.position_mm) / 1000
        facts.append(("Root joint", f"{distance:.2f} m from the camera: x {x} right, y {y} down, z {z} away"))
    in_3d = [
        [name.replace("_", " "), *(_plain(value, 0) for value in place)]
        for name, place in zip(skeleton(pose.skeleton).joints, pose.pose_mm, strict=True)
    ]
    in_2d = [
        [name.replace("_", " "), *(_plain(value, 1) for value in place), _plain(sure, 2)]
        for name, place, sure in zip(
            skeleton(pose.heatmap_skeleton).joints, pose.joints2d_px, pose.confidence, strict=True
        )
    ]
    tables = (
        subtitle("In 3D, mm from the root") + table(["joint", "x, right", "y, down", "z, away"], in_3d, (1, 2, 3)),
        subtitle("In the picture, px") + table(["joint", "x", "y", "confidence"], in_2d, (1, 2, 3)),
    )
    return f'{definitions(facts)}<div class="pair"><div>{tables[0]}</div><div>{tables[1]}</div></div>'


def _plain(value: float, digits: int) -> str:
    """With so many digits behind the point, and never -0."""
    return f"{round(float(value), digits) + 0.0:.{digits}f}"
