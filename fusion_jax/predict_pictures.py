"""What was found in one photo: a figure of it and of each person's 3D pose, or boxes and 2D joints painted into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from fusion_jax.geometry import apply_affine, crop_matrix
from fusion_jax.pictures import SIDE_COLORS
from fusion_jax.pose_pictures import draw_bones, draw_crop, draw_heatmaps, draw_views, side_lines, usable_bones
from fusion_jax.pose_record import PersonPose, PersonView
from fusion_jax.skeletons import skeleton

LOW_CONFIDENCE = 0.3
"""2D joints whose heatmap peaks below this are drawn faint: such a peak is often in the wrong place."""
MOST_ROWS = 8
"""So many people get panels of their own in a figure."""
SOURCES = {
    "given": "box given by the user",
    "detected": "box found by the detector",
    "tracked": "box of an earlier frame",
    "picture": "no box: the whole picture",
}
_LONGEST_PX = 1600  # of the photo as shown; more would not be seen and could fill the memory
_LOWEST_IN, _TALLEST_IN = 0.5, 8.0  # of the photo on paper
# Sizes in inches on paper. They are fixed, for a layout found by matplotlib cuts off the labels of the last line.
_WIDTH_IN, _MARGIN_IN, _ABOVE_IN, _BELOW_IN = 13.5, 0.1, 0.65, 0.55
_PANEL_IN, _LEFTS_IN = 2.8, (0.1, 3.05, 6.75, 10.55)  # before the last two stands an axis label
_ROW_IN = _PANEL_IN + _ABOVE_IN + _BELOW_IN
_TITLE: dict[str, Any] = {"x": _MARGIN_IN / _WIDTH_IN, "ha": "left", "va": "top", "weight": "bold"}
_BOX_COLOR, _BOX_RGB = "#ffd400", (255, 212, 0)
Color = tuple[int, ...]
"""Red, green and blue, 0 to 255."""
RGB: dict[str, Color] = {side: tuple(int(text[i : i + 2], 16) for i in (1, 3, 5)) for side, text in SIDE_COLORS.items()}
FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_FRACTION_BITS = 4  # OpenCV's lines end at whole numbers of 1/16 px


def picture_figure(image: np.ndarray, views: Sequence[PersonView]) -> Figure:
    """The photo with every person's box and 2D joints, over a line of panels for each of the first `MOST_ROWS` people.

    A line shows the crop with its 2D joints, the heatmaps and the predicted 3D pose from the front and from the side.

    Args:
      image: (H, W, 3) uint8, RGB; shown at no more than 1600 px along its longer side.
      views: the people found in it; may be empty.
    """
    shown = views[:MOST_ROWS]
    height, width = image.shape[:2]
    photo_in = float(np.clip(_WIDTH_IN * height / width, _LOWEST_IN, _TALLEST_IN))
    heights_in = [photo_in + _ABOVE_IN + _BELOW_IN, *[_ROW_IN] * len(shown)]
    figure = Figure(figsize=(_WIDTH_IN, sum(heights_in)))
    top, *rows = figure.subfigures(len(heights_in), 1, squeeze=False, height_ratios=heights_in, hspace=0)[:, 0]
    top.suptitle(_headline(len(views)), **_TITLE, y=1 - 0.1 / heights_in[0])
    (axis,) = _axes(top, heights_in[0], [(_MARGIN_IN, _WIDTH_IN - 2 * _MARGIN_IN)], photo_in)
    _draw_photo(axis, image, views, 72 * photo_in / height)
    if views:
        top.legend(handles=_legend_lines(), loc="lower center", ncols=4, frameon=False)
    for place, (row, view) in enumerate(zip(rows, shown, strict=True), 1):
        row.suptitle(f"person {person_number(view.pose, place)}: {about(view.pose)}", **_TITLE, y=1 - 0.1 / _ROW_IN)
        _draw_person(_axes(row, _ROW_IN, [(left, _PANEL_IN) for left in _LEFTS_IN], _PANEL_IN), view)
    return figure


def _axes(part: SubFigure, part_in: float, across_in: Sequence[tuple[float, float]], height_in: float) -> list[Axes]:
    """Axes side by side, each from `left` on and `width` wide, so placed that titles, axis labels and legend fit."""
    return [
        part.add_axes((left / _WIDTH_IN, _BELOW_IN / part_in, width / _WIDTH_IN, height_in / part_in))
        for left, width in across_in
    ]


def person_number(pose: PersonPose, place: int) -> int:
    """What to call the person: the number kept over a video's frames or else their place, from 1, in this picture."""
    return place if pose.track is None else pose.track


def about(pose: PersonPose) -> str:
    """Where the box came from, how sure the 2D joints are and, where it is known, how far away the root is."""
    parts = [SOURCES[pose.box_source]]
    low = int((pose.confidence < LOW_CONFIDENCE).sum())
    parts.append(
        f"mean 2D confidence {pose.confidence.mean():.2f}" + f", {low} of {len(pose.confidence)} low" * bool(low)
    )
    if pose.position_mm is not None:
        root = " and ".join(skeleton(pose.skeleton).root).replace("_", " ")
        parts.append(f"{root} {np.linalg.norm(pose.position_mm) / 1000:.2f} m from the camera")
    return "; ".join(parts)


def _headline(count: int) -> str:
    if not count:
        return "nobody was found in this picture"
    people = "1 person" if count == 1 else f"{count} people"
    if count <= MOST_ROWS:
        return people
    return f"{people}; panels for the first {MOST_ROWS} alone, all are in the JSON file"


def _draw_photo(axis: Axes, image: np.ndarray, views: Sequence[PersonView], points_per_px: float) -> None:
    height, width = image.shape[:2]
    shrink = min(1.0, _LONGEST_PX / max(height, width))
    if shrink < 1:
        size = max(1, round(width * shrink)), max(1, round(height * shrink))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    # The extent keeps the axes in px of the original picture, however many are shown.
    axis.imshow(image, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    for place, pose in enumerate((view.pose for view in views), 1):
        left, top, box_width, box_height = pose.box
        line = float(np.clip(0.012 * box_height * points_per_px, 0.8, 2.2))
        outline = Rectangle((left, top), box_width, box_height, fill=False, edgecolor=_BOX_COLOR, linewidth=1.2)
        axis.add_patch(outline)
        draw_joints(axis, pose.joints2d_px, pose, line)
        axis.text(
            *(max(left, -0.5), max(top, -0.5)), str(person_number(pose, place)), va="top", fontsize=9, clip_on=True,
            bbox={"facecolor": _BOX_COLOR, "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])


def draw_joints(axis: Axes, joints_px: np.ndarray, pose: PersonPose, width: float = 2.0) -> None:
    """The person's 2D joints (K, 2), in px of `axis`; hollow, on dashed bones, where the confidence is low."""
    layout, sure = skeleton(pose.heatmap_skeleton), pose.confidence >= LOW_CONFIDENCE
    everything = np.ones(len(sure), bool)
    draw_bones(axis, joints_px, everything, layout, 0.6 * width, linestyle=(0, (2, 2)), alpha=0.8)
    draw_bones(axis, joints_px, sure, layout, width)
    for joint, place in enumerate(joints_px):
        color = SIDE_COLORS[layout.side(joint)]
        face = color if sure[joint] else "white"
        axis.plot(
            *place, marker="o", markersize=2.2 * width, color=color, markerfacecolor=face, markeredgewidth=0.5 * width
        )


def _draw_person(axes: Sequence[Axes], view: PersonView) -> None:
    crop, heat, *flat = axes
    pose, layout = view.pose, skeleton(view.pose.skeleton)
    joints_px = apply_affine(crop_matrix(pose.crop, len(view.crop)), pose.joints2d_px)
    layout2d = skeleton(pose.heatmap_skeleton)
    draw_crop(crop, view.crop, joints_px, np.zeros(layout2d.num_joints, bool), layout2d)  # the picture alone
    draw_joints(crop, joints_px, pose)
    draw_heatmaps(heat, view.crop, view.heatmap)
    unknown = np.zeros(layout.num_joints, bool)  # no true pose, so the prediction is drawn alone
    draw_views(flat, pose.pose_mm, pose.pose_mm, unknown, layout)


def _legend_lines() -> list[Line2D]:
    low = Line2D([], [], color=SIDE_COLORS["middle"], linestyle="--", linewidth=1.2, marker="o", markersize=5)
    low.set(markerfacecolor="white", label=f"confidence below {LOW_CONFIDENCE}")
    return [*side_lines(), low]


def paint_person(picture: np.ndarray, pose: PersonPose, name: str, scale: np.ndarray) -> None:
    """Draws the person's box with its name and the 2D joints into a picture (H, W, 3) uint8, in place.

    Args:
      scale: (2,) px of `picture` for one px of the original, across and down.
    """
    left, top, right, bottom = ((np.stack([pose.box[:2], pose.box[:2] + pose.box[2:]]) + 0.5) * scale - 0.5).ravel()
    corners = np.clip([[left, top], [right, bottom]], -2, np.array(picture.shape[1::-1]) + 1)
    cv2.rectangle(picture, _fixed(corners[0]), _fixed(corners[1]), _BOX_RGB, 1, cv2.LINE_AA, _FRACTION_BITS)
    paint_joints(picture, (pose.joints2d_px + 0.5) * scale - 0.5, pose, int(np.clip(round((bottom - top) / 140), 1, 4)))
    (width, height), _ = cv2.getTextSize(name, FONT, 0.45, 1)
    room = np.maximum(0, np.array(picture.shape[1::-1]) - (width + 6, height + 6))
    x, y = np.clip(corners[0], 0, room).astype(int)  # the name stays in the picture, wherever the box is
    cv2.rectangle(picture, (x, y), (x + width + 5, y + height + 5), _BOX_RGB, cv2.FILLED)
    cv2.putText(picture, name, (x + 3, y + height + 2), FONT, 0.45, _BLACK, 1, cv2.LINE_AA)


def paint_joints(picture: np.ndarray, joints_px: np.ndarray, pose: PersonPose, thickness: int) -> None:
    """Draws 2D joints (K, 2), in px of `picture`, in place; hollow, on thin pale bones, where the confidence is low."""
    layout, sure = skeleton(pose.heatmap_skeleton), pose.confidence >= LOW_CONFIDENCE
    for bone, side in usable_bones(joints_px, np.ones(len(sure), bool), layout):
        if sure[bone].all():
            paint_line(picture, joints_px[bone], _WHITE, thickness + 2)
        else:
            pale = tuple((value + 255) // 2 for value in RGB[side])
            paint_line(picture, joints_px[bone], pale, 1)
    for bone, side in usable_bones(joints_px, sure, layout):
        paint_line(picture, joints_px[bone], RGB[side], thickness)
    for joint, place in enumerate(joints_px):
        paint_dot(picture, place, RGB[layout.side(joint)], thickness + 1, hollow=not sure[joint])


def _fixed(point: np.ndarray) -> tuple[int, int]:
    """A point as OpenCV's whole numbers of 1/16 px; far outside of any picture it is moved, they would overflow."""
    x, y = np.clip(point[:2], -10_000, 10_000) * (1 << _FRACTION_BITS)
    return round(x), round(y)


def paint_line(picture: np.ndarray, ends: np.ndarray, color: Color, thickness: int) -> None:
    """Draws a line between two points (2, 2) px, in place."""
    cv2.line(picture, _fixed(ends[0]), _fixed(ends[1]), color, thickness, cv2.LINE_AA, _FRACTION_BITS)


def paint_dot(picture: np.ndarray, place: np.ndarray, color: Color, radius: int, *, hollow: bool) -> None:
    """Draws a disc, or a white one with a coloured rim, in place."""
    at, size = _fixed(place), radius << _FRACTION_BITS
    cv2.circle(picture, at, size, _WHITE if hollow else color, cv2.FILLED, cv2.LINE_AA, _FRACTION_BITS)
    if hollow:
        cv2.circle(picture, at, size, color, 1, cv2.LINE_AA, _FRACTION_BITS)
