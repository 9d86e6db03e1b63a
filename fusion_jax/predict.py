"""Pictures, folders and videos to files: JSON and a PNG a picture, one page and one NPZ for all, an MP4 a video.

OUT/<stem>.json, .png           a picture's people
OUT/<stem>.mp4, .jsonl, .npz    a video's, a line of JSON a frame
OUT/poses.npz, index.html       the people of all pictures
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from fusion_jax.errors import UserError
from fusion_jax.people import cut
from fusion_jax.picture_input import Input, find_inputs, read_photo
from fusion_jax.pictures import png_bytes
from fusion_jax.pose_record import PersonPose, PersonView, from_json, write_npz
from fusion_jax.predict_page import MOST_PEOPLE, write_page
from fusion_jax.predict_pictures import picture_figure
from fusion_jax.predict_stream import predict_video
from fusion_jax.predictor import Person, Predictor
from fusion_jax.records import read_json, write_bytes, write_json

Boxes = Mapping[str, Sequence[np.ndarray]]
_FORMAT = 1  # of the files; another one is made anew


class Outcome(NamedTuple):
    """What became of the inputs.

    Attributes:
      made: how many were done now.
      kept: how many were there already, made by the same networks in the same way.
      failed: a sentence for each that could not be done.
      people: found in all of them.
      page: the HTML page; None where there was no picture.
    """

    made: int
    kept: int
    failed: list[str]
    people: int
    page: pathlib.Path | None


def predict_files(
    paths: Sequence[pathlib.Path],
    predictor: Predictor,
    out: pathlib.Path,
    *,
    boxes: Boxes | None = None,
    smooth: bool = False,
    settings: Mapping[str, Any] | None = None,
    show: bool = True,
) -> Outcome:
    """Predicts all people of pictures and videos and writes what the module's head lists into `out`.

    A picture or video that is done already, unchanged, by the same networks in the same way, is kept; so a run that was
    stopped goes on where it was. One that cannot be read is named in the outcome and never stops the others.

    Args:
      paths: files and folders, see `picture_input.find_inputs`.
      predictor: the networks.
      out: folder.
      boxes: where people are, for inputs by file name, or for all under '*'; people are looked for in the others.
      smooth: whether to take jitter out of videos.
      settings: whatever else changes the results, for telling whether old ones still hold.
      show: a progress bar.

    Raises:
      UserError: nothing to do, or an output that cannot be written.
    """
    inputs = find_inputs(paths)
    out.mkdir(parents=True, exist_ok=True)
    made_by = {
        "format": _FORMAT,
        "pose_network": predictor.pose_network,
        "heatmap_network": predictor.heatmap_network,
        **(settings or {}),
    }
    made = kept = people = 0
    failed: list[str] = []
    done: dict[Input, list[PersonPose]] = {}
    todo: list[_Todo] = []
    bar = tqdm(inputs.pictures, desc="pictures", unit="picture", disable=not (show and sys.stderr.isatty()))
    for one in bar:
        told = _boxes_of(one, boxes)
        key = made_by | {"boxes": None if told is None else [box.tolist() for box in told], **_file_key(one.path)}
        done[one] = []
        found = _kept_picture(out, one, key)
        if found is not None:
            done[one], kept = found, kept + 1
        else:
            try:
                image = read_photo(one.path)
                todo.append(_Todo(one, image, predictor.find(image, told), key))
            except UserError as error:
                failed.append(_named(one.path, error))
                del done[one]
        if len(todo) == predictor.batch_size or one is inputs.pictures[-1]:
            made += len(todo)
            done |= _pictures(todo, predictor, out)
            todo.clear()
        people = sum(map(len, done.values()))
        bar.set_postfix({"people": people, "failed": len(failed)}, refresh=False)
    page = _all_pictures(list(done.items()), predictor, out, failed) if inputs.pictures else None
    for one in inputs.videos:
        told = _boxes_of(one, boxes)
        key = made_by | {"boxes": None if told is None else [box.tolist() for box in told], "smooth": smooth}
        key |= _file_key(one.path)
        try:
            count, fresh = predict_video(one, predictor, out, told, smooth=smooth, key=key, show=show)
        except UserError as error:
            failed.append(_named(one.path, error))
            continue
        people, made, kept = people + count, made + fresh, kept + (not fresh)
    return Outcome(made, kept, failed, people, page)


def read_boxes(path: pathlib.Path) -> dict[str, list[np.ndarray]]:
    """Where people are, from a JSON file: {"photo.jpg": [[x, y, width, height], ...], ...}, px of the upright picture.

    Raises:
      UserError: the file is missing or says something else, naming what.
    """
    if path.is_file() and path.stat().st_size > 10**8:
        raise UserError(f"{path} is larger than 100 MB; expected a JSON object of boxes by file name")
    data = read_json(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected an object of lists of boxes by file name, got {type(data).__name__}")
    found: dict[str, list[np.ndarray]] = {}
    for name, boxes in data.items():
        fits = isinstance(boxes, list) and all(isinstance(box, list) and len(box) == 4 for box in boxes)
        if not fits or not all(type(n) in (int, float) and abs(n) < 1e9 for box in boxes for n in box):
            raise UserError(
                f"{path}: {name!r}: expected a list of boxes [x, y, width, height] in px, got {boxes!r:.80}"
            )
        found[name] = [np.array(box, np.float64) for box in boxes]
    return found


def _boxes_of(one: Input, boxes: Boxes | None) -> Sequence[np.ndarray] | None:
    known = boxes or {}
    return known.get(one.path.name, known.get("*"))


def _file_key(path: pathlib.Path) -> dict[str, Any]:
    try:
        stat = path.stat()
    except OSError:  # gone since it was found; reading it says so
        return {"file": str(path)}
    return {"file": os.path.abspath(path), "bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}


def _named(path: pathlib.Path, error: UserError) -> str:
    text = str(error)
    return text if str(path) in text else f"{path}: {text}"


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
        write_bytes(out / f"{one.stem}.png", png_bytes(picture_figure(image, views), dpi=100))
        record = {
            "picture": one.path.name,
            "width": image.shape[1],
            "height": image.shape[0],
            "people": [view.pose.to_json() for view in views],
            "notes": predictor.notes,
            "made_by": key,
        }
        write_json(out / f"{one.stem}.json", record)  # last: where it stands, the picture is done
        done[one] = [view.pose for view in views]
    return done


def _kept_picture(out: pathlib.Path, one: Input, key: dict[str, Any]) -> list[PersonPose] | None:
    """The people of a picture that was done before in the same way, else None."""
    path = out / f"{one.stem}.json"
    if not path.is_file() or not (out / f"{one.stem}.png").is_file():
        return None
    try:
        record = json.loads(path.read_text())
        if record["made_by"] != json.loads(json.dumps(key)):
            return None
        return [from_json(person, f"{path}: people[{n}]") for n, person in enumerate(record["people"])]
    except (ValueError, KeyError, TypeError, OSError):  # UserError is a ValueError: what is broken is made anew
        return None


def _all_pictures(
    done: Sequence[tuple[Input, list[PersonPose]]], predictor: Predictor, out: pathlib.Path, failed: Sequence[str]
) -> pathlib.Path:
    """Writes the page and the NPZ over all pictures; crops are cut anew, since most may be kept ones."""
    everybody = [(one.path.name, 0, person) for one, people in done for person in people]
    joints2d = predictor.heatmap_skeleton
    write_npz(
        out / "poses.npz",
        everybody,
        skeleton=predictor.config.inputs.skeleton,
        heatmap_skeleton=joints2d,
        pose_network=predictor.pose_network,
        heatmap_network=predictor.heatmap_network,
    )
    entries: list[tuple[str, PersonView]] = []
    for one, people in done:
        if people and len(entries) < MOST_PEOPLE:
            image = read_photo(one.path)
            for person in people:
                no_heatmap = np.zeros((1, 1, len(person.confidence)), np.float32)
                entries.append((one.path.name, PersonView(person, cut(image, person.crop, 256), no_heatmap)))
    page = out / "index.html"
    notes = [*predictor.notes, *(f"left out: {text}" for text in failed)]
    write_page(page, entries, total=len(everybody), notes=notes)
    return page


def settings_digest(*files: pathlib.Path | None) -> list[str]:
    """A digest of each file's bytes, '' for none, for `predict_files`' settings."""
    return ["" if file is None else hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files]
