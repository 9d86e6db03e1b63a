"""docs/results.md of finished sweeps: their tables, figures, verdicts, machine, time and commands.

python benchmarks/results.py runs/sweep runs/sweep_motion --out docs/results.md
"""

import dataclasses
import datetime
import pathlib
import shutil

import tyro
from timing import header

from fusion_jax.errors import UserError
from fusion_jax.records import read_json, write_text
from fusion_jax.sweep_report import BETA_FIGURE, ERROR_FIGURE

INTRODUCTION = """# What was seen of the paper's claims

Made by `python benchmarks/results.py` from the files of the sweeps below; nothing here is typed in by hand. Each
sweep trains every strategy on the same data in the same order, several seeds each, and scores all of them on people
never trained on. A verdict is given where the intervals over seeds carry one, and else it says that it cannot be told.
No GPU took part: these are `tiny` networks at 64 px on a CPU, trained for minutes, on heatmaps of true 2D joints. The
paper's network and its datasets may well behave otherwise.

Machine: {machine}
"""


@dataclasses.dataclass(frozen=True)
class Args:
    """Compose the results page."""

    sweeps: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    """Folders of finished sweeps. A file about.txt in one is put under its heading."""
    out: pathlib.Path = pathlib.Path("docs/results.md")
    """The page; figures go in a folder of its name beside it."""


def section(sweep: pathlib.Path, figures: pathlib.Path) -> str:
    """A sweep's part of the page; its figures are copied to `figures`."""
    plan, members = sweep / "sweep.json", sorted((sweep / "members").glob("*.json"))
    if not (sweep / "sweep.md").exists():
        raise UserError(f"{sweep} holds no finished sweep (no sweep.md); run: fusion-jax sweep --out {sweep}")
    text = (sweep / "sweep.md").read_text()
    figures.mkdir(parents=True, exist_ok=True)
    for name in (ERROR_FIGURE, BETA_FIGURE):
        if f"({name})" in text:
            shutil.copyfile(sweep / name, figures / f"{sweep.name}_{name}")
            text = text.replace(f"({name})", f"({figures.name}/{sweep.name}_{name})")
    title = f"{read_json(plan)['dataset']['name']}: {sweep.name}"
    about = [(sweep / "about.txt").read_text().strip(), ""] if (sweep / "about.txt").exists() else []
    # The plan is written before anything is trained, and a member's file when it is scored.
    seconds = max(path.stat().st_mtime for path in members) - plan.stat().st_mtime
    took = datetime.timedelta(seconds=round(seconds))
    command = (sweep / "command.txt").read_text().strip()
    lines = [f"## {title}", "", *about, f"    {command}", "", f"From the first step to the last score: {took}.", ""]
    return "\n".join([*lines, text])


def main(args: Args) -> None:
    figures = args.out.with_suffix("")
    parts = [section(sweep, figures) for sweep in args.sweeps]
    write_text(args.out, "\n".join([INTRODUCTION.format(machine=header().split("; Python")[0]), *parts]))
    print(f"written {args.out}")


if __name__ == "__main__":
    main(tyro.cli(Args))
