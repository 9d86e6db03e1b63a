"""What `check-data` looks at: each file of Human3.6M, with picture sizes and row counts."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from data_pipelines.human36m.archive_checks import packed
from data_pipelines.human36m.cameras import CAMERAS, picture_sizes
from data_pipelines.human36m.comparisons import compare_camera_frame, compare_pixels
from data_pipelines.human36m.faults import is_broken_video
from data_pipelines.human36m.files import (
    MASKS,
    POSES,
    POSES_2D,
    POSES_CAMERA,
    VIDEOS,
    Kind,
    archive_of,
    file_name,
    folder_of,
    path_of,
    stems_in,
)
from data_pipelines.human36m.masks import Masks
from data_pipelines.human36m.poses import read_pose_cdf, read_world_poses
from data_pipelines.human36m.sequences import Sequence, wrong_names
from data_pipelines.human36m.settings import Human36mSettings
from data_pipelines.source import Item
from data_pipelines.video import Video, check_not_text
from fusion_jax.errors import UserError

_MORE_FRAMES = 20  # than poses, or than published; up to 11 were seen

Look = Callable[[Sequence, str, pathlib.Path], str]


def inventory(manual_dir: pathlib.Path, settings: Human36mSettings, table: tuple[Sequence, ...]) -> Iterator[Item]:
    """All files of the chosen subjects, then what is optional."""
    for subject in settings.subjects:
        wanted = tuple(sequence for sequence in table if sequence.subject == subject)
        yield from _files(manual_dir, POSES, subject, wanted, _look_at_poses)
        stems = folder_of(manual_dir, POSES, subject)
        if stems.is_dir() and (wrong := wrong_names(subject, stems_in(stems, POSES), table)):
            yield Item(_relative(stems, manual_dir), wrong)
        yield from _comparison(manual_dir, POSES_2D, subject, wanted, compare_pixels)
        yield from _comparison(manual_dir, POSES_CAMERA, subject, wanted, compare_camera_frame)
        dropped = settings.broken_video == "drop"
        yield from _files(manual_dir, VIDEOS, subject, wanted, _look_at_video, broken_is_optional=dropped)
        needed = settings.boxes == "masks"
        yield from _files(manual_dir, MASKS, subject, wanted, _look_at_masks, optional=not needed)


def _files(
    manual_dir: pathlib.Path,
    kind: Kind,
    subject: str,
    wanted: tuple[Sequence, ...],
    look: Look,
    *,
    optional: bool = False,
    broken_is_optional: bool = False,
) -> Iterator[Item]:
    """An item for each file of a kind; one for the archive or the folder where nothing is unpacked."""
    folder, archive = folder_of(manual_dir, kind, subject), archive_of(manual_dir, kind, subject)
    if not folder.is_dir() and archive.is_file() and optional:
        yield Item(archive.name, None, archive.stat().st_size, "not used by these settings", optional=True)
        return
    if not folder.is_dir():
        yield packed(archive) if archive.is_file() else _absent(folder, manual_dir, archive, kind, wanted, optional)
        return
    if optional:  # nobody reads them: not worth opening hundreds of files
        yield Item(_relative(folder, manual_dir), note="not used by these settings", optional=True)
        return
    for sequence in wanted:
        for camera_name in CAMERAS if kind.per_camera else ("",):
            path = folder / file_name(kind, sequence.stem, camera_name)
            free = broken_is_optional and is_broken_video(sequence, camera_name)
            yield _file(path, manual_dir, functools.partial(look, sequence, camera_name), optional=free)


def _file(path: pathlib.Path, manual_dir: pathlib.Path, look: Callable[[pathlib.Path], str], *, optional: bool) -> Item:
    relative = _relative(path, manual_dir)
    size = path.stat().st_size if path.is_file() else None
    try:
        check_not_text(path)
        return Item(relative, size=size, note=look(path), optional=optional)
    except UserError as error:
        return Item(relative, _without(path, error), size, optional=optional)


def _absent(
    folder: pathlib.Path,
    manual_dir: pathlib.Path,
    archive: pathlib.Path,
    kind: Kind,
    wanted: tuple[Sequence, ...],
    optional: bool,
) -> Item:
    count = len(wanted) * (len(CAMERAS) if kind.per_camera else 1)
    problem = f"missing, with its {count} files; download {archive.name} into {manual_dir}"
    return Item(_relative(folder, manual_dir), problem, optional=optional)


def _look_at_poses(sequence: Sequence, camera_name: str, path: pathlib.Path) -> str:
    return f"{len(read_world_poses(path, sequence))} rows"


def _look_at_video(sequence: Sequence, camera_name: str, path: pathlib.Path) -> str:
    with Video(path) as video:
        check_video(video, sequence, camera_name)
        check_enough(video, sequence)
        return f"{video.num_frames} frames of {video.size[0]} x {video.size[1]}"


def check_video(video: Video, sequence: Sequence, camera_name: str) -> None:
    """Raises UserError where a video is another's by its header: of another picture size, or much too long.

    Videos go on after the last pose by a few frames, and in seven sequences by many: those are in the table.
    """
    check_size(video.path, video.size, sequence, camera_name)
    expected = sequence.frames or sequence.rows
    fewest = expected - _MORE_FRAMES if sequence.frames else 0
    if video.num_frames > expected + _MORE_FRAMES or 0 < video.num_frames < fewest:  # 0 or less: it does not tell
        raise UserError(
            f"{video.path} has {video.num_frames} frames, the videos of {sequence.name} about {expected} "
            f"({sequence.rows} pose rows); it is cut off or another's under this name, download it again"
        )


def check_enough(video: Video, sequence: Sequence) -> None:
    """Raises UserError where a video has fewer frames than there are poses."""
    if 0 < video.num_frames < sequence.rows:  # containers that do not tell say 0 or less
        raise UserError(
            f"{video.path} has {video.num_frames} frames for the {sequence.rows} pose rows of {sequence.name}; "
            "it is cut off, download it again"
        )


def check_size(path: pathlib.Path, size: tuple[int, int], sequence: Sequence, camera_name: str) -> None:
    """Raises UserError where pictures of `size` (width, height) cannot be the camera's."""
    sizes = picture_sizes(sequence.subject, camera_name)
    if size not in sizes:
        expected = " or ".join(f"{width} x {height}" for width, height in sizes)
        raise UserError(
            f"{path} has pictures of {size[0]} x {size[1]}, camera {camera_name} makes {expected}; it was re-encoded, "
            "or is another camera's file under this name: download it again"
        )


def _look_at_masks(sequence: Sequence, camera_name: str, path: pathlib.Path) -> str:
    with Masks(path, picture_sizes(sequence.subject, camera_name)[0]) as masks:
        if len(masks) < sequence.rows:
            raise UserError(
                f"{path} has {len(masks)} masks for the {sequence.rows} pose rows of {sequence.name}; download it again"
            )
        return f"{len(masks)} masks"


def _comparison(
    manual_dir: pathlib.Path,
    kind: Kind,
    subject: str,
    wanted: tuple[Sequence, ...],
    compare: Callable[[np.ndarray, np.ndarray, str, str], str],
) -> Iterator[Item]:
    """Optional poses, where they are there, against the world poses seen by our cameras: one sequence, first row."""
    archive = archive_of(manual_dir, kind, subject)
    if not folder_of(manual_dir, kind, subject).is_dir() and archive.is_file():
        yield packed(archive)
    if not wanted or not folder_of(manual_dir, kind, subject).is_dir():
        return
    sequence = wanted[0]
    width = 2 if kind is POSES_2D else 3
    try:
        world = read_world_poses(path_of(manual_dir, POSES, sequence), sequence)
    except UserError:  # these poses have an item of their own
        return
    for camera_name in CAMERAS:
        path = path_of(manual_dir, kind, sequence, camera_name)

        def look(path: pathlib.Path, camera_name: str = camera_name) -> str:
            return compare(world[0], read_pose_cdf(path, width)[0], subject, camera_name)

        yield _file(path, manual_dir, look, optional=not path.is_file())


def _relative(path: pathlib.Path, manual_dir: pathlib.Path) -> str:
    return path.relative_to(manual_dir).as_posix()


def _without(path: pathlib.Path, error: UserError) -> str:
    """An error's text without the path it begins with, which stands beside it in the tree."""
    return str(error).removeprefix(str(path)).lstrip(": ")
