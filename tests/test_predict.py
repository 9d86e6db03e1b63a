"""Files to files: what is written, going on after a stop, and inputs that cannot be read."""

import json

import numpy as np
import pytest
import trained_pair
from PIL import Image

from data_pipelines.video import Video
from fusion_jax import predict as predict_module
from fusion_jax.cli import main
from fusion_jax.errors import UserError
from fusion_jax.pose_record import from_json
from fusion_jax.predict import predict_files, read_boxes
from fusion_jax.predict_stream import Follower, predict_frames
from fusion_jax.predict_video import PoseVideo
from fusion_jax.predictor import Predictor

BOX = {"*": [np.array([10.0, 5.0, 20.0, 50.0])]}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return trained_pair.make(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def predictor(pair):
    return Predictor(*pair, batch_size=2)


@pytest.fixture
def folder(tmp_path):
    """Two pictures, one of them turned by EXIF, and one that is damaged."""
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (60, 90, 3), np.uint8)).save(photos / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(rng.integers(0, 256, (90, 60, 3), np.uint8)).save(photos / "b.jpg", exif=exif)
    (photos / "c.jpg").write_bytes((photos / "b.jpg").read_bytes()[:200])
    return photos


def video(path, frames=5, size=(64, 48)):
    with PoseVideo(path, size, 10) as writer:
        for number in range(frames):
            writer.write(np.full((size[1], size[0], 3), 40 * number, np.uint8))
    return path


def quiet(*args, **kwargs):
    return predict_files(*args, show=False, **kwargs)


def test_what_is_written_of_pictures(predictor, folder, tmp_path):
    out = tmp_path / "out"
    outcome = quiet([folder], predictor, out, boxes=BOX)
    assert (outcome.made, outcome.kept, outcome.people) == (2, 0, 2)
    (failed,) = outcome.failed
    assert "c.jpg" in failed, "the damaged one is named and stops nobody"
    names = {"a.json", "a.png", "b.json", "b.png", "poses.npz", "index.html"}
    assert {path.name for path in out.iterdir()} == names
    turned = json.loads((out / "b.json").read_text())
    assert (turned["width"], turned["height"]) == (90, 60), "upright"
    with np.load(out / "poses.npz", allow_pickle=False) as stored:
        assert stored["picture"].tolist() == ["a.png", "b.jpg"]
        for row, name in enumerate("ab"):
            (person,) = json.loads((out / f"{name}.json").read_text())["people"]
            person = from_json(person, name)
            np.testing.assert_array_equal(stored["pose_mm"][row], person.pose_mm)
            assert person.pose_network == predictor.pose_network
    page = (out / "index.html").read_text()
    assert "a.png" in page and "c.jpg" in page, "who was found, and what was left out"


def test_goes_on_where_it_stopped_and_makes_anew_what_changed(predictor, folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    real, calls = predict_module._pictures, []

    def stopped(todo, *args):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return real(todo, *args)

    one_by_one = Predictor.__new__(Predictor)
    one_by_one.__dict__ = predictor.__dict__ | {"batch_size": 1}
    with monkeypatch.context() as patch:
        patch.setattr(predict_module, "_pictures", stopped)
        with pytest.raises(KeyboardInterrupt):
            quiet([folder], one_by_one, out, boxes=BOX)
    first = (out / "a.json").stat().st_mtime_ns
    outcome = quiet([folder], predictor, out, boxes=BOX)
    assert (outcome.made, outcome.kept) == (1, 1) and (out / "a.json").stat().st_mtime_ns == first
    assert quiet([folder], predictor, out, boxes=BOX)[:2] == (0, 2)
    (out / "b.png").unlink()
    (out / "a.json").write_text('{"made_by": ')
    assert quiet([folder], predictor, out, boxes=BOX)[:2] == (2, 0), "half of a picture's files is none"
    other = {"*": [np.array([12.0, 5.0, 20.0, 50.0])]}
    assert quiet([folder], predictor, out, boxes=other)[:2] == (2, 0)
    assert quiet([folder], predictor, out, boxes=other, settings={"camera": "x"})[:2] == (2, 0)
    Image.new("RGB", (90, 60)).save(folder / "a.png")
    assert quiet([folder], predictor, out, boxes=other, settings={"camera": "x"})[:2] == (1, 1)


def test_what_is_written_of_a_video(predictor, tmp_path):
    out = tmp_path / "out"
    outcome = quiet([video(tmp_path / "v.mp4")], predictor, out, boxes={"*": [np.array([5.0, 5.0, 30.0, 40.0])]})
    assert (outcome.made, outcome.people, outcome.page) == (1, 5, None)
    assert {path.name for path in out.iterdir()} == {"v.mp4", "v.jsonl", "v.npz"}
    first, *frames, last = map(json.loads, (out / "v.jsonl").read_text().splitlines())
    assert first["fps"] == 10 and last == {"frames": 5, "people_in_all": 5}
    assert [frame["frame"] for frame in frames] == [0, 1, 2, 3, 4]
    assert {person["track"] for frame in frames for person in frame["people"]} == {0}
    with np.load(out / "v.npz", allow_pickle=False) as stored:
        assert stored["frame"].tolist() == [0, 1, 2, 3, 4]
    with Video(out / "v.mp4") as written:
        assert len(list(written.frames(range(100)))) == 5 and written.fps == 10
    assert quiet([tmp_path / "v.mp4"], predictor, out, boxes={"*": [np.array([5.0, 5.0, 30.0, 40.0])]})[:2] == (0, 1)
    assert quiet([tmp_path / "v.mp4"], predictor, out, boxes=BOX, smooth=True)[:2] == (1, 0)


def test_a_video_without_frames_is_named_and_leaves_nothing(predictor, tmp_path):
    whole = video(tmp_path / "v.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 8])
    outcome = quiet([tmp_path / "cut.mp4", tmp_path / "v.mp4"], predictor, tmp_path / "out", boxes=BOX)
    (failed,) = outcome.failed
    assert "cut.mp4" in failed and outcome.made == 1
    assert not [path for path in (tmp_path / "out").iterdir() if "cut" in path.name]


def test_smoothing_takes_out_jitter_and_keeps_the_mean(predictor, monkeypatch):
    """Frames of noise make poses of noise; smoothed ones vary less."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (60, 90, 3), np.uint8) for _ in range(12)]

    def poses(smooth):
        found = predict_frames(iter(frames), predictor, Follower(25.0, smooth), BOX["*"])
        return np.stack([views[0].pose.pose_mm for _, views in found])

    raw, calm = poses(False), poses(True)
    np.testing.assert_array_equal(raw[0], calm[0])
    assert np.diff(calm, axis=0).std() < 0.5 * np.diff(raw, axis=0).std()


def test_whom_the_detector_loses_is_looked_for_where_they_were(predictor):
    image = np.zeros((60, 90, 3), np.uint8)
    follower = Follower(25.0, False)
    from fusion_jax.predictor import Person

    seen = Person(image, np.array([10.0, 5.0, 20.0, 50.0]), "detected")
    nobody = Person(image, np.array([-0.5, -0.5, 90.0, 60.0]), "picture")
    assert follower.place([nobody]) == [nobody], "nobody was there before"
    assert follower.place([seen]) == [seen]
    for _ in range(15):
        (kept,) = follower.place([nobody])
        assert kept.source == "tracked" and kept.box is seen.box
    assert follower.place([nobody]) == [nobody], "after a while they are forgotten"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "an object of lists of boxes by file name, got list"),
        ('{"a.jpg": [1, 2, 3, 4]}', "'a.jpg': expected a list of boxes"),
        ('{"a.jpg": [[1, 2, 3]]}', "'a.jpg': expected a list of boxes"),
        ('{"a.jpg": [[1, 2, 3, "4"]]}', "'a.jpg': expected a list of boxes"),
        ('{"a.jpg": [[1, 2, 3, NaN]]}', "'a.jpg': expected a list of boxes"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_bad_box_files(tmp_path, text, message):
    (tmp_path / "boxes.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_boxes(tmp_path / "boxes.json")


def test_boxes_by_file_name(predictor, folder, tmp_path):
    (tmp_path / "boxes.json").write_text('{"a.png": [[10, 5, 20, 50], [40, 5, 30, 50]], "b.jpg": []}')
    boxes = read_boxes(tmp_path / "boxes.json")
    outcome = quiet([folder / "a.png", folder / "b.jpg"], predictor, tmp_path / "o", boxes=boxes)
    assert outcome.people == 2 and not json.loads((tmp_path / "o" / "b.json").read_text())["people"]


def test_the_command(pair, folder, tmp_path, capsys):
    args = ["predict", folder, "--workdir", pair[0], "--heatmap-workdir", pair[1], "--box=10,5,20,50"]
    assert main([*map(str, args), "--out", str(tmp_path / "out")]) == 1, "one picture failed"
    out = capsys.readouterr().out
    assert "2 people; 2 inputs done, 1 failed" in out and "left out: " in out and "c.jpg" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["EMPTY"], "EMPTY"),
        (["NOWHERE.jpg"], "NOWHERE.jpg"),
        ([], "no input"),
        (["a.png", "--box", "1,2,3"], "expected x,y,width,height"),
        (["a.png", "--camera", "camera.json"], "camera.json"),
        (["a.png", "--boxes", "NOWHERE.json"], "NOWHERE.json does not exist"),
        (["a.png", "--batch-size", "0"], "batch_size is 0"),
    ],
)
def test_bad_input_is_one_line(pair, folder, monkeypatch, capsys, args, message):
    monkeypatch.chdir(folder)
    (folder / "EMPTY").mkdir()
    (folder / "camera.json").write_text('{"fx": 500}')
    code = main(["predict", *args, "--workdir", str(pair[0]), "--heatmap-workdir", str(pair[1]), "--out", "out"])
    error = capsys.readouterr().err.strip()
    assert code == 2 and message in error and len(error.splitlines()) == 1, error
