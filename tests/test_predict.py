"""Files to files: what is written, going on after a stop, and inputs that cannot be read."""

import json
import os

import numpy as np
import pytest
import trained_pair
from PIL import Image
from views import waving

from data_pipelines.video import Video
from fusion_jax import predict as predict_module
from fusion_jax import predict_stream
from fusion_jax.cli import main
from fusion_jax.errors import UserError
from fusion_jax.given_boxes import read_boxes
from fusion_jax.pose_record import PersonPose, PersonView, from_json
from fusion_jax.predict import predict_files
from fusion_jax.predict_stream import Follower, predict_frames
from fusion_jax.predict_video import PoseVideo
from fusion_jax.predictor import Person, Predictor

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
            assert person.pose_network == predictor.pair.pose_network
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
    careless = Predictor.__new__(Predictor)
    careless.__dict__ = predictor.__dict__ | {"settings": predictor.settings | {"refine": False}}
    assert quiet([folder], careless, out, boxes=other)[:2] == (2, 0)
    Image.new("RGB", (90, 60)).save(folder / "a.png")
    assert quiet([folder], careless, out, boxes=other)[:2] == (1, 1)


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
        ('{"a.jpg": [[1, 2, 3, NaN]]}', "cannot be read as JSON: NaN is no JSON number"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"a.jpg": [[' + "9" * 5000 + "]]}", "cannot be read as JSON"),
        (json.dumps({"a.jpg": [[1, 2, 3, 4]] * 1001}), "at most 1000 boxes, got 1001"),
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


def test_results_never_lie_among_the_inputs(predictor, folder):
    before = sorted(folder.iterdir())
    with pytest.raises(UserError, match="lies in .*, where results are written; give another --out"):
        quiet([folder], predictor, folder / ".." / folder.name, boxes=BOX)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "message"), [("d.png", "'d.png' fit 0 inputs"), ("a.png", "'a.png' fit 2 inputs"), ("PATH", None)]
)
def test_boxes_are_of_one_input_each(predictor, folder, tmp_path, name, message):
    (tmp_path / "x").mkdir()
    Image.new("RGB", (90, 60)).save(tmp_path / "x" / "a.png")
    paths, out = [folder / "a.png", tmp_path / "x" / "a.png"], tmp_path / "out"
    boxes = {"*": [], str(paths[1]) if name == "PATH" else name: BOX["*"]}
    if message is None:
        assert quiet(paths, predictor, out, boxes=boxes).people == 1
        with np.load(out / "poses.npz") as stored:
            assert stored["picture"].tolist() == [str(paths[1])], "a name that two have tells nothing"
    else:
        with pytest.raises(UserError, match=message):
            quiet(paths, predictor, out, boxes=boxes)
        assert not out.exists()


def test_a_stop_halfway_leaves_no_old_mark(predictor, folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    quiet([folder / "a.png"], predictor, out, boxes=BOX)
    monkeypatch.setattr(predict_module, "write_json", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        quiet([folder / "a.png"], predictor, out, boxes={"*": [np.array([12.0, 5, 20, 50])]})
    assert (out / "a.png").exists() and not (out / "a.json").exists()


def test_what_fails_now_loses_the_mark_of_before(predictor, folder, tmp_path):
    quiet([folder / "a.png"], predictor, tmp_path / "o", boxes=BOX)
    (folder / "a.png").write_bytes(b"x")
    (failed,) = quiet([folder / "a.png"], predictor, tmp_path / "o", boxes=BOX).failed
    assert "a.json of an earlier run is removed" in failed and not (tmp_path / "o" / "a.json").exists()


def test_a_picture_that_goes_meanwhile_is_left_off_the_page(predictor, folder, tmp_path, monkeypatch):
    real = predict_module.write_npz
    monkeypatch.setattr(
        predict_module, "write_npz", lambda *a, **k: (real(*a, **k), (folder / "a.png").unlink()) and None
    )
    (note,) = quiet([folder / "a.png"], predictor, tmp_path / "o", boxes=BOX).notes
    assert "not on the page" in note and "a.png" in note


def test_a_cut_video_is_told_also_when_it_is_kept(predictor, tmp_path, monkeypatch):
    path = video(tmp_path / "v.mp4")
    real = Video.__init__
    monkeypatch.setattr(Video, "__init__", lambda self, p: (real(self, p), setattr(self, "num_frames", 90))[0])
    for made in (1, 0):
        outcome = quiet([path], predictor, tmp_path / "o", boxes={"*": []})
        (note,) = outcome.notes
        assert outcome.made == made and "v.mp4: 5 frames could be decoded of the 90" in note


def test_a_name_that_is_no_text_stays_on_one_line(tmp_path):
    text = predict_module._named(tmp_path / "a\nb\udcff.jpg", UserError("is empty"))
    assert text.encode() and text.endswith("a\\nb\\udcff.jpg: is empty") and len(text.splitlines()) == 1


@pytest.mark.parametrize(("fps", "written"), [(0.01, 0.1), (5000.0, 1000.0), (0.0, 25.0)])
def test_rates_that_no_file_has_are_brought_to_the_nearest(predictor, tmp_path, monkeypatch, fps, written):
    path = video(tmp_path / "v.mp4", frames=2)
    real = Video.__init__
    monkeypatch.setattr(Video, "__init__", lambda self, p: (real(self, p), setattr(self, "fps", fps))[0])
    assert not quiet([path], predictor, tmp_path / "o", boxes={"*": []}).failed
    assert json.loads((tmp_path / "o" / "v.jsonl").read_text().splitlines()[0])["fps"] == written


def test_huge_frames_are_refused(predictor, tmp_path, monkeypatch):
    path = video(tmp_path / "v.mp4", frames=1)
    real = Video.__init__
    monkeypatch.setattr(Video, "__init__", lambda self, p: (real(self, p), setattr(self, "size", (9000, 9000)))[0])
    (failed,) = quiet([path], predictor, tmp_path / "o").failed
    assert "frames of 9000 x 9000 px" in failed


def moved(mm, position):
    pose = PersonPose(
        *("human36m17", np.full((17, 3), mm), "mpii16", np.zeros((16, 2)), np.ones(16), [0, 0, 9, 9], "given"),
        *([0, 0, 9], "a", "b", None if position is None else [position] * 3),
    )
    return PersonView(pose, np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1, 16), np.float32))


def test_a_gap_counts_and_places_are_smoothed_too(predictor):
    def walk(values, gap=0):
        follower = Follower(25.0, True)
        seen = predictor.find(np.zeros((60, 90, 3), np.uint8), BOX["*"])
        for mm in values:
            last = follower.settle(moved(0.0 if mm is None else mm, mm), *follower.number(seen)).pose
            for _ in range(gap):
                follower.number([])
        return last

    assert walk([0.0, 1.0]).pose_mm[0, 0] < walk([0.0, 1.0], gap=5).pose_mm[0, 0] < 1
    assert 0 < walk([0.0, 1.0]).position_mm[0] < 1
    assert walk([0.0, None]).position_mm is None
    assert walk([0.0, None, 1.0]).position_mm[0] == 1, "begun anew"


def test_boxes_for_all_are_given_once(pair, folder, tmp_path, capsys):
    (tmp_path / "b.json").write_text('{"*": []}')
    args = ["predict", folder, "--workdir", pair[0], "--box=10,5,20,50", "--boxes", tmp_path / "b.json"]
    assert main([*map(str, args), "--out", str(tmp_path / "out")]) == 2
    assert "leave one away" in capsys.readouterr().err


class Scripted:
    """Looks as a predictor does; who is found in frame n, of which the first pixel is n, is told beforehand."""

    def __init__(self, batch_size, boxes):
        self.batch_size, self._boxes = batch_size, boxes

    def find(self, image, boxes=None):
        nobody = [Person(image, np.array([-0.5, -0.5, 90.0, 60.0]), "picture")]
        return [Person(image, box, "detected") for box in self._boxes[image[0, 0, 0]]] or nobody

    def look(self, people):
        return [waving((30.0 + 5 * np.sin(7.0 * p.image[0, 0, 0]), 30.0), 0.01) for p in people]


def test_who_goes_for_long_and_comes_back_is_smoothed_alike_in_every_batch():
    """Somebody goes in the first frame of a batch of 20 and is forgotten before its last, beside somebody who stays."""
    here, there = np.array([5.0, 5.0, 20.0, 40.0]), np.array([60.0, 5.0, 20.0, 40.0])
    boxes = [[here, there] if n <= 20 or n > 40 else [here] for n in range(44)]
    frames = [np.full((60, 90, 3), n, np.uint8) for n in range(44)]

    def run(batch_size):
        found = predict_frames(iter(frames), Scripted(batch_size, boxes), Follower(25.0, True))
        return [[(view.pose.track, view.pose.joints2d_px) for view in views] for _, views in found]

    one_by_one = run(1)
    assert [[track for track, _ in views] for views in one_by_one[40:]] == [[0], [0, 2], [0, 2], [0, 2]]
    for batch_size in (20, 64):
        for want, got in zip(one_by_one, run(batch_size), strict=True):
            assert [track for track, _ in got] == [track for track, _ in want]
            np.testing.assert_array_equal([joints for _, joints in got], [joints for _, joints in want])


def test_a_video_that_was_begun_anew_is_not_taken_for_the_old_one(predictor, tmp_path, monkeypatch):
    path, out = video(tmp_path / "v.mp4"), tmp_path / "out"
    first, other = ({"*": [np.array([x, 5.0, 30.0, 40.0])]} for x in (5.0, 15.0))
    assert quiet([path], predictor, out, boxes=first).made == 1

    def stopped(*args):
        raise KeyboardInterrupt  # as Ctrl-C would, once the MP4 has its name

    with monkeypatch.context() as patch:
        patch.setattr(predict_stream.NpzStream, "_write", stopped)
        with pytest.raises(KeyboardInterrupt):
            quiet([path], predictor, out, boxes=other)
    assert quiet([path], predictor, out, boxes=first)[:2] == (1, 0)


def test_a_kept_picture_of_other_networks_is_made_anew(predictor, folder, tmp_path):
    out = tmp_path / "out"
    quiet([folder / "a.png"], predictor, out, boxes=BOX)
    record = json.loads((out / "a.json").read_text())
    record["people"][0]["pose_network"] = "another"
    (out / "a.json").write_text(json.dumps(record))
    assert quiet([folder / "a.png"], predictor, out, boxes=BOX)[:2] == (1, 0)


def test_pictures_that_fill_the_memory_do_not_wait_for_a_batch(predictor, folder, tmp_path, monkeypatch):
    real, sizes = predict_module._pictures, []
    monkeypatch.setattr(predict_module, "_pictures", lambda todo, *args: sizes.append(len(todo)) or real(todo, *args))
    monkeypatch.setattr(predict_module, "_MOST_BYTES", 1)
    assert quiet([folder / "a.png", folder / "b.jpg"], predictor, tmp_path / "o", boxes=BOX).people == 2
    assert sizes == [1, 1]


def test_a_pipe_is_no_file_of_boxes(tmp_path):
    os.mkfifo(tmp_path / "boxes.json")  # reading it would wait for ever
    with pytest.raises(UserError, match="is no file of boxes"):
        read_boxes(tmp_path / "boxes.json")


def test_pictures_of_kinds_that_cannot_be_read_are_counted(pair, folder, tmp_path, capsys):
    (folder / "d.heic").write_bytes(b"x")
    args = ["predict", folder, "--workdir", pair[0], "--heatmap-workdir", pair[1], "--box=10,5,20,50", "--out"]
    assert main([*map(str, args), str(tmp_path / "out")]) == 1
    assert "note: passed over: 1 files of kinds that cannot be read (.heic)" in capsys.readouterr().out
