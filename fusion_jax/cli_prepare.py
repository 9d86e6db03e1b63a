"""The commands that bring data in: `prepare`, one sub-command a dataset with its own settings, and `check-data`."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union

import tyro

from data_pipelines.registry import RAW_DATASETS, settings_class
from fusion_jax.errors import check_field


@dataclasses.dataclass(frozen=True)
class PrepareSynthetic:
    """People posed and rendered here; nothing to download.

    fusion-jax prepare synthetic_humans --data-dir data

    With --motion they act out your BVH motion-capture clips instead of the built-in actions. A dataset that is
    already there is kept and said so.
    """

    data_dir: pathlib.Path = pathlib.Path("data")
    """Folder that holds prepared datasets."""
    motion: pathlib.Path | None = None
    """Folder of BVH clips named <performer>_<clip>.bvh; CMU's and other common joint names are understood, any
    others through a mapping.json in the folder."""
    test_performers: tuple[str, ...] = ()
    """With --motion: whose clips are for testing only; by default those with the least motion, a tenth of it."""
    num_subjects: int = 32
    """How many people; a quarter of them are for testing, an eighth for validation."""
    size: int = 64
    """Side of the pictures, px."""
    frames: int = 8
    """Frames of each sequence; every one is seen by four cameras."""
    fps: float = 5.0
    """Frames per second kept of the motion."""
    seed: int = 0
    """Draws people, motion, cameras, light and rooms."""

    def run(self) -> None:
        from fusion_jax.prepare import prepare_synthetic_humans

        prepare_synthetic_humans(
            self.data_dir,
            size=self.size,
            num_subjects=self.num_subjects,
            frames=self.frames,
            fps=self.fps,
            seed=self.seed,
            motion="" if self.motion is None else str(self.motion),
            test_performers=self.test_performers,
        )


_TITLES = {
    "human36m": "Human3.6M: 17 joints in 3D, four cameras, seven people.",
    "humaneva": "HumanEva-I: 15 joints in 3D at video time, from the raw motion capture.",
    "kth_football2": "KTH Multiview Football II: 14 joints in 3D, affine cameras.",
    "lsp": "Leeds Sports Pose, and its extended set: 14 joints in 2D.",
    "mpii": "MPII Human Pose: 16 joints in 2D.",
    "tekin_release": "What the paper's authors published: pictures, heatmaps and poses in HDF5.",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawFiles:
    """A dataset that you download yourself; the dataset's own settings are fields of the sub-commands."""

    manual_dir: pathlib.Path
    """Folder with the files you downloaded, unpacked or as archives; data_pipelines/<dataset>/README.md says which."""

    def chosen(self) -> tuple[str, Any]:
        """The dataset's name, and its settings as given."""
        settings: Any = type(self).__mro__[1]  # a sub-command's first base
        name = next(name for name in RAW_DATASETS if settings_class(name) is settings)
        return name, settings(**{field.name: getattr(self, field.name) for field in dataclasses.fields(settings)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareRaw(RawFiles):
    """Decoding and writing."""

    data_dir: pathlib.Path = pathlib.Path("data")
    """Folder that holds prepared datasets."""
    workers: int | None = None
    """Processes that decode, about 250 MB each; none: one a core, at most 6; 0: this one."""
    partial: bool = False
    """Where files are missing or broken: prepare the good rest and list what is left out, instead of refusing."""

    def run(self) -> None:
        from fusion_jax.prepare_raw import default_workers, prepare_raw

        name, settings = self.chosen()
        check_field(self.workers is None or self.workers >= 0, "workers", self.workers, ">= 0")
        workers = default_workers() if self.workers is None else self.workers
        prepare_raw(name, self.manual_dir, self.data_dir, settings, workers=workers, partial=self.partial)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckRaw(RawFiles):
    """Looking, and writing nothing."""

    def run(self) -> int:
        from data_pipelines.inventory import format_tree
        from fusion_jax.prepare_raw import check_data

        found = check_data(self.chosen()[0], self.manual_dir, self.chosen()[1])
        print(format_tree(found))
        print(found.summary())
        return 1 if found.problems else 0


def _of_each_dataset(command: type, verb: str) -> tuple:
    """A sub-command for every dataset: its settings and the command's own fields, as one dataclass."""
    made = []
    for name in RAW_DATASETS:
        words = f"{_TITLES[name]}\n\nfusion-jax {verb} {name} --manual-dir RAW\n"
        cls = type(f"{verb}_{name}", (settings_class(name), command), {"__doc__": words})
        made.append(Annotated[dataclasses.dataclass(frozen=True, kw_only=True)(cls), tyro.conf.subcommand(name)])
    return tuple(made)


if TYPE_CHECKING:
    OnePrepare: TypeAlias = Any
    OneCheck: TypeAlias = Any
else:
    synthetic = Annotated[PrepareSynthetic, tyro.conf.subcommand("synthetic_humans")]
    OnePrepare = Union[(synthetic, *_of_each_dataset(PrepareRaw, "prepare"))]  # noqa: UP007
    OneCheck = Union[_of_each_dataset(CheckRaw, "check-data")]  # noqa: UP007


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Write a dataset to disk, ready for training. Safe to run again: what is finished is kept.

    fusion-jax prepare synthetic_humans --data-dir data

    fusion-jax prepare human36m --manual-dir RAW --data-dir data --frame-step 5
    """

    dataset: Annotated[OnePrepare, tyro.conf.arg(name="")]

    def run(self) -> None:
        self.dataset.run()


@dataclasses.dataclass(frozen=True)
class CheckData:
    """Show what of a dataset's files is there and what is missing. Exit code 1 when it is incomplete.

    fusion-jax check-data human36m --manual-dir RAW

    In the tree: ok as it should be, -- missing or odd but not needed, !! to be mended.
    """

    dataset: Annotated[OneCheck, tyro.conf.arg(name="")]

    def run(self) -> int:
        return self.dataset.run()
