"""Where each file of HumanEva-I is: the tree's names, archives not unpacked yet, the corrected `.ofs` files."""

from __future__ import annotations

import pathlib

from data_pipelines.archives import locate
from data_pipelines.humaneva.tables import CLOCK_CAMERAS

OFS_UPDATE_FOLDER = "Critical_Update_OFS_files"


def video_name(subject: str, action: str, camera: str) -> str:
    """The video of trial 1; brackets are part of the name."""
    return f"{subject}/Image_Data/{action}_1_({camera}).avi"


def mocap_name(subject: str, action: str) -> str:
    """The motion capture of trial 1."""
    return f"{subject}/Mocap_Data/{action}_1.c3d"


def static_name(subject: str) -> str:
    """The subject standing still, for the width of the shoulders."""
    return f"{subject}/Mocap_Data/Static.c3d"


def params_name(subject: str) -> str:
    """The subject's measures."""
    return f"{subject}/Mocap_Data/{subject}.mp"


def offsets_name(subject: str, action: str, camera: str) -> str:
    """Where a video of trial 1 lies on the motion capture's clock."""
    return f"{subject}/Sync_Data/{action}_1_({camera}).ofs"


def calibration_name(subject: str, camera: str) -> str:
    """A camera's numbers."""
    return f"{subject}/Calibration_Data/{camera}.cal"


def stand_in(path: pathlib.Path) -> pathlib.Path | None:
    """What is read in a file's place, if it is there.

    A folder of pictures counts more than the video beside it, as in the toolbox; a cache of the motion capture is
    read where the .c3d itself is missing.
    """
    if path.suffix == ".avi" and path.with_suffix("").is_dir():
        return path.with_suffix("")
    if path.suffix == ".c3d" and not path.exists() and path.with_suffix(".mat").exists():
        return path.with_suffix(".mat")
    return None


def find(manual_dir: pathlib.Path, name: str) -> pathlib.Path:
    """Where a file of the tree is, or would be beside its `stand_in`.

    Raises:
      UserError: it is in two unpacked archives.
    """
    found = locate(manual_dir, name)
    other = {".avi": "", ".c3d": ".mat"}.get(found.suffix)
    if other is None or found.exists():
        return found
    beside = locate(manual_dir, str(pathlib.PurePosixPath(name).with_suffix(other)))
    return beside.parent / found.name if beside.exists() else found


def find_offset(manual_dir: pathlib.Path, subject: str, action: str, camera: str) -> pathlib.Path:
    """An `.ofs` file, or where it should be.

    The release's own were wrong and have been replaced by an update; unpacked beside the data, its files count.

    Raises:
      UserError: it is in two unpacked archives.
    """
    name = offsets_name(subject, action, camera)
    updated = manual_dir / OFS_UPDATE_FOLDER / name
    return updated if updated.exists() else locate(manual_dir, name)


def find_offsets(manual_dir: pathlib.Path, subject: str, action: str) -> dict[str, pathlib.Path]:
    """The `.ofs` files of a trial that are there, by camera. Raises UserError as `find_offset`."""
    paths = {camera: find_offset(manual_dir, subject, action, camera) for camera in CLOCK_CAMERAS}
    return {camera: path for camera, path in paths.items() if path.exists()}
