"""The files of MPII: where they are, what they look like from outside, and the annotations they hold."""

from __future__ import annotations

import functools
import pathlib

from data_pipelines.archives import locate, may_hold
from data_pipelines.mpii.release import Person, parse_release
from data_pipelines.picture_file import picture_problem
from fusion_jax.errors import UserError

PICTURES_ARCHIVE, LABELS_ARCHIVE = "mpii_human_pose_v1.tar.gz", "mpii_human_pose_v1_u12_2.zip"
LABELS_FOLDER, LABELS_FILE = "mpii_human_pose_v1_u12_2", "mpii_human_pose_v1_u12_1.mat"  # they do differ


def labels_path(manual_dir: pathlib.Path) -> pathlib.Path:
    """Where the annotations are, or should be: in the zip's inner folder, or by themselves."""
    path, alone = (locate(manual_dir, name) for name in (f"{LABELS_FOLDER}/{LABELS_FILE}", LABELS_FILE))
    return alone if alone.exists() and not path.exists() else path


def pictures_folder(manual_dir: pathlib.Path) -> pathlib.Path:
    """Where the pictures are, or should be; the folder named after the archive may have outlived it."""
    found, alone = locate(manual_dir, "images"), manual_dir / "mpii_human_pose_v1" / "images"
    return alone if alone.exists() and not found.exists() else found


def may_hold_pictures(archive: pathlib.Path) -> bool:
    """Whether an archive is the one of the pictures, by its name, or holds pictures."""
    return archive.name == PICTURES_ARCHIVE or may_hold(archive, ".jpg")


def load_people(manual_dir: pathlib.Path) -> tuple[Person, ...]:
    """Everybody annotated. Raises UserError where the file is missing or is another."""
    path = labels_path(manual_dir)
    if not path.is_file():
        raise UserError(f"{path} is missing; download {LABELS_ARCHIVE} or correct --manual-dir")
    stat = path.stat()
    return _load_people(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _load_people(path: pathlib.Path, size: int, mtime_ns: int) -> tuple[Person, ...]:
    """Kept while the file stays the same: reading it takes a while, and parts, inventory and description all ask."""
    from data_pipelines.matfile import load_mat_variable

    release = load_mat_variable(path, "RELEASE", squeeze_me=True)
    try:
        return tuple(parse_release(release))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def image_problem(path: pathlib.Path) -> str | None:
    """What is wrong with a picture by its first bytes; None where it begins as a JPEG."""
    return picture_problem(path, "JPEG", f"download {PICTURES_ARCHIVE} again", look_at_end=False)
