"""Running a dataset's builder: what is there already is kept, what is half written never counts."""

from __future__ import annotations

import contextlib
import io
import time
from pathlib import Path
from typing import Any

from fusion_jax.errors import UserError


def prepare_synthetic_humans(data_dir: Path, **settings: Any) -> Path:
    """Builds `synthetic_humans` in data_dir unless it is there; returns the dataset's folder.

    Args:
      data_dir: folder of prepared datasets.
      **settings: fields of SyntheticSettings.

    Raises:
      UserError: a bad setting, a motion folder that cannot be read, or a data folder that cannot be written
        or whose name is no text.
    """
    import tensorflow_datasets as tfds

    from data_pipelines.prepared import open_prepared
    from data_pipelines.readable import check_name
    from data_pipelines.synthetic_humans.sequences import (
        SyntheticSettings,
        load_motion,
        overlapping_performers,
        performers,
    )
    from data_pipelines.synthetic_humans.synthetic_humans_dataset_builder import (
        SyntheticHumans,
        SyntheticHumansConfig,
        config_name,
    )

    check_name(Path(data_dir))
    tfds.disable_progress_bar()  # it knows no totals; the builder's own does
    wanted = SyntheticSettings(**settings)
    clips = load_motion(wanted)  # a bad clip is an error before anything is written
    if clips is not None:
        print("; ".join(f"{split}: clips of {', '.join(names)}" for split, names in performers(clips).items()))
        if overlapping_performers(clips):
            print("warning: there is one performer only, so train and test people act out the same clips")
    folder = Path(data_dir) / SyntheticHumans.name / config_name(wanted) / str(SyntheticHumans.VERSION)
    if folder.exists():
        if not (folder / "dataset_info.json").exists():
            raise UserError(f"{folder} is unfinished; delete that folder and prepare it again")
        open_prepared(f"{SyntheticHumans.name}/{folder.parent.name}", Path(data_dir))  # refuses a damaged one
        print(f"{folder} is there already; reusing it")
        return folder
    try:
        default = SyntheticHumans.BUILDER_CONFIGS[0]
        config = default if wanted == default.settings else SyntheticHumansConfig(wanted)
        builder = SyntheticHumans(data_dir=str(data_dir), config=config, file_format="array_record")
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):  # it speaks of downloading
            builder.download_and_prepare()
    except OSError as error:
        raise UserError(f"cannot write to {data_dir}: {error}; free space or choose another --data-dir") from error
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    seconds = time.perf_counter() - began
    print(
        f"written {folder}: {', '.join(f'{n} {count}' for n, count in counts.items())} frames in {seconds:.0f} s "
        f"({sum(counts.values()) / seconds:.0f} frames/s)"
    )
    return folder
