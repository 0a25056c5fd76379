"""What a verb of `submit` states about itself, and the verbs there are, found in ``verbs/``."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, cast

from colddiff.errors import SpecError

if TYPE_CHECKING:
    from colddiff.jobs.attempt import Attempt
    from colddiff.jobs.job import Job
    from colddiff.jobs.recipes import Recipe
    from colddiff.jobs.resolve import ResolvedJob

PACKAGE = "colddiff.verbs"


@dataclass(frozen=True, slots=True)
class DryRun:
    """What `--dry-run` says of a job besides its YAML: ``lines`` for a person, ``data`` as JSON."""

    lines: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


class Verb(ABC):
    """One thing that can be submitted: ``verbs/<name>/verb.py`` holds its one instance, ``VERB``.

    The command line, resolution, submission, following, `list`, `--local` and the Python API ask
    it, and nothing else knows which verbs there are (``tests/cluster/test_new_verb.py`` adds one
    as a folder). Its module imports nothing heavy at its top: the command line asks every verb for
    its name and help line before it knows which one is meant.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    """One line for `colddiff submit --help`."""
    extent: ClassVar[str] = ""
    """The operation field that says how far a job goes; a larger value extends a finished job."""
    unit: ClassVar[str] = "steps"
    """What is counted as progress, in the plural."""

    @abstractmethod
    def spec(self) -> type[Job]:
        """The class of its jobs."""

    @abstractmethod
    def resolve(self, job: Any, storage: str, *, pack: bool) -> tuple[Job, dict[str, str]]:
        """The job with absolute addresses, and the digests of what they name, by field.

        With ``pack`` a SOURCE that was not packed yet is packed into ``storage``; without it that
        is an error. Raises SpecError, DataError, CheckpointError: before anything is started.
        """

    @abstractmethod
    def prepare(self, attempt: Attempt) -> Any:
        """Checks everything that can fail before the work begins; returns what ``run`` needs.

        The job's tracking run is opened afterwards: an attempt that fails here logs nothing.
        """

    @abstractmethod
    def run(self, attempt: Attempt, prepared: Any, *, on_ray: bool) -> dict[str, Any]:
        """The work of an attempt, in this process or by workers on Ray; returns the result.

        Raises Stopped where it was asked to stop, ColddiffError where it failed. The driver adds
        what every ``result.json`` has: id, pictures, tracking.
        """

    def check(self, job: Any, storage: str, job_id: str, content: Mapping[str, str]) -> None:
        """Checks where the job writes, once its id is known; raises SpecError or DataError."""
        return

    def asked_for(self, job: Job) -> int:
        """How far the job is to go, in ``unit``; 0 where that is not known before it runs."""
        return int(getattr(job, self.extent)) if self.extent else 0

    def most_workers(self, job: Any) -> int | None:
        """More workers than this have nothing to do; None where that is not known."""
        return None

    def still_there(self, resolved: ResolvedJob) -> bool:
        """Whether what a finished job made is still where it put it."""
        return True

    def needs_checkpoint(self, job: Any) -> bool:
        """Whether the job takes the checkpoint of the train job in the same file."""
        return False

    def completed(self, job: Any, recipe: Recipe) -> Job:
        """The job with what it leaves to the other sections of its file."""
        return cast("Job", job)

    def outputs(self, job: Any) -> Mapping[str, str]:
        """Addresses outside STORAGE that the job writes to, by field."""
        return {}

    def dry_run(self, job: Any, rate: str | None) -> DryRun:
        """What `--dry-run` says of the job; contacts nothing. ``rate`` is that of `--rate`."""
        if rate is not None:
            raise SpecError(f"--rate: there is no estimate of a {self.name} job")
        return DryRun()


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


def unit_of(job_id: str) -> str:
    """What a job counts as progress, by the verb that its id begins with."""
    verb = VERBS.get(job_id.partition("-")[0])
    return verb.unit if verb else "steps"
