"""Archives, videos and trees that users downloaded: the good is unpacked, the hostile and the broken are named."""

import io
import os
import pathlib
import shutil
import tarfile
import zipfile

import cv2
import numpy as np
import pytest

from data_pipelines.archives import find_archives, is_unpacked, locate, may_hold, unpack, unpacked_folder
from data_pipelines.inventory import Inventory, format_bytes, format_tree
from data_pipelines.source import Item
from data_pipelines.video import Video, read_picture
from fusion_jax.errors import UserError
from fusion_jax.prepare_raw import check_data, prepare_raw


def zip_of(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return path


def tar_of(path, *members):
    with tarfile.open(path, "w:gz") as packed:
        for member, content in members:
            packed.addfile(member, io.BytesIO(content))
    return path


def entry(name, content=b"x", kind=tarfile.REGTYPE, link=""):
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(content), kind, link
    return member, content


def test_each_archive_gets_a_folder_of_its_own(tmp_path):
    one = zip_of(tmp_path / "one.zip", {"a/1.txt": "1", "a/": ""})
    two = tar_of(tmp_path / "two.tar.gz", entry("a/1.txt", b"22"))
    for archive in (one, two):
        assert not is_unpacked(archive)
        unpack(archive, unpacked_folder(archive))
        assert is_unpacked(archive)
    assert (tmp_path / "one/a/1.txt").read_text() == "1" and (tmp_path / "two/a/1.txt").read_text() == "22"
    assert unpacked_folder(tmp_path / "S1.TGZ") == tmp_path / "S1"
    with pytest.raises(UserError, match="a/1.txt is in both .*one.* and .*two"):
        locate(tmp_path, "a/1.txt")
    (tmp_path / "two/a/1.txt").unlink()
    assert locate(tmp_path, "a/1.txt") == tmp_path / "one/a/1.txt"
    assert locate(tmp_path, "a/9.txt") == tmp_path / "a/9.txt"


@pytest.mark.parametrize("name", [".zip", ".tar.gz", ".ZIP", "..zip", "...zip", "....tgz"])
def test_a_name_that_is_all_ending_is_no_archive(tmp_path, name):
    (tmp_path / name).write_text("x")
    good = zip_of(tmp_path / ".a.zip", {"1.txt": "1"})
    assert find_archives(tmp_path) == [good] and unpacked_folder(good) == tmp_path / ".a"
    assert locate(tmp_path, "a/9.txt") == tmp_path / "a/9.txt"
    for dataset in ("mpii", "lsp", "kth_football2", "humaneva"):
        assert not [item for item in check_data(dataset, tmp_path).items if item.path == name]
        with pytest.raises(UserError, match=r"check-data|\.a\.zip"):
            prepare_raw(dataset, tmp_path, tmp_path / "data")


def test_what_was_unpacked_by_hand_is_not_unpacked_again(tmp_path):
    archive = tar_of(tmp_path / "one.tgz", entry("a/1.txt", b"four"))
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.txt").write_text("another's")
    assert not is_unpacked(archive), "another archive's file of that name"
    (tmp_path / "a/1.txt").write_text("four")
    assert is_unpacked(archive)


def test_what_an_archive_may_hold(tmp_path):
    assert may_hold(zip_of(tmp_path / "a.zip", {"x/joints.mat": "1"}), "joints.mat")
    assert not may_hold(zip_of(tmp_path / "b.zip", {"notes.txt": "1"}), "joints.mat")
    assert not may_hold(tar_of(tmp_path / "c.tgz", entry("notes.txt")), "joints.mat")
    long = tar_of(tmp_path / "d.tgz", *(entry(f"{n}.txt") for n in range(250)))
    assert may_hold(long, "joints.mat"), "too long to be looked through"
    (tmp_path / "e.zip").write_text("<html>")
    assert not may_hold(tmp_path / "e.zip", "joints.mat")


HOSTILE = {
    "parent": entry("../evil"),
    "inside": entry("a/../../evil"),
    "absolute": entry("/evil"),
    "symlink": entry("evil", b"", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": entry("evil", b"", tarfile.LNKTYPE, "/etc/passwd"),
    "device": entry("evil", b"", tarfile.CHRTYPE),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_tar_members_that_would_reach_outside(tmp_path, kind):
    path = tar_of(tmp_path / "raw.tgz", entry("good.txt"), HOSTILE[kind])
    with pytest.raises(UserError, match="raw.tgz.*do not use this archive"):
        unpack(path, tmp_path / "raw")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw.tgz"], "nothing stays behind, nothing escaped"
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("name", ["../evil", "/evil", "..\\evil", "C:/evil"])
def test_zip_members_that_would_reach_outside(tmp_path, name):
    path = zip_of(tmp_path / "raw.zip", {"good.txt": "x", name: "x"})
    with pytest.raises(UserError, match="leads out of its folder"):
        unpack(path, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


def test_a_zip_link(tmp_path):
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as packed:
        packed.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="'link' is a link"):
        unpack(tmp_path / "raw.zip", tmp_path / "raw")


def test_bombs_twins_and_damage(tmp_path, monkeypatch):
    bomb = zip_of(tmp_path / "bomb.zip", {"zeros": b"\0" * 5_000_000})
    with pytest.raises(UserError, match="more than 200 times its size"):
        unpack(bomb, tmp_path / "bomb")
    with pytest.warns(UserWarning, match="Duplicate name"):
        with zipfile.ZipFile(tmp_path / "twin.zip", "w") as packed:
            packed.writestr("a", "1")
            packed.writestr("a", "2")
    with pytest.raises(UserError, match="twice"):
        unpack(tmp_path / "twin.zip", tmp_path / "twin")
    noise = os.urandom(20_000)
    for path in (zip_of(tmp_path / "cut.zip", {"a": noise}), tar_of(tmp_path / "cut.tgz", entry("a", noise))):
        path.write_bytes(path.read_bytes()[:15_000])
        with pytest.raises(UserError, match="download it again"):
            unpack(path, tmp_path / "cut")
    flipped = zip_of(tmp_path / "flip.zip", {"a": noise})
    data = bytearray(flipped.read_bytes())
    data[10_000] ^= 1
    flipped.write_bytes(data)
    with pytest.raises(UserError, match="damaged or cut off"):
        unpack(flipped, tmp_path / "flip")
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n<!DOCTYPE html><html>log in</html>", "web page saved under this name"),
        (b"", "is empty"),
        (b"some text", "no zip or tar archive .it starts with b'some tex'"),
    ],
)
def test_what_is_no_archive(tmp_path, content, message):
    path = tmp_path / "lsp_dataset.zip"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        unpack(path, tmp_path / "lsp_dataset")


@pytest.mark.parametrize("kind", ["tgz", "tar", "zip"])
def test_no_flipped_byte_goes_unnoticed(tmp_path, kind):
    """Python's tar reader takes a broken header for the end and never checks gzip's checksum; we do."""
    noise = np.random.default_rng(0)
    members = {f"{n}.bin": noise.bytes(700) for n in range(3)}
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        zip_of(path, members)
    else:
        with tarfile.open(path, "w:gz" if kind == "tgz" else "w") as packed:
            for name, content in members.items():
                member, content = entry(name, content)
                packed.addfile(member, io.BytesIO(content))
    whole = path.read_bytes()
    # A plain tar has checksums of its headers alone, which are every third block here.
    places = [0, 3 * 512, 6 * 512] if kind == "tar" else noise.integers(10, len(whole), 60)
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            unpack(path, tmp_path / "out")
        except UserError:
            assert not (tmp_path / "out").exists()
            continue
        found = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
        assert found == members, f"byte {place} changed the outcome in silence"
        shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("cut", [0, 200, 512, 900])
def test_a_tar_cut_at_a_member_is_no_shorter_archive(tmp_path, cut):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as packed:
        for name in "ab":
            member, content = entry(name, b"x" * 700)
            packed.addfile(member, io.BytesIO(content))
    path.write_bytes(path.read_bytes()[: 512 + 1024 + cut])
    with pytest.raises(UserError, match="damaged or cut off"):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize("names", [("a", "a/b"), ("x" * 300,), ("a\nb",), ("a\x1b[31m",)])
def test_names_that_no_file_can_have(tmp_path, names):
    path = zip_of(tmp_path / "a.zip", dict.fromkeys(names, "1"))
    with pytest.raises(UserError, match="do not use"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_is_not_the_archives_fault(tmp_path, monkeypatch):
    path = zip_of(tmp_path / "a.zip", {"a": "1" * 100_000})
    real = pathlib.Path.open

    def full(self, mode="r", *rest, **more):
        return real(pathlib.Path("/dev/full"), "wb") if mode == "xb" else real(self, mode, *rest, **more)

    monkeypatch.setattr(pathlib.Path, "open", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(path, tmp_path / "out")


@pytest.fixture
def film(tmp_path):
    """Ten frames whose brightness is 20 times their number."""
    writer = cv2.VideoWriter(str(tmp_path / "v.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 50, (64, 48))
    for number in range(10):
        writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
    writer.release()
    return tmp_path / "v.mp4"


def test_a_video_gives_the_frames_asked_for(film):
    with Video(film) as video:
        assert video.size == (64, 48) and video.num_frames == 10
        found = [(number, round(picture.mean() / 20)) for number, picture in video.frames(np.array([0, 3, 4, 9, 12]))]
    assert found == [(0, 0), (3, 3), (4, 4), (9, 9)], "and ends where the video does"


def test_what_is_no_video(film, tmp_path):
    whole = film.read_bytes()
    for content, message in (
        (whole[:200], "cannot be opened as a video"),
        (b"<html>", "web page"),
        (b"", "is empty"),
        (b"\x00" * 5000, "cannot be opened as a video"),
    ):
        film.write_bytes(content)
        with pytest.raises(UserError, match=message):
            Video(film)
    with pytest.raises(UserError, match="is missing"):
        Video(tmp_path / "none.mp4")


def test_pictures(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), image)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(UserError, match="a.png cannot be decoded"):
        read_picture(tmp_path / "a.png")


def test_the_tree_marks_what_is_wrong(tmp_path):
    items = [Item("a.zip", None, 1500, "unpacked"), *(Item(f"S1/V/{n}.mp4", None, 10**6, "9 frames") for n in range(9))]
    items += [Item("S1/V/x.mp4", "missing; download it"), Item("S1/M/m.mat", "missing", optional=True)]
    found = Inventory(tmp_path, items)
    lines = format_tree(found).splitlines()
    assert lines[0] == f"{tmp_path}/" and lines[1] == "  ok a.zip  1.5 kB  unpacked" and lines[2] == "  S1/"
    assert lines[3] == "    V/" and lines[4] == "      ok 0.mp4  1.0 MB  9 frames"
    assert "      !! x.mp4  missing; download it" in lines and "      -- m.mat  missing" in lines
    assert "      ok .. and 3 more  3.0 MB" in lines
    assert found.summary() == f"{tmp_path}/S1/V/x.mp4: missing; download it"
    assert Inventory(tmp_path, items[:3]).summary() == "complete: 3 files and folders, 2.0 MB"
    assert [format_bytes(n) for n in (0, 999, 1000, 12_900_000_000, 3 * 10**12)] == [
        "0 B", "999 B", "1.0 kB", "12.9 GB", "3.0 TB",
    ]  # fmt: skip
