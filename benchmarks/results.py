"""docs/results.md of finished sweeps: their tables, figures, verdicts, machine, time and commands.

python benchmarks/results.py runs/sweep runs/sweep_motion --out docs/results.md
"""

import dataclasses
import datetime
import pathlib
import shutil
import sys

import tyro

from fusion_jax.errors import UserError
from fusion_jax.records import read_json, write_text
from fusion_jax.sweep_report import BETA_FIGURE, ERROR_FIGURE

INTRODUCTION = """# What was seen of the paper's claims

Made by `python benchmarks/results.py` from the files of the sweeps below. Each sweep trains every strategy on the same
data in the same order and scores all of them on people never trained on. A verdict is given where the intervals over
seeds carry one; else it says that it cannot be told. Networks, data and budgets are small and said with each sweep; the
paper's network and its datasets may well behave otherwise.
"""


@dataclasses.dataclass(frozen=True)
class Args:
    """Compose the results page."""

    sweeps: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    """Folders of finished sweeps. A file about.txt in one is put under its heading."""
    out: pathlib.Path = pathlib.Path("docs/results.md")
    """The page; figures go in a folder of its name beside it."""


def section(sweep: pathlib.Path, number: int, figures: pathlib.Path) -> str:
    """A sweep's part of the page; its figures are copied to `figures` under its number.

    Raises:
      UserError: the folder holds no finished sweep.
    """
    needed = [sweep / name for name in ("sweep.json", "sweep.md", "command.txt")]
    for path in needed:
        if not path.is_file():
            raise UserError(f"{path} is missing: no finished sweep is there; run: fusion-jax sweep --out {sweep}")
    text = needed[1].read_text()
    figures.mkdir(parents=True, exist_ok=True)
    for name in (ERROR_FIGURE, BETA_FIGURE):
        if f"({name})" in text:
            shutil.copyfile(sweep / name, figures / f"{number}_{name}")
            text = text.replace(f"({name})", f"({figures.name}/{number}_{name})")
    title = f"{number}. {read_json(needed[0])['dataset']['name']}"
    about = [(sweep / "about.txt").read_text().strip(), ""] if (sweep / "about.txt").exists() else []
    times = [read_json(path) for path in sorted((sweep / "groups").glob("*/time.json"))]
    seconds, machines = sum(time["seconds"] for time in times), sorted({time["machine"] for time in times})
    took = f"Trained for {datetime.timedelta(seconds=round(seconds))} on {' and '.join(machines)}."
    return "\n".join([f"## {title}", "", *about, f"    {needed[2].read_text().strip()}", "", took, "", text])


def main(args: Args) -> None:
    figures = args.out.with_suffix("")
    parts = [section(sweep, number, figures) for number, sweep in enumerate(args.sweeps, start=1)]
    write_text(args.out, "\n".join([INTRODUCTION, *parts]))
    print(f"written {args.out}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Args))
    except UserError as error:
        sys.exit(str(error))
