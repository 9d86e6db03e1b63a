"""The errors that the command line prints in one line: each text says what came, what was expected, what to do."""

import signal


class UserError(ValueError):
    """Bad input from outside; exit code 2."""

    exit_code = 2


class TrainingDivergedError(RuntimeError):
    """Loss or gradient became inf or NaN; the text names the step and the file that holds its batch. Exit code 3."""

    exit_code = 3


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or not in time; those before it are as they were. Exit code 4.

    Attributes:
      final: trying again at once would not help.
      hung: the write is still under way, so the process has to be ended without waiting for it.
    """

    exit_code = 4

    def __init__(self, text: str, *, final: bool = False, hung: bool = False):
        super().__init__(text)
        self.final, self.hung = final or hung, hung


class TrainingInterruptedError(RuntimeError):
    """A signal asked the run to stop; everything up to the current step is saved.

    Exit code 130 for SIGINT, somebody's Ctrl-C; 75 for SIGTERM, which a scheduler sends before it takes the machine
    away: start the same command again.
    """

    def __init__(self, text: str, number: int = signal.SIGINT):
        super().__init__(text)
        self.exit_code = 130 if number == signal.SIGINT else 75  # EX_TEMPFAIL of sysexits.h


class PeerFailedError(RuntimeError):
    """What several processes work out together failed, most likely as another one is gone. Exit code 5."""

    exit_code = 5


def exit_code(error: BaseException) -> int:
    """What the program ends with after an error; 1 for what is a mistake of its own, which it shows in full."""
    others = {KeyboardInterrupt: 130, OSError: 2}
    return getattr(error, "exit_code", next((code for kind, code in others.items() if isinstance(error, kind)), 1))


def unknown_name(kind: str, name: object, known) -> UserError:
    """The error for a name that is not among `known`, with the closest ones first."""
    import difflib

    known = sorted(known)
    close = difflib.get_close_matches(str(name)[:100], known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return UserError(f"unknown {kind} {name!r:.100}.{hint} Known: {', '.join(known)}.")


def check_field(ok: bool, field: str, value: object, expected: str) -> None:
    """Raises UserError naming a config field, its value and what was expected, unless `ok`."""
    if not ok:
        raise UserError(f"config: {field} is {value!r:.200}, expected {expected}")
