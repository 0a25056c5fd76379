"""Paths as people write them: ``~``, relative ones, and those that no system call takes."""

from __future__ import annotations

import difflib
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


def nearest_folder(path: Path) -> str:
    """``; did you mean '/x/packed'?`` for the path of a folder that is not there; "" without one.

    Of the first part of ``path`` that is missing, the folder beside it with nearly that name; the
    rest of ``path`` is kept where it is there.
    """
    parts = [path, *path.parents]
    try:
        there = next(number for number, part in enumerate(parts) if part.is_dir())
        if there == 0:
            return ""
        missing = parts[there - 1]
        if missing.exists():
            return ""  # a file
        beside = {part.name: part for part in sorted(parts[there].iterdir()) if part.is_dir()}
    except (OSError, ValueError, StopIteration):
        return ""  # a name that no file can have, a folder that must not be read
    # By what tells them apart: with the folders above them any two paths are alike.
    close = difflib.get_close_matches(missing.name, beside, n=1)
    if not close:
        return ""
    whole = beside[close[0]] / path.relative_to(missing)
    return f"; did you mean {str(whole if whole.is_dir() else beside[close[0]])!r}?"


def nearest_path(path: Path) -> str:
    """``nearest_folder``, or the file beside ``path`` with nearly its name, or with another suffix.

    For a path where a file may be meant as well, and none of either is there.
    """
    try:
        there = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
        files = {file.stem: file for file in there if file.is_file()}
    except (OSError, ValueError):
        return ""
    # By what tells them apart: with its suffix any short name is like any other.
    close = difflib.get_close_matches(path.stem, files, n=1)
    return nearest_folder(path) or (f"; did you mean {str(files[close[0]])!r}?" if close else "")
