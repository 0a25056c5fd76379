"""The interface of a verb of `submit`, and the registry of verbs found in ``verbs/``."""

from __future__ import annotations

import importlib
import logging
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, cast

from colddiff.errors import ColddiffError, SpecError
from colddiff.jobs.listing.ids import hash_of

if TYPE_CHECKING:
    from colddiff.checkpoints.named import NamedCheckpoint
    from colddiff.data.resolve import Input
    from colddiff.features.spec import FeaturesSpec
    from colddiff.jobs.attempt import Attempt
    from colddiff.jobs.folder import JobFolder
    from colddiff.jobs.job import Job, ResourcesSpec, Workers
    from colddiff.jobs.recipes import Recipe
    from colddiff.jobs.resolve import ResolvedJob
    from colddiff.jobs.runner import Capacity

    Settle = Callable[[ResourcesSpec, Workers], ResourcesSpec]

PACKAGE = "colddiff.verbs"
NO_RATE = (
    "--rate 850 (images/s) or --rate 40TFLOP/s, of all workers, gives hours; --rate auto measures "
    "one here"
)
"""The last line of an estimate without hours."""
BESIDES = "besides, "
"""How the line begins on what an estimate of steps does not count, the evaluations."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DryRun:
    """What `--dry-run` prints besides the YAML: lines for people, ``data`` with `--json`.

    ``lines`` say what is remarkable about the job; ``estimate``, which is printed last and as one
    block, what it will take. ``problems``: fields for which a submission would fail, and why,
    besides those that name a checkpoint or images.
    """

    lines: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    estimate: Sequence[str] = ()
    problems: Sequence[tuple[str, str]] = ()

    @property
    def block(self) -> list[str]:
        """The estimate as it is printed, below its heading; nothing without one."""
        return ["", "estimate:", *(f"  {line}" for line in self.estimate)] if self.estimate else []


class Verb(ABC):
    """One thing that can be submitted: ``verbs/<name>/verb.py`` holds its one instance, ``VERB``.

    The command line, resolution, submission, following, `list`, `--local` and the Python API use
    this interface; no other code lists the verbs (``tests/cluster/test_new_verb.py`` adds one as a
    folder). Its module has no heavy imports at the top: the command line reads the name and help
    line of every verb before it knows which one is used.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    """One line for `colddiff submit --help`."""
    extent: ClassVar[str] = ""
    """The operation field that sets a job's extent; a larger value extends a finished job."""
    unit: ClassVar[str] = "steps"
    """Unit of progress, in the plural."""
    all_at_once: ClassVar[bool] = False
    """Whether a job starts only where all of its workers have room; else with one of them."""
    waits_for_machines: ClassVar[bool] = True
    """Whether a job that its cluster could not hold waits for machines; else it is refused."""

    @abstractmethod
    def spec(self) -> type[Job]:
        """The class of its jobs."""

    @abstractmethod
    def resolve(self, job: Any, storage: str, *, pack: bool) -> tuple[Job, dict[str, str]]:
        """The job with absolute addresses, and the digests of what they name, by field.

        With ``pack`` a SOURCE is packed into ``storage`` if that was not done yet; without it that
        is a DataError. Raises SpecError, DataError, CheckpointError, before anything is started.
        """

    @abstractmethod
    def prepare(self, attempt: Attempt) -> Any:
        """Checks everything that can fail before the work starts; returns what ``run`` needs.

        The job's tracking run is opened afterwards: an attempt that fails here logs nothing to it.
        """

    @abstractmethod
    def run(self, attempt: Attempt, prepared: Any, *, on_ray: bool) -> dict[str, Any]:
        """The work of an attempt, in this process or by workers on Ray; returns the result.

        Raises Stopped if a stop was requested, ColddiffError if it failed. The driver adds the
        common fields of ``result.json``: id, pictures, tracking.
        """

    def check(self, job: Any, storage: str, job_id: str, content: Mapping[str, str]) -> None:
        """Checks the job's output location, once its id is known; raises SpecError, DataError."""
        return

    def check_capacity(self, job: Any, capacity: Callable[[], Capacity | None]) -> None:
        """Checks that the machines of a cluster could hold the job if they were idle, or more come.

        ``capacity`` asks the cluster; it returns None where the job runs in this process. Raises
        SpecError naming the field. ``jobs/segments/room.py`` decides what follows.
        """
        from colddiff.jobs.runner import requested
        from colddiff.jobs.segments.room import Needs, refuse_too_small

        resources = getattr(job, "resources", None)
        if resources is None:
            return
        workers = getattr(job, "workers", 1) if self.all_at_once else 1
        needs = Needs(resources, workers)
        # A worker with one CPU has room in any cluster, which is not asked for it.
        if needs.fewest == 1 and requested(resources) == {"CPU": 1.0}:
            return
        if (found := capacity()) is not None:
            refuse_too_small(needs, found, "the job" if self.all_at_once else "a worker")

    def with_resources(self, job: Any, settle: Settle) -> Job:
        """The job with what its workers request replaced by ``settle`` of it and of ``workers``.

        A verb that runs other jobs does so with theirs too.
        """
        resources = getattr(job, "resources", None)
        if resources is None:
            return cast("Job", job)
        found = settle(resources, getattr(job, "workers", 1))
        return cast("Job", job.model_copy(update={"resources": found}))

    def advice(self, job: Any, capacity: Callable[[], Capacity | None]) -> Sequence[str]:
        """Lines for whoever submits a resolved job, such as that it would take days.

        ``capacity`` asks the cluster; it returns None where the job runs in this process.
        """
        return ()

    def requested_extent(self, job: Job) -> int:
        """The extent that the job requests, in ``unit``; 0 if it is not known before it runs."""
        return int(getattr(job, self.extent)) if self.extent else 0

    def outputs_exist(self, resolved: ResolvedJob) -> bool:
        """Whether the outputs of a finished job still exist."""
        return True

    def needs_checkpoint(self, job: Any) -> bool:
        """Whether the job uses the checkpoint of the train job in the same file."""
        return False

    def completed(self, job: Any, recipe: Recipe) -> Job:
        """The job with what it leaves to the other sections of its file."""
        return cast("Job", job)

    def outputs(self, job: Any) -> Mapping[str, str]:
        """Addresses outside STORAGE that the job writes to, by field."""
        return {}

    def summary(self, result: Mapping[str, Any]) -> Sequence[str]:
        """The numbers of a finished job as lines of text, such as a table.

        The driver calls it at the end of a job, with the content of ``result.json``, where the
        lines are kept; whoever submits, waits for or looks at the job is shown them.
        """
        return [f"{path} {value:.5g}" for path, value in result.get("metrics", {}).items()]

    def next_steps(self, job_id: str, result: Mapping[str, Any]) -> Sequence[str]:
        """Commands for what to do with a finished job; imports nothing heavy."""
        return ()

    def score(self, result: Mapping[str, Any]) -> tuple[str, float] | None:
        """Metric and value that stand for a finished job in a list; imports nothing heavy."""
        from colddiff.jobs.results import score_of

        return score_of(result)

    def page_notes(self, folder: JobFolder) -> Sequence[str]:
        """What to know of the numbers of its members wherever they are shown together."""
        return ()

    def members(self, folder: JobFolder) -> Sequence[str]:
        """Ids of the jobs that stand for this one in a report, such as the trainings of a study."""
        return ()

    def left_behind(self, folder: JobFolder) -> str | None:
        """Where a job's work stays when its folder is deleted; None if nothing is there.

        Imports nothing heavy.
        """
        return None

    def checkpoints(self, job: Any) -> Sequence[NamedCheckpoint]:
        """The checkpoints that a job needs, for `--dry-run`."""
        return ()

    def inputs(self, job: Any) -> Sequence[Input]:
        """The images that a job names, or its checkpoint if it is here, for `--dry-run`."""
        return ()

    def features(self, job: Any) -> Sequence[FeaturesSpec]:
        """The feature networks that a job uses, whose weights are looked for before any work."""
        return ()

    def dry_run(self, job: Any, rate: str | None) -> DryRun:
        """What `--dry-run` prints; contacts nothing. ``rate``: value of `--rate`; SpecError."""
        if rate is not None:
            article = "an" if self.name[0] in "aeiou" else "a"
            raise SpecError(f"--rate: there is no estimate for {article} {self.name} job")
        return DryRun()


class Verbs(Mapping[str, Verb]):
    """The verbs by name, discovered in ``colddiff/verbs``.

    A folder that cannot be loaded is left out with a warning; asking for it by name raises
    ColddiffError, so that commands that do not need it still work.
    """

    def __getitem__(self, name: str) -> Verb:
        if name not in _found().verbs and name in self.broken:
            raise ColddiffError(self.broken[name])
        return _found().verbs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_found().verbs)

    def __len__(self) -> int:
        return len(_found().verbs)

    @property
    def broken(self) -> Mapping[str, str]:
        """Folders that cannot be loaded, with the reason in one line."""
        return _found().broken


@dataclass(frozen=True, slots=True)
class _Found:
    verbs: dict[str, Verb] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


@cache
def _found() -> _Found:
    package, found = importlib.import_module(PACKAGE), _Found()
    for item in pkgutil.iter_modules(package.__path__):
        if not item.ispkg:
            continue
        try:
            verb = _load(item.name)
        except Exception as error:  # any code may fail as it is imported
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            found.broken[item.name] = f"colddiff/verbs/{item.name} cannot be loaded: {reason}"
            log.warning("%s", found.broken[item.name])
        else:
            found.verbs[verb.name] = verb
    return found


def _load(folder: str) -> Verb:
    verb = importlib.import_module(f"{PACKAGE}.{folder}.verb").VERB
    if not isinstance(verb, Verb):
        raise TypeError("VERB is not an instance of a class derived from Verb")
    for needed in ("name", "help"):
        if not isinstance(getattr(verb, needed, None), str):
            raise TypeError(f"its verb has no {needed}")
    return verb


VERBS = Verbs()


def unit_of(job_id: str) -> str:
    """Unit of a job's progress, by the verb that its id starts with."""
    verb = _found().verbs.get(job_id.partition("-")[0])
    return verb.unit if verb else "steps"


def restore_lines(checkpoint: str, result: Mapping[str, Any]) -> list[str]:
    """The commands that restore images with the checkpoint of a result.

    First of clean images, which it degrades: what it can do is seen there. Then of others, at all
    severities, as nobody knows theirs; where D is random, with what it would have drawn.
    """
    command = f"colddiff restore --checkpoint {checkpoint}"
    # A folder for each checkpoint: results of another are never replaced.
    of = hash_of(checkpoint.partition("@")[0])
    behind = f"-{of}" if of else ""
    metrics = result.get("metrics") or {}
    direct, sampled = (metrics.get(f"eval/{column}/rmse") for column in ("direct", "sampled"))
    better = direct is not None and sampled is not None and direct < sampled
    said = "    # --sampler direct had the lower rmse" * better
    found = [f"{command} CLEAN_IMAGES --degrade --fit --out ./trial{behind}{said}"]
    if result.get("omega"):
        known = f"--omega FILE --severity T --fit --out ./restored{behind}"
        held = ", ".join(f'"{name}": ...' for name in result["omega"])
        said = f"    # FILE: {{{held}}} as JSON, for all images or by name"
        found.append(f"{command} DEGRADED_IMAGES {known}{said}")
    else:
        found.append(f"{command} DEGRADED_IMAGES --severity all --fit --out ./strips{behind}")
    return found
