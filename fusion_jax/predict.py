"""Pictures, folders and videos to files: JSON and a PNG a picture, one page and one NPZ for all, an MP4 a video.

OUT/<stem>.json, .png           a picture's people
OUT/<stem>.mp4, .jsonl, .npz    a video's, a line of JSON a frame
OUT/poses.npz, index.html       the people of all pictures
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from fusion_jax.errors import UserError
from fusion_jax.given_boxes import Boxes, boxes_of
from fusion_jax.people import cut
from fusion_jax.picture_input import Input, Inputs, find_inputs, read_photo
from fusion_jax.pictures import png_bytes
from fusion_jax.pose_npz import write_npz
from fusion_jax.pose_record import PersonPose, PersonView, from_json, unplaced_notes
from fusion_jax.predict_page import MOST_PEOPLE, write_page
from fusion_jax.predict_pictures import picture_figure
from fusion_jax.predict_stream import predict_video
from fusion_jax.predictor import Person, Predictor
from fusion_jax.records import one_line, write_bytes, write_json

_FORMAT = 2  # of the files; another one is made anew
_MOST_BYTES = 500_000_000  # of pictures that wait to be looked at together


class Outcome(NamedTuple):
    """What became of the inputs.

    Attributes:
      made: how many were done now.
      kept: how many were there already, made by the same networks in the same way.
      failed: a sentence for each that could not be done.
      people: found in all of them.
      page: the HTML page; None where there was no picture.
      notes: what else to know, a sentence each: what was passed over, videos that are cut off.
    """

    made: int
    kept: int
    failed: list[str]
    people: int
    page: pathlib.Path | None
    notes: list[str]


def predict_files(
    paths: Sequence[pathlib.Path],
    predictor: Predictor,
    out: pathlib.Path,
    *,
    boxes: Boxes | None = None,
    smooth: bool = False,
    show: bool = True,
) -> Outcome:
    """Predicts all people of pictures and videos and writes what the module's head lists into `out`.

    A picture or video that is done already, unchanged, by the same networks in the same way, is kept; so a run that was
    stopped goes on where it was. One that cannot be read is named in the outcome and never stops the others.

    Args:
      paths: files and folders, see `picture_input.find_inputs`.
      predictor: the networks.
      out: folder.
      boxes: where people are, for inputs by file name or by path as given, or for all others under '*'; without, people
        are looked for.
      smooth: whether to take jitter out of videos.
      show: a progress bar.

    Raises:
      UserError: nothing to do, an input in the folder `out`, boxes of no input or of several, or an output that cannot
        be written.
    """
    inputs = find_inputs(paths)
    everything = [*inputs.pictures, *inputs.videos]
    _check_apart(everything, out)
    told = boxes_of(everything, boxes or {})
    out.mkdir(parents=True, exist_ok=True)
    made = kept = people = 0
    failed: list[str] = []
    notes = _passed_over(inputs)
    done: dict[Input, list[PersonPose]] = {}
    todo: list[_Todo] = []
    bar = tqdm(inputs.pictures, desc="pictures", unit="picture", disable=not (show and sys.stderr.isatty()))
    for one in bar:
        key = _made_by(one, predictor, told[one])
        done[one] = []
        found = _kept_picture(out, one, key, predictor.shared)
        if found is not None:
            done[one], kept, people = found, kept + 1, people + len(found)
        else:
            try:
                image = read_photo(one.path)
                todo.append(_Todo(one, image, predictor.find(image, told[one]), key))
            except UserError as error:
                failed.append(_left_out(one.path, error, _mark(out, one)))
                del done[one]
        full = len(todo) >= predictor.batch_size or sum(picture.image.nbytes for picture in todo) > _MOST_BYTES
        if full or one is inputs.pictures[-1]:
            fresh = _pictures(todo, predictor, out)
            made, people = made + len(fresh), people + sum(map(len, fresh.values()))
            done |= fresh
            todo.clear()
        bar.set_postfix({"people": people, "failed": len(failed)}, refresh=False)
    page = _all_pictures(list(done.items()), predictor, out, failed, notes) if inputs.pictures else None
    for one in inputs.videos:
        key = _made_by(one, predictor, told[one]) | {"smooth": smooth}
        try:
            video = predict_video(one, predictor, out, told[one], smooth=smooth, key=key, show=show)
        except UserError as error:
            failed.append(_left_out(one.path, error, out / f"{one.stem}.jsonl"))
            continue
        people, made, kept = people + video.people, made + video.fresh, kept + (not video.fresh)
        notes += map(one_line, video.notes)
    return Outcome(made, kept, failed, people, page, notes)


def _check_apart(inputs: Sequence[Input], out: pathlib.Path) -> None:
    """Refuses inputs among the results: they would be overwritten, and results be taken for inputs the next time."""
    folder = os.path.realpath(out)
    for one in inputs:
        if folder in (os.path.realpath(one.path.parent), os.path.dirname(os.path.realpath(one.path))):
            raise UserError(f"{one.path} lies in {out}, where results are written; give another --out")


def _passed_over(inputs: Inputs) -> list[str]:
    kinds = " ".join(sorted({path.suffix.lower() for path in inputs.passed_over}))
    return [f"passed over: {len(inputs.passed_over)} files of kinds that cannot be read ({kinds})"] if kinds else []


def _made_by(one: Input, predictor: Predictor, boxes: Sequence[np.ndarray] | None) -> dict[str, Any]:
    """All that an input's results depend on: where it is the same, old ones hold."""
    return {
        "format": _FORMAT,
        **predictor.shared,
        **predictor.settings,
        "boxes": None if boxes is None else [np.asarray(box).tolist() for box in boxes],
        **_file_key(one.path),
    }


def _file_key(path: pathlib.Path) -> dict[str, Any]:
    try:
        stat = path.stat()
    except OSError:  # gone since it was found; reading it says so
        return {"file": str(path)}
    return {"file": os.path.abspath(path), "bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}


def _named(path: pathlib.Path, error: UserError) -> str:
    text = str(error)
    return one_line(text if str(path) in text else f"{path}: {text}")


def _mark(out: pathlib.Path, one: Input) -> pathlib.Path:
    """The file of a picture that stands where all its results do."""
    return out / f"{one.stem}.json"


def _left_out(path: pathlib.Path, error: UserError, mark: pathlib.Path) -> str:
    """The line on an input that failed; takes away the mark of older results, which no longer hold."""
    if not mark.is_file():
        return _named(path, error)
    mark.unlink()
    return f"{_named(path, error)}; {one_line(mark.name)} of an earlier run is removed"


class _Todo(NamedTuple):
    """A picture (H, W, 3) uint8 with the places to look at, and what its results are made by."""

    one: Input
    image: np.ndarray
    people: list[Person]
    key: dict[str, Any]


def _pictures(todo: Sequence[_Todo], predictor: Predictor, out: pathlib.Path) -> dict[Input, list[PersonPose]]:
    """Looks at the people of several pictures together and writes each picture's files."""
    found = iter(predictor.look([person for picture in todo for person in picture.people]))
    done = {}
    for one, image, people, key in todo:
        views = [next(found) for _ in people]
        _mark(out, one).unlink(missing_ok=True)  # first: a stop halfway must not leave the old mark beside new files
        write_bytes(out / f"{one.stem}.png", png_bytes(picture_figure(image, views), dpi=100))
        record = {
            "picture": one.label,
            "width": image.shape[1],
            "height": image.shape[0],
            "people": [view.pose.to_json() for view in views],
            "notes": predictor.notes + unplaced_notes(views),
            "made_by": key,
        }
        write_json(_mark(out, one), record)  # last: where it stands, the picture is done
        done[one] = [view.pose for view in views]
    return done


def _kept_picture(
    out: pathlib.Path, one: Input, key: dict[str, Any], shared: dict[str, str]
) -> list[PersonPose] | None:
    """The people of a picture that was done before in the same way, else None."""
    path = _mark(out, one)
    if not path.is_file() or not (out / f"{one.stem}.png").is_file():
        return None
    try:
        record = json.loads(path.read_text())
        if record["made_by"] != json.loads(json.dumps(key)):
            return None
        people = [from_json(person, f"{path}: people[{n}]") for n, person in enumerate(record["people"])]
        return people if all(getattr(one, name) == shared[name] for one in people for name in shared) else None
    # UserError is a ValueError: what is broken is made anew.
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        return None


def _all_pictures(
    done: Sequence[tuple[Input, list[PersonPose]]],
    predictor: Predictor,
    out: pathlib.Path,
    failed: Sequence[str],
    notes: list[str],
) -> pathlib.Path:
    """Writes the page and the NPZ over all pictures; crops are cut anew, since most may be kept ones.

    What has gone since it was looked at stays in the NPZ alone; a sentence in `notes` says so.
    """
    everybody = [(one.label, 0, person) for one, people in done for person in people]
    write_npz(out / "poses.npz", everybody, **predictor.shared)
    entries: list[tuple[str, PersonView]] = []
    for one, people in done:
        if people and len(entries) < MOST_PEOPLE:
            try:
                image = read_photo(one.path)
            except UserError as error:
                notes.append(f"not on the page: {_named(one.path, error)}")
                continue
            for person in people:
                no_heatmap = np.zeros((1, 1, len(person.confidence)), np.float32)
                entries.append((one.label, PersonView(person, cut(image, person.crop, 256), no_heatmap)))
    page = out / "index.html"
    told = [*predictor.notes, *notes, *(f"left out: {text}" for text in failed)]
    write_page(page, entries, total=len(everybody), notes=told)
    return page
