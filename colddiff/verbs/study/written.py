"""The train jobs that a study's entries stand for, and which field of the study to blame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from colddiff.errors import CheckpointError, DataError, SpecError
from colddiff.jobs.job import LimitsSpec
from colddiff.jobs.listing.ids import NAMELESS, slugify
from colddiff.jobs.recipes import Recipe, load_recipe, submitted_from, submitted_recipe
from colddiff.jobs.verb import VERBS
from colddiff.spec.overrides import parse_override
from colddiff.verbs.study.job import MemberSpec, StudyJob

if TYPE_CHECKING:
    from colddiff.checkpoints.named import NamedCheckpoint
    from colddiff.data.resolve import Input
    from colddiff.verbs.train.job import TrainJob


def with_train_of(job: StudyJob, recipe: Recipe) -> StudyJob:
    """The study of a job file: an entry that names no other training has the file's own."""
    train = recipe.sections.get("train")
    if not isinstance(train, Mapping):
        return job
    own = {"train": dict(train)}
    members = [
        member
        if member.recipe is not None or member.train is not None
        else member.model_copy(update={**own, "name": member.name or recipe.name})
        for member in job.jobs or (MemberSpec(),)
    ]
    return job.model_copy(update={"jobs": tuple(members)})


def written_trainings(job: StudyJob) -> list[tuple[str, TrainJob]]:
    """Word in the id and train job of each entry, its seed aside; contacts nothing.

    Raises SpecError naming the field, such as ``jobs[1].overrides.optimizer.lr``.
    """
    if not job.jobs:
        raise SpecError(
            [("jobs", "is required: name recipes or job files, or write train sections")]
        )
    return [_written(job, number) for number in range(len(job.jobs))]


def checkpoints_of(job: StudyJob) -> list[NamedCheckpoint]:
    """The checkpoints that the trainings of a study start from, each once."""
    found: dict[str | None, NamedCheckpoint] = {}
    for number, (_, train) in enumerate(written_trainings(job)):
        for one in VERBS["train"].checkpoints(train):
            found.setdefault(one.reference, replace(one, field=f"jobs[{number}].{one.field}"))
    return list(found.values())


def inputs_of(job: StudyJob) -> list[Input]:
    """The images that the trainings of a study name, each once."""
    found: dict[tuple[object, ...], Input] = {}
    for number, (_, train) in enumerate(written_trainings(job)):
        with submitted_entry(job, number):
            own = VERBS["train"].inputs(train)
        for one in own:
            key = (one.address, one.split, one.shared, train.shape, train.augment)
            found.setdefault(key, replace(one, field=field_of(job, number, one.field)))
    return list(found.values())


@contextmanager
def submitted_entry(job: StudyJob, number: int) -> Iterator[None]:
    """Within ``with``, what is said of entry ``number`` may name the recipe that it names.

    The images of all entries are packed as the study's own file says, if it says so.
    """
    member, own = job.jobs[number], submitted_recipe()
    if member.recipe is None:
        yield
        return
    recipe = _recipe(member, f"jobs[{number}]")
    if own is not None and own.pack_command is not None:
        recipe = replace(recipe, pack=own.pack)
    with submitted_from(recipe):
        yield


def without_effect(job: StudyJob) -> list[str]:
    """A line for each field of the study's ``overrides`` that an entry sets itself."""
    own = [_paths(member) for member in job.jobs]
    found: dict[str, list[str]] = {}
    for common in _leaves(job.overrides):
        setting = [
            f"jobs.{n}" for n, paths in enumerate(own) if any(_same(common, p) for p in paths)
        ]
        if setting:
            found[common] = setting
    return [
        f"overrides.{path}: not used by {', '.join(entries)}, whose own overrides name it: set "
        f"{entries[0]}.overrides.{path}"
        for path, entries in found.items()
    ]


def field_of(job: StudyJob, number: int, path: str) -> str:
    """The field of the study that sets, or could set, field ``path`` of entry ``number``."""
    member = job.jobs[number]
    if not path:
        return f"jobs[{number}]"
    if any(_same(path, own) for own in _paths(member)):
        return f"jobs[{number}].overrides.{path}"
    if any(_same(path, common) for common in job.overrides):
        return f"overrides.{path}"
    return f"jobs[{number}].{'overrides' if member.train is None else 'train'}.{path}"


def blamed(
    job: StudyJob, number: int, error: SpecError | DataError | CheckpointError
) -> SpecError | DataError | CheckpointError:
    """``error`` of the train job of entry ``number``, naming the field of the study."""
    if isinstance(error, SpecError):
        return SpecError([(field_of(job, number, path), what) for path, what in error.problems])
    message = f"jobs[{number}]: {error}"
    return (
        DataError(message, error.details) if isinstance(error, DataError) else type(error)(message)
    )


def _written(job: StudyJob, number: int) -> tuple[str, TrainJob]:
    member, where = job.jobs[number], f"jobs[{number}]"
    recipe = _recipe(member, where)
    _refuse_seed(job, member, where)
    try:
        recipe = recipe.varied("train", job.overrides)
        if isinstance(member.overrides, dict):
            train = recipe.varied("train", member.overrides).train
        else:
            train = cast("TrainJob", recipe.job("train", member.overrides))
    except SpecError as error:
        problems = [(_below_train(path), what) for path, what in error.problems]
        raise blamed(job, number, SpecError(problems)) from None
    for field, default in (("storage", None), ("limits", LimitsSpec())):
        if getattr(train, field) != default:
            what = f"is the study's to set, for all its jobs together: {field}=..."
            raise SpecError([(field_of(job, number, field), what)])
    return slugify(member.name or recipe.name), train


def _refuse_seed(job: StudyJob, member: MemberSpec, where: str) -> None:
    """SpecError for a seed among the overrides of a study with ``seeds``."""
    try:
        own = _paths(member)
    except SpecError as error:
        raise SpecError([(f"{where}.overrides", str(error))]) from None
    for place, paths in ((f"{where}.overrides", own), ("overrides", job.overrides)):
        if job.seeds is not None and "seed" in paths:
            raise SpecError([(f"{place}.seed", "is set by `seeds`: leave out one of the two")])


def _recipe(member: MemberSpec, where: str) -> Recipe:
    if member.train is not None:
        return Recipe(name=NAMELESS, description="", sections={"train": member.train})
    if member.recipe is None:
        raise SpecError([(where, "names neither a recipe nor a train section")])
    try:
        recipe = load_recipe(member.recipe, member.variant)
    except SpecError as error:
        raise SpecError([(f"{where}.recipe", str(error))]) from None
    if "train" not in recipe.sections:
        raise SpecError([(f"{where}.recipe", f"{member.recipe} has no train section")])
    return recipe


def _below_train(path: str) -> str:
    return path.removeprefix("train").removeprefix(".")


def _paths(member: MemberSpec) -> list[str]:
    """Paths that an entry's own overrides set, as far as they can be read."""
    if isinstance(member.overrides, dict):
        return list(_leaves(member.overrides))
    return [".".join(parse_override(text)[0]) for text in member.overrides]


def _leaves(data: Mapping[str, object], prefix: str = "") -> Iterable[str]:
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _same(path: str, other: str) -> bool:
    """Whether one of two fields is the other, or within it."""
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")
