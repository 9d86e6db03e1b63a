"""The page shows everybody's numbers, says what it leaves out, and works in a browser: picker, buttons, turning."""

from __future__ import annotations

import html
import re

import cv2
import numpy as np
import pytest
from browser import Page, browser, find_browser
from test_report import Outline, RunMaker, visible_text
from views import WAVING_MM, waving

from fusion_jax import predict_page
from fusion_jax.pictures import SIDE_COLORS
from fusion_jax.predict_page import write_page
from fusion_jax.report import write_report

EVIL = '</script><script>alert("x")</script>&amp; <b>.jpg'


def written(path, entries, total=None, notes=()) -> str:
    write_page(path, entries, total=len(entries) if total is None else total, notes=notes)
    return path.read_text()


def rows(part: str) -> list[list[str]]:
    """The cells of all tables in a piece of HTML."""
    lines = re.findall(r"<tr>(.*?)</tr>", part, flags=re.DOTALL)
    return [[visible_text(cell) for cell in re.findall(r"<t[dh].*?</t[dh]>", line)] for line in lines]


def test_page_holds_each_person_s_numbers(tmp_path):
    tiny = np.full((16, 2), -0.01)  # px; must not come out as -0.0
    second = waving(
        joints2d_px=tiny, pose_mm=WAVING_MM + [0.4, -0.4, 1000], position_mm=[-100, 3, 4000], box_source="given"
    )
    page = written(tmp_path / "people.html", [("a.jpg", waving(low=("left_wrist",))), ("a.jpg", second), ("b", second)])
    options = [html.unescape(o) for o in re.findall("<option>(.*?)</option>", page)]
    assert options == ["a.jpg: person 1", "a.jpg: person 2", "b: person 1"]
    parts = page.split('<div data-sample="')[1:]
    assert len(parts) == 3
    cells = rows(parts[1])
    assert ["pelvis", "0", "0", "1000"] in cells and ["left wrist", "480", "-860", "940"] in cells
    # In the picture: (480, -860) mm at 0.06 px/mm from (60, 80).
    assert ["left wrist", "88.8", "28.4", "0.10"] in rows(parts[0])
    assert "4.00 m from the camera: x -0.10 m right, y 0.00 m down, z 4.00 m away" in visible_text(parts[1])
    assert "box given by the user" in visible_text(parts[1]) and "m from the camera:" not in visible_text(parts[0])
    assert not re.search(r"-0(\.0*)?[^.\d]", "".join(parts[1:]))


def test_page_explains_frame_unit_root_scale_and_names_the_networks(tmp_path):
    text = visible_text(written(tmp_path / "people.html", [("a.jpg", waving())]))
    for words in ("x runs right, y runs down, z runs away from the camera", "Millimetres", "the pelvis, or the middle",
                  "One photo tells neither how tall somebody is nor how far away", "runs/learned, step 1000",
                  "runs/hourglass, step 2", "human36m17", "mpii16", "1 person found"):  # fmt: skip
        assert words in text, words


def test_page_is_well_formed_and_needs_no_network(tmp_path):
    page = written(tmp_path / "people.html", [(EVIL, waving()), ("b\udcff.jpg", waving())], notes=[EVIL, "c\udcff.jpg"])
    outline = Outline(page)
    for tag, attributes in outline.tags:
        assert tag not in ("link", "iframe", "base")
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
    policies = [a["content"] for t, a in outline.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1 and "default-src 'none'" in policies[0] and "http" not in policies[0]
    assert "<script>alert" not in page and f"{EVIL}: person 1" in visible_text(page)
    assert r"b\udcff.jpg: person 1" in page and r"c\udcff.jpg" in page
    hidden = [("hidden" in a) for _, a in outline.tags if "data-sample" in a]
    assert hidden == [False, True, False, True]  # crops, then numbers


def test_of_many_people_the_first_are_shown_and_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(predict_page, "MOST_PEOPLE", 3)
    page = written(tmp_path / "people.html", [(f"{n}.jpg", waving()) for n in range(5)], total=1234)
    assert page.count("<option>") == 3
    text = visible_text(page)
    assert "The first 3 of 1,234 people can be seen here; all are in the JSON and NPZ files" in text
    assert "1,234 people found" in text
    assert "can be seen here" not in visible_text(written(tmp_path / "few.html", [("a", waving())]))


def test_notes_are_listed_and_many_of_them_folded(tmp_path):
    page = written(tmp_path / "none.html", [], notes=["a.jpg is broken", "b.jpg: nobody was found"])
    text = visible_text(page)
    assert "Nobody was found in these pictures." in text and "0 people found" in text
    assert "a.jpg is broken b.jpg: nobody was found" in text and "plotly.js v" not in page
    many = [f"{n}.jpg is broken" for n in range(60)]
    page = written(tmp_path / "many.html", [], notes=many)
    assert "all 60 notes" in page and "\n".join(many) in page
    assert "notes" not in visible_text(written(tmp_path / "few.html", []))


def test_same_people_give_the_same_page_and_a_failed_write_keeps_the_old(tmp_path, monkeypatch):
    path = tmp_path / "people.html"
    page = written(path, [("a.jpg", waving())])
    assert written(path, [("a.jpg", waving())]) == page

    def refuse(source, target):
        raise OSError("disk full")

    monkeypatch.setattr("fusion_jax.predict_page.os.replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        written(path, [])
    assert path.read_text() == page and list(tmp_path.iterdir()) == [path]


def test_crop_in_the_page_shows_the_joints_where_they_are():
    view = waving((60, 80), 0.06)
    picture = cv2.imdecode(np.frombuffer(predict_page._crop_jpeg(view), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert picture.shape == (512, 512, 3)
    # The crop is 2000 mm across with the pelvis in its middle; the left ankle is 140 mm right and 830 mm down of it.
    x, y = (round(512 * (1000 + mm) / 2000 - 0.5) for mm in (140, 830))
    red, _, blue = picture[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).mean(0)
    assert blue > 130 and red < 60  # the left side's colour


needs_browser = pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome is installed here")
PLOT = "document.querySelector('.plotly-graph-div')"


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


def open_viewer(running, path) -> Page:
    page = running.open(path)
    page.wait_for(f"{PLOT} && {PLOT}._fullLayout && {PLOT}._fullLayout.scene && {PLOT}._fullLayout.scene._scene")
    return page


def eye(page: Page) -> np.ndarray:
    """Where the viewer looks from."""
    return np.array(page.evaluate(f"['x', 'y', 'z'].map(k => {PLOT}.layout.scene.camera.eye[k])"))


def turn(page: Page, by: tuple[float, float]) -> None:
    """Drags until the view has turned: while the plot still draws what came before, it takes no mouse."""
    before = eye(page)
    for _ in range(20):
        page.drag(page.middle(".plot"), by)
        if np.abs(eye(page) - before).max() > 0.2:
            return
    raise AssertionError(f"the view does not turn: {eye(page)}")


def pixels(page: Page, side: str) -> int:
    """How many pixels of the window have a side's colour."""
    picture = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    color = [int(SIDE_COLORS[side][i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(picture - color).max(-1) < 12).sum())


def shown(page: Page, selector: str) -> list[int]:
    """The numbers of the samples of which something is to be seen."""
    each = f"[...document.querySelectorAll('{selector}')].filter(e => e.offsetParent).map(e => +e.dataset.sample)"
    return page.evaluate(each)


@needs_browser
def test_page_works_in_a_browser(tmp_path, chromium):
    path = tmp_path / "people.html"
    turned = waving(pose_mm=WAVING_MM * [-1, 1, -1])
    written(
        path, [("<i>.jpg", waving(low=("left_wrist",))), ("b.jpg", turned), ("c.jpg", waving())], notes=["d is off"]
    )
    page = open_viewer(chromium, path)
    assert shown(page, "img[data-sample]") == shown(page, "div[data-sample]") == [0]
    drawn = f"{PLOT}.data.map((trace, i) => trace.visible ? i : -1).filter(i => i >= 0)"
    assert page.evaluate(drawn) == [0, 1, 2]
    assert pixels(page, "left") > 100 and pixels(page, "right") > 100  # WebGL has drawn the pose

    page.click("[data-go=next]")
    assert shown(page, "img[data-sample]") == shown(page, "div[data-sample]") == [1]
    page.click("[data-go=previous]")
    page.click("[data-go=previous]")
    assert (
        shown(page, "img[data-sample]") == [2] and page.evaluate("document.querySelector('select').selectedIndex") == 2
    )
    assert page.evaluate(drawn) == [6, 7, 8]

    page.click("[data-camera]:nth-of-type(3)")
    page.wait_for(f"{PLOT}.layout.scene.camera.eye.x === 0")
    front = eye(page)
    assert front[1] < 0 and front[2] == 0  # from the photo's side, level
    turn(page, (120, 0))
    assert np.linalg.norm(eye(page)) == pytest.approx(np.linalg.norm(front), rel=0.02)
    turned_to = eye(page)
    page.click("[data-go=next]")
    np.testing.assert_allclose(eye(page), turned_to, atol=1e-6)  # the view stays when the person changes

    assert page.problems == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in page.requests), page.requests


@needs_browser
def test_report_works_in_a_browser(tmp_path, chromium):
    page = open_viewer(chromium, write_report(RunMaker(tmp_path / "run").write()))
    assert shown(page, "img[data-sample]") == [0]
    page.click("[data-go=next]")
    assert shown(page, "img[data-sample]") == [1]
    turn(page, (120, 30))
    assert page.problems == []


@needs_browser
def test_the_driver_notices_errors(tmp_path, chromium):
    path = tmp_path / "bad.html"
    path.write_text("<script>console.error('one'); setTimeout(() => { throw Error('two') })</script>")
    page = chromium.open(path)
    page.evaluate("new Promise(done => setTimeout(done, 200))")
    assert "one" in str(page.problems) and "two" in str(page.problems)
