"""Where the files of Human3.6M lie and what each kind must be; nothing is read here."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

from data_pipelines.archives import locate
from data_pipelines.human36m.sequences import Sequence, is_miscellaneous


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
      folder: below the subject's.
      ending: of its files.
      archive: beginning of the archive's name.
      per_camera: one file a camera, which its name tells, or one a sequence.
    """

    folder: str
    ending: str
    archive: str
    per_camera: bool = True


POSES = Kind("MyPoseFeatures/D3_Positions", ".cdf", "Poses_D3_Positions", per_camera=False)
VIDEOS = Kind("Videos", ".mp4", "Videos")
MASKS = Kind("MySegmentsMat/ground_truth_bb", ".mat", "Segments_mat_gt_bb")
POSES_2D = Kind("MyPoseFeatures/D2_Positions", ".cdf", "Poses_D2_Positions")
POSES_CAMERA = Kind("MyPoseFeatures/D3_Positions_mono", ".cdf", "Poses_D3_Positions_mono")


def file_name(kind: Kind, stem: str, camera_name: str) -> str:
    """Such as 'Directions 1.54138969.mp4'; without the camera where a kind has no file for each."""
    return f"{stem}.{camera_name}{kind.ending}" if kind.per_camera else f"{stem}{kind.ending}"


def stem_of(kind: Kind, name: str) -> str:
    """The sequence's part of a file's name, which may hold spaces: what is before the dots, from the right."""
    return name.rsplit(".", 2 if kind.per_camera else 1)[0]


def folder_of(manual_dir: pathlib.Path, kind: Kind, subject: str) -> pathlib.Path:
    """Where a subject's files of a kind are, in the manual folder or in an unpacked archive's."""
    return locate(manual_dir, f"{subject}/{kind.folder}")


def path_of(manual_dir: pathlib.Path, kind: Kind, sequence: Sequence, camera_name: str = "") -> pathlib.Path:
    """Where a file is, or belongs."""
    return folder_of(manual_dir, kind, sequence.subject) / file_name(kind, sequence.stem, camera_name)


def archive_of(manual_dir: pathlib.Path, kind: Kind, subject: str) -> pathlib.Path:
    """The archive that holds a subject's files of a kind, as the dataset's site names it."""
    return manual_dir / f"{kind.archive}_{subject}.tgz"


def stems_in(folder: pathlib.Path, kind: Kind) -> set[str]:
    """The sequences a folder has files of, without the `_ALL` recording and what other programs left."""
    names = (path.name for path in folder.iterdir() if path.suffix.lower() == kind.ending)
    return {stem_of(kind, name) for name in names if not is_miscellaneous(name) and not name.startswith(".")}
