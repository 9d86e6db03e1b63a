"""Frames show people where they are, right side up and not mirrored; a video file is whole or not there."""

from __future__ import annotations

import pathlib
import resource
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from views import HEATMAP, WAVING_MM, waving

from data_pipelines.video import Video, check_not_text
from fusion_jax import predict_video
from fusion_jax.errors import UserError
from fusion_jax.predict_pictures import RGB
from fusion_jax.predict_video import PoseVideo, compose_frame, frame_size, view_rotation

CODECS = ("MPEG-4 part 2", "H.264")
FRAME = np.full((64, 96, 3), 90, np.uint8)


def colored(frame: np.ndarray, side: str) -> np.ndarray:
    """(row, column) of the pixels that have a side's colour."""
    return np.argwhere((frame == RGB[side]).all(-1))


def panel_pose(frame: np.ndarray) -> np.ndarray:
    """The square with the 3D poses, without the legend below."""
    side = len(frame)
    return frame[: side - 50 * side // 480, -side:]


@given(st.integers(1, 9000), st.integers(1, 9000))
def test_frames_have_even_sizes_within_bounds(width, height):
    across, down = frame_size(width, height)
    assert across % 2 == 0 and down % 2 == 0
    assert 360 <= down <= 720 and 1.4 * down - 2 <= across <= 3.5 * down + 2
    if 360 <= height <= 720 and height % 2 == 0 and width % 2 == 0 and 0.4 <= width / height <= 2.5:
        assert (across, down) == (width + height, height)  # nothing is resized


@pytest.mark.parametrize("shape", [(480, 640), (700, 500), (30, 40), (1500, 90), (90, 1500), (1081, 1921), (1, 1)])
def test_frame_has_the_promised_size_with_and_without_people(shape):
    image = np.full((*shape, 3), 77, np.uint8)
    for views in ([], [waving()], [waving()] * 9):
        frame = compose_frame(image, views, 30)
        assert frame.shape == (*frame_size(*shape[::-1])[::-1], 3) and frame.dtype == np.uint8


def test_without_people_the_picture_stays_as_it_is_and_the_panel_says_so(monkeypatch):
    said = written(monkeypatch)
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3)).astype(np.uint8)
    frame = compose_frame(image, [], 0)
    np.testing.assert_array_equal(frame[:, :640], image)
    assert said() == ["nobody was found in this frame"]
    assert not any(len(colored(panel_pose(frame), side)) for side in RGB)


@pytest.mark.parametrize(("size", "scale"), [((480, 640), 1.0), ((240, 320), 1.5), ((1440, 1920), 0.5)])
def test_joints_are_painted_where_they_are(size, scale):
    height, width = size
    view = waving((width / 2, height / 2), 0.2 * height / 480, low=("left_wrist",))
    frame = compose_frame(np.full((*size, 3), 128, np.uint8), [view], 0)
    for name, color in (("left_ankle", RGB["left"]), ("right_wrist", RGB["right"]), ("left_wrist", (255, 255, 255))):
        x, y = np.round((view.pose.joints2d_px[HEATMAP.index(name)] + 0.5) * scale - 0.5).astype(int)
        assert tuple(frame[y, x].tolist()) == color, name


def test_a_picture_of_another_shape_stands_in_the_middle():
    frame = compose_frame(np.full((1000, 100, 3), 200, np.uint8), [], 0)  # at most 2.5 times as high as wide
    assert frame.shape[:2] == (720, 720 + 288)
    rows, columns = np.nonzero((frame[:, :288] == 200).all(-1))
    assert (columns.min(), columns.max()) == (108, 179) and (rows.min(), rows.max()) == (0, 719)


@given(st.floats(-720, 720))
def test_view_turns_and_never_mirrors(turn_deg):
    view = view_rotation(turn_deg)
    np.testing.assert_allclose(view @ view.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(view) == pytest.approx(1)
    assert (view @ [0, 1, 0])[1] > 0.9  # down stays down
    np.testing.assert_allclose((view @ [0, 1, 0])[0], 0, atol=1e-12)  # and upright


def test_view_by_hand():
    np.testing.assert_allclose(view_rotation(0) @ [1, 0, 0], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose((view_rotation(90) @ [0, 0, 1])[0], 1)  # what is far comes to the right
    assert (view_rotation(0) @ [0, 0, 1])[1] < 0  # ground farther away is higher up: seen from above


def test_panel_shows_a_raised_left_arm_on_the_right_and_from_behind_on_the_left():
    image = np.zeros((480, 640, 3), np.uint8)
    for turn_deg, sign in ((0, 1), (180, -1)):
        panel = panel_pose(compose_frame(image, [waving((-900, -900))], turn_deg))
        left, right = colored(panel, "left"), colored(panel, "right")
        assert sign * (left[:, 1].mean() - right[:, 1].mean()) > 40
        assert left[:, 0].min() < right[:, 0].min() - 40 < right[:, 0].max()  # the hand above the other shoulder
        assert left[:, 0].max() > 0.7 * len(panel)  # the ankle down


@pytest.mark.parametrize("stretch", [(1, 1, 1), (8, 8, 8), (8, 1, 1), (1, 1, 8), (1, 8, 1)])
@pytest.mark.parametrize("turn_deg", [0, 60])
def test_a_pose_of_any_size_stays_in_the_panel(stretch, turn_deg):
    far = waving((-900, -900), pose_mm=WAVING_MM * stretch)
    frame = compose_frame(np.zeros((480, 640, 3), np.uint8), [far], turn_deg)
    cell = frame[30 : 480 - 46, 640:]  # below the title, above the legend
    places = np.concatenate([colored(cell, side) for side in RGB])
    assert places.min() > 2 and places[:, 1].max() < 477 and places[:, 0].max() < len(cell) - 3
    assert np.ptp(places, axis=0).max() > 150  # and is not tiny


def test_turning_changes_no_scale():
    image = np.zeros((480, 640, 3), np.uint8)
    spans = []
    for turn_deg in (0, 45, 90, 200):
        panel = panel_pose(compose_frame(image, [waving((-900, -900))], turn_deg))
        middle = colored(panel, "middle")  # spine and head, near the axis of turning
        spans.append(np.ptp(middle[:, 0]))
    assert np.ptp(spans) < 0.1 * np.mean(spans)


def written(monkeypatch) -> Callable[[], list[str]]:
    """What the panel writes from now on, besides the legend."""
    lines: list[str] = []
    predict_video._background(480)  # so that its legend is not written anew
    real = predict_video._text
    monkeypatch.setattr(predict_video, "_text", lambda *a, **k: lines.append(a[1]) or real(*a, **k))
    return lambda: [lines.pop(0) for _ in range(len(lines))]


def test_panel_names_people_by_number_and_says_how_many_are_left_out(monkeypatch):
    said = written(monkeypatch)
    image = np.zeros((480, 640, 3), np.uint8)
    compose_frame(image, [waving(position_mm=[0, 3000, 4000])], 0)
    assert said() == ["3D pose, seen from all sides", "5.0 m away"]
    compose_frame(image, [waving(track=5), waving(track=2, position_mm=[0, 0, 2000])], 0)
    assert said() == ["3D poses of 2 people, seen from all sides", "person 2", "2.0 m away", "person 5"]
    compose_frame(image, [waving()] * 9, 0)
    lines = said()
    assert lines == ["3D poses of 6 of the 9 people, seen from all sides"] + [f"person {n}" for n in range(1, 7)]


def with_codec(path: pathlib.Path, codec: str, fps: float = 25) -> PoseVideo:
    if codec == "H.264":
        pytest.importorskip("imageio_ffmpeg", reason="needs the `video` extra")
    video = PoseVideo(path, (96, 64), fps)
    video.codec = codec
    return video


@pytest.mark.parametrize("fps", [25, 29.97, 0.5])
@pytest.mark.parametrize("codec", CODECS)
def test_frames_come_back_from_the_file(tmp_path, codec, fps):
    path = tmp_path / "new folder" / "walk.mp4"
    with with_codec(path, codec, fps) as video:
        for number in range(12):
            frame = FRAME.copy()
            frame[20:36, 6 * number : 6 * number + 16] = (220, 30, 30)
            video.write(frame)
            assert not path.exists()
    assert video.num_frames == 12 and list(path.parent.iterdir()) == [path]
    with Video(path) as back:
        assert back.size == (96, 64) and back.num_frames == 12
        frames = list(back.frames(np.arange(20)))
    assert [number for number, _ in frames] == list(range(12))
    for number, frame in frames:
        marker = frame[24:32, 6 * number + 4 : 6 * number + 12].reshape(-1, 3).mean(0)
        assert marker[0] > 170 and marker[1:].max() < 80  # red, not blue
        assert np.abs(frame[44:, :].astype(int) - 90).mean() < 12
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(fps, rel=1e-3)
    capture.release()


@pytest.mark.parametrize("codec", CODECS)
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, codec):
    path = tmp_path / "walk.mp4"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), with_codec(path, codec) as video:
        video.write(FRAME)
        raise ZeroDivisionError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_video_without_frames_or_with_wrong_ones_is_refused(tmp_path):
    path = tmp_path / "walk.mp4"
    with pytest.raises(UserError, match="there was no frame"), PoseVideo(path, (96, 64), 25):
        pass
    for frame in (FRAME[:, :-2], FRAME[..., 0], FRAME.astype(float)):
        with pytest.raises(UserError, match=r"walk.mp4: frame 0 is .*expected \(64, 96, 3\)"):
            with PoseVideo(path, (96, 64), 25) as video:
                video.write(frame)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "size", "fps", "words"),
    [
        ("walk.avi", (96, 64), 25, "does not end in .mp4"),
        ("walk.mp4", (95, 64), 25, "95 x 64 px cannot be written, expected even numbers"),
        ("walk.mp4", (0, 64), 25, "expected even numbers"),
        ("walk.mp4", (96, 64), 0, "0 frames a second cannot be written, expected 0.1 to 1000"),
        ("walk.mp4", (96, 64), float("nan"), "nan frames a second"),
        ("walk.mp4", (96, 64), 90000, "90000 frames a second"),
        ("walk\udcff.mp4", (96, 64), 25, r"walk\\udcff.mp4' is no text in UTF-8"),
    ],
)
def test_what_cannot_be_written_is_refused_at_once(tmp_path, name, size, fps, words):
    with pytest.raises(UserError, match=words):
        PoseVideo(tmp_path / name, size, fps)


@pytest.mark.parametrize("codec", CODECS)
def test_a_full_disk_is_noticed(tmp_path, codec, capfd):
    path = tmp_path / "walk.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (20, *FRAME.shape)).astype(np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # ffmpeg's process inherits it
        with pytest.raises(UserError, match=f"walk.mp4 could not be written as {codec}"):
            with with_codec(path, codec) as video:
                for frame in noise:
                    video.write(frame)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        capfd.readouterr()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(predict_video.cv2.VideoWriter, "isOpened", lambda _: False, raising=False)
    video = with_codec(tmp_path / "walk.mp4", "MPEG-4 part 2")
    with pytest.raises(UserError, match="could not be written as MPEG-4 part 2; see that its folder"):
        video.__enter__()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("start", [b"ffconcat version 1.0\nfile other.mp4", b"#EXTM3U\n#EXTINF:1\nother.ts"])
def test_a_list_of_other_files_is_not_opened(tmp_path, start):
    (tmp_path / "v.mp4").write_bytes(start)
    with pytest.raises(UserError, match="v.mp4 is a list of other files"):
        Video(tmp_path / "v.mp4")


@pytest.mark.parametrize(
    ("name", "words"), [("n" * 300, "cannot be read"), ("none", "is missing"), ("", "no ordinary")]
)
def test_what_cannot_be_read_is_said(tmp_path, name, words):
    with pytest.raises(UserError, match=words):
        check_not_text(tmp_path / name)


def test_a_colon_is_no_protocol(tmp_path, monkeypatch):
    with PoseVideo(tmp_path / "v.mp4", (96, 64), 25) as video:
        video.write(FRAME)
    (tmp_path / "v.mp4").rename(tmp_path / "12:30.mp4")
    monkeypatch.chdir(tmp_path)
    with Video(pathlib.Path("12:30.mp4")) as back:
        assert back.num_frames == 1


def test_what_opencv_breaks_on_is_said(tmp_path, monkeypatch):
    with PoseVideo(tmp_path / "v.mp4", (96, 64), 25) as video:
        video.write(FRAME)

    def broken(*args):
        raise cv2.error("no memory")

    with Video(tmp_path / "v.mp4") as back:
        monkeypatch.setattr(cv2, "cvtColor", broken)
        with pytest.raises(UserError, match="v.mp4: frame 0 cannot be decoded"):
            next(back.frames([0]))
