"""BVH motion capture files: a parser that trusts nothing, and forward kinematics. NumPy only.

The format (Biovision's, as its readers share it): `HIERARCHY`, one `ROOT`, nested `JOINT name { OFFSET x y z
CHANNELS n ... }` with `End Site { OFFSET x y z }` at the tips, then `MOTION`, `Frames: N`, `Frame Time:
seconds` and N lines with one number per channel, depth first. Units and the meaning of the joints are not in
the file; `synthetic_humans/mocap.py` adds those.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipelines.bvh_tokens import MAX_NUMBER, Tokens, to_number
from fusion_jax.errors import UserError

MAX_FILE_BYTES = 256 * 2**20
MAX_JOINTS = 4096  # real skeletons: 20 to 150
MAX_DEPTH = 256
MAX_JOINT_FRAMES = 2**24  # frames times joints; what forward kinematics then holds stays under 2 GB

_CHANNELS = tuple(f"{axis}{kind}" for kind in ("position", "rotation") for axis in "XYZ")
_CHANNEL_BY_LOWER = {name.lower(): name for name in _CHANNELS}


class Bvh(NamedTuple):
    """One file, in its own units and axes.

    Attributes:
      source: the file's name, for messages.
      names: J joint names, depth first; the End Site of `Head` is `Head_end`.
      parents: J indices into `names`, each smaller than the joint's own; -1 for the root.
      offsets: (J, 3) float64, from the parent, in the parent's frame.
      channels: per joint its channel names in file order; () for end sites.
      frame_time: seconds per frame, as the file says.
      values: (T, C) float64, one column per channel, depth first; rotations in degrees.
    """

    source: str
    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray
    channels: tuple[tuple[str, ...], ...]
    frame_time: float
    values: np.ndarray


def read_bvh(path: str | os.PathLike[str]) -> Bvh:
    """The BVH file at `path`.

    Raises:
      UserError: file, line, what was expected and what came: no such file, over 256 MB, not text, a broken
        hierarchy, numbers that are missing, surplus, not finite or absurd.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: expected a BVH file, but there is no such regular file; check the path")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot read the file ({error.strerror}); check its permissions") from error
    return _parse(data, str(path))


def parse_bvh(text: str, source: str = "<text>") -> Bvh:
    """The BVH file with this content; `source` stands for the file's name in messages. Raises UserError."""
    return _parse(text.encode("utf-8", errors="replace"), source)


def forward_kinematics(bvh: Bvh) -> np.ndarray:
    """Joint positions (T, J, 3) in the file's unit and axes; see `joint_frames`."""
    return joint_frames(bvh)[0]


def joint_frames(bvh: Bvh) -> tuple[np.ndarray, np.ndarray]:
    """Positions (T, J, 3) and rotations (T, J, 3, 3), joint frame to world, of every joint in every frame.

    position = parent's position + parent's rotation @ translation; the translation is the OFFSET, plus the
    position channels for the root. rotation = parent's rotation @ the elementary rotations in the order of
    the channels, leftmost first, on column vectors: `Zrotation Yrotation Xrotation` is Rz Ry Rx.

    Position channels of other joints mean two things in the wild: the whole translation (they repeat OFFSET)
    or a displacement (they hover around 0). Bones hardly change length, so the reading nearer to OFFSET is
    taken, once for the whole file.
    """
    num_frames, num_joints = len(bvh.values), len(bvh.names)
    positions = np.empty((num_frames, num_joints, 3))
    rotations = np.empty((num_frames, num_joints, 3, 3))
    shifts = _displacements(bvh)
    columns = iter(np.radians(bvh.values).T)
    for joint, (parent, offset) in enumerate(zip(bvh.parents, bvh.offsets, strict=True)):
        translation = offset + shifts[joint] if joint in shifts else offset[None]
        if parent < 0:
            positions[:, joint], turn = translation, np.broadcast_to(np.eye(3), (num_frames, 3, 3)).copy()
        else:
            turn = rotations[:, parent].copy()
            positions[:, joint] = positions[:, parent] + (turn @ translation[..., None])[..., 0]
        for channel in bvh.channels[joint]:
            angle = next(columns)
            if channel.endswith("rotation"):
                _rotate_in_place(turn, "XYZ".index(channel[0]), angle)
        rotations[:, joint] = turn
    return positions, rotations


def _rotate_in_place(rotation: np.ndarray, axis: int, angle: np.ndarray) -> None:
    """rotation (T, 3, 3) times the elementary rotations about `axis` by angle (T,) radians."""
    i, j = (axis + 1) % 3, (axis + 2) % 3  # the two columns that the product mixes
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    first, second = rotation[..., i].copy(), rotation[..., j].copy()
    rotation[..., i] = cos * first + sin * second
    rotation[..., j] = cos * second - sin * first


def _displacements(bvh: Bvh) -> dict[int, np.ndarray]:
    """For each joint with position channels what they add to its OFFSET, (T, 3)."""
    columns: dict[int, dict[int, int]] = {}  # joint -> axis -> column of values
    flat = [(joint, channel) for joint, names in enumerate(bvh.channels) for channel in names]
    for column, (joint, channel) in enumerate(flat):
        if channel.endswith("position"):
            columns.setdefault(joint, {})["XYZ".index(channel[0])] = column
    shifts, as_translation, as_shift = {}, 0.0, 0.0
    for joint, by_axis in columns.items():
        axes, read = list(by_axis), bvh.values[:, list(by_axis.values())]
        shifts[joint] = np.zeros((len(bvh.values), 3))
        shifts[joint][:, axes] = read
        if bvh.parents[joint] >= 0:
            as_translation += np.abs(read - bvh.offsets[joint, axes]).sum()
            as_shift += np.abs(read).sum()
    if as_translation < as_shift:
        for joint, by_axis in columns.items():
            if bvh.parents[joint] >= 0:
                shifts[joint][:, list(by_axis)] -= bvh.offsets[joint, list(by_axis)]
    return shifts


class _Hierarchy(NamedTuple):
    names: list[str]
    parents: list[int]
    offsets: list[list[float]]
    channels: list[tuple[str, ...]]


def _parse(data: bytes, source: str) -> Bvh:
    if len(data) > MAX_FILE_BYTES:
        raise UserError(f"{source}: expected at most {MAX_FILE_BYTES >> 20} MB, came more; cut it into clips")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise UserError(f"{source}: expected a BVH file, came an empty one; copy or export it again")
    if b"\0" in data:
        raise UserError(f"{source}: expected BVH text, came binary data (a zero byte); export it as BVH")
    if b"\r" in data:  # originals mix CRLF with LF; very old ones have CR alone
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    tokens = Tokens(data, source)
    word = tokens.take("HIERARCHY")
    if word.upper() != b"HIERARCHY":
        tokens.fail("HIERARCHY as the first word", word, "this is not a BVH file")
    tree = _parse_hierarchy(tokens)
    tokens.keyword("MOTION")
    tokens.keyword("Frames:")
    num_frames = tokens.count("Frames")
    _check_size(tokens, tree, num_frames, len(data))
    tokens.keyword("Frame")
    tokens.keyword("Time:")
    frame_time = tokens.number("Frame Time in seconds", 1e-6, 1e4)
    tokens.end_of_line("Frame Time")
    values = _parse_motion(tokens, num_frames, sum(map(len, tree.channels)))
    offsets = np.array(tree.offsets, np.float64)
    return Bvh(source, tuple(tree.names), tuple(tree.parents), offsets, tuple(tree.channels), frame_time, values)


def _parse_hierarchy(tokens: Tokens) -> _Hierarchy:
    """The tree, by a stack of open joints: no recursion, so no file can exhaust Python's."""
    tree, stack = _Hierarchy([], [], [], []), [-1]  # -1: the root's parent
    tokens.keyword("ROOT")
    kind = "ROOT"
    while True:
        if kind == "}":
            stack.pop()
        else:
            _parse_joint(tokens, tree, kind, stack[-1])
            if kind == "End":
                tokens.keyword("}")
            else:
                stack.append(len(tree.names) - 1)
        if len(stack) == 1:
            break
        if len(stack) > MAX_DEPTH:
            tokens.fail(f"joints nested at most {MAX_DEPTH} deep", "one more", "check the braces")
        kind = tokens.keyword("JOINT", "End", "}")
    if not any(tree.channels):
        tokens.fail("at least one channel in the hierarchy", "none", "a clip without channels has no motion")
    return tree


def _parse_joint(tokens: Tokens, tree: _Hierarchy, kind: str, parent: int) -> None:
    """Append one ROOT, JOINT or End Site, up to its children, to `tree`."""
    if kind == "End":
        tokens.keyword("Site")
        name = tree.names[parent] + "_end"
    else:
        word = tokens.take("a joint's name")
        if word in (b"{", b"}"):
            tokens.fail("a joint's name", word)
        try:
            name = word.decode("utf-8")
        except UnicodeDecodeError:
            tokens.fail("a joint's name in UTF-8", word, "rename the joint or convert the file to UTF-8")
    if name in tree.names:
        tokens.fail("each joint's name once", f"{name[:40]!r} again", "rename one of the two joints")
    if len(tree.names) == MAX_JOINTS:
        tokens.fail(f"at most {MAX_JOINTS} joints", "one more", "check that this is one body")
    tokens.keyword("{")
    tokens.keyword("OFFSET")
    tree.names.append(name)
    tree.parents.append(parent)
    tree.offsets.append([tokens.number(f"OFFSET {axis} of {name[:40]}") for axis in "xyz"])
    tree.channels.append(() if kind == "End" else _parse_channels(tokens, name[:40]))


def _parse_channels(tokens: Tokens, joint: str) -> tuple[str, ...]:
    tokens.keyword("CHANNELS")
    channels: list[str] = []
    for _ in range(tokens.count(f"the number of CHANNELS of {joint}", most=6)):
        word = tokens.take(f"a channel of {joint}")
        channel = _CHANNEL_BY_LOWER.get(word.lower().decode("utf-8", "replace"))
        if channel is None or channel in channels:
            tokens.fail(f"a channel of {joint}, each of {', '.join(_CHANNELS)} at most once", word)
        channels.append(channel)
    return tuple(channels)


def _check_size(tokens: Tokens, tree: _Hierarchy, num_frames: int, num_bytes: int) -> None:
    """Refuse, before anything is allocated, more frames than the file can hold or memory should."""
    num_channels, most = sum(map(len, tree.channels)), MAX_JOINT_FRAMES // len(tree.names)
    if num_frames * num_channels * 2 > num_bytes + 1:  # a digit and a blank each
        came = f"a file of only {num_bytes} bytes, which has fewer lines"
        advice = "correct Frames or copy the file again"
        tokens.fail(f"{num_frames} frames of {num_channels} channels", came, advice)
    if num_frames > most:
        tokens.fail(f"at most {most} frames of {len(tree.names)} joints", str(num_frames), "cut it into shorter clips")


def _parse_motion(tokens: Tokens, num_frames: int, num_channels: int) -> np.ndarray:
    """The motion block as (T, C) float64: exactly one line per frame, one number per channel."""
    values = np.empty((num_frames, num_channels))
    for frame in range(num_frames):
        line = tokens.next_line()
        if line is None:
            advice = "correct Frames or copy the file again"
            tokens.fail(f"{num_frames} lines of motion (Frames)", f"fewer lines, only {frame}", advice)
        words = line.split()
        if len(words) != num_channels:
            tokens.fail(f"{num_channels} numbers, one per channel, for frame {frame}", f"{len(words)} numbers")
        try:
            values[frame] = [float(word) for word in words]
            plain = b"_" not in line  # Python reads 1_0 as 10
        except ValueError:
            plain = False
        if not (plain and np.abs(values[frame]).max() <= MAX_NUMBER):  # NaN fails the comparison too
            bad = next(i for i, word in enumerate(words) if to_number(word) is None)
            tokens.fail(f"a finite number up to {MAX_NUMBER:g} for frame {frame}, channel {bad}", words[bad])
    if (line := tokens.next_line()) is not None:
        tokens.fail(f"the end after {num_frames} lines of motion (Frames)", line.split()[0] + b" ...")
    return values
