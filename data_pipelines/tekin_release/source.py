"""The HDF5 files that the paper's authors released: pictures, root-relative poses and a 2D network's heatmaps."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.archives import locate, may_hold
from data_pipelines.source import Example, Item, Part, Source, Tally, waiting_archives
from data_pipelines.tekin_release import frames
from data_pipelines.tekin_release.rows import Rows, find_rows, has_rows, open_hdf5
from data_pipelines.tekin_release.settings import TekinReleaseSettings
from fusion_jax.errors import UserError

PARTS = ("train", "val")  # as the release names them
_PART_ROWS = 500
_LOOKED_AT = 64  # poses of a file that check-data looks at
_MOST_HELD_OUT = 1 / 4  # of the training rows: a small file still has something to train on


class Files(NamedTuple):
    """The two files of a part of the release, wherever they are or should be."""

    images: pathlib.Path
    heatmaps: pathlib.Path


class TekinReleaseSource(Source):
    """See README.md."""

    name = "tekin_release"
    skeleton_name = "human36m17"
    # Its rows do not tell who is seen: the training people of Human3.6M in its train part, the test people in its val
    # part. So nobody can be named here, and only the rows say whether two of its splits overlap.
    family = "human36m"
    people_shared = True
    settings: TekinReleaseSettings

    def files(self, part: str) -> Files:
        """Where 'train' or 'val' is stored.

        The pictures are in a file of their own, or in one that holds both parts: without the part in its name, or the
        training file.
        """
        number = self.settings.action
        names = [f"h36m_data_imgs_A_{number}_{part}.h5", f"h36m_data_imgs_A_{number}.h5"]
        names += [f"h36m_data_imgs_A_{number}_train.h5"] if part == "val" else []
        places = [locate(self.manual_dir, name) for name in names]
        images = next((place for place in places if place.is_file()), places[0])
        return Files(images, locate(self.manual_dir, f"h36m_data_hg_preds_A_{number}_{part}.h5"))

    def inventory(self) -> Iterator[Item]:
        """The four files, with their rows counted and some poses looked at; or the archives that may hold them."""
        packed = waiting_archives(self)
        yield from map(self.archive_item, packed)
        waiting = any(may_hold(archive, ".h5") for archive in packed)
        for part in PARTS:
            files = self.files(part)
            if waiting and not (files.images.exists() or files.heatmaps.exists()):
                continue
            images, rows = self._images_item(part, files.images)
            yield images
            yield self._heatmaps_item(files.heatmaps, rows)

    def _images_item(self, part: str, path: pathlib.Path) -> tuple[Item, int | None]:
        try:
            with open_hdf5(path) as file:
                images, poses = _images(file, path, part)
                looked_at = np.unique(np.linspace(0, len(poses) - 1, _LOOKED_AT).astype(int))
                some = np.concatenate([poses.read(row, row) for row in looked_at])
                for row, one in zip(looked_at, some, strict=True):
                    _named(f"{poses.where} row {row}", frames.pose, one)
                if frames.upside_down(some):
                    raise UserError(f"{poses.where}: most poses stand on their heads; expected y to point down")
                return self._item(path, f"{part}: {len(images)} rows"), len(images)
        except UserError as error:
            return self._item(path, "", error), None

    def _heatmaps_item(self, path: pathlib.Path, rows: int | None) -> Item:
        try:
            with open_hdf5(path) as file:
                heatmaps = find_rows(file, path, "heatmaps", frames.HEATMAP_SHAPE)
                if rows is not None:
                    _check_counts(heatmaps, len(heatmaps), rows)
                return self._item(path, f"{len(heatmaps)} rows")
        except UserError as error:
            return self._item(path, "", error)

    def _item(self, path: pathlib.Path, note: str, error: UserError | None = None) -> Item:
        problem = str(error).removeprefix(f"{path}").lstrip(": ") if error else None
        return Item(
            path.relative_to(self.manual_dir).as_posix(), problem, path.stat().st_size if path.is_file() else None, note
        )

    def parts(self) -> list[Part]:
        """Runs of rows. The release's training rows are `train`, their end `validation`; its val rows are `test`."""
        train = self._count("train")
        if not train:
            return [*self._runs("train", "train", 0, 0), *self._runs("test", "val", 0, self._count("val"))]
        held_out = min(self.settings.validation_count, int(train * _MOST_HELD_OUT))
        runs = (
            ("train", "train", 0, train - held_out),
            ("validation", "train", train - held_out, train),
            ("test", "val", 0, self._count("val")),
        )
        return [part for run in runs for part in self._runs(*run)]

    def _count(self, part: str) -> int:
        """Rows of 'train' or 'val'; 0 where its file cannot be read, which `read` will say."""
        path = self.files(part).images
        try:
            with open_hdf5(path) as file:
                return len(_images(file, path, part)[0])
        except UserError:
            return 0

    def _runs(self, split: str, part: str, start: int, stop: int) -> Iterator[Part]:
        """Parts of rows start to stop - 1; of no rows one part, in whose place the reason will stand."""
        recording = f"A_{self.settings.action}/{part}"
        if not stop:
            yield Part(split, recording, "", recording, 0, 0, 0, tuple(self.files(part)), part)
        for first in range(start, stop, _PART_ROWS):
            last = min(first + _PART_ROWS, stop) - 1
            name = f"{recording}/{first:06d}-{last:06d}"
            yield Part(split, name, "", recording, first, last, last - first + 1, tuple(self.files(part)), part)

    def read(self, part: Part, tally: Tally) -> Iterator[Example]:
        """A row at a time; a few dozen are in memory."""
        images_path, heatmaps_path = part.files
        with open_hdf5(images_path) as images_file, open_hdf5(heatmaps_path) as heatmaps_file:
            images, poses = _images(images_file, images_path, part.job)
            heatmaps = find_rows(heatmaps_file, heatmaps_path, "heatmaps", frames.HEATMAP_SHAPE)
            _check_counts(heatmaps, len(heatmaps), len(images))
            step = min(images.block_rows, heatmaps.block_rows)
            for first in range(part.first, part.last + 1, step):
                last = min(first + step - 1, part.last)
                blocks = [rows.read(first, last) for rows in (images, poses, heatmaps)]
                for row, (picture, pose, heatmap) in enumerate(zip(*blocks, strict=True), first):
                    try:
                        found = (
                            _named(f"{images.where} row {row}", frames.picture, picture, self.settings.round_pictures),
                            _named(f"{poses.where} row {row}", frames.pose, pose),
                            _named(f"{heatmaps.where} row {row}", frames.heatmap, heatmap),
                        )
                    except UserError as error:
                        tally.fault(str(error))
                        continue
                    yield _example(*found, action=self.settings.action_name, sequence=part.recording, row=row)

    def features(self) -> Any:
        """PNG pictures, and the heatmaps with them."""
        from data_pipelines.schema import pose_features

        channels, height, width = frames.HEATMAP_SHAPE
        return pose_features(frames.POSE_SHAPE[0], 128, encoding="png", heatmaps=(height, width, channels))

    def description(self) -> dict[str, Any]:
        """What a table must say of it."""
        settings = self.settings
        words = {
            "frames": f"action {settings.action} ({settings.action_name}), every 5th frame, as released",
            "poses": "relative to the pelvis, in a camera's frame; the cameras are not released",
            "pictures": "rounded to 255ths" if settings.round_pictures else "bit for bit",
            "heatmaps": "the authors' 2D network's, 16 channels of 64 x 64",
            "validation": "the last rows of the training file: the same people and recordings as train",
            "terms": "frames of Human3.6M, whose agreement binds",
        }
        if settings.action != 14:
            words["warning"] = f"action {settings.action} is taken for {settings.action_name}, which is unconfirmed"
        return words


def _images(file: Any, path: pathlib.Path, part: str) -> tuple[Rows, Rows]:
    """(pictures, poses) of 'train' or 'val' in an open file."""
    if part == "val" and not has_rows(file, "val_x") and has_rows(file, "train_x"):
        raise UserError(f"{path} holds train_x but no val_x; put the file of the validation part beside it")
    images = find_rows(file, path, f"{part}_x", frames.IMAGE_SHAPE)
    poses = find_rows(file, path, f"{part}_y3d", frames.POSE_SHAPE)
    _check_counts(poses, len(poses), len(images))
    return images, poses


def _check_counts(rows: Rows, count: int, images: int) -> None:
    if count != images:
        raise UserError(f"{rows.where} has {count} rows, the pictures {images}; the files are of different releases")


def _named(where: str, check: Any, *values: Any) -> np.ndarray:
    try:
        return check(*values)
    except ValueError as error:
        raise UserError(f"{where}: {error}; download it again or prepare the good rows with --partial") from error


def _example(
    picture: np.ndarray, pose: np.ndarray, heatmap: np.ndarray, *, action: str, sequence: str, row: int
) -> Example:
    """A row in the schema. No camera: its rotation is then the identity, and the pose passes through unchanged."""
    from data_pipelines.crops import encode_picture, person_example

    num_joints, size = len(pose), picture.shape[0]
    example = person_example(
        picture,
        np.array([-0.5, -0.5, size]),
        size,
        joints_world_mm=pose,
        valid=np.ones(num_joints, bool),
        joints2d_px=np.zeros((num_joints, 2)),
        valid2d=np.zeros(num_joints, bool),
        camera_name="unknown",
        subject="",
        action=action,
        sequence=sequence,
        frame=row,
    )
    return {**example, "image": encode_picture(picture, ".png"), "heatmap": heatmap}
