"""Where a sequence's files lie, and whether its pictures are one recording's: zips share the names inside them."""

from __future__ import annotations

import pathlib
import re
import struct

from data_pipelines.kth_football2.checks import PICTURE_SIZE
from data_pipelines.picture_file import picture_problem
from fusion_jax.errors import UserError

_PICTURE = re.compile(r"(\d{5})\.png", re.IGNORECASE)
_MIXED = "two zips were unpacked over each other; unpack each into a folder of its own"


def zip_name(player: int, sequence: int) -> str:
    """A sequence's zip without its ending; seen for player 2, sequence 1, and unconfirmed for the others."""
    return f"player{player}sequence{sequence}"


def find_sequence(manual_dir: pathlib.Path, player: int, sequence: int) -> tuple[pathlib.Path, str | None]:
    """(the folder of a sequence, or where it should be; what is doubtful about it).

    Every zip holds a folder called 'Sequence 1' or the like, so that only the zip's own name tells the player.

    Raises:
      UserError: the zip's folder holds none, or another one's as well.
    """
    outer, name = manual_dir / zip_name(player, sequence), f"Sequence {sequence}"
    bare = manual_dir / name
    if outer.is_dir():
        inside = sorted(path.name for path in outer.iterdir() if path.is_dir() and path.name.startswith("Sequence"))
        if inside and inside != [name]:
            raise UserError(f"{outer} holds {', '.join(inside)}, expected {name!r} alone: {_MIXED}")
    elif bare.is_dir():
        return bare, (
            f"nothing tells that {name!r} is player {player}'s: it lies outside a folder {outer.name!r}, and other "
            "players' zips hold the same name"
        )
    return outer / name, None


def number_pictures(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """The pictures of a camera's folder by time step, `00001.png` and on; empty where there is no folder."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return {int(match[1]): path for path in paths if (match := _PICTURE.fullmatch(path.name))}


def check_count(folder: pathlib.Path, pictures: dict[int, pathlib.Path], steps: int) -> None:
    """Raises UserError where a camera's folder holds pictures of time steps that the text files do not have."""
    more = sorted(set(pictures) - set(range(1, steps + 1)))
    if more:
        raise UserError(
            f"{folder} holds {len(pictures)} pictures, the text files {steps} time steps (too many is "
            f"{pictures[more[0]].name}): {_MIXED}"
        )


def step_problem(path: pathlib.Path) -> str | None:
    """What is wrong with a picture; None where it is a whole PNG of the dataset's size."""
    if wrong := picture_problem(path, "PNG", "unpack its zip again"):
        return wrong
    with path.open("rb") as file:
        header = file.read(24)
    if len(header) < 24:
        return f"cut off after {len(header)} bytes; unpack its zip again"
    size = struct.unpack(">II", header[16:24])
    if size != PICTURE_SIZE:
        return (
            f"{size[0]} x {size[1]} px, expected {PICTURE_SIZE[0]} x {PICTURE_SIZE[1]}: another recording's; {_MIXED}"
        )
    return None
