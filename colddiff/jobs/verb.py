"""What a verb of `submit` states about itself, and the verbs there are, found in ``verbs/``."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from colddiff.jobs.job import Job
    from colddiff.jobs.resolve import ResolvedJob

PACKAGE = "colddiff.verbs"
Talk = Callable[[str], None]


class Verb(ABC):
    """One thing that can be submitted; ``verbs/<name>/verb.py`` holds its one instance ``VERB``.

    That module imports nothing heavy at its top: the command line asks every verb for its name and
    help line before it knows which one is meant.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    """One line for `colddiff submit --help`."""

    @abstractmethod
    def spec(self) -> type[Job]:
        """The class of its jobs."""

    @abstractmethod
    def resolve(self, job: Any, storage: str, talk: Talk | None) -> tuple[Job, dict[str, str]]:
        """The job with absolute addresses, and digests of what they name, by field.

        Without ``talk`` nothing is packed: what is not there is an error.
        """

    def check(self, job: Any, storage: str, job_id: str, content: Mapping[str, str]) -> None:
        """A last look at where the job writes, once its id is known."""
        return

    def still_there(self, resolved: ResolvedJob) -> bool:
        """Whether what a finished job made is still where it put it."""
        return True

    @abstractmethod
    def run_here(self, resolved: ResolvedJob, attempt: int) -> int:
        """Exit code of one attempt in this process, without Ray."""


class Verbs(Mapping[str, Verb]):
    """The verbs by name, found by looking into ``colddiff/verbs``."""

    def __getitem__(self, name: str) -> Verb:
        return _found()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_found())

    def __len__(self) -> int:
        return len(_found())


@cache
def _found() -> dict[str, Verb]:
    folder = importlib.import_module(PACKAGE)
    modules = (item.name for item in pkgutil.iter_modules(folder.__path__) if item.ispkg)
    verbs = (importlib.import_module(f"{PACKAGE}.{name}.verb").VERB for name in modules)
    return {verb.name: verb for verb in verbs}


VERBS = Verbs()
