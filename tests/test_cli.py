"""The program as a user meets it: help, exit codes, one-line errors."""

import json
import pathlib
import subprocess
import sys

import pytest
import small

from fusion_jax.cli import main

pytestmark = pytest.mark.optimised

ROOT = pathlib.Path(__file__).parent.parent


def program(*args, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "fusion_jax", *map(str, args)], capture_output=True, text=True, cwd=cwd, timeout=300
    )


@pytest.mark.parametrize(
    "command",
    [
        [],
        *([name] for name in ("prepare", "train", "sweep", "evaluate", "analyze", "prune", "report", "predict")),
        *([name] for name in ("import-hourglass", "import-release", "demo", "doctor")),
    ],
)
def test_help_teaches_and_loads_nothing_heavy(command):
    code = (
        "import sys\nfrom fusion_jax.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as stop:\n    assert stop.code == 0, stop.code\n"
        "heavy = {'jax', 'flax', 'tensorflow', 'tensorflow_datasets', 'matplotlib', 'numpy', 'cv2'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    run = subprocess.run([sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert "fusion-jax" in run.stdout and (not command or f"fusion-jax {command[0]}" in run.stdout)


def test_the_readmes_way_through(tmp_path, capsys):
    """prepare, train, evaluate, report as a newcomer types them (two steps of the real preset)."""
    data, run = tmp_path / "data", tmp_path / "run"
    prepare = ["prepare", "synthetic_humans", "--data-dir", data, "--num-subjects", "3", "--frames", "1"]
    train = ["train", "--data-dir", data, "--workdir", run, "--steps", "2", "--batch-size", "4", "--eval-every", "2"]
    for command in (prepare, train, ["evaluate", "--workdir", run], ["report", "--workdir", run]):
        assert main(list(map(str, command))) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "fusion-jax evaluate --workdir" in out and "mean pose (baseline)" in out
    assert json.loads((run / "eval" / "test.json").read_text())["num_frames"] == 56
    page = (run / "report.html").read_text()
    assert "plotly" in page.lower() and len(list((run / "report").glob("*.png"))) >= 6


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "--dataset", "synthetic_human"], "Did you mean 'synthetic_humans'"),
        (["train", "--data-dir", "NOWHERE"], "run: fusion-jax prepare synthetic_humans --data-dir NOWHERE"),
        (["train", "--strategy", "fixed", "--data-dir", "DATA"], "needs a beta"),
        (["train", "--strategy", "fixed", "--beta", "9", "--data-dir", "DATA"], r"beta 9.0 is outside [0, 5]"),
        (["train", "--steps", "0"], "steps is 0, expected >= 1"),
        (["train", "--task", "heatmaps", "--strategy", "image"], "hourglass-tiny is for task heatmaps, whose networks"),
        (
            ["train", "--task", "heatmaps", "--preset", "tiny"],
            "preset tiny is for task pose; leave --task heatmaps away",
        ),
        (["train", "--task", "heatmaps", "--image-size", "60"], "multiples of 64 px, got 60 x 60"),
        (["train", "--stacks", "2"], "preset tiny is for task pose, whose networks have no 'stacks'"),
        (["train", "--heatmaps", "predicted"], "--heatmap-workdir RUN"),
        (["train", "--heatmaps", "predicted", "--heatmap-workdir", "NOWHERE"], "NOWHERE holds no run"),
        *(
            (["train", option, value, *more], f"{option} {value} would do nothing: it is for {use}")
            for option, value, more, use in [
                ("--skip-every", "5", [], "--skip-dead"),
                ("--heatmap-workdir", "RUN", ["--heatmaps", "noisy"], "--heatmaps predicted"),
                ("--heatmap-mode", "cache", [], "--heatmaps predicted"),
                ("--heatmap-mode", "frozen", ["--task", "heatmaps"], "--heatmaps predicted"),
                ("--heatmap-learning-rate", "0.1", ["--heatmaps", "predicted"], "--heatmap-mode finetune"),
                ("--heatmap-learning-rate", "0.1", ["--task", "heatmaps"], "--heatmap-mode finetune"),
                ("--heatmap-size", "8", ["--heatmaps", "predicted"], "heatmaps of joints"),
                ("--heatmap-sigma", "2.0", ["--heatmaps", "predicted"], "heatmaps of joints"),
            ]
        ),
        (
            ["train", "--task", "heatmaps", "--image-size", "128", "--heatmap-size", "64"],
            "heatmap_size is 64, expected 32",
        ),
        (["evaluate", "--workdir", "NOWHERE", "--heatmaps", "noisy"], "NOWHERE holds no run"),
        (["import-hourglass", "NOWHERE.pt", "--out", "NOWHERE"], "NOWHERE.pt"),
        (["train", "--dataset", "synthetic_humans/live", "--augment", "full"], "leave --augment away"),
        (["evaluate", "--workdir", "NOWHERE"], "NOWHERE holds no run"),
        (["report", "--workdir", "NOWHERE"], "fusion-jax train"),
        (["evaluate", "--workdir", "NOWHERE", "--batch-size", "0"], "batch_size is 0, expected >= 1"),
        (["train", "--log-every", "0"], "log_every is 0, expected >= 1"),
        (["train", "--beta", "99"], "network.beta is 99.0, expected none or in [0, 5]"),
        (["train", "--learning-rate", "inf"], "optim.learning_rate is inf"),
        (["train", "--seed", "99999999999"], "seed is 99999999999, expected 0 to 2^32 - 1"),
        (["train", "--strategy", "image", "--beta", "2"], "strategy 'image' has no beta"),
        (["train", "--strategy", "image", "--skip-dead", "0.01"], "optim.skip_dead is 0.01, expected none: only"),
        (["train", "--data-dir", "DATA", "--workdir", "/dev/null/x"], "check the path"),
        (["prepare", "synthetic_humans", "--motion", "NOWHERE"], "no such folder"),
        (["prepare", "synthetic_humans", "--num-subjects", "1"], "num_subjects is 1, expected at least 3"),
    ],
)
def test_user_errors_are_one_line_and_exit_2(args, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = [str(small.data_dir()) if arg == "DATA" else arg for arg in args]
    assert main(args) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("fusion-jax: ") and message in error
    assert not list(tmp_path.rglob("checkpoints/*")), "nothing half-made is left"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "--preset", "tinny"], "tiny"),
        (["train", "--strategy", "late"], "learned"),
        (["train", "--stpes", "3"], "--steps"),
        (["traim"], "train"),
        (["evaluate"], "--workdir"),
    ],
)
def test_misspelt_words_are_refused_by_the_parser(args, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2 and message in "".join(capsys.readouterr())


def test_a_real_process_prints_no_traceback(tmp_path):
    run = program("evaluate", "--workdir", tmp_path)
    assert run.returncode == 2 and "Traceback" not in run.stderr and "holds no run" in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


def test_ctrl_c_before_anything_is_worth_saving(capsys, monkeypatch, tmp_path):
    import fusion_jax.evaluate

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(fusion_jax.evaluate, "evaluate_run", interrupted)
    assert main(["evaluate", "--workdir", str(tmp_path)]) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_divergence_has_an_exit_code_of_its_own(tmp_path, capsys):
    args = ["train", "--data-dir", small.data_dir(), "--workdir", tmp_path, "--steps", "5", "--batch-size", "4"]
    assert main([*map(str, args), "--learning-rate", "1e30", "--eval-every", "0"]) == 3
    assert "not finite" in capsys.readouterr().err and list((tmp_path / "replay").glob("step_*.npz"))
