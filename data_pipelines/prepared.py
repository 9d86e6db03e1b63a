"""Prepared datasets on disk: finding, opening and describing them. TFDS's array_record files; no TensorFlow."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from data_pipelines.features_file import check_features
from data_pipelines.provenance import Provenance, check_provenance
from data_pipelines.readable import UnreadableError, check_name, check_readable, folders_in, is_there
from data_pipelines.record_parser import RecordParser
from fusion_jax.errors import UserError
from fusion_jax.records import read_json
from fusion_jax.skeletons import Skeleton, skeleton

MAX_SIZE = 4096
"""px along a side of a prepared picture."""
_LOOKED_AT = 64  # examples of each split that a fingerprint is made of


class Examples(Protocol):
    """Examples by index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


class LiveExamples(Examples, Protocol):
    """Examples that are drawn when asked for, whole batches at once where many are wanted."""

    def batch(self, indices: Any, rng: Any) -> dict[str, Any]:
        """New views of the examples at `indices` (B,), each field with B in front."""
        ...

    def part(self, indices: Any, rng: Any, own: slice) -> dict[str, Any]:
        """The rows `own` of what a batch at `indices` shows, the same whichever part of it is asked for."""
        ...


@dataclasses.dataclass(frozen=True)
class PoseDataset:
    """An opened dataset.

    Attributes:
      name: '<dataset>/<config>', which stays clear when other configs are prepared beside it.
      skeleton: layout of its joints.
      image_size: side of its pictures, px.
      splits: examples of each split by index, as dicts of schema.pose_features (pictures as encoded bytes).
      subjects: who is in each split; nobody where a dataset does not tell.
      family: datasets of one family may hold the same people under the same names; of two families never.
      provenance: which frames of which recordings each split is made of.
      people_shared: the dataset's own protocol trains and tests on the same people, in other frames.
      description: what a table's protocol says of it (frames, cameras, motion source, ...).
      fingerprint: changes when the data does.
      render: for live data (whose splits are LiveExamples), the device function from a batch's `scene` to `image`.
      render_with_parts: for live data, the same to `image` and `parts`.
      offers: what its batches can hold beside picture and joints: `parts`, a label map of body parts.
      extras: what of that they do hold, see `with_extras`.
    """

    name: str
    skeleton: Skeleton
    image_size: int
    splits: Mapping[str, Examples]
    subjects: dict[str, list[str]]
    description: dict[str, Any]
    fingerprint: str
    family: str = ""
    provenance: Mapping[str, Provenance] = dataclasses.field(default_factory=dict)
    people_shared: bool = False
    render: Callable | None = None
    render_with_parts: Callable | None = None
    offers: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()

    def split(self, name: str) -> Examples:
        """The examples of a split, or of several joined by '+'.

        Raises:
          UserError: no such split, listing those there are, or one named twice, whose examples would count twice.
        """
        parts = name.split("+")
        if len(set(parts)) < len(parts):
            raise UserError(f"split {name!r} names {max(parts, key=parts.count)} twice; name each part once")
        for part in parts:
            if part not in self.splits:
                raise UserError(f"dataset {self.name} has no split {part!r}; it has {', '.join(self.splits)}")
        return self.splits[name] if len(parts) == 1 else _Joined([self.splits[part] for part in parts])

    def with_extras(self, extras: tuple[str, ...]) -> PoseDataset:
        """The same dataset, whose batches also hold `extras`. Raises UserError for what it does not have."""
        for name in extras:
            if name not in self.offers:
                raise UserError(
                    f"{self.name} has no {name!r}, which a stream of the network reads; synthetic_humans has them from "
                    "version 1.3.0 on (fusion-jax prepare synthetic_humans), and synthetic_humans/live; take one of "
                    "those, or a network without that stream"
                )
        return dataclasses.replace(self, extras=extras)


class ChosenExamples:
    """Examples at chosen places, in a chosen order, each read when it is asked for."""

    def __init__(self, examples: Examples, rows: np.ndarray):
        """`rows`: (N,) places."""
        self._examples, self._rows = examples, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._examples[int(self._rows[index])]


def find_prepared(name: str, data_dir: pathlib.Path) -> pathlib.Path:
    """The folder DATA_DIR/<dataset>/<config>/<version> of a name '<dataset>' or '<dataset>/<config>'.

    Raises:
      UserError: nothing is prepared there, or the name leaves a choice; says which command prepares or which
        names there are.
      UnreadableError: a folder on the way cannot be listed, so what is prepared there is not known.
    """
    dataset, _, config = name.partition("/")
    root = data_dir / dataset
    found = _versions(root, config)
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


def _versions(root: pathlib.Path, config: str) -> list[pathlib.Path]:
    """The finished <config>/<version> of a dataset. One that may not be seen counts only where `config` means it."""
    found: list[pathlib.Path] = []
    for folder in folders_in(root):
        if folder.name.startswith("."):
            continue
        try:
            versions = [path for path in folders_in(folder) if not path.name.startswith("incomplete")]
            found += [path for path in versions if is_there(path / "dataset_info.json")]
        except UnreadableError:
            if config in ("", folder.name):
                raise
    return found


def open_prepared(name: str, data_dir: pathlib.Path) -> PoseDataset:
    """Opens a prepared dataset for random access by index.

    Raises:
      UserError: nothing is prepared there, its files are damaged or say what no prepared dataset says, or reading them
        would run code that came with them.
      UnreadableError: files are there that the system does not let be read, or the folder's name is no text.
    """
    import tensorflow_datasets as tfds

    folder = find_prepared(name, pathlib.Path(data_dir))
    check_name(folder)
    try:
        metadata = _read_metadata(folder)
        check_features(folder)
        builder = tfds.builder_from_directory(folder)
        offers = tuple(name for name in ("parts",) if name in builder.info.features)
        parse = RecordParser(builder.info.features, ("image", *offers))
        splits = {
            split: _Shards(folder, builder.as_data_source(split=split).data_source, parse)
            for split in builder.info.splits
        }
        fingerprint = _fingerprint(metadata, splits)
    except UserError as error:
        check_readable(folder, error)
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
        fingerprint=fingerprint,
        family=str(metadata.get("family", folder.parent.parent.name)),
        provenance={
            split: check_provenance(found, f"{folder / 'metadata.json'}: provenance of {split}")
            for split, found in metadata.get("provenance", {}).items()
        },
        people_shared=metadata.get("people_shared") is True,
        offers=offers,
    )


class _Joined:
    """Several splits' examples, one after another."""

    def __init__(self, parts: Sequence[Examples]):
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        which = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[which][int(index) - int(self._ends[which - 1] if which else 0)]


class _Shards:
    """A split's examples on disk; a UserError names the folder where it is damaged or cannot be read."""

    def __init__(self, folder: pathlib.Path, source: Any, parse: Callable[[bytes], dict[str, Any]]):
        self._folder, self._source, self._parse = folder, source, parse

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):  # no damage: Python's own iteration ends so
            raise IndexError(index)
        try:
            return self._parse(self._source[int(index)])
        except Exception as error:  # of array_record's or protobuf's own kinds
            raise _damaged(self._folder, error) from error


def _read_metadata(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / "metadata.json"
    metadata = read_json(path)
    kinds = {"skeleton": str, "image_size": int, "subjects": dict, "description": dict}
    optional: dict[str, Any] = {"provenance": {}, "faults": []}
    for field, kind in (kinds | {field: type(value) for field, value in optional.items()}).items():
        given = optional | metadata if isinstance(metadata, dict) else {}
        if type(given.get(field)) is not kind:
            raise UserError(f"{path}: {field} must be {kind.__name__}; prepare the dataset again")
    if not 1 <= metadata["image_size"] <= MAX_SIZE:
        raise UserError(f"{path}: image_size is {metadata['image_size']}, expected 1 to {MAX_SIZE} px")
    for split, names in metadata["subjects"].items():
        if not isinstance(names, list) or not all(type(name) is str for name in names):
            raise UserError(f"{path}: subjects of {split[:80]!r} must be a list of names; prepare the dataset again")
    return metadata


def _damaged(folder: pathlib.Path, error: Exception) -> UserError:
    check_readable(folder, error)  # nobody is to delete what is sound
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return UserError(f"the dataset in {folder} is damaged ({reason}); delete that folder and prepare it again")


def _fingerprint(metadata: dict[str, Any], splits: Mapping[str, Examples]) -> str:
    """Digest of the metadata, of how many examples there are, and of some of them, evenly spaced over each split.

    Of what the examples say, not of the files' bytes: the same data prepared again has the same fingerprint. Reading
    all would cost minutes on real data.
    """
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for split, examples in sorted(splits.items()):
        digest.update(f"{split} {len(examples)}\n".encode())
        for index in np.unique(np.linspace(0, len(examples) - 1, _LOOKED_AT).astype(int)):
            _add(digest, examples[int(index)])
    return digest.hexdigest()[:16]


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, Mapping):
        for name in sorted(value):
            digest.update(f"{name}\n".encode())
            _add(digest, value[name])
    else:
        data = value if isinstance(value, bytes) else str(value).encode() if isinstance(value, str) else None
        digest.update(np.ascontiguousarray(value).tobytes() if data is None else data)
