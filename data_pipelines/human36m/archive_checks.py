"""Archives of Human3.6M that are not unpacked yet: what they are, and the published MD5 sums."""

from __future__ import annotations

import functools
import hashlib
import pathlib

from data_pipelines.source import Item
from data_pipelines.video import check_not_text
from fusion_jax.errors import UserError

_CHECKSUMS = pathlib.Path(__file__).with_name("checksums.txt")


def packed(archive: pathlib.Path) -> Item:
    """An archive that `prepare` will unpack: it must be one, and the published one where its sum is known."""
    try:
        check_not_text(archive)
    except UserError as error:
        return Item(archive.name, str(error).removeprefix(str(archive)).lstrip(": "), archive.stat().st_size)
    expected = checksums().get(archive.name)
    note = "will be unpacked" + (", checksum right" if expected else "")
    problem = None
    with archive.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            problem = "no gzip archive; download it again"
        elif expected and (found := _md5(archive)) != expected:
            problem = f"its MD5 is {found}, published is {expected}; it is cut off or damaged, download it again"
    return Item(archive.name, problem, archive.stat().st_size, "" if problem else note)


@functools.cache
def checksums() -> dict[str, str]:
    """MD5 by archive, where published."""
    lines = (line.split() for line in _CHECKSUMS.read_text("utf-8").splitlines())
    return {name: md5 for md5, name in lines}


def _md5(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
