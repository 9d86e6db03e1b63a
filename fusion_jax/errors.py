"""The one error that a user can cause and mend: its text says what came, what was expected, what to do."""


class UserError(ValueError):
    """Bad input from outside: the command line prints it in one line and exits with code 2."""


def unknown_name(kind: str, name: object, known) -> UserError:
    """The error for a name that is not among `known`, with the closest ones first."""
    import difflib

    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return UserError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(known)}.")


def check_field(ok: bool, field: str, value: object, expected: str) -> None:
    """Raises UserError naming a config field, its value and what was expected, unless `ok`."""
    if not ok:
        raise UserError(f"config: {field} is {value!r}, expected {expected}")
