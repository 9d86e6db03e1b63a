"""The report of a finished run: what the log, the scores and the samples say must be on the page, and nothing else."""

from __future__ import annotations

import base64
import dataclasses
import html
import html.parser
import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fusion_jax import report
from fusion_jax.errors import UserError
from fusion_jax.report import write_report
from fusion_jax.run_record import read_run, read_samples
from fusion_jax.skeletons import SKELETONS
from fusion_jax.training_log import read_log

LAYOUT = SKELETONS["human36m17"]
LAYERS = [
    {"features": 24, "kernel": 5, "stride": 2, "pool": 1, "padding": "VALID"},
    {"features": 32, "kernel": 3, "stride": 1, "pool": 2, "padding": "VALID"},
    {"features": 256, "dropout": 0.0},
]
# human36m17, mm, camera frame, relative to the pelvis: a person who stands and faces the camera.
STANDING_MM = np.array(
    [
        *([0, 0, 0], [-120, 0, 0], [-130, 420, -20], [-140, 830, 40]),
        *([120, 0, 0], [130, 420, -20], [140, 830, 40], [0, -240, 10], [0, -480, 20], [0, -560, -60]),
        *([0, -690, 10], [160, -460, 20], [260, -220, 30], [330, 10, -60]),
        *([-160, -460, 20], [-260, -220, 30], [-330, 10, -60]),
    ],
    float,
)  # fmt: skip


@dataclasses.dataclass
class RunMaker:
    """Writes a work folder as training and evaluation leave it; fields are what the tests vary."""

    workdir: Path
    strategy: str = "learned"
    steps: int = 600
    every: int = 50
    splits: tuple[str, ...] = ("test",)
    mpjpe_mm: float = 61.5
    action: str = "walking"
    per_kind: int = 1
    num_layers: int = 3
    noise_mm: float = 25.0

    def write(self) -> Path:
        """Everything at once; returns the work folder."""
        (self.workdir / "eval").mkdir(parents=True)
        (self.workdir / "config.json").write_text(json.dumps(self.config()))
        lines = [json.dumps(record) for record in self.log()]
        (self.workdir / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
        for split in self.splits:
            (self.workdir / "eval" / f"{split}.json").write_text(json.dumps(self.scores(split)))
            np.savez(self.workdir / "eval" / f"{split}_samples.npz", **self.samples())
        return self.workdir

    def config(self) -> dict:
        layers = (LAYERS * self.num_layers)[: self.num_layers]
        streams = [{"name": name, "layers": layers} for name in ("image", "heatmap")]
        beta = 2.0 if self.strategy == "fixed" else None
        return {
            "preset": "tiny", "dataset": "synthetic_humans", "steps": self.steps, "batch_size": 32, "seed": 0,
            "network": {"strategy": self.strategy, "beta": beta, "alpha_init": 0.1, "streams": streams},
            "inputs": {"skeleton": "human36m17", "heatmap_skeleton": "mpii16", "image_size": 64},
        }  # fmt: skip

    def log(self) -> list[dict]:
        records = []
        for step in range(self.every, self.steps + 1, self.every):
            part = step / self.steps
            record = {
                "kind": "train", "step": step, "data_loss": 4e5 * 0.05**part, "mpjpe_mm": 50 + 150 * 0.1**part,
                "grad_norm": 1e4, "examples_per_s": 210.0, "seconds": 0.1 * step,
            }  # fmt: skip
            alpha, beta = 0.1 + 3 * part, self.num_layers / 2 + 0.8 * part**2
            layers = np.arange(1, self.num_layers + 1)
            weights = 1 / (1 + np.exp(-alpha * (layers - beta)))
            if self.strategy == "learned":
                record |= {"alpha": alpha, "beta": beta, "penalty": 5000 / alpha**2}
            if self.strategy in ("learned", "free"):
                record["fusion_weights"] = weights.tolist()
            records.append(record | {"loss": record["data_loss"] + record.get("penalty", 0.0)})
            if step % (2 * self.every) == 0:
                mpjpe = 62 + 130 * 0.08**part
                records.append({"kind": "validation", "step": step, "mpjpe_mm": mpjpe, "pa_mpjpe_mm": 0.7 * mpjpe})
        return records

    def scores(self, split: str) -> dict:
        base = {"mpjpe_mm": self.mpjpe_mm, "pa_mpjpe_mm": 44.25, "pa_mpjpe_reflection_mm": 43.75, "n_mpjpe_mm": 58.5,
                "pck_150mm": 0.9375, "auc": 0.6125, "num_frames": 1234}  # fmt: skip
        per_action = {name: base | {"mpjpe_mm": self.mpjpe_mm + d} for name, d in
                      ((self.action, -8.0), ("sitting", 21.0), ("reaching", 3.0))}  # fmt: skip
        reach = np.linalg.norm(STANDING_MM, axis=1)
        return base | {
            "action_mean_mpjpe_mm": self.mpjpe_mm + 5.3,
            "baseline": {"name": "mean training pose", "mpjpe_mm": 187.5, "pa_mpjpe_mm": 121.0},
            "per_action": per_action,
            "per_joint": {n: {"mpjpe_mm": 0.1 * r} for n, r in zip(LAYOUT.joints, reach, strict=True)},
            "protocol": {
                "dataset": "synthetic_humans", "split": split, "subjects": ["P07", "P08"],
                "frames": "every frame", "root": "pelvis", "num_joints": 17,
                "alignment": {"pa_mpjpe": "rotation, translation, scale", "n_mpjpe": "scale"},
                "mean": "over frames",
            },
            "strategy": self.strategy,
            "checkpoint_step": self.steps,
        }  # fmt: skip

    def samples(self, size: int = 48) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        kinds = np.repeat(["best", "median", "worst"], self.per_kind)
        n = len(kinds)
        swing = rng.normal(0, 40, (n, 17, 3)) * (np.linalg.norm(STANDING_MM, axis=1) > 300)[:, None]
        true = STANDING_MM + swing
        error = {"best": 0.5, "median": 1.5, "worst": 6.0}
        pred = true + rng.normal(0, self.noise_mm, (n, 17, 3)) * np.array([error[k] for k in kinds])[:, None, None]
        joints2d = true[..., :2] * (0.026 * size / 48) + size / 2 - 0.5
        rows, columns = np.mgrid[:24, :24]
        heat = np.exp(
            -((columns - joints2d[:, :16, None, None, 0] / size * 24) ** 2
              + (rows - joints2d[:, :16, None, None, 1] / size * 24) ** 2) / 4
        )  # fmt: skip
        return {
            "image": rng.integers(90, 200, (n, size, size, 3)).astype(np.uint8),
            "joints2d": joints2d.astype(np.float32),
            "heatmap": heat.transpose(0, 2, 3, 1).astype(np.float16),
            "true_mm": true.astype(np.float32),
            "pred_mm": pred.astype(np.float32),
            "valid": np.ones((n, 17), bool),
            "valid2d": np.ones((n, 17), bool),
            "mpjpe_mm": np.linalg.norm(pred - true, axis=-1).mean(-1).astype(np.float32),
            "kind": kinds,
            "subject": np.full(n, "P07"),
            "action": np.full(n, self.action),
            "sequence": np.full(n, "walk_03"),
            "frame": np.arange(n) * 7,
        }


@pytest.fixture
def maker(tmp_path: Path) -> RunMaker:
    return RunMaker(tmp_path / "run")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The page of a run with two samples of each kind in two splits; not to be changed."""
    maker = RunMaker(tmp_path_factory.mktemp("runs") / "run", splits=("test", "validation"), per_kind=2)
    return write_report(maker.write())


def visible_text(page: str) -> str:
    """The page's words: no tags, no scripts, no styles, entities resolved."""
    page = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


class Outline(html.parser.HTMLParser):
    """Checks that tags nest and close, and collects tags with their attributes."""

    VOID = ("meta", "img", "br", "link", "input", "hr")

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def png_size(content: bytes) -> tuple[int, int]:
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


def test_page_tells_scores_and_protocol(finished):
    assert finished.name == "report.html" and finished.parent.name == "run"
    text = visible_text(finished.read_text())
    # 1 - 61.5 / 187.5 = 0.672
    for words in ("61.5 mm", "67% less", "44.2 mm", "43.8 mm", "58.5 mm", "66.8 mm", "93.8 %", "61.3 %",
                  "187.5 mm", "121.0 mm", "1,234", "subjects P07, P08", "alignment pa_mpjpe: rotation,",
                  "checkpoint step 600", "β = 2.30", "α = 3.10", "600 training steps"):  # fmt: skip
        assert words in text, words


def test_every_picture_is_a_png_and_stands_in_the_page(finished):
    page = finished.read_text()
    files = {p.stem: p.read_bytes() for p in (finished.parent / "report").iterdir()}
    each = ("actions", "joints", "samples_best", "samples_median", "samples_worst")
    of_splits = {f"{split}_{name}" for split in ("test", "validation") for name in each}
    assert set(files) == {"learning_curves", "alpha_beta", "fusion_weights"} | of_splits
    for name, content in files.items():
        width, height = png_size(content)
        assert width > 600 and height > 200, name
        assert base64.b64encode(content).decode() in page, name
    assert not list(finished.parent.rglob("*.part"))


def test_page_is_well_formed_and_needs_no_network(finished):
    page = finished.read_text()
    outline = Outline(page)
    for tag, attributes in outline.tags:
        assert tag not in ("link", "iframe", "base")
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
    policies = [a["content"] for t, a in outline.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1 and "default-src 'none'" in policies[0] and "http" not in policies[0]
    anchors = {a["href"][1:] for t, a in outline.tags if t == "a"}
    ids = [a["id"] for _, a in outline.tags if "id" in a]
    assert anchors and anchors <= set(ids) and len(ids) == len(set(ids))
    assert page.count("* plotly.js v") == 1  # its megabytes once, though both splits have a viewer
    assert len(re.findall(r'Plotly\.newPlot\(\s*"poses-[01]"', page)) == 2


def test_viewer_offers_every_sample_with_its_crop(finished):
    outline = Outline(finished.read_text())
    assert sum(tag == "option" for tag, _ in outline.tags) == 2 * 6
    crops = [a for t, a in outline.tags if t == "img" and png_size(base64.b64decode(a["src"][22:])) == (48, 48)]
    assert ["hidden" in a for a in crops] == 2 * ([False] + 5 * [True])
    assert next(a for _, a in outline.tags if "data-viewer" in a)["data-traces"] == "4"


EVIL = '</script><script>alert("x")</script>&amp; $a_{$ <b>'


def test_text_from_files_is_escaped(maker):
    maker.action = EVIL
    maker.workdir = maker.workdir.with_name('<i>&"run')
    page = write_report(maker.write()).read_text()
    assert "<script>alert" not in page and "<i>&" not in page
    text = visible_text(page)
    assert f"P07, {EVIL}, walk_03" in text and '<i>&"run' in text
    Outline(page)


@pytest.mark.parametrize(
    ("strategy", "pictures", "words"),
    [
        ("learned", {"alpha_beta", "fusion_weights"}, "α and β trained"),
        ("free", {"fusion_weights"}, "No picture of α and β: strategy free trains neither"),
        ("fixed", set(), "they never change (fixed, β = 2 of 3 layers)"),
        ("image", set(), "No picture of the fusion weights: the log of a run with strategy image"),
    ],
)
def test_pictures_follow_the_strategy(maker, strategy, pictures, words):
    maker.strategy = strategy
    run = maker.write()
    (run / "eval" / "test_samples.npz").unlink()
    text = visible_text(write_report(run).read_text())
    made = {p.stem for p in (run / "report").iterdir()}
    assert made & {"alpha_beta", "fusion_weights"} == pictures
    assert words in text
    assert f"fusion-jax evaluate --workdir {run}" in text and not any("samples" in name for name in made)


def test_parts_that_an_evaluation_lacks_are_left_out_with_a_sentence(maker):
    run = maker.write()
    scores = maker.scores("test")
    for field in ("per_action", "baseline", "n_mpjpe_mm", "protocol"):
        del scores[field]
    scores["per_joint"]["nose"] = {"mpjpe_mm": None}  # never valid in this split
    (run / "eval" / "test.json").write_text(json.dumps(scores))
    log = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(line for line in log if "validation" not in line) + "\n")
    text = visible_text(write_report(run).read_text())
    assert "No bars per action" in text and "holds no validation scores" in text and "N-MPJPE" not in text
    assert not (run / "report" / "test_actions.png").exists() and (run / "report" / "test_joints.png").exists()


def test_advice_on_another_dataset_names_it(maker, tmp_path, monkeypatch):
    """Its scores are of an older step and lack pictures, the other run has none; the curve keeps to our own data."""
    drawn = []
    real = report.pictures.learning_curves
    monkeypatch.setattr(report.pictures, "learning_curves", lambda *args: drawn.append(args[-1]) or real(*args))
    run = maker.write()
    foreign = maker.scores("test") | {"dataset": "lsp/16px", "split": "test", "name": "lsp_16px_test"}
    foreign |= {"checkpoint_step": 50, "baseline": {"name": "mean training pose of lsp/16px", "mpjpe_mm": 99.5}}
    (run / "eval" / "lsp_16px_test.json").write_text(json.dumps(foreign))
    other = RunMaker(tmp_path / "other").write()
    text = visible_text(write_report(run, [other]).read_text())
    command = "fusion-jax evaluate --workdir {} --dataset lsp/16px --split test"
    assert f"score it again with: {command.format(run)}" in text
    assert f"to make it run again: {command.format(run)}" in text
    assert f"other has no scores on lsp_16px_test; to make them run {command.format(other)}" in text
    assert "mean training pose of lsp/16px" in text and drawn == [187.5]
    (run / "eval" / "test.json").unlink()
    write_report(run)
    assert drawn == [187.5, None]


def test_advice_on_other_heatmaps_names_them(maker):
    run = maker.write()
    for name in ("test_noisy", "lsp_16px_test_predicted"):
        scores = maker.scores("test") | {"dataset": "lsp/16px", "split": "test", "heatmaps": name.rpartition("_")[2]}
        (run / "eval" / f"{name}.json").write_text(json.dumps(scores))
    own, other, noisy = read_run(run).evaluations
    assert (own.own, other.own, noisy.own) == (True, False, True)
    command = f"fusion-jax evaluate --workdir {run}"
    assert noisy.command(run) == f"{command} --split test --heatmaps noisy"
    end = "--split test --heatmaps predicted --heatmap-workdir RUN_OF_A_2D_NETWORK"
    assert other.command(run) == f"{command} --dataset lsp/16px {end}"


def table_rows(page: str, anchor: str) -> list[list[str]]:
    part = page[page.index(f'id="{anchor}"') :].split("</table>", 1)[0]
    rows = re.findall(r"<tr>(.*?)</tr>", part, flags=re.DOTALL)
    return [[visible_text(cell) for cell in re.findall(r"<t[dh].*?</t[dh]>", row)] for row in rows]


def test_comparison_lists_runs_and_the_baseline(maker, tmp_path):
    others = [
        RunMaker(tmp_path / "a" / "other", strategy="fixed", mpjpe_mm=55.0).write(),
        RunMaker(tmp_path / "b" / "other", strategy="image", mpjpe_mm=99.0).write(),
    ]
    (others[1] / "metrics.jsonl").unlink()  # a run to compare with needs its scores alone
    page = write_report(maker.write(), compare=others).read_text()
    assert table_rows(page, "comparison") == [
        ["run", "strategy", "MPJPE", "PA-MPJPE", "N-MPJPE", "PCK at 150 mm", "AUC", "frames"],
        ["run", "learned", "61.5 mm", "44.2 mm", "58.5 mm", "93.8 %", "61.3 %", "1,234"],
        [str(others[0]), "fixed, β = 2", "55.0 mm", "44.2 mm", "58.5 mm", "93.8 %", "61.3 %", "1,234"],
        [str(others[1]), "image", "99.0 mm", "44.2 mm", "58.5 mm", "93.8 %", "61.3 %", "1,234"],
        ["mean training pose", "none", "187.5 mm", "121.0 mm", "—", "—", "—", "—"],
    ]
    best = re.findall(r'<td class="number best">(\S+) mm</td>', page)
    assert best.count("55.0") == 1 and "61.5" not in best and "99.0" not in best
    assert "Beware" not in page


def test_comparison_warns_of_another_protocol_and_a_missing_split(maker, tmp_path):
    maker.splits = ("test", "validation")
    run = maker.write()
    for path in run.glob("eval/*.npz"):
        path.unlink()
    other = RunMaker(tmp_path / "other")
    other.write()
    scores = other.scores("test")
    scores["protocol"]["frames"] = "every 64th frame"
    (other.workdir / "eval" / "test.json").write_text(json.dumps(scores | {"num_frames": 20}))
    text = visible_text(write_report(run, compare=[other.workdir]).read_text())
    assert "Beware: other was scored differently (frames, number of frames)" in text
    assert "other has no scores on validation" in text


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("config.json", "fusion-jax train"),
        ("metrics.jsonl", "fusion-jax train"),
        ("eval/test.json", "fusion-jax evaluate"),
    ],
)
def test_missing_file_names_the_command_that_makes_it(maker, missing, command):
    run = maker.write()
    (run / missing).unlink()
    with pytest.raises(UserError, match=f"`{command} --workdir {re.escape(str(run))}`"):
        write_report(run)
    assert not (run / "report.html").exists()


def log_line(step: int, **fields) -> str:
    return json.dumps({"kind": "train", "step": step} | fields) + "\n"


def test_log_of_a_resumed_and_killed_run(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        log_line(10, loss=9.0) + log_line(20, loss=8.0) + log_line(30, loss=7.0)
        + log_line(20, loss=5.0) + "\n" + '{"kind": "validation", "step": 20, "mpjpe_mm": 80}\n'
        + '{"kind": "train", "step": 40, "lo'
    )  # fmt: skip
    train, validation = read_log(path)
    assert [(r["step"], r["loss"]) for r in train] == [(10, 9.0), (20, 5.0), (30, 7.0)]
    assert [r["mpjpe_mm"] for r in validation] == [80]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"kind": "train", "step": 2\n', "not a JSON object"),
        ("[1, 2]\n", "not a JSON object"),
        ('{"kind": "train"}\n', "`step`"),
        ('{"kind": "train", "step": 2, "loss": NaN}\n', "loss is nan, expected finite"),
        ('{"kind": "train", "step": 2, "fusion_weights": [0.5, null]}\n', "fusion_weights is"),
        ('{"kind": "train", "step": 2, "loss": true}\n', "loss is True"),
        ('{"kind": "train", "step": 2}\xff\n', "not a JSON object"),
    ],
)
def test_broken_log_line_is_named(tmp_path, line, words):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes((log_line(1) + line + log_line(3)).encode("latin-1"))
    with pytest.raises(UserError, match=rf"metrics.jsonl, line 2: .*{words}"):
        read_log(path)


def test_log_must_hold_training_records_of_one_depth(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "validation", "step": 20, "mpjpe_mm": 80}\n')
    with pytest.raises(UserError, match="no training record yet.*`fusion-jax train"):
        read_log(path)
    path.write_text(log_line(1, fusion_weights=[0.5]) + log_line(2, fusion_weights=[0.5, 0.6]))
    with pytest.raises(UserError, match=r"fusion_weights has \[1, 2\] entries"):
        read_log(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"true_mm": np.zeros((3, 16, 3))}, r"true_mm has shape \(3, 16, 3\), expected \(3, 17, 3\)"),
        ({"kind": np.array(["best"])}, r"kind has shape \(1,\)"),
        ({"subject": np.array([None] * 3, object)}, "cannot be read"),
        ({"valid": None}, "cannot be read.*valid"),
    ],
)
def test_broken_samples_are_named(maker, change, words):
    arrays = {k: v for k, v in (maker.samples() | change).items() if v is not None}
    path = maker.workdir / "eval" / "test_samples.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=f"test_samples.npz.*{words}.*`fusion-jax evaluate"):
        read_samples(path, LAYOUT)
    path.write_bytes(b"not a zip")
    with pytest.raises(UserError, match="cannot be read"):
        read_samples(path, LAYOUT)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("eval/test.json", "{", "cannot be read as JSON"),
        ("eval/test.json", '{"mpjpe_mm": null}', "mpjpe_mm is None"),
        ("config.json", "[]", "expected a JSON object"),
        ("config.json", '{"network": {}}', "inputs.skeleton is missing"),
        ("config.json", '{"inputs": {"skeleton": "human36m71"}}', "Did you mean 'human36m17'"),
    ],
)
def test_broken_json_is_named(maker, name, content, words):
    run = maker.write()
    (run / name).write_text(content)
    with pytest.raises(UserError, match=words):
        write_report(run)


def test_splits_come_test_first_and_samples_are_optional(maker):
    maker.splits = ("alpha", "test", "validation")
    run = maker.write()
    empty = {name: array[:0] for name, array in maker.samples().items()}
    np.savez(run / "eval" / "validation_samples.npz", **empty)
    (run / "eval" / "alpha_samples.npz").unlink()
    found = read_run(run).evaluations
    assert [e.split for e in found] == ["test", "validation", "alpha"]
    assert [e.samples is not None for e in found] == [True, False, False]


def test_same_run_gives_the_same_files_and_a_failed_write_keeps_the_old(maker, monkeypatch):
    run = maker.write()
    (run / "eval" / "test_samples.npz").unlink()
    path = write_report(run)
    before = {p: p.read_bytes() for p in [path, *(maker.workdir / "report").iterdir()]}
    write_report(maker.workdir)
    assert {p: p.read_bytes() for p in before} == before

    def refuse(source, target):
        raise OSError("disk full")

    monkeypatch.setattr("fusion_jax.report.os.replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_report(maker.workdir)
    assert {p: p.read_bytes() for p in before} == before
    assert not list(maker.workdir.rglob("*.part"))


def test_report_starts_without_jax_and_leaves_pyplot_alone():
    code = "import sys, fusion_jax.report; assert not {'jax', 'matplotlib.pyplot', 'plotly'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
