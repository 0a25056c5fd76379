"""Exception hierarchy of the project, with the exit code of each.

ColddiffError        1   the job or the command failed
├── SpecError        2   an invalid spec, override or command line
├── DataError        2   input images, shards or manifests that are missing or do not match
├── CheckpointError  2   a checkpoint that is missing, uncommitted, damaged, or of another kind
│   └── LaterFormat     one that a later version of colddiff wrote: nothing falls back from it
├── RecordError      2   a file of a job or a cluster that is damaged
├── DivergedError    1   a training whose loss or weights are no longer finite
├── Unreachable      3   a service that does not respond
│   ├── StoreError
│   │   └── StoreDenied     one that lacks, or does not take, the credentials of this process
│   ├── ClusterError
│   └── TrackerError
├── Stopped          4   stopped on request, or a limit was reached
├── Missing          2   an object that does not exist in its store
└── Exists           1   a conditional write of an object that already exists
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

ERROR_LINE = "colddiff: error: "
"""How the line begins with which a command, or a driver that cannot write a status, ends."""


def printable(text: str) -> str:
    """``text`` without control characters: one that others wrote must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character)[0] != "C"
        else ascii(character)[1:-1]
        for character in text
    )


class ColddiffError(Exception):
    """Base class: one line that names what is wrong, where, and how to fix it.

    Services, files and libraries of others are quoted in it, so that it is made ``printable`` here.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class SpecError(ColddiffError, ValueError):
    """An invalid spec; ``problems`` is a list of (dotted path, what is wrong)."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[tuple[str, str]]) -> None:
        if isinstance(problems, str):
            problems = [("", problems)]
        self.problems: list[tuple[str, str]] = list(problems)
        super().__init__(
            "; ".join(f"{path}: {what}" if path else what for path, what in self.problems)
        )


class DataError(ColddiffError):
    """Input data that is missing, empty, cannot be decoded, or does not match its manifest.

    ``details`` has a line for each thing that is wrong, where they are many.
    """

    exit_code = 2

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        self.details = tuple(details)
        super().__init__(message)


class CheckpointError(ColddiffError):
    """A checkpoint that is missing, uncommitted, damaged, or made by something else."""

    exit_code = 2


class LaterFormat(CheckpointError):
    """A checkpoint of a later format: it is whole, and another must not be used in its place."""


class RecordError(ColddiffError):
    """A file in the folder of a job or of a cluster that is damaged, or made by something else.

    ``what``: the message without its way out, for a reader that must not advise it.
    """

    exit_code = 2

    def __init__(self, what: str, way_out: str = "") -> None:
        self.what = what
        super().__init__(f"{what}; {way_out}" if way_out else what)


class DivergedError(ColddiffError):
    """The loss or the weights are no longer finite; never retried."""


class Unreachable(ColddiffError):
    """A service that does not respond, or denies access."""

    exit_code = 3


class StoreError(Unreachable):
    """A store that cannot be reached, read or written."""


class StoreDenied(StoreError):
    """A store that got no credentials from this process, or none that it takes."""


class ClusterError(Unreachable):
    """A cluster that cannot be reached or started."""


class TrackerError(Unreachable):
    """An experiment tracker that cannot be reached."""


class Stopped(ColddiffError):
    """The job was stopped on request or reached one of its limits."""

    exit_code = 4


class Missing(ColddiffError):
    """An object that does not exist in its store."""

    exit_code = 2


class Exists(ColddiffError):
    """A conditional write failed because the object already exists."""
