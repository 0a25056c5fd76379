"""Every error the project raises on purpose, and the exit code each one ends a command with.

ColddiffError        1   the job, or the command, failed
├── SpecError        2   a spec, override or command line that cannot be meant
├── DataError        2   input images, shards or manifests that are missing or do not match
├── CheckpointError  2   a checkpoint that is missing, not committed, damaged, or of another kind
├── DivergedError    1   a run whose loss or weights stopped being finite
├── Unreachable      3   a service that does not answer
│   ├── StoreError
│   ├── ClusterError
│   └── TrackerError
├── Stopped          4   stopped on request, or a limit was reached
├── Missing          2   an object that is not in its store
└── Exists           1   a conditional write found the object already there
"""

from __future__ import annotations

from collections.abc import Sequence


class ColddiffError(Exception):
    """Base of all deliberate errors: one line that names what, where and the way out."""

    exit_code = 1


class SpecError(ColddiffError, ValueError):
    """A spec that is invalid; ``problems`` lists (dotted path, what is wrong) pairs."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[tuple[str, str]]) -> None:
        if isinstance(problems, str):
            problems = [("", problems)]
        self.problems: list[tuple[str, str]] = list(problems)
        super().__init__(
            "; ".join(f"{path}: {what}" if path else what for path, what in self.problems)
        )


class DataError(ColddiffError):
    """Input data that is missing, empty, undecodable or not what its manifest says."""

    exit_code = 2


class CheckpointError(ColddiffError):
    """A checkpoint that is missing, not committed, damaged, or made by something else."""

    exit_code = 2


class DivergedError(ColddiffError):
    """The loss or the weights stopped being finite; never retried."""


class Unreachable(ColddiffError):
    """A service that does not answer, or refuses us."""

    exit_code = 3


class StoreError(Unreachable):
    """A store that cannot be reached, read or written."""


class ClusterError(Unreachable):
    """A cluster that cannot be reached or started."""


class TrackerError(Unreachable):
    """An experiment tracker that cannot be reached."""


class Stopped(ColddiffError):
    """The job was stopped on request or ran into one of its limits."""

    exit_code = 4


class Missing(ColddiffError):
    """An object that is not in its store."""

    exit_code = 2


class Exists(ColddiffError):
    """A conditional write lost: the object is already there."""
