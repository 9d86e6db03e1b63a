"""A step that was not finite, taken once more: from the checkpoint before it, on the batch that was kept.

A run is deterministic, so the state before the step is had by going there from the newest checkpoint that is older.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
from typing import Any

import jax
import numpy as np

from data_pipelines.bad_examples import BadExamples
from fusion_jax import sharding
from fusion_jax.batch import named_leaves
from fusion_jax.errors import UserError
from fusion_jax.heatmap_steps import training_step
from fusion_jax.npz_file import read_npz
from fusion_jax.scoring import place_batch
from fusion_jax.skip_dead import Skipping
from fusion_jax.start import LoopOptions, ready, training_data
from fusion_jax.work_folder import load_run

_KEPT = re.compile(r"step_([1-9][0-9]*)(?:_process_([0-9]+))?\.npz")


@dataclasses.dataclass(frozen=True)
class Replayed:
    """What a step did the second time.

    Attributes:
      step: its number.
      checkpoint: the step from which it was reached; 0 for the beginning.
      finite: whether it was finite this time.
      numbers: loss, its terms and the gradient's norm; alpha and beta after it, which are those before it unless it
        was finite.
      odd_layers: parameters whose gradient is not finite.
      odd_inputs: (array of the batch, example) that hold numbers that are not finite.
      alone: examples each of which makes a batch of nothing else not finite.
      differs: arrays of the kept batch that are not what the data gives now.
      image: (B, H, W, 3) uint8, the batch's pictures.
    """

    step: int
    checkpoint: int
    finite: bool
    numbers: dict[str, float]
    odd_layers: list[str]
    odd_inputs: list[tuple[str, int]]
    alone: list[int]
    differs: list[str]
    image: np.ndarray


def kept_steps(workdir: pathlib.Path) -> list[int]:
    """Steps whose batches a run has kept, rising."""
    found = (_KEPT.fullmatch(path.name) for path in (workdir / "replay").glob("step_*.npz"))
    return sorted({int(match[1]) for match in found if match})


def replay_run(workdir: pathlib.Path, step: int | None = None, data_dir: pathlib.Path | None = None) -> Replayed:
    """Takes a step of a run once more; writes nothing.

    Args:
      workdir: of the run.
      step: which one; none: the first whose batch was kept.
      data_dir: where the data is now, if it moved since training.

    Raises:
      UserError: no run, no such batch, one that is damaged, of another run or beyond its steps, or other data.
    """
    config, record = load_run(workdir)
    kept = kept_steps(workdir)
    if not kept:
        raise UserError(f"{workdir / 'replay'} holds no batch: every step of this run was finite, or none was kept")
    step = kept[0] if step is None else step
    if step not in kept:
        there = ", ".join(map(str, kept))
        raise UserError(f"the batch of step {step} is not in {workdir / 'replay'}; there are: {there}")
    if step > config.steps:  # no run of this config comes there, and a damaged name would have it train for ever
        raise UserError(
            f"{workdir / 'replay'} holds a batch of step {step}, but this run has {config.steps} steps; it is of "
            "another run, or its name was changed: take it away"
        )
    options = LoopOptions(show=False)
    with ready(config, data_dir or pathlib.Path(record.data_dir), workdir, options, at_most=step - 1) as run:
        step_fn = sharding.jit_train_step(run.mesh, training_step(config))
        state, whole, skipping = run.state, run.state.network, Skipping(run.config, run.state.network, run.live)
        if run.live is None:
            skipping.decide(state.params, run.next_batch)
        bad = BadExamples("skip")  # whether the run would have stopped at one is known by now: it did not
        with contextlib.closing(training_data(run.config, run.datasets, run.next_batch, bad_examples=bad)) as data:
            for number in range(run.next_batch + 1, step):
                placed = place_batch(next(data), run.dataset, run.mesh)
                state = step_fn(state.replace(network=skipping.network), placed)[0].replace(network=whole)
                if skipping.due(number):
                    skipping.decide(state.params, number)
            drawn = next(data)
        batch = _read_batch(workdir, step, drawn)
        state = state.replace(network=skipping.network)

        def again(batch: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
            """What a step measures, and its pictures. It consumes its state, which is needed again."""
            placed = place_batch(batch, run.dataset, run.mesh)
            pictures = jax.device_get(placed["image"])
            _, measured = step_fn(jax.tree.map(lambda x: x.copy(), state), placed)
            return jax.device_get(measured), pictures

        measured, image = again(batch)
        alone = []
        if not measured["finite"]:
            for example in range(config.batch_size):
                same = jax.tree.map(lambda array, row=example: np.repeat(array[row : row + 1], len(array), 0), batch)
                if not again(same)[0]["finite"]:
                    alone.append(example)
    arrays = named_leaves(batch)
    numbers = ("loss", "data_loss", "penalty", "grad_norm", "alpha", "beta")
    return Replayed(
        step=step,
        checkpoint=run.next_batch,
        finite=bool(measured["finite"]),
        numbers={name: float(measured[name]) for name in numbers if name in measured},
        odd_layers=[n for n, norm in measured.get("layer_grad_norms", {}).items() if not np.isfinite(norm)],
        odd_inputs=[(name, row) for name, x in arrays.items() for row in range(len(x)) if not _finite(x[row])],
        alone=alone,
        differs=_differences(batch, drawn),
        image=image if image.dtype == np.uint8 else (255 * np.clip(image, 0, 1)).astype(np.uint8),
    )


def replay_words(found: Replayed) -> str:
    """What was found, for people."""
    numbers = ", ".join(f"{name} {value:.6g}" for name, value in found.numbers.items())
    source = f"checkpoint {found.checkpoint}" if found.checkpoint else "the beginning"
    lines = [f"step {found.step}, reached again from {source}: {numbers}"]
    if found.finite:
        lines.append(
            "finite this time: what went wrong is not in the batch and the weights before it; look at the machine's "
            "memory and at what else was changed since"
        )
    for name in found.differs:
        lines.append(f"kept {name} is not what the data gives for this step now: data or memory were damaged")
    for name in sorted({name for name, _ in found.odd_inputs}):
        rows = [str(row) for other, row in found.odd_inputs if other == name]
        lines.append(f"{name} holds numbers that are not finite in example {', '.join(rows)}")
    if found.alone:
        lines.append(f"not finite on its own: example {', '.join(map(str, found.alone))}")
    elif not found.finite:
        lines.append("every example alone is finite; the sum is not: lower the learning rate, or clip gradients")
    if found.odd_layers:
        lines.append(f"gradient not finite: {', '.join(found.odd_layers)}")
    return "\n".join(lines)


def _read_batch(workdir: pathlib.Path, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """A kept batch, the shares of several processes joined. Raises UserError unless it is as `like` is made."""
    paths = [(int(m[2] or 0), p) for p in (workdir / "replay").iterdir() if (m := _KEPT.fullmatch(p.name))]
    paths = sorted(pair for pair in paths if pair[1].name.startswith((f"step_{step}.", f"step_{step}_")))
    expected = named_leaves(like)
    shares = [read_npz(path, list(expected)) for _, path in paths]
    joined = {name: np.concatenate([share[name] for share in shares]) for name in expected}
    for name, leaf in expected.items():
        leaf = np.asarray(leaf)
        if joined[name].shape != leaf.shape or joined[name].dtype != leaf.dtype:
            raise UserError(
                f"{paths[0][1]}: {name} is {joined[name].shape} {joined[name].dtype}, this run's are {leaf.shape} "
                f"{leaf.dtype}; it is of another run, or processes' shares are missing"
            )
    return jax.tree.unflatten(jax.tree.structure(like), [joined[name] for name in expected])


def _finite(array: np.ndarray) -> bool:
    return not np.issubdtype(array.dtype, np.inexact) or bool(np.isfinite(array).all())


def _differences(kept: dict[str, Any], drawn: dict[str, Any]) -> list[str]:
    one, other = ({name: np.asarray(x).tobytes() for name, x in named_leaves(b).items()} for b in (kept, drawn))
    return [name for name in one if one[name] != other[name]]
