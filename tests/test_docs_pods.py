"""The page on pods: what can run here runs as it stands, the rest is well formed and names options that exist."""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

import pytest
import small
import yaml

from fusion_jax import distributed
from fusion_jax.cli_processes import Processes
from fusion_jax.cli_train import Train
from fusion_jax.errors import CheckpointError, TrainingDivergedError, TrainingInterruptedError, UserError

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "pods.md").read_text()
BASH = re.findall(r"```bash\n(.*?)```", PAGE, re.S)
YAML = [part for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S) for part in yaml.safe_load_all(block)]
LOOP, ONE_MACHINE, SCORES = [block for block in BASH if block.startswith("# runs here\n")]


def rows_of(title):
    """Cells of the table below a heading."""
    lines = PAGE.split(f"## {title}\n")[1].split("\n## ")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]


def program(folder, text):
    """A `fusion-jax` for scripts to find; the environment in which they do."""
    path = folder / "bin" / "fusion-jax"
    path.parent.mkdir()
    path.write_text(text)
    path.chmod(0o755)
    return {**os.environ, "PATH": f"{path.parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("codes", "ends"),
    [
        ([0], 0),
        ([75, 75, 75, 75, 75, 75, 0], 0),
        ([134, 137, 5, 6, 75, 143, 5, 5, 5, 0], 0),
        ([5, 134, 5, 6, 137], 137),
        ([75, 2], 2),
        ([3], 3),
        ([4], 4),
        ([130], 130),
    ],
)
def test_the_loop_starts_again_what_is_worth_it(codes, ends, tmp_path):
    """A program that ends with one code after another, and with 99 once there are no more."""
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
    script = '#!/bin/bash\nread -r code < codes || code=99\nsed -i 1d codes\necho "$@" >> called\nexit "$code"\n'
    env = program(tmp_path, script)
    (tmp_path / "again.sh").write_text(LOOP)
    command = ["bash", "again.sh", "fusion-jax", "train", "--workdir", "a b"]
    done = subprocess.run(command, cwd=tmp_path, env=env | {"PAUSE": "0"}, capture_output=True, text=True, timeout=60)
    assert done.returncode == ends, done.stderr
    assert (tmp_path / "codes").read_text() == "", "each start was made"
    assert (tmp_path / "called").read_text() == "train --workdir a b\n" * len(codes)


def test_the_table_of_exit_codes_is_the_programs():
    told = {int(row[0]): row[1] for row in rows_of("Exit codes, and starting again")}
    known = {error.exit_code for error in (UserError, TrainingDivergedError, CheckpointError)}
    known |= {TrainingInterruptedError("", number).exit_code for number in (2, 15)} | {distributed.PEER_FAILED}
    assert told.keys() == {0, 6, 134, 137, 143} | known
    again = re.search(r"failures=0 ;;\n +(.*)\) failures", LOOP)[1].split(" | ")
    slurm = next(block for block in BASH if "#SBATCH" in block)
    assert re.search(r"case \$code in\n +(.*)\)", slurm)[1].split(" | ") == sorted([*again, "75"], key=int)
    job = next(part for part in YAML if part["kind"] == "Job")["spec"]
    saved, _, hopeless = job["podFailurePolicy"]["rules"]
    assert saved["onExitCodes"]["values"] == [75] and hopeless["onExitCodes"]["values"] == [2, 3, 4]
    assert not {str(code) for code in hopeless["onExitCodes"]["values"]} & {*again, "75"}


def test_the_waits_are_the_programs():
    from data_pipelines import workers

    told = [re.match(r"(?:about )?([0-9]+) s", row[1]) for row in rows_of("Everything that waits")]
    d, options = distributed, Train()
    expected = [d.JOIN_S, d.HEARTBEAT_S, d.POLL_S + d.GRACE_S, d.LEAVE_S, d.SHUTDOWN_S, d.WRITE_S, options.save_timeout]
    assert [int(found[1]) if found else 60 for found in told] == [*expected, workers._PATIENCE_S]


def test_scripts_and_documents_are_well_formed():
    for block in BASH:
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, f"{block}\n{done.stderr}"
    assert [part["kind"] for part in YAML] == ["Service", "Job", "Role"]
    service, job, _ = YAML
    spec = job["spec"]["template"]["spec"]
    assert service["spec"]["selector"]["job-name"] == job["metadata"]["name"]
    assert spec["subdomain"] == service["metadata"]["name"] and spec["restartPolicy"] == "Never"
    (command,) = spec["containers"][0]["args"]
    assert f"--num-processes {job['spec']['parallelism']} " in command
    assert f"--coordinator {job['metadata']['name']}-0.{spec['subdomain']}:" in command


def test_options_of_training_exist():
    """In every command of the page, and wherever it names one in the text."""
    fields = {f"--{name.replace('_', '-')}" for name in {*Train.__dataclass_fields__, *Processes.__dataclass_fields__}}
    commands = (
        re.findall(r"fusion-jax train((?:[^\n`'&]|\\\n)*)", PAGE)
        + YAML[1]["spec"]["template"]["spec"]["containers"][0]["args"]
    )
    named = {option for text in commands for option in re.findall(r"(?<!\S)--[a-z-]+", text)}
    named |= set(re.findall(r"`(--[a-z-]+)", PAGE)) - {"--signal", "--worker"}
    assert len(named) > 15 and named <= fields, named - fields
    assert '.[gcs]"' in PAGE and all(
        f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text() for extra in ("gcs", "tpu")
    )


def small_program(folder):
    """The real program with the small network."""
    env = program(folder, f'#!/bin/bash\nexec {sys.executable} {ROOT / "tests" / "only_small.py"} "$@"\n')
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return env | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}


def test_the_dry_run(tmp_path):
    (command,) = re.findall(r"^    (fusion-jax train .*--dry-run.*)$", PAGE, re.M)
    done = subprocess.run(
        ["bash", "-c", command], env=small_program(tmp_path), capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "GFLOP a step" in done.stdout and "fits:" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["bin"], "nothing is written"


@pytest.mark.slow
def test_two_processes_with_a_work_folder_each_lose_both_and_go_on(tmp_path):
    """As two hosts that are taken away: what is left is the folder of the checkpoints."""
    env = small_program(tmp_path) | {"DATA": str(small.data_dir()), "RUN": str(tmp_path)}

    def start(*options, block=ONE_MACHINE):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = str(listener.getsockname()[1])
        script = block.replace(" &\n", f" {' '.join(options)} &\n")
        command = ["bash", "-ec", script]
        done = subprocess.run(command, env=env | {"PORT": port}, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr

    def steps():
        log = (tmp_path / "host0" / "metrics.jsonl").read_text().splitlines()
        return [row["step"] for row in map(json.loads, log) if row["kind"] == "train"]

    start("--stop-after", "4", "--log-every", "1")
    assert steps() == [1, 2, 3, 4]
    assert not (tmp_path / "host1" / "config.json").exists(), "process 0 alone writes"
    for host in ("host0", "host1"):
        shutil.rmtree(tmp_path / host, ignore_errors=True)
    start("--log-every", "1")
    assert steps() == [5, 6] and (tmp_path / "host0" / "config.json").exists()
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} >= {"4", "6"}
    start(block=SCORES)
    assert json.loads((tmp_path / "host0" / "eval" / "test.json").read_text())["num_frames"] == 56
    assert not (tmp_path / "host1" / "eval").exists(), "process 0 alone writes"


@pytest.mark.slow
def test_the_numbers_of_the_paper_network():
    """Compiles it, which takes minutes."""
    command = [sys.executable, "-m", "fusion_jax", "train", "--preset", "paper", "--dry-run", "--memory-limit", "16"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    env["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "0"
    told = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=900).stdout
    shown = {row[0]: row[1] for row in rows_of("Before paying")}
    state = shown["state: parameters, Adam's moments, constants"]
    device, work = (shown[name].split(", as")[0] for name in ("a device while a step runs", "work of a step"))
    assert f"parameters   {shown['parameters']}\n" in told
    assert f"state        {state}:" in told and f"a device     {device} while a step runs" in told
    gflop = float(re.search(r"work +([0-9,.]+) GFLOP", told)[1].replace(",", ""))
    assert f"{gflop:,.0f} GFLOP" == work
