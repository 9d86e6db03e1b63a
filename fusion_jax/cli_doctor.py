"""The command that looks for what is wrong."""

from __future__ import annotations

import dataclasses
import pathlib

from fusion_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Tell what of this machine, the installation and the data works, and what to mend.

    fusion-jax doctor --data-dir data

    fusion-jax doctor --manual-dir RAW --dataset human36m

    Versions, memory, disks, devices, two steps of training on noise, a checkpoint, prepared data. Each line is ok,
    warning (works, but look) or problem, with what to do. Exit code 0 where nothing is a problem, else 1.
    """

    data_dir: pathlib.Path = pathlib.Path("data")
    """Folder of prepared datasets; all in it are looked at."""
    workdir: pathlib.Path = pathlib.Path("runs")
    """Where runs are to be; a checkpoint is tried there."""
    manual_dir: pathlib.Path | None = None
    """Folder with downloaded files to prepare --dataset from."""
    dataset: str | None = None
    """With --manual-dir: which dataset, such as human36m."""
    json: bool = False
    """Print a JSON list instead: name, status, text, advice."""

    def run(self) -> int:
        import json

        from fusion_jax.doctor import Examined, diagnose, report_line, summary

        if (self.manual_dir is None) != (self.dataset is None):
            raise UserError("--manual-dir and --dataset go together: which dataset's files are in that folder")
        findings = []
        for finding in diagnose(Examined(self.data_dir, self.workdir, self.manual_dir, self.dataset)):
            findings.append(finding)
            if not self.json:
                print(report_line(finding), flush=True)
        if self.json:
            print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
        else:
            print(summary(findings))
        return 1 if any(finding.status == "problem" for finding in findings) else 0
