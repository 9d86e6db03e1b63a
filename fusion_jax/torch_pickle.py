"""A pickle of plain containers, built without running it: the reader's half of torch_file.py that knows no tensors.

A pickle is a program. Here `pickletools` takes it apart into its instructions, and the few that build containers are
followed; the rest is refused. Python's own unpickler would do more than that: resolve any name, set attributes, make
room for a memo as large as the file says, hash whatever the file nests.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from fusion_jax.bounded_file import Refused

MAX_INSTRUCTIONS = 2_000_000  # eight hourglasses with their optimiser need an eighth
_PLAIN = (bool, int, float, str)
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT")
_TEXTS = ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Names(NamedTuple):
    """What a pickle's references to the world outside stand for.

    Attributes:
      find: a global's module and name to a function of ours, which the pickle may call, or to a marker.
      load: a persistent id, any plain value or marker, to what it stands for.
      plain: types, beyond Python's own, that may be in the value.
    """

    find: Callable[[str, str], Any]
    load: Callable[[Any], Any]
    plain: tuple[type, ...]


def _refuse(*_: Any) -> Any:
    raise Refused("holds Python objects where a number or a list is expected")


NO_NAMES = Names(_refuse, _refuse, ())


def build(stream: io.BytesIO, names: Names = NO_NAMES) -> Any:
    """The value of the pickle at a stream's position, which is then behind it.

    It is made of dict, list, tuple, str, int, float, bool, None and `names.plain`, and may hold one container in
    several places, itself included, where the pickle says so.

    Raises:
      Refused: it needs anything else, or is far longer than a checkpoint's.
      Exception: of several kinds, where it is damaged.
    """
    stack: list[Any] = []
    below: list[list[Any]] = []  # the stacks under the marks
    memo: dict[int, Any] = {}

    def popped(count: int) -> list[Any]:
        return [stack.pop() for _ in range(count)][::-1]

    def popped_mark() -> list[Any]:
        nonlocal stack
        items, stack = stack, below.pop()
        return items

    argument: Any
    for number, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
        name = instruction.name
        if number > MAX_INSTRUCTIONS:
            raise Refused("has a pickle far longer than a checkpoint's; in PyTorch save the state_dict() alone")
        if name in _NUMBERS or name in _TEXTS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "MARK":
            below.append(stack)
            stack = []
        elif name == "TUPLE":
            items = popped_mark()
            stack.append(tuple(items))
        elif name in _TUPLES:
            stack.append(tuple(popped(_TUPLES[name])))
        elif name in ("APPEND", "APPENDS"):
            items = popped_mark() if name == "APPENDS" else popped(1)
            expect(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = popped_mark() if name == "SETITEMS" else popped(2)
            _set_items(expect(stack[-1], dict), zip(items[::2], items[1::2], strict=True))
        elif name == "GLOBAL":
            module, _, attribute = argument.partition(" ")
            stack.append(names.find(module, attribute))
        elif name == "STACK_GLOBAL":
            module, attribute = popped(2)
            stack.append(names.find(expect(module, str), expect(attribute, str)))
        elif name == "BINPERSID":
            stack.append(names.load(stack.pop()))
        elif name == "REDUCE":
            function, arguments = popped(2)  # nothing that can be called gets here but from `names.find`
            stack.append(function(*expect(arguments, tuple)))
        elif name == "BUILD":  # attributes of an OrderedDict: a state_dict carries versions of its modules
            popped(1)
            expect(stack[-1], dict)
        elif name == "STOP":
            (value,) = stack
            _check_plain(value, names.plain)
            return value
        elif name not in ("PROTO", "FRAME"):
            raise Refused(f"holds Python objects that are not read for safety ({name}); save the state_dict() alone")
    raise Refused("has a pickle without an end; download it again")


def expect(value: Any, kind: type) -> Any:
    """The value. Raises Refused where it is of another type."""
    if type(value) is not kind:
        raise Refused(f"has a pickle that treats a {type(value).__name__} as a {kind.__name__}; download it again")
    return value


def shown(value: Any) -> str:
    """A name or number from the file, on one line and not too long."""
    small = type(value) is str or (type(value) is int and abs(value) < 1 << 60)
    return repr(value)[:100] if small else f"a {type(value).__name__}"


def _set_items(target: dict, pairs: Iterable[tuple[Any, Any]]) -> None:
    """Only keys whose hashes are quick and cannot be made to collide: texts, and numbers such as an optimiser's."""
    for key, value in pairs:
        if type(key) is not str and not (type(key) is int and abs(key) < 1 << 60):
            raise Refused(f"has a dictionary with {shown(key)} as key, expected texts or whole numbers")
        target[key] = value


def _check_plain(value: Any, plain: tuple[type, ...]) -> None:
    """Raises Refused where a marker or function of ours is left in the value."""
    waiting, seen = [value], set()
    while waiting:
        item = waiting.pop()
        if type(item) in (dict, list, tuple):
            if id(item) not in seen:
                seen.add(id(item))
                waiting.extend(item.values() if type(item) is dict else item)
        elif item is not None and type(item) not in (*_PLAIN, *plain):
            raise Refused("holds a bare storage or type where a tensor or number is expected; save the state_dict()")
