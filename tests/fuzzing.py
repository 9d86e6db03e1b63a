"""Small changes to small valid files, and the promise that readers keep on all of them: a value or a UserError."""

import contextlib
import json
import os
import random
import resource
import signal
from typing import NamedTuple

from hypothesis import strategies as st

from fusion_jax.errors import UserError

SECONDS = 20  # a watchdog, not a measure: every reader is done in milliseconds
GROWTH = 2**29  # bytes by which reading small files may raise the memory ever in use
KINDS = ("flip", "cut", "insert", "repeat", "swap", "token", "number", "end", "json")
# What JSON values are replaced by; NaN and repeated names come as tokens, as Python's own writer makes none.
VALUES = (
    None, True, False, 0, -1, 1, 10**12, 10**400, 1e308, -1e308, 0.5, "", "x", "../..", "nan", [], {}, [[]], [1, 2],
    {"type": "Conv"}, {"a": 1}, 2**31, 2**63, "a" * 5000,
)  # fmt: skip
_DEEP = "[" * 200 + "]" * 200
JSON_TOKENS = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b'"a":1,"a":2', b"{", b"}", b"[", b"]", b",", b"null", b"9" * 5000,
    _DEEP.encode(), b"\xff", b"\x00", b"\n", b'"\\ud800"', b"1" * 400, b"true",
)  # fmt: skip
TEXT_TOKENS = (b"nan", b"-inf", b"1e400", b"-1", b"1_0", b"\xff", b"\x00", b"\n", b" ", b"9" * 5000, b"=", b"$", b"0x1")
_SIZES = (b"\0", b"\xff", b"\x7f\xff", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80", b"\xff" * 8, b"\x01\0\0\0")


class Edit(NamedTuple):
    """One change: where (a share of the file), how far, and what with."""

    kind: str
    place: float
    length: int
    choice: int
    data: bytes


EDITS = st.lists(
    st.builds(
        Edit,
        st.sampled_from(KINDS),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 64),
        st.integers(0, 255),
        st.binary(max_size=6),
    ),
    min_size=1,
    max_size=5,
)


def random_edits(rng: random.Random) -> list[Edit]:
    """As EDITS, a hundred times as fast: for runs of many thousand files."""
    return [
        Edit(rng.choice(KINDS), rng.random(), rng.randint(1, 64), rng.randrange(256), rng.randbytes(rng.randint(0, 6)))
        for _ in range(rng.randint(1, 5))
    ]


def changed(data: bytes, edits: list[Edit], tokens: tuple[bytes, ...] = ()) -> bytes:
    """The file after all edits."""
    for edit in edits:
        at = int(edit.place * len(data))
        stop = at + edit.length
        if edit.kind == "flip":
            data = data[:at] + bytes([data[at] ^ (1 << edit.choice % 8)]) + data[at + 1 :] if data else data
        elif edit.kind == "cut":
            data = data[:at] + data[stop:]
        elif edit.kind == "insert":
            data = data[:at] + edit.data + data[at:]
        elif edit.kind == "repeat":
            data = data[:at] + data[at:stop] * (2 + edit.choice % 4) + data[stop:]
        elif edit.kind == "swap":
            other = edit.choice * len(data) // 256
            data = data[:at] + data[other : other + edit.length] + data[stop:]
        elif edit.kind == "token" and tokens:
            removed = edit.length if edit.choice % 2 else 0
            data = data[:at] + tokens[edit.choice % len(tokens)] + data[at + removed :]
        elif edit.kind == "number":
            size = _SIZES[edit.choice % len(_SIZES)]
            data = data[:at] + size + data[at + len(size) :]
        elif edit.kind == "end" and edit.choice % 4 == 0:
            data = data[:at]
        elif edit.kind == "json" and data[:1] in b"{[":
            data = _json_changed(data, edit)
    return data


def _json_changed(data: bytes, edit: Edit) -> bytes:
    """One value of JSON data, any on the way down, replaced, dropped or put under another name."""
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError):
        return data
    rng = random.Random(f"{edit.place} {edit.choice} {edit.length}")
    holder = whole
    while holder:
        names = list(holder) if isinstance(holder, dict) else range(len(holder))
        name = rng.choice(names)
        if isinstance(holder[name], (dict, list)) and holder[name] and rng.random() < 0.8:
            holder = holder[name]
            continue
        what = rng.random()
        if what < 0.1:
            del holder[name]
        elif what < 0.2 and isinstance(holder, dict):
            holder[f"{name}x"] = holder.pop(name)
        else:
            holder[name] = rng.choice(VALUES)
        break
    with contextlib.suppress(ValueError):  # of numbers that Python does not write out
        return json.dumps(whole).encode()
    return data


class Hang(BaseException):
    """A reader did not come back; no reader of ours catches it."""


@contextlib.contextmanager
def watched():
    """Ends what takes more than SECONDS; elsewhere than on Unix nothing watches."""

    def stop(*_):
        raise Hang(f"no answer in {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read_or_refuse(read, path):
    """What a reader makes of a file; None where it refuses it. Anything but a UserError of one line goes through."""
    try:
        with watched():
            return read(path)
    except UserError as error:
        text = str(error)
        assert "\n" not in text and len(text) < 2000, text[:3000]
        assert "MemoryError" not in text and "Unable to allocate" not in text, text
        return None


def most_memory() -> int:
    """Bytes of memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def examples(few: int) -> int:
    """How many files to try: as many as FUSION_JAX_FUZZ_EXAMPLES says, else few."""
    return int(os.environ.get("FUSION_JAX_FUZZ_EXAMPLES", few))
