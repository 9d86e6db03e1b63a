"""The doctor's checks of data: whether prepared datasets are whole, and what is there of files to prepare."""

from __future__ import annotations

import pathlib
import re

from fusion_jax.finding import Finding
from fusion_jax.records import read_json

_LEFT = ("incomplete", ".unfinished")  # how TFDS and pose_builder.py begin the names of folders they fill
_OF_THE_DISK = "lost+found"  # of every ext4 disk, for root alone
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def prepared_data(data_dir: pathlib.Path) -> list[Finding]:
    """Findings on every dataset in a data folder, on what interrupted preparations left, on what cannot be read."""
    from data_pipelines.readable import UnreadableError, folders_in

    found: list[Finding] = []

    def inside(folder: pathlib.Path, name: str) -> list[pathlib.Path]:
        try:
            return folders_in(folder)
        except UnreadableError as error:  # what is in it is not known, which is not the same as nothing
            found.append(Finding(name, "problem", str(error)))
            return []

    for dataset in inside(data_dir, "data"):
        if dataset.name.startswith(".") or dataset.name == _OF_THE_DISK:
            continue
        for folder in inside(dataset, f"data {dataset.name}"):
            name = f"data {dataset.name}/{folder.name}"
            found += _config(name, folder, data_dir, [path.name for path in inside(folder, name)])
    if not found:
        advice = f"fusion-jax prepare synthetic_humans --data-dir {data_dir}, or train on synthetic_humans/live"
        return [Finding("data", "warning", f"no prepared dataset in {data_dir}", advice)]
    return found


def _config(name: str, folder: pathlib.Path, data_dir: pathlib.Path, inside: list[str]) -> list[Finding]:
    """Findings on DATA_DIR/<dataset>/<config>, which holds the folders `inside`."""
    from data_pipelines.readable import UnreadableError, is_there

    found = []
    versions = [name for name in inside if _VERSION.fullmatch(name)]
    try:
        whole = [name for name in versions if is_there(folder / name / "dataset_info.json")]
    except UnreadableError as error:
        return [Finding(name, "problem", str(error))]
    if whole:
        found.append(_dataset(name, folder, data_dir))
    broken = sorted({*versions, *(name for name in inside if name.startswith(_LEFT))} - set(whole))
    if broken:
        text = f"{folder} holds {', '.join(broken)}, unfinished"
        advice = f"run fusion-jax prepare {folder.parent.name} again to go on; if it is not wanted, delete the folder"
        found.append(Finding(name, "warning", text, advice))
    return found


def _dataset(name: str, folder: pathlib.Path, data_dir: pathlib.Path) -> Finding:
    """One dataset: it opens, has as many examples as it says, and its first and last can be read."""
    from data_pipelines.prepared import find_prepared, open_prepared
    from data_pipelines.readable import UnreadableError
    from fusion_jax.errors import UserError

    try:
        dataset = open_prepared(f"{folder.parent.name}/{folder.name}", data_dir)
        version = find_prepared(dataset.name, data_dir)
        info = read_json(version / "dataset_info.json")
        for split in info["splits"]:
            examples, wanted = dataset.split(split["name"]), sum(map(int, split["shardLengths"]))
            if len(examples) != wanted:
                raise UserError(f"{version}: {split['name']} has {len(examples)} examples, its record says {wanted}")
            for place in {0, wanted - 1} if wanted else ():
                examples[place]
    except UnreadableError as error:  # it may be sound: nothing to delete
        return Finding(name, "problem", str(error))
    except UserError as error:
        text = str(error)
        return Finding(name, "problem", text, "" if "delete" in text else f"delete {folder} and prepare it again")
    counts = ", ".join(f"{split} {len(examples)}" for split, examples in dataset.splits.items())
    faults = read_json(version / "metadata.json").get("faults", [])
    if faults:
        text = f"{counts} examples; prepared with --partial, without {len(faults)} pieces (first: {faults[0]})"
        return Finding(name, "warning", text, "bring the missing files, delete the folder and prepare it again")
    return Finding(name, "ok", f"{counts} examples, version {version.name}")


def raw_files(dataset: str, manual_dir: pathlib.Path) -> Finding:
    """What `check-data` says of the files to prepare a dataset from, with its default settings."""
    from fusion_jax.prepare_raw import check_data

    found = check_data(dataset, manual_dir)
    advice = f"see them all: fusion-jax check-data {dataset} --manual-dir {manual_dir}" if found.problems else ""
    return Finding(f"files of {dataset}", "problem" if found.problems else "ok", found.summary(), advice)
