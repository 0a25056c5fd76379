"""Paths as people write them: ``~``, relative ones, and those that no system call takes."""

from __future__ import annotations

import os
from pathlib import Path

from colddiff.errors import SpecError


def expanded(path: str | os.PathLike[str], way_out: str = "write the path in full") -> Path:
    """``path`` with ``~`` replaced; SpecError if there is no home folder, or it holds a NUL."""
    text = os.fspath(path)
    if "\0" in text:
        raise SpecError(f"{text!r} is not a path: it holds a NUL character")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise SpecError(
            f"{text!r}: this user has no home folder (neither HOME nor an entry in passwd); set "
            f"HOME, or {way_out}"
        ) from None


def absolute_path(path: str | os.PathLike[str], way_out: str = "write the path in full") -> Path:
    """``expanded``, made absolute; SpecError if that needs a working folder that is gone."""
    try:
        return expanded(path, way_out).absolute()
    except OSError as error:
        raise SpecError(
            f"{os.fspath(path)!r}: the working folder cannot be used ({error.strerror}); change "
            "to another one, or use absolute paths"
        ) from None
