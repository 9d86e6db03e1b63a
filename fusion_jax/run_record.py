"""What a trained run left in its work folder, read back and checked: config, log, evaluations. No drawing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from fusion_jax.errors import UserError
from fusion_jax.npz_file import read_npz
from fusion_jax.records import read_json
from fusion_jax.skeletons import Skeleton, skeleton
from fusion_jax.training_log import Record, is_number, read_log

Task = Literal["pose", "heatmaps"]
_TRAINED = "give a work folder that `fusion-jax train` made"


class Samples(NamedTuple):
    """N evaluated frames, chosen to be looked at; the fields are the arrays of <split>_samples.npz.

    Attributes:
      image: (N, S, S, 3) uint8 crop.
      joints2d: (N, J, 2) px of the crop, (0, 0) the centre of its top left pixel.
      heatmap: (N, h, w, C), one channel a 2D joint, >= 0.
      true_mm, pred_mm: (N, J, 3) root-relative, camera frame.
      valid, valid2d: (N, J) bool, joint known in 3D and in 2D.
      mpjpe_mm: (N,), NaN where nothing is known in 3D.
      kind: (N,) best, median or worst; any where nothing is known in 3D.
      subject, action, sequence: (N,) str.
      frame: (N,) int.
    """

    image: np.ndarray
    joints2d: np.ndarray
    heatmap: np.ndarray
    true_mm: np.ndarray
    pred_mm: np.ndarray
    valid: np.ndarray
    valid2d: np.ndarray
    mpjpe_mm: np.ndarray
    kind: np.ndarray
    subject: np.ndarray
    action: np.ndarray
    sequence: np.ndarray
    frame: np.ndarray


class Samples2D(NamedTuple):
    """N evaluated frames of a 2D network, chosen to be looked at; the fields are the arrays of <split>_samples.npz.

    Attributes:
      image: (N, S, S, 3) uint8 crop, as the network reads it.
      joints2d, pred2d_px: (N, J, 2) true and predicted, px of the crop.
      valid2d: (N, J) bool, true joint known.
      confidence: (N, J) the peaks of the heatmaps.
      heatmap: (N, h, w, J) predicted, in [0, 1].
      joint_error_px: (N,) mean over a frame's known joints.
      kind, subject, action, sequence, frame: as of `Samples`; any where nothing is known in 2D.
    """

    image: np.ndarray
    joints2d: np.ndarray
    pred2d_px: np.ndarray
    valid2d: np.ndarray
    confidence: np.ndarray
    heatmap: np.ndarray
    joint_error_px: np.ndarray
    kind: np.ndarray
    subject: np.ndarray
    action: np.ndarray
    sequence: np.ndarray
    frame: np.ndarray


class Evaluation(NamedTuple):
    """The scores of one split, and its sample frames where any were kept, of the kind of the run's task.

    Attributes:
      split: what its files are called: the split, with the dataset in front where that is not the run's own.
    """

    split: str
    scores: Record
    samples: Samples | None
    samples2d: Samples2D | None = None

    @property
    def own(self) -> bool:
        """Whether the run's own dataset was scored."""
        return self.scores.get("split", self.split) == self.split.removesuffix(self._fed)

    @property
    def _fed(self) -> str:
        """The end of the files' name where the network was fed other heatmaps than it was trained with."""
        kind = re.escape(str(self.scores.get("heatmaps")))
        found = re.search(rf"_{kind}(_[0-9a-f]{{8}})?$", self.split)
        return found.group() if found else ""

    def command(self, workdir: Path) -> str:
        """What makes these scores for a run."""
        dataset = "" if self.own else f" --dataset {self.scores.get('dataset')}"
        fed = f" --heatmaps {self.scores.get('heatmaps')}" if self._fed else ""
        fed += " --heatmap-workdir RUN_OF_A_2D_NETWORK" if self._fed.startswith("_predicted") else ""
        split = self.scores.get("split", self.split)
        return f"fusion-jax evaluate --workdir {workdir}{dataset} --split {split}{fed}"


class RunRecord(NamedTuple):
    """A work folder: `train` and `validation` are log records by rising step, each step once."""

    workdir: Path
    config: Record
    train: list[Record]
    validation: list[Record]
    evaluations: list[Evaluation]

    @property
    def task(self) -> Task:
        """What the run learns: 3D poses, or 2D joints as heatmaps."""
        network = self.config.get("network")
        is_2d = isinstance(network, Mapping) and network.get("type") == "HourglassConfig"
        return "heatmaps" if is_2d else "pose"

    @property
    def image_size(self) -> int:
        """Side of the network's input, px."""
        return self._setting("inputs", "image_size", int)

    @property
    def strategy(self) -> str:
        """The fusion strategy's name, as in the config."""
        return self._setting("network", "strategy", str)

    @property
    def streams(self) -> list[str]:
        """The names of the streams that are read."""
        names = [str(stream["name"]) for stream in self._streams]
        return [self.strategy] if self.strategy in names else names

    @property
    def num_layers(self) -> int:
        """L."""
        return len(self._streams[0]["layers"])

    @property
    def skeleton(self) -> Skeleton:
        """The layout of the predicted poses."""
        return skeleton(self._setting("inputs", "skeleton", str))

    @property
    def _streams(self) -> list[Record]:
        streams = self._setting("network", "streams", list)
        whole = all(isinstance(s, dict) and isinstance(s.get("layers"), list) and "name" in s for s in streams)
        if not streams or not whole:
            raise UserError(f"{self.workdir / 'config.json'}: network.streams holds no streams of layers; {_TRAINED}")
        return streams

    def _setting(self, group: str, field: str, kind: type) -> Any:
        try:
            found = self.config[group][field]
        except (KeyError, TypeError):
            raise UserError(f"{self.workdir / 'config.json'}: {group}.{field} is missing; {_TRAINED}") from None
        if type(found) is not kind:
            what = f"{group}.{field} is {found!r:.80}, expected {kind.__name__}"
            raise UserError(f"{self.workdir / 'config.json'}: {what}; {_TRAINED}")
        return found


def read_run(workdir: Path, *, log: bool = True) -> RunRecord:
    """Everything in a work folder; without `log` the training log is not read and may be missing.

    So it is in a run whose weights were imported, until it is trained here.

    Raises:
      UserError: a file is missing or broken; it names the file and the command that makes it.
    """
    workdir = Path(workdir)
    config_path = workdir / "config.json"
    if not config_path.is_file():
        raise UserError(f"{config_path} is missing: run `fusion-jax train --workdir {workdir}` first")
    imported = (workdir / "imported.json").is_file() and not (workdir / "metrics.jsonl").is_file()
    train, validation = read_log(workdir / "metrics.jsonl") if log and not imported else ([], [])
    run = RunRecord(workdir, _read_object(config_path), train, validation, [])
    return run._replace(evaluations=read_evaluations(workdir, run.skeleton, run.task))


def read_evaluations(workdir: Path, layout: Skeleton, task: Task = "pose") -> list[Evaluation]:
    """All in WORKDIR/eval, `test` first, then `validation`, then by name. Raises UserError for none."""
    paths = sorted((workdir / "eval").glob("*.json"), key=lambda p: (p.stem != "test", p.stem != "validation", p.stem))
    if not paths:
        raise UserError(f"{workdir / 'eval'} holds no evaluation: run `fusion-jax evaluate --workdir {workdir}` first")
    score, unit = ("mpjpe_mm", "mm") if task == "pose" else ("joint_error_px", "px")
    found = []
    for path in paths:
        scores = _read_object(path)
        only2d = task == "pose" and "benchmark" in scores and scores.get(score) is None
        if not only2d and not is_number(scores.get(score)):
            raise UserError(
                f"{path}: {score} is {scores.get(score)!r:.80}, expected a number of {unit}; "
                f"run `fusion-jax evaluate --workdir {workdir}` again"
            )
        kept = path.with_name(f"{path.stem}_samples.npz")
        if task == "pose":
            samples = read_samples(kept, layout) if kept.is_file() else None
            found.append(Evaluation(path.stem, scores, samples if samples and len(samples.frame) else None))
        else:
            samples2d = read_samples2d(kept, layout) if kept.is_file() else None
            shown = samples2d if samples2d and len(samples2d.frame) else None
            found.append(Evaluation(path.stem, scores, None, shown))
    return found


def read_samples(path: Path, layout: Skeleton) -> Samples:
    """The arrays of a <split>_samples.npz, read without pickles. Raises UserError naming what is off."""
    j = layout.num_joints
    tails: dict[str, tuple[int | None, ...]] = {
        "image": (None, None, 3), "heatmap": (None, None, None), "joints2d": (j, 2),
        "true_mm": (j, 3), "pred_mm": (j, 3), "valid": (j,), "valid2d": (j,),
    }  # fmt: skip
    return Samples(**_read_arrays(path, Samples._fields, tails, layout))


def read_samples2d(path: Path, layout: Skeleton) -> Samples2D:
    """As `read_samples`, of a run of a 2D network."""
    j = layout.num_joints
    tails: dict[str, tuple[int | None, ...]] = {
        "image": (None, None, 3), "heatmap": (None, None, j), "joints2d": (j, 2), "pred2d_px": (j, 2),
        "valid2d": (j,), "confidence": (j,),
    }  # fmt: skip
    return Samples2D(**_read_arrays(path, Samples2D._fields, tails, layout))


def _read_arrays(
    path: Path, fields: Sequence[str], tails: Mapping[str, tuple[int | None, ...]], layout: Skeleton
) -> dict[str, np.ndarray]:
    """`tails` are shapes behind N, () where nothing is said, None for any length."""
    again = f"run `fusion-jax evaluate --workdir {path.parent.parent}` again"
    try:
        arrays = read_npz(path, fields)
    except UserError as error:
        raise UserError(f"{error}; {again}") from None
    n = arrays["frame"].size
    for name, array in arrays.items():
        expected = (n, *tails.get(name, ()))
        if not _fits(array.shape, expected):
            raise UserError(
                f"{path}: {name} has shape {array.shape}, expected {expected} for {n} samples of {layout.name}; {again}"
            )
    return arrays


def _fits(shape: Sequence[int], expected: Sequence[int | None]) -> bool:
    return len(shape) == len(expected) and all(e in (None, s) for s, e in zip(shape, expected, strict=True))


def _read_object(path: Path) -> Record:
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(content).__name__}; make it again")
    return content
