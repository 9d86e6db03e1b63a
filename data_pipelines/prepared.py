"""Prepared datasets on disk: finding, opening and describing them. TFDS's array_record files; no TensorFlow."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from fusion_jax.errors import UserError
from fusion_jax.records import read_json
from fusion_jax.skeletons import Skeleton, skeleton

_END_BYTES = 2**16


class Examples(Protocol):
    """Examples by index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


class LiveExamples(Examples, Protocol):
    """Examples that are drawn when asked for, whole batches at once where many are wanted."""

    def batch(self, indices: Any, rng: Any) -> dict[str, Any]:
        """New views of the examples at `indices` (B,), each field with B in front."""
        ...


@dataclasses.dataclass(frozen=True)
class PoseDataset:
    """An opened dataset.

    Attributes:
      name: '<dataset>/<config>', which stays clear when other configs are prepared beside it.
      skeleton: layout of its joints.
      image_size: side of its pictures, px.
      splits: examples of each split by index, as dicts of schema.pose_features (pictures as JPEG bytes).
      subjects: who is in each split.
      description: what a table's protocol says of it (frames, cameras, motion source, ...).
      fingerprint: changes when the data does.
      render: for live data (whose splits are LiveExamples), the device function from a batch's `scene` to `image`.
    """

    name: str
    skeleton: Skeleton
    image_size: int
    splits: Mapping[str, Examples]
    subjects: dict[str, list[str]]
    description: dict[str, Any]
    fingerprint: str
    render: Callable | None = None

    def split(self, name: str) -> Examples:
        """The examples of a split. Raises UserError, listing the splits there are."""
        if name not in self.splits:
            raise UserError(f"dataset {self.name} has no split {name!r}; it has {', '.join(self.splits)}")
        return self.splits[name]


def find_prepared(name: str, data_dir: pathlib.Path) -> pathlib.Path:
    """The folder DATA_DIR/<dataset>/<config>/<version> of a name '<dataset>' or '<dataset>/<config>'.

    Raises:
      UserError: nothing is prepared there, or the name leaves a choice; says which command prepares or which
        names there are.
    """
    dataset, _, config = name.partition("/")
    root = data_dir / dataset
    found = sorted(path.parent for path in root.glob("*/*/dataset_info.json") if path.parent.parent.name[0] != ".")
    found = [path for path in found if not path.name.startswith("incomplete")]
    matching = [path for path in found if config in ("", path.parent.name)]
    configs = sorted({path.parent.name for path in found})
    if not found:
        raise UserError(f"no prepared {dataset} in {data_dir}; run: fusion-jax prepare {dataset} --data-dir {data_dir}")
    if not matching:
        raise UserError(f"{root} holds no config {config!r}; it has {', '.join(configs)}")
    if len({path.parent for path in matching}) > 1:
        choices = ", ".join(f"{dataset}/{config}" for config in configs)
        raise UserError(f"{root} holds several datasets; choose one with --dataset: {choices}")
    return matching[-1]  # the newest version


def open_prepared(name: str, data_dir: pathlib.Path) -> PoseDataset:
    """Opens a prepared dataset for random access by index."""
    import tensorflow_datasets as tfds

    folder = find_prepared(name, pathlib.Path(data_dir))
    metadata = _read_metadata(folder)
    skip = {"image": tfds.decode.SkipDecoding()}
    try:
        builder = tfds.builder_from_directory(folder)
        splits = {
            split: _Shards(folder, builder.as_data_source(split=split, decoders=skip)) for split in builder.info.splits
        }
        for examples in splits.values():
            _ = examples[0], examples[len(examples) - 1]
    except UserError:
        raise
    except Exception as error:  # TFDS, protobuf and array_record each raise kinds of their own
        raise _damaged(folder, error) from error
    return PoseDataset(
        name=f"{folder.parent.parent.name}/{folder.parent.name}",
        skeleton=skeleton(metadata["skeleton"]),
        image_size=metadata["image_size"],
        splits=splits,
        subjects=metadata["subjects"],
        description=metadata["description"],
        fingerprint=_fingerprint(folder),
    )


class _Shards:
    """A split's examples on disk, whose damage is a UserError that names the folder."""

    def __init__(self, folder: pathlib.Path, source: Any):
        self._folder, self._source = folder, source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):  # no damage: Python's own iteration ends so
            raise IndexError(index)
        try:
            return self._source[int(index)]
        except Exception as error:  # of array_record's or protobuf's own kinds
            raise _damaged(self._folder, error) from error


def _read_metadata(folder: pathlib.Path) -> dict[str, Any]:
    metadata = read_json(folder / "metadata.json")
    kinds = {"skeleton": str, "image_size": int, "subjects": dict, "description": dict}
    for field, kind in kinds.items():
        if not isinstance(metadata, dict) or type(metadata.get(field)) is not kind:
            raise UserError(f"{folder / 'metadata.json'}: {field} must be {kind.__name__}; prepare the dataset again")
    return metadata


def _damaged(folder: pathlib.Path, error: Exception) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return UserError(f"the dataset in {folder} is damaged ({reason}); delete that folder and prepare it again")


def _fingerprint(folder: pathlib.Path) -> str:
    """Digest of the descriptions and of each shard's size and ends; reading all would cost minutes on real data."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.array_record*")]):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_END_BYTES))
            file.seek(max(0, size - _END_BYTES))
            digest.update(file.read(_END_BYTES))
    return digest.hexdigest()[:16]
