"""The errors that the command line prints in one line: each text says what came, what was expected, what to do."""


class UserError(ValueError):
    """Bad input from outside; exit code 2."""


class TrainingDivergedError(RuntimeError):
    """Loss or gradient became inf or NaN; the text names the step and the file that holds its batch. Exit code 3."""


class TrainingInterruptedError(RuntimeError):
    """A signal asked the run to stop; everything up to the current step is saved. Exit code 130."""


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
