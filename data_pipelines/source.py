"""What a raw dataset must be able to say of itself, so that one program checks, prepares and describes them all.

A dataset's folder holds `settings.py` (what a user can choose, no heavy imports), `source.py` (a `Source`),
`<name>_dataset_builder.py` (the TFDS builder around it) and `dummy_data.py` (a tree in the true formats, made up).
"""

from __future__ import annotations

import abc
import collections
import pathlib
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

from data_pipelines.archives import find_archives, is_archive, is_unpacked
from data_pipelines.video import check_not_text
from fusion_jax.errors import UserError
from fusion_jax.skeletons import skeleton

Example = dict[str, Any]


class Item(NamedTuple):
    """One file or folder that a dataset consists of, as found.

    Attributes:
      path: relative to the manual folder, with /.
      problem: what is wrong and what to do, in one line; None where all is well.
      size: bytes; None for a folder or what is missing.
      note: what was seen, such as '1383 rows'.
      optional: the dataset can be prepared without it.
    """

    path: str
    problem: str | None = None
    size: int | None = None
    note: str = ""
    optional: bool = False


def archive_item(path: pathlib.Path) -> Item:
    """What an archive looks like by its ends: one that waits to be unpacked, or a web page or something else."""
    size, problem = path.stat().st_size, None
    try:
        check_not_text(path)
        if not is_archive(path):
            with path.open("rb") as file:
                start = file.read(4)
            problem = f"is no zip or tar archive, or is cut off (it starts with {start!r}); download it again"
    except UserError as error:
        problem = str(error).removeprefix(f"{path} ")
    if problem:
        return Item(path.name, problem, size)
    return Item(path.name, None, size, "unpacked" if is_unpacked(path) else "not unpacked yet; prepare does it")


def waiting_archives(source: Source) -> list[pathlib.Path]:
    """The archives that preparing would unpack."""
    return [path for path in source.archives() if not is_unpacked(path)]


class Part(NamedTuple):
    """A piece that one process reads from start to end and that becomes one shard: a video, or some pictures.

    Attributes:
      split: train, validation or test.
      name: unique in the dataset, such as 'S9/Directions 1/54138969'.
      subject: who is seen; '' where a dataset does not tell.
      recording, first, last: whose frames it holds, for provenance: all cameras of one performance share the name.
      examples: how many at most, for the progress bar.
      files: what it reads, so that a part is made again when one of them changed.
      job: what `Source.read` needs; must pickle.
    """

    split: str
    name: str
    subject: str
    recording: str
    first: int
    last: int
    examples: int
    files: tuple[pathlib.Path, ...]
    job: Any = None


class Tally:
    """What a part had to leave out: `skip` for what the dataset is known to lack, `fault` for what is broken.

    Attributes:
      strict: whether a fault is an error at once; else it is written down and the good rest is kept.
      skipped: how many frames by reason.
      faults: a line each.
      notes: a line each, on frames that are kept.
    """

    def __init__(self, strict: bool = True):
        self.strict = strict
        self.skipped: collections.Counter[str] = collections.Counter()
        self.faults: list[str] = []
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Says something about frames that are kept, once however often it is said."""
        if text not in self.notes:
            self.notes.append(text)

    def skip(self, reason: str, count: int = 1) -> None:
        """Counts frames that are left out for a reason that is no fault of the files."""
        if count:
            self.skipped[reason] += count

    def fault(self, message: str) -> None:
        """Raises UserError(message) where strict, else writes it down."""
        if self.strict:
            raise UserError(message)
        if message not in self.faults:
            self.faults.append(message)


class Source(abc.ABC):
    """A raw dataset in a folder that the user filled by hand.

    Attributes:
      name: of the dataset.
      skeleton_name: layout of its joints, a key of SKELETONS.
      family: datasets of one family show the same people; '' for a family of its own.
      people_shared: the dataset's own protocol shows one person in training and in test (in other frames).
    """

    name: ClassVar[str]
    skeleton_name: ClassVar[str]
    family: ClassVar[str] = ""
    people_shared: ClassVar[bool] = False

    def __init__(self, manual_dir: pathlib.Path, settings: Any):
        self.manual_dir = pathlib.Path(manual_dir)
        self.settings = settings

    @abc.abstractmethod
    def inventory(self) -> Iterator[Item]:
        """Everything that the dataset needs or can use, in the tree's order, looked into as far as is quick."""

    def archives(self) -> list[pathlib.Path]:
        """The archives in the manual folder that the settings need, unpacked or not; all, where it cannot tell."""
        return find_archives(self.manual_dir)

    def archive_item(self, archive: pathlib.Path) -> Item:
        """What is to be said of an archive before it is unpacked; a dataset with published checksums compares them."""
        return archive_item(archive)

    @abc.abstractmethod
    def parts(self) -> list[Part]:
        """All parts that the settings ask for, whether or not their files are there, in a fixed order."""

    @abc.abstractmethod
    def read(self, part: Part, tally: Tally) -> Iterator[Example]:
        """The examples (of `features`) of a part in order. Streams: holds a few frames at a time.

        Raises:
          UserError: naming the file and what to do, where nothing (more) of the part can be read.
        """

    @abc.abstractmethod
    def description(self) -> dict[str, Any]:
        """What a table's protocol says of the data: frames, cameras, boxes, corrections, terms."""

    def features(self) -> Any:
        """The TFDS features of its examples."""
        from data_pipelines.schema import pose_features

        return pose_features(skeleton(self.skeleton_name).num_joints, self.settings.size)
