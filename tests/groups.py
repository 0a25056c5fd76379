"""Which tests run one after the other in one process, where several processes run tests at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

# By what they share: a Ray cluster, a real S3 service, a trained checkpoint, a server of ranks.
# The longest first, so that the short ones fill up what is left. All others: a group each file.
GROUPS: dict[str, tuple[str, ...]] = {
    "cluster": ("cluster/test_*.py",),
    "ranks": ("unit/test_resume.py", "unit/test_train.py"),
    "generation": ("unit/generation/test_*.py",),
}


@dataclass(frozen=True)
class Group:
    """A group of tests; those of a lower ``rank`` are begun first."""

    name: str
    rank: int


def group_of(path: PurePath) -> Group:
    """The group of the tests in ``path``, relative to ``tests``."""
    for rank, (name, patterns) in enumerate(GROUPS.items()):
        if any(path.match(pattern) for pattern in patterns):
            return Group(name, rank)
    return Group(path.with_suffix("").as_posix(), len(GROUPS))
