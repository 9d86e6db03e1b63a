"""Analysis of a run: which features are compared, whose inputs are exchanged, what it writes, what it refuses."""

import dataclasses
import functools
import json
import shutil

import jax
import numpy as np
import pytest
import small
from hypothesis import given
from hypothesis import strategies as st

from fusion_jax import sharding
from fusion_jax.analysis_pictures import correlation_matrix, gradient_curves, gradient_norms
from fusion_jax.analysis_record import Correlation, read_analysis
from fusion_jax.analyze import analyze_run
from fusion_jax.checkpoint import Checkpoints, restore_run
from fusion_jax.cli import main
from fusion_jax.datasets import open_dataset
from fusion_jax.errors import UserError
from fusion_jax.fusion import LiveLayers
from fusion_jax.network import Conv, Dense, FusionNet, Stream
from fusion_jax.pictures import png_bytes
from fusion_jax.presets import preset
from fusion_jax.report_analysis import analysis_sections
from fusion_jax.run_record import RunRecord
from fusion_jax.state import network_variables
from fusion_jax.stream_correlation import correlate_streams, feature_layer
from fusion_jax.stream_usage import Frames, noisy, other_people, pose_errors, read_inputs, stream_usage
from fusion_jax.train import LoopOptions, train
from fusion_jax.training_log import read_log
from fusion_jax.work_folder import DatasetRecord, load_run, save_run

FILES = {"analysis.json", "analysis.md", "correlation.npz", "correlation.png", "usage.png", "grad_norms.png"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps, analysed on 12 frames through the command line; not to be changed."""
    workdir = tmp_path_factory.mktemp("analyze") / "run"
    train(small.config(steps=2), small.data_dir(), workdir, LoopOptions(show=False, log_every=1, eval_every=0))
    args = ["analyze", "--workdir", workdir, "--frames", 12, "--batch-size", 8]
    assert main(list(map(str, args))) == 0
    return workdir


def opened(workdir, rows, batch_size=8):
    config, _ = load_run(workdir)
    mesh = sharding.data_mesh()
    dataset = open_dataset("synthetic_humans", small.data_dir(), small.SIZE, 0)
    return Frames(config, restore_run(workdir, config, mesh), dataset, "test", np.asarray(rows), mesh, batch_size)


def section(workdir):
    """The analysis as the report shows it, without the log, whose picture takes a second."""
    (shown,) = analysis_sections(RunRecord(workdir, {}, [], [], []))
    return shown


def test_everything_is_written_and_shown(trained, capsys):
    folder = trained / "analysis"
    assert {path.name for path in folder.iterdir()} == FILES
    for path in folder.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 8000, path.name
    found = read_analysis(folder / "analysis.json")
    assert (found.frames, found.all_frames, found.checkpoint_step, found.gradient_words) == (12, 56, 2, "")
    assert [use.stream for use in found.usage] == ["image", "heatmap"]
    assert found.correlation.layer == 1 and found.correlation.positions == 7 * 7  # 16 -> 14 -> 7 px
    with np.load(folder / "correlation.npz") as stored:
        size = sum(found.correlation.alive)
        assert stored["r_squared"].shape == (size, size) and set(stored["stream"]) == {"image", "heatmap"}
        assert size + sum(found.correlation.dead) == 8
    words = (folder / "analysis.md").read_text()
    sections = analysis_sections(RunRecord(trained, {}, read_log(trained / "metrics.jsonl")[0], [], []))
    assert [s.anchor for s in sections] == ["gradients", "analysis"]
    assert [set(s.pngs) for s in sections] == [{"grad_norms"}, {"usage", "correlation"}]
    page = "".join(sections[1].parts)
    for use in found.usage:
        for text in (f"{use.other_mm:.1f}", f"{use.noise_mm - found.mpjpe_mm:+.1f}", f"{use.noise_std:.3g}"):
            assert text in words and text in page
    assert "| image with heatmap | 0." in words and "Layer 1 is the last convolution" in page


def test_correlation_is_numpys_over_all_frames_and_positions(trained):
    """Three batches, the last with padding that must not count."""
    frames = opened(trained, [0, 5, 9, 20, 30, 31, 32, 40, 41, 50], batch_size=4)
    found, _ = correlate_streams(frames)
    inputs = [{name: x[batch.mask] for name, x in batch.inputs.items()} for batch in read_inputs(frames)]
    whole = {name: np.concatenate([part[name] for part in inputs]) for name in inputs[0]}
    look = jax.jit(functools.partial(frames.state.network.apply, mutable=["intermediates"]))
    _, kept = look(network_variables(frames.state), whole)
    features = np.asarray(kept["intermediates"]["data_1"][0], np.float64).reshape(10 * 49, 8)
    alive = np.flatnonzero(features.std(0) > 0)
    np.testing.assert_array_equal(found.stream * 4 + found.channel, alive)
    expected = np.corrcoef(features[:, alive].T) ** 2
    np.testing.assert_allclose(found.matrix, expected, atol=1e-5)
    across = expected[np.ix_(found.stream == 0, found.stream == 1)].mean()
    assert found.found.means[0][1] == pytest.approx(across, abs=1e-6)


def test_a_stream_that_is_not_read_makes_no_difference_at_all(trained):
    frames = opened(trained, range(8))
    params = jax.tree.map(np.asarray, frames.state.params)
    for name in ("heatmap_1", "heatmap_2"):
        params[name] = jax.tree.map(np.zeros_like, params[name])
    kernel = params["fusion_1"]["kernel"].copy()
    kernel[:, :, 3:] = 0  # the fusion stream's first layer reads the inputs themselves, three of them the picture's
    params["fusion_1"] = params["fusion_1"] | {"kernel": kernel}
    state = frames.state.replace(params=jax.device_put(params, sharding.replicated(frames.mesh)))
    untouched, (image, heatmap), _ = stream_usage(frames._replace(state=state), seed=0)
    assert heatmap.mean_mm == heatmap.other_mm == heatmap.noise_mm == untouched
    assert untouched not in (image.mean_mm, image.other_mm, image.noise_mm)


def test_usage_is_the_error_with_exactly_that_input(trained):
    """By hand: another frame's heatmaps, found by the exchange; and the untouched error; batches do not matter."""
    frames = opened(trained, [3, 1, 44, 10, 11])
    untouched, uses, words = stream_usage(frames, seed=3)
    (batch,) = read_inputs(frames)
    order = other_people(batch.subject[:5], 3)
    (others,) = read_inputs(frames, order)
    heatmap = batch.inputs["heatmap"].copy()
    np.testing.assert_array_equal(others.inputs["heatmap"][:5], heatmap[:5][order])
    heatmap[:5] = heatmap[:5][order]

    score = jax.jit(pose_errors)

    def error(**instead):
        given = {"inputs": batch.inputs | instead, "pose_mm": batch.pose_mm}
        return float(np.mean(score(frames.state, given)[:5]))

    assert untouched == pytest.approx(error(), rel=1e-5)
    assert uses[1].other_mm == pytest.approx(error(heatmap=heatmap), rel=1e-5)
    mean = np.broadcast_to(batch.inputs["image"][:5].mean(0), batch.inputs["image"].shape)
    assert uses[0].mean_mm == pytest.approx(error(image=mean), rel=1e-5)
    assert uses[0].noise_std == pytest.approx(batch.inputs["image"][:5].std(), rel=1e-5)
    assert "each goes to one other frame" in words  # the small dataset tests on one person
    again = stream_usage(frames._replace(batch_size=4), seed=3)[1]
    for one, other in zip(uses, again, strict=True):
        np.testing.assert_allclose(dataclasses.astuple(one)[1:], dataclasses.astuple(other)[1:], rtol=1e-5)


@given(st.lists(st.sampled_from("abcd"), min_size=2, max_size=40), st.integers(0, 5))
def test_everybody_gets_somebody_elses(people, seed):
    subject = np.array(people)
    other = other_people(subject, seed)
    np.testing.assert_array_equal(np.sort(other), np.arange(len(subject)))
    np.testing.assert_array_equal(other, other_people(subject, seed))
    assert (other != np.arange(len(subject))).all()
    most = max(people.count(name) for name in people)
    if len(set(people)) > 1:  # a person with more than half the frames has to give itself some
        assert (subject[other] == subject).sum() == max(0, 2 * most - len(people))


def test_the_exchange_mixes_people_and_seeds_differ():
    subject = np.repeat(list("abcdefgh"), 20)
    other = other_people(subject, 0)
    assert min(len(set(subject[other][subject == name])) for name in "abcdefgh") >= 5
    assert (other != other_people(subject, 1)).mean() > 0.5


def test_noise_belongs_to_the_frame_and_stays_in_range():
    values = np.full((3, 2000), 0.5, np.float32)
    drawn = noisy(values, np.array([4, 9, 2]), (0, 1), 0.1, 0.0, 1.0)
    assert drawn.std() == pytest.approx(0.1, rel=0.05) and drawn.mean() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_array_equal(drawn[1:2], noisy(values[:1], np.array([9]), (0, 1), 0.1, 0.0, 1.0))
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1:2], noisy(values[:1], np.array([9]), (0, 0), 0.1, 0.0, 1.0))
    clipped = noisy(values, np.arange(3), (0, 1), 5.0, 0.25, 0.75)
    assert clipped.min() == 0.25 and clipped.max() == 0.75


@pytest.mark.parametrize(
    ("fields", "layer", "words"),
    [
        ({}, 2, "Layer 2 is the last convolution"),
        ({"strategy": "fixed", "beta": 3.0}, 2, "Layer 2 is the last convolution"),
        ({"strategy": "fixed", "beta": 1.0}, 1, "behind layer 1 they are not read"),
        ({"strategy": "fixed", "beta": 0.0}, None, "fuses its inputs before the first layer"),
        ({"live": LiveLayers(1, 1)}, 1, "its last convolution, layer 2, is of the fusion stream alone"),
        ({"strategy": "image"}, None, "Strategy image reads one stream, so there is no other stream"),
        ({"layers": (Dense(4),)}, None, "have no convolution"),
    ],
)
def test_which_layer_is_looked_at(fields, layer, words):
    fields = {"layers": (Conv(2, 3), Conv(2, 3), Dense(4)), **fields}
    layers = fields.pop("layers")
    found, told = feature_layer(FusionNet((Stream("image", layers), Stream("heatmap", layers)), **fields))
    assert found == layer and words in told


@pytest.mark.parametrize(
    ("log", "words"), [(None, "there is no training log"), ({"kind": "train", "step": 1}, "metrics.jsonl holds none")]
)
def test_what_does_not_apply_is_told(small_state, tmp_path, log, words):
    """A single stream, whose training has logged nothing, or nothing of its gradients."""
    config = small.config()
    config = dataclasses.replace(config, network=dataclasses.replace(config.network, strategy="image"))
    dataset = open_dataset("synthetic_humans", small.data_dir(), small.SIZE, 0)
    record = DatasetRecord(dataset.name, str(small.data_dir()), dataset.fingerprint)
    config = dataclasses.replace(config, dataset=dataset.name)
    save_run(tmp_path, config, record, [])
    checkpoints = Checkpoints(tmp_path, config)
    checkpoints.save(1, small_state(config), 1)
    checkpoints.close()
    if log is not None:
        (tmp_path / "metrics.jsonl").write_text(json.dumps(log) + "\n")
    found = analyze_run(tmp_path, frames=4, batch_size=4)
    assert found.correlation is None and "no other stream to compare it with" in found.correlation_words
    assert [use.stream for use in found.usage] == ["image"] and "reads the stream image alone" in found.usage_words
    assert words in found.gradient_words
    assert {path.name for path in (tmp_path / "analysis").iterdir()} == {"analysis.json", "analysis.md", "usage.png"}
    assert set(section(tmp_path).pngs) == {"usage"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--workdir", "NOWHERE"], "NOWHERE holds no run"),
        (["--workdir", "FLAT"], "is a 2D network, which has no streams to analyse"),
        (["--workdir", "RUN", "--frames", "1"], "--frames is 1, expected >= 2"),
        (["--workdir", "RUN", "--batch-size", "0"], "--batch-size is 0, expected >= 1"),
        (["--workdir", "RUN", "--batch-size", "6"], "does not divide over 4 devices"),
        (["--workdir", "RUN", "--seed", "-1"], "--seed is -1, expected >= 0"),
        (["--workdir", "RUN", "--split", "tset"], "has no split 'tset'"),
        (["--workdir", "RUN", "--data-dir", "NOWHERE"], "no prepared synthetic_humans in NOWHERE"),
    ],
)
def test_errors_are_one_line(trained, tmp_path, capsys, args, message):
    save_run(tmp_path / "flat", preset("hourglass-tiny"), DatasetRecord("synthetic_humans", ".", "0"), [])
    places = {"RUN": str(trained), "FLAT": str(tmp_path / "flat")}
    before = (trained / "analysis" / "analysis.json").read_bytes()
    assert main(["analyze", *(places.get(arg, arg) for arg in args)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert (trained / "analysis" / "analysis.json").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("mpjpe_mm"), "missing field 'mpjpe_mm'"),
        (lambda d: d.update(mpjpe_mm=None), "usage is told without mpjpe_mm"),
        (lambda d: d["usage"][0].update(other_mm=float("nan")), "cannot be read as JSON: NaN is no JSON number"),
        (lambda d: d["usage"][0].update(stream=["image"]), "expected str"),
        (lambda d: d["correlation"].update(alive=[4]), r"expected 2 each"),
        (lambda d: d["correlation"]["means"][0].__setitem__(1, 7.0), r"expected numbers in \[0, 1\]"),
        (lambda d: d.update(script="alert"), "unknown field 'script'"),
    ],
)
def test_the_report_refuses_another_form(trained, tmp_path, change, message):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    path = tmp_path / "run" / "analysis" / "analysis.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=message) as caught:
        section(tmp_path / "run")
    assert "run fusion-jax analyze again" in str(caught.value) and "\n" not in str(caught.value)


def test_the_report_escapes_texts_and_takes_pngs_alone(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    folder = tmp_path / "run" / "analysis"
    data = json.loads((folder / "analysis.json").read_text())
    data["usage"][0]["stream"] = data["usage_words"] = "<script>alert(1)</script>"
    (folder / "analysis.json").write_text(json.dumps(data))
    assert "<script>" not in "".join(section(tmp_path / "run").parts)
    (folder / "usage.png").write_bytes(b"<svg onload=alert(1)>")
    with pytest.raises(UserError, match="usage.png is no PNG file; run `fusion-jax analyze --workdir"):
        section(tmp_path / "run")
    (folder / "usage.png").unlink()
    with pytest.raises(UserError, match="usage.png is missing"):
        section(tmp_path / "run")


def test_gradient_norms_by_stream_and_layer(trained):
    """By hand, with a stream whose name has a line in it, ten layers, and parameters of no layer."""
    norms = {"fusion_1": 1.0, "alpha": 0.5, "my_parts_2": 2.0, "my_parts_10": 0.0}
    curves = gradient_curves([{"step": 5}, {"step": 7, "layer_grad_norms": norms}, {"step": 9, "layer_grad_norms": {}}])
    assert {group: list(layers) for group, layers in curves.items()} == {
        "my_parts": ["2", "10"],
        "fusion": ["1"],
        "other parameters": ["alpha"],
    }
    assert curves["my_parts"]["2"].steps.tolist() == [7] and curves["my_parts"]["2"].values.tolist() == [2.0]
    figure = gradient_norms(curves)
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend == ["layer 2", "layer 10 (0 at 1 of 1 points)"] and len(png_bytes(figure)) > 8000
    logged = gradient_curves(read_log(trained / "metrics.jsonl")[0])
    assert list(logged) == ["heatmap", "image", "fusion", "other parameters"] and list(logged["fusion"]) == list("123")
    assert gradient_curves([{"step": 1}]) == {}
    with pytest.raises(UserError, match="gradient norms of 17 streams, expected at most 16"):
        gradient_curves([{"step": 1, "layer_grad_norms": {f"stream{i}_1": 1.0 for i in range(17)}}])


@pytest.mark.parametrize(
    "norms", [[1.0], {"a": "1"}, {"a": -1.0}, {"a": float("inf")}, {str(i): 1 for i in range(1001)}]
)
def test_broken_norms_in_a_log_are_refused(tmp_path, norms):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"kind": "train", "step": 1, "layer_grad_norms": norms}) + "\n")
    with pytest.raises(UserError, match="line 1: layer_grad_norms"):
        read_log(path)


def test_the_picture_takes_streams_without_live_channels():
    found = Correlation(
        2, 9, ("image", "$x", "flow"), (0, 2, 1), (3, 0, 1), ((None,) * 3, (None, 0.5, 0.1), (None, 0.1, None))
    )
    matrix = np.array([[1, 0.5, 0.1], [0.5, 1, 0.1], [0.1, 0.1, 1]])
    assert len(png_bytes(correlation_matrix(matrix, found))) > 8000
