"""Files and folders that the system refuses to read, made up: the rights of real ones do not bind root."""

import errno
import os
import pathlib

_NUMBERS = {os.strerror(number): number for number in (errno.EACCES, errno.EIO)}


def withhold(monkeypatch, withheld, words):
    """From now on opening, listing and looking up the path `withheld` fails with the system's `words`."""

    def refusing(real):
        def call(path, *args, **kwargs):
            if isinstance(path, (str, os.PathLike)) and pathlib.Path(path) == withheld:
                raise OSError(_NUMBERS[words], words, str(path))
            return real(path, *args, **kwargs)

        return call

    monkeypatch.setattr(os, "open", refusing(os.open))
    monkeypatch.setattr(os, "scandir", refusing(os.scandir))
    monkeypatch.setattr(pathlib.Path, "stat", refusing(pathlib.Path.stat))
