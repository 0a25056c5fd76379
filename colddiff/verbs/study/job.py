"""The study job: which trainings belong to it (identity), and how they are run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from colddiff.errors import SpecError
from colddiff.jobs.job import OPERATION, Job, LimitsSpec, place_within
from colddiff.spec import LATER, Spec, Unit, parse
from colddiff.spec.documents import shown

MOST_JOBS = 1000
MOST_SEEDS = 1000
NONE_NAMED: tuple[()] = ()
"""``jobs`` that were left out, other than an empty list: the file's own train section."""


def _as_overrides(value: Any) -> Any:
    paths = value if isinstance(value, Mapping | list | tuple) else None
    if paths is None or not all(isinstance(path, str) for path in paths):
        raise SpecError(f"write {{path: value}} or a list of path=value, got {shown(value)}")
    return dict(value) if isinstance(value, Mapping) else tuple(value)


class MemberSpec(Spec):
    """A training of a study: a recipe or a train section, with some of its fields set."""

    recipe: Annotated[
        str | None, Field(description="a recipe's name, or the path of a job file")
    ] = None
    variant: Annotated[str | None, Field(description="of the recipe")] = None
    train: Annotated[
        dict[str, Any] | None, Field(description="fields of a train job, in place of a recipe")
    ] = None
    overrides: Annotated[
        Any,
        BeforeValidator(_as_overrides, json_schema_input_type=dict[str, Any] | list[str]),
        Field(description="{path: value}, or a list of path=value as on a command line"),
    ] = ()
    name: Annotated[
        str | None, Field(description="used in the id, as --name; null for the recipe's name")
    ] = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.recipe is not None and self.train is not None:
            raise SpecError([("train", "is given beside a recipe: leave out one of the two")])
        if self.variant is not None and self.recipe is None:
            raise SpecError([("variant", "needs a recipe that has variants")])
        return self


class TrainingSpec(Spec):
    """A training of a study as it was resolved, with its seed."""

    id: Annotated[str, Field(description="of its job")]
    slug: Annotated[str, Field(description="name in its id")]
    train: Annotated[dict[str, Any], Field(description="the fields of its train job")]
    plugins: Annotated[
        tuple[str, ...], Field(description="sha256 of those of the study's plugins that it uses")
    ] = ()


def _as_members(value: Any) -> Any:
    """``quickstart`` is short for ``{recipe: quickstart}``."""
    if value is NONE_NAMED:
        return value
    if not isinstance(value, list | tuple):
        raise SpecError(f"write a list of recipes or {{recipe, overrides}}, got {shown(value)}")
    if not value:
        raise SpecError("is empty: name at least one recipe, or write a train section")
    if len(value) > MOST_JOBS:
        raise SpecError(f"names {len(value):,} jobs, a study has at most {MOST_JOBS}")
    entries = [{"recipe": item} if isinstance(item, str) else item for item in value]
    return tuple(parse(MemberSpec, entry, f"[{i}]") for i, entry in enumerate(entries))


def _as_seeds(value: Any) -> Any:
    """``3`` is short for ``[0, 1, 2]``."""
    if isinstance(value, bool) or not isinstance(value, int | list | tuple | None):
        raise SpecError(f"write a number of seeds or a list of them, got {shown(value)}")
    if isinstance(value, int):
        if not 1 <= value <= MOST_SEEDS:
            raise SpecError(f"a number of seeds is 1 to {MOST_SEEDS}, got {shown(value)}")
        return list(range(value))
    if value is not None and len(value) > MOST_SEEDS:
        raise SpecError(f"names {len(value):,} seeds, a study has at most {MOST_SEEDS}")
    if value is not None and not value:
        raise SpecError("is empty: name at least one seed, or leave it out")
    return value


Seed = Annotated[int, Field(ge=0)]


class StudyJob(Job):
    """Train several jobs, each with several seeds, and report them as one."""

    verb: ClassVar[str] = "study"

    jobs: Annotated[
        tuple[MemberSpec, ...],
        BeforeValidator(_as_members, json_schema_input_type=list[str | MemberSpec]),
        Field(
            description="recipes, job files or train sections, each with overrides of its own; an "
            "entry with overrides alone varies the train section of the same file, which is also "
            "what is trained if `jobs` is left out",
        ),
    ] = NONE_NAMED
    overrides: Annotated[
        dict[str, Any], Field(description="{path: value}, set in every job before its own")
    ] = Field(default_factory=dict)
    seeds: Annotated[
        tuple[Seed, ...] | None,
        BeforeValidator(_as_seeds, json_schema_input_type=int | list[int] | None),
        Field(
            description="each job is trained with each of them; n stands for 0 to n - 1, null for "
            "the job's own seed",
        ),
    ] = None

    max_concurrent: Annotated[
        int,
        Field(ge=1, le=10_000, description="fewer where the cluster has no room for them"),
        Unit("jobs at once"),
        OPERATION,
    ] = 2
    limits: Annotated[LimitsSpec, OPERATION] = LimitsSpec()
    trainings: Annotated[
        tuple[TrainingSpec, ...],
        Field(description="what `jobs` and `seeds` stand for; written when a study is submitted"),
        OPERATION,
        LATER,
    ] = ()

    @classmethod
    def _place_of(cls, key: str, data: Mapping[str, Any]) -> str:
        """Fields of all its trainings are set in ``overrides``."""
        from colddiff.jobs.verb import VERBS

        fields = VERBS["train"].spec().model_fields
        return place_within("overrides", key, data, fields) or super()._place_of(key, data)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            raise SpecError([("seeds", f"names a seed twice: {list(self.seeds)}")])
        return self

    @property
    def num_trainings(self) -> int:
        """How many trainings it has: jobs times seeds."""
        return len(self.jobs) * len(self.seeds or (0,))

    def covered_by(self, result: Mapping[str, Any]) -> bool:
        """Whether a finished study trained each of its members at least as far."""
        members = result.get("members") or []
        steps = [int(member.get("num_steps") or 0) for member in members]
        asked = [int(training.train["num_steps"]) for training in self.trainings]
        return len(steps) == len(asked) and all(a >= b for a, b in zip(steps, asked, strict=True))
