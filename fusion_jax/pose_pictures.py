"""Pictures of poses: crops with 2D joints, heatmaps, true against predicted 3D, flat or to turn by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fusion_jax.pictures import SIDE_COLORS
from fusion_jax.run_record import Samples, Samples2D
from fusion_jax.skeletons import Skeleton

KINDS = {
    "best": "The frames with the smallest error.",
    "median": "Frames in the middle: about half of all frames are better, half worse.",
    "worst": "The frames with the largest error.",
    "any": "Frames from all over the split; nothing is known of them in 3D, so only the prediction is drawn.",
}
# Flat views of the camera frame (x right, y down, z away): the axes that run right and down on paper.
_VIEWS = (
    ("3D as the camera sees it", 0, 1, "x, right (mm)"),
    ("3D from the side (camera: left)", 2, 1, "z, away from the camera (mm)"),
)
CAMERA_TO_SCREEN = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
"""Camera axes to plotly's, whose z is up: (x, y, z) -> (x, z, -y). A rotation, so nobody is mirrored."""
TRACES_PER_SAMPLE = 4
_UP = {"x": 0, "y": 0, "z": 1}
CAMERAS = {
    "from the front": {"eye": {"x": 0, "y": -1.7, "z": 0}, "up": _UP},
    "from the side": {"eye": {"x": 1.7, "y": 0, "z": 0}, "up": _UP},
    "from above": {"eye": {"x": 0, "y": 0, "z": 1.7}, "up": {"x": 0, "y": 1, "z": 0}},
}
"""plotly's cameras around `viewer_figure`'s cube; the photo was taken from the front."""
_START = {"eye": {"x": 0.5, "y": -1.8, "z": 0.3}, "center": {"x": 0, "y": 0, "z": -0.12}, "up": _UP}


def rows_of_kind(samples: Samples, kind: str, most: int = 3) -> list[int]:
    """Indices of up to `most` samples of that kind, in stored order."""
    return np.flatnonzero(samples.kind == kind)[:most].tolist()


def sample_title(samples: Samples, row: int) -> str:
    """Which frame this is, and its error, in one line."""
    return titled(samples, row, samples.mpjpe_mm[row], f"{samples.mpjpe_mm[row]:.1f} mm")


def titled(samples: Samples | Samples2D, row: int, error: float, shown: str) -> str:
    """Which frame this is, with its error as `shown` where it has one."""
    names = (samples.subject[row], samples.action[row], samples.sequence[row])
    place = f"{', '.join(filter(None, names))}, frame {samples.frame[row]}"
    return f"{samples.kind[row]}: {shown} ({place})" if np.isfinite(error) else place


def sample_figure(samples: Samples, rows: Sequence[int], layout: Skeleton) -> Figure:
    """One line of panels a sample: crop with 2D joints, heatmaps, and both 3D poses from front and side."""
    figure = Figure(figsize=(13.5, 3.75 * len(rows) + 0.6), layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, row in zip(parts, rows, strict=True):
        part.suptitle(sample_title(samples, row), x=0.01, ha="left", weight="bold", parse_math=False)
        crop, heat, *views = part.subplots(1, 4)
        draw_crop(crop, samples.image[row], samples.joints2d[row], samples.valid2d[row], layout)
        draw_heatmaps(heat, samples.image[row], samples.heatmap[row])
        draw_views(views, samples.true_mm[row], samples.pred_mm[row], samples.valid[row], layout)
    figure.legend(handles=_legend_lines(), loc="outside lower center", ncols=5, frameon=False)
    return figure


def draw_crop(axis: Axes, image: np.ndarray, joints_px: np.ndarray, valid: np.ndarray, layout: Skeleton) -> None:
    """The crop (S, S, 3) uint8 under its 2D joints (J, 2) px."""
    axis.imshow(image, interpolation="nearest")  # matplotlib, like us, puts (0, 0) at a pixel's centre
    limits = axis.get_xlim(), axis.get_ylim()
    draw_bones(axis, joints_px, valid, layout)
    axis.set(title="crop and 2D joints", xlim=limits[0], ylim=limits[1], xticks=[], yticks=[])


def draw_bones(
    axis: Axes, joints_px: np.ndarray, valid: np.ndarray, layout: Skeleton, width: float = 2.2, **style: Any
) -> None:
    """The bones between valid joints (J, 2), each side in its colour, `width` points wide, on a white rim."""
    for bone, side in usable_bones(joints_px, valid, layout):
        ends = joints_px[bone].T
        axis.plot(*ends, color="white", linewidth=1.6 * width, alpha=0.75, solid_capstyle="round")
        axis.plot(*ends, color=SIDE_COLORS[side], linewidth=width, solid_capstyle="round", **style)


def draw_heatmaps(axis: Axes, image: np.ndarray, heatmap: np.ndarray) -> None:
    """The strongest of all channels (h, w, C) at each place, in colour on the dimmed grey crop."""
    height, width = image.shape[:2]
    strongest = np.nan_to_num(np.asarray(heatmap, np.float32).max(-1))
    shown = np.clip(strongest / max(float(strongest.max()), 1e-6), 0, 1)
    colors = matplotlib.colormaps["inferno"](0.25 + 0.75 * shown)
    colors[..., 3] = np.sqrt(shown)  # so that a weak blob can still be seen
    dimmed = np.repeat(0.45 * image.mean(-1, keepdims=True) / 255, 3, axis=-1)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axis.imshow(dimmed, extent=extent, interpolation="nearest")
    axis.imshow(colors, extent=extent, interpolation="bilinear")
    axis.set(title="heatmaps, strongest channel", xticks=[], yticks=[])


def draw_views(
    axes: Sequence[Axes], true_mm: np.ndarray, pred_mm: np.ndarray, valid: np.ndarray, layout: Skeleton
) -> None:
    """True (broad, pale) and predicted (thin, dark) pose (J, 3) mm, camera frame, from front and side.

    Both views have the same scale, and a millimetre is as long across as down. Where no joint is valid the prediction
    is drawn whole and alone.
    """
    shown = _predicted(valid)
    low, high = cube(np.concatenate([true_mm[valid], pred_mm[shown]]))
    for axis, (title, across, down, label) in zip(axes, _VIEWS, strict=True):
        for bone, side in usable_bones(true_mm, valid, layout):
            ends = true_mm[bone][:, [across, down]].T
            axis.plot(*ends, color=SIDE_COLORS[side], linewidth=7, alpha=0.3, solid_capstyle="round")
        for bone, side in usable_bones(pred_mm, shown, layout):
            ends = pred_mm[bone][:, [across, down]].T
            axis.plot(*ends, color=SIDE_COLORS[side], linewidth=2, marker="o", markersize=3)
        axis.set(xlim=(low[across], high[across]), ylim=(high[down], low[down]))
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.set(title=title, xlabel=label, ylabel="y, down (mm)", aspect="equal")
        axis.grid(color="0.92")


def cube(points_mm: np.ndarray, margin: float = 0.08) -> tuple[np.ndarray, np.ndarray]:
    """Low and high corner (3,) of the smallest cube around points (N, 3), grown by this share."""
    points_mm = points_mm[np.isfinite(points_mm).all(-1)]
    if not len(points_mm):
        return np.full(3, -1.0), np.full(3, 1.0)
    low, high = points_mm.min(0), points_mm.max(0)
    half = max(float((high - low).max()) / 2, 1.0) * (1 + margin)
    return (low + high) / 2 - half, (low + high) / 2 + half


def pose_viewer(samples: Samples, layout: Skeleton) -> dict[str, Any]:
    """A plotly figure, as a dict, with `TRACES_PER_SAMPLE` traces a sample; sample 0's are visible.

    A sample's traces: the true pose, then the prediction's left, right and middle limbs. Axes are mm, x right,
    y away from the camera, z up, with one range for all samples.
    """
    traces = []
    for row in range(len(samples.frame)):
        valid, first = samples.valid[row], row == 0
        true = _polyline(samples.true_mm[row], valid, layout, None)
        traces.append(_trace("true pose", true, "#8c99a6", 12, first) | {"opacity": 0.5})
        traces += predicted_traces(samples.pred_mm[row], _predicted(valid), layout, visible=first)
    both = np.concatenate([samples.true_mm[samples.valid], samples.pred_mm[_predicted(samples.valid)]])
    return viewer_figure(traces, both)


def predicted_traces(pose_mm: np.ndarray, valid: np.ndarray, layout: Skeleton, *, visible: bool) -> list[dict]:
    """One plotly trace for each of `SIDE_COLORS`: the limbs of that side of a pose (J, 3) mm, camera frame."""
    return [
        _trace(f"predicted, {side}", _polyline(pose_mm, valid, layout, side), color, 5, visible)
        for side, color in SIDE_COLORS.items()
    ]


def viewer_figure(traces: Sequence[dict], points_mm: np.ndarray) -> dict[str, Any]:
    """A plotly figure, as a dict, of these traces in a cube around points (N, 3) mm, camera frame."""
    low, high = (corner.tolist() for corner in cube(points_mm @ CAMERA_TO_SCREEN.T))
    axes = {
        f"{name}axis": {
            "title": {"text": f"{title} (mm)"}, "range": [low[i], high[i]], "nticks": 6, "showspikes": False,
            "showbackground": True, "backgroundcolor": "#f4f6f8",
            "gridcolor": "#d5dbe1", "zerolinecolor": "#d5dbe1",
        }
        for i, (name, title) in enumerate((("x", "right"), ("y", "away"), ("z", "up")))
    }  # fmt: skip
    # All ranges are equally long, so in a cube a millimetre is the same along every axis.
    scene = {**axes, "aspectmode": "cube", "camera": _START}
    legend = {"orientation": "h", "x": 0.5, "xanchor": "center", "y": 0, "yanchor": "top"}
    margin = {"l": 0, "r": 0, "t": 0, "b": 0}
    return {"data": traces, "layout": {"scene": scene, "legend": legend, "margin": margin}}


def usable_bones(joints: np.ndarray, valid: np.ndarray, layout: Skeleton) -> Iterator[tuple[list[int], str]]:
    """[parent, child] of the bones of joints (J, D) with both ends valid and finite, and which side each is of."""
    usable = valid & np.isfinite(joints).all(-1)
    for parent, child in layout.bones:
        if usable[parent] and usable[child]:
            yield [parent, child], layout.side(child)


def _predicted(valid: np.ndarray) -> np.ndarray:
    """(..., J) bool: the predicted joints to draw, those that are known in truth or, where none is, all."""
    return valid | ~valid.any(-1, keepdims=True)


def _polyline(pose_mm: np.ndarray, valid: np.ndarray, layout: Skeleton, side: str | None) -> dict[str, list]:
    """plotly's coordinates and joint names of one side's bones, or of all, with None between bones to end the line."""
    columns: dict[str, list] = {"x": [], "y": [], "z": [], "text": []}
    for bone, bone_side in usable_bones(pose_mm, valid, layout):
        if side in (None, bone_side):
            for axis, ends in zip("xyz", (pose_mm[bone] @ CAMERA_TO_SCREEN.T).T, strict=True):
                columns[axis] += [*(round(float(end), 1) for end in ends), None]
            columns["text"] += [*(layout.joints[joint].replace("_", " ") for joint in bone), None]
    return columns


def _trace(name: str, polyline: dict[str, list], color: str, width: int, visible: bool) -> dict[str, Any]:
    return {
        "type": "scatter3d", "mode": "lines+markers", "name": name, "visible": visible,
        **polyline,
        "line": {"color": color, "width": width}, "marker": {"color": color, "size": width / 2 + 0.5},
        "hovertemplate": "%{text}<br>right %{x} mm<br>away %{y} mm<br>up %{z} mm<extra>" + name + "</extra>",
    }  # fmt: skip


def side_lines() -> list[Line2D]:
    """What the colours of `SIDE_COLORS` mean, for a legend."""
    lines = [Line2D([], [], color=color, linewidth=3, label=f"person's {side}") for side, color in SIDE_COLORS.items()]
    lines[-1].set_label("middle of the body")
    return lines


def _legend_lines() -> list[Line2D]:
    true = Line2D([], [], color="#222222", alpha=0.3, linewidth=7, label="broad, pale: true pose")
    pred = Line2D([], [], color="#222222", linewidth=2, marker="o", markersize=3, label="thin, dark: predicted pose")
    return [*side_lines(), true, pred]
