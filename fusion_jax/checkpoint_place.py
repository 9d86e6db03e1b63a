"""Where a run's checkpoints lie: in its work folder, or elsewhere, as in a bucket, which the work folder remembers.

WORKDIR/checkpoints             where nothing else is said
WORKDIR/checkpoint_dir.json     where they are instead

Small files are reached through etils' file systems, arrays through TensorStore's. Of buckets both know gs:// alone:
Orbax refuses arrays in others. Those have to be mounted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import time
import uuid

import jax
import numpy as np
from etils import epath

from fusion_jax.distributed import gather_rows, writes
from fusion_jax.errors import UserError
from fusion_jax.records import from_json, read_json, to_json, write_json
from fusion_jax.work_folder import load_run, own_record_from_json

NAME = "checkpoint_dir.json"
_SCHEME = re.compile("[A-Za-z][A-Za-z0-9+.-]*:/")  # one slash is what pathlib leaves of two
_BUCKET = re.compile("gs://[^/]+/[^/].*")


@dataclasses.dataclass(frozen=True)
class _Place:
    checkpoint_dir: str


def is_bucket(folder: epath.Path) -> bool:
    """Whether a folder is in a bucket, where it is no more than the beginning of its files' names."""
    return "://" in str(folder)


def is_default(workdir: pathlib.Path, folder: epath.Path) -> bool:
    """Whether a folder is where a run's checkpoints are unless something else is said."""
    return folder == _default(workdir)


def checkpoint_folder(workdir: pathlib.Path, given: str | None = None) -> epath.Path:
    """Where the checkpoints of a run in a work folder are, or are to be.

    Args:
      workdir: of the run.
      given: where the user wants them: a folder, or gs://BUCKET/FOLDER; none: where the work folder says.

    Raises:
      UserError: `given` is no such place, or the run's checkpoints are elsewhere.
    """
    default = _default(workdir)
    known = _remembered(workdir)
    if given is None:
        return default if known is None else known
    wanted = _place(given, "--checkpoint-dir")
    if known is None and default.is_dir() and any(default.iterdir()):
        known = default
    if known is None or known == wanted:
        return wanted
    gone = not is_bucket(known) and not (known.is_dir() and any(known.iterdir()))
    if gone and _holds_run_of(workdir, wanted):  # they were moved
        return wanted
    advice = f"{known} is not there: bring it back, or say where they were moved to," if gone else "leave it away"
    raise UserError(
        f"the run in {workdir} has its checkpoints in {known}, --checkpoint-dir says {wanted}; {advice} to go on with "
        "them, or give another --workdir to start a new run"
    )


def remember(workdir: pathlib.Path, folder: epath.Path) -> None:
    """Writes down where a run's checkpoints are, for everything that reads them."""
    write_json(workdir / NAME, to_json(_Place(str(folder))))


def check_workdir(workdir: pathlib.Path) -> None:
    """Raises UserError where a work folder is meant to be in a bucket: its log is written line by line."""
    if _SCHEME.match(str(workdir)):
        raise UserError(
            f"--workdir is {str(workdir)!r}, expected a folder of this machine or a mounted one; checkpoints alone can "
            "be in a bucket: --checkpoint-dir gs://BUCKET/FOLDER"
        )


def check_reachable(folder: epath.Path) -> None:
    """Raises UserError where a bucket cannot be looked at; folders of this machine are not looked at."""
    if not is_bucket(folder):
        return
    _without_listings_kept()
    try:
        next(folder.iterdir(), None)
    except FileNotFoundError:  # nothing is there yet
        return
    except Exception as error:  # of gcsfs' and Google's own kinds
        raise UserError(
            f"the checkpoints' place {folder} cannot be reached ({_reason(error)}); it takes "
            'pip install "fusion-jax[gcs]" and rights of this machine or user to read and write there'
        ) from None


def check_shared(workdir: pathlib.Path, folder: epath.Path) -> None:
    """Process 0 writes a file for all to read, and removes it; one process alone looks at nothing.

    Args:
      workdir: of the run, as this process was given it; there for process 0.
      folder: where its checkpoints are to be: the same for all, or in each's work folder.

    Raises:
      UserError: in every process, where one of them cannot read it: the first save would wait for ever.
    """
    if jax.process_count() == 1:
        return
    own = is_default(workdir, folder)
    place = epath.Path(workdir) if own else folder
    while writes() and not is_bucket(place) and not place.is_dir():  # nothing is made for a run that may not begin
        place = place.parent
    name = f"shared.{uuid.uuid4().hex}"
    if writes():
        try:
            (place / name).write_text(name)
        except Exception as error:
            raise UserError(
                f"the checkpoints' place {place} cannot be written ({_reason(error)}); look at rights and free space"
            ) from None
    try:
        told = gather_rows({"place": np.array([str(place)]), "name": np.array([name])})
        first, text = str(told["place"][0]), str(told["name"][0])
        read = gather_rows({"read": np.array([_reads((place if own else epath.Path(first)) / text, text)])})["read"]
    finally:
        if writes():
            with contextlib.suppress(Exception):
                (place / name).unlink()
    if not read.all():
        raise UserError(
            f"process {int(np.argmin(read))} does not see what process 0 writes in {first}, where checkpoints are "
            "to be; give all a --workdir that they share, or a --checkpoint-dir"
        )


def _reads(token: epath.Path, text: str) -> bool:
    """Whether a file is there and holds a text; asked some times, as a network file system may show it late."""
    for pause in (0, 0.5, 1, 2):
        time.sleep(pause)
        with contextlib.suppress(Exception):
            if token.read_text() == text:
                return True
    return False


def check_writable(folder: epath.Path) -> None:
    """Makes the folder, writes a file and removes it. Raises UserError where that is not possible."""
    probe = folder / f"writable.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except Exception as error:
        raise UserError(
            f"the checkpoints' place {folder} cannot be written ({_reason(error)}); look at rights and free space, or "
            "give another --checkpoint-dir"
        ) from None


def _holds_run_of(workdir: pathlib.Path, folder: epath.Path) -> bool:
    """Whether the newest checkpoint in a folder says that it is of a work folder's run."""
    try:
        newest = max((p for p in folder.iterdir() if p.name.isdecimal()), key=lambda p: int(p.name))
        record = own_record_from_json(read_json(newest / "run" / "metadata"), str(newest))
        config, dataset = load_run(workdir)
    except (UserError, OSError, ValueError):  # nothing is there, or it does not tell
        return False
    moved = dataclasses.replace(dataset, data_dir=record.dataset.data_dir)  # the same data may have moved
    return (record.config, record.dataset) == (config, moved)


def _default(workdir: pathlib.Path) -> epath.Path:
    return epath.Path(workdir).absolute() / "checkpoints"


def _remembered(workdir: pathlib.Path) -> epath.Path | None:
    path = workdir / NAME
    if not path.exists():
        return None
    return _place(from_json(_Place, read_json(path), str(path)).checkpoint_dir, f"{path}: checkpoint_dir")


def _place(text: str, where: str) -> epath.Path:
    if _BUCKET.fullmatch(text):
        return epath.Path(text.rstrip("/"))
    if not text or "\0" in text or _SCHEME.match(text):
        raise UserError(
            f"{where} is {text!r:.200}, expected a folder or gs://BUCKET/FOLDER; mount a bucket of another kind, and "
            "give the folder where it is mounted"
        )
    return epath.Path(os.path.abspath(text))


def _without_listings_kept() -> None:
    """gcsfs keeps what it listed once, and does not see what TensorStore and other processes write after that."""
    import fsspec

    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
