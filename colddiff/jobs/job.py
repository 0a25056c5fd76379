"""The base of all jobs: identity and operation fields, id, storage, resources, limits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    model_validator,
)

from colddiff.errors import SpecError
from colddiff.jobs.listing.ids import JOB_ID, id_of
from colddiff.spec import LATER, Spec, Unit, digest
from colddiff.spec.base import nearest
from colddiff.spec.documents import shown


class Operation:
    """Marks a field that can change between submissions of the same job."""


OPERATION = Operation()
WORKERS = "processes that share the work: n, [min, max] by the cluster's room, or all of it"


AUTO: Literal["auto"] = "auto"
MOST_GPUS = 8
"""Of one worker: no machine has more."""


def _gpus(value: Any) -> Any:
    if value == AUTO:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(f"write a number or auto, got {shown(value)}")
    if not 0 <= value <= MOST_GPUS:
        raise SpecError(f"must be 0 to {MOST_GPUS}, or auto, got {shown(value)}")
    return value


class ResourcesSpec(Spec):
    """What one worker requests from the cluster."""

    gpus: Annotated[
        Literal["auto"] | Annotated[float, Field(ge=0, le=MOST_GPUS)],
        BeforeValidator(_gpus, json_schema_input_type=Literal["auto"] | float),
        Field(
            description="0 for none; parts may be shared; auto: one where the cluster or machine "
            "has any, found out when an attempt is submitted"
        ),
    ] = 0
    cpus: Annotated[float, Field(ge=0, le=4096, description="cores")] = 1
    accelerator: Annotated[
        str | None, Field(description="type of GPU by Ray's name, such as A100; null for any")
    ] = None
    peak_tflops: Annotated[
        float | None,
        Field(gt=0, description="of one GPU at the job's precision, for MFU; null: by its name"),
        Unit("TFLOP/s"),
    ] = None
    price_per_gpu_hour: Annotated[
        float | None,
        Field(ge=0, description="for the cost in reports, in any currency; null: not shown"),
        LATER,
    ] = None

    @property
    def num_gpus(self) -> float:
        """``gpus`` of a job that is placed: the attempts that run hold a number."""
        assert self.gpus != AUTO, "resources are settled before an attempt is claimed"
        return float(self.gpus)


class LimitsSpec(Spec):
    """Budgets over all attempts; at a limit the job takes a checkpoint and exits with code 4.

    ``queue_hours`` is that of one attempt.
    """

    hours: Annotated[
        float | None, Field(gt=0, description="of all attempts; null for no limit"), Unit("hours")
    ] = None
    gpu_hours: Annotated[
        float | None,
        Field(gt=0, description="hours times GPUs of the workers; null for no limit"),
        Unit("GPU hours"),
    ] = None
    queue_hours: Annotated[
        float | None,
        Field(
            gt=0,
            description="of waiting for a cluster's CPUs or GPUs, also for machines that it lacks; "
            "null for no limit, but a search or study that it can never hold is refused",
        ),
        Unit("hours"),
        LATER,
    ] = None
    jobs_at_once: Annotated[
        int | None,
        Field(
            ge=1,
            description="of its user on the cluster, it among them: it waits while more would run; "
            "null: what the cluster allows",
        ),
        LATER,
    ] = None


RESERVED_TAGS = ("colddiff.job_id", "colddiff.storage", "mlflow.parentRunId")
"""Tags by which runs are found again."""


class TrackingSpec(Spec):
    """Experiment tracking, at MLFLOW_TRACKING_URI, else in a sqlite file in STORAGE."""

    experiment: Annotated[str, Field(description="its name in the tracker")] = "colddiff"
    images: Annotated[
        bool,
        Field(description="false: no pictures of evaluations, no report, none in the tracker"),
    ] = True
    system_every_s: Annotated[
        float | None,
        Field(
            gt=0, le=1e7, description="between samples of CPU, memory, network, GPU; null for none"
        ),
        Unit("s"),
    ] = 10.0
    required: Annotated[
        bool,
        Field(description="false submits even if the tracker is down; metrics are sent later"),
    ] = True
    parent: Annotated[
        str | None,
        Field(description="id of a job in the same STORAGE: this job's run is nested in its run"),
        LATER,
    ] = None
    tags: Annotated[dict[str, str], LATER] = Field(
        default_factory=dict, description="more tags of the job's run"
    )

    @model_validator(mode="after")
    def _own_tags(self) -> Self:
        for tag in RESERVED_TAGS:
            if tag in self.tags:
                raise SpecError([("tags", f"{tag} is set by colddiff; use another name")])
        if self.parent is not None and not JOB_ID.fullmatch(self.parent):
            raise SpecError([("parent", f"is the id of a job, got {shown(self.parent)}")])
        return self


def _worker_counts(value: Any) -> Any:
    if isinstance(value, list | tuple):
        if len(value) != 2 or not all(isinstance(n, int) for n in value) or value[0] > value[1]:
            raise SpecError(f"write n, [min, max] or all, got {value!r}")
        return tuple(value)
    return value


WorkerCount = Annotated[int, Field(ge=1, le=10_000)]
Workers = Annotated[
    Literal["all"] | WorkerCount | tuple[WorkerCount, WorkerCount],
    BeforeValidator(_worker_counts),
]


class Job(Spec):
    """A unit of work that is submitted; ``verb`` names what it does."""

    verb: ClassVar[str]

    plugins: Annotated[
        tuple[str, ...], Field(description="Python files that register kinds of the user's own")
    ] = ()
    storage: Annotated[
        str | None,
        Field(description="a path or s3://bucket/prefix; else COLDDIFF_STORAGE, else ./runs"),
        OPERATION,
    ] = None
    tracking: Annotated[TrackingSpec, OPERATION] = TrackingSpec()
    priority: Annotated[
        int,
        Field(
            ge=-1000,
            le=1000,
            description="of jobs that wait for a cluster, those with a higher one go first",
        ),
        OPERATION,
        LATER,
    ] = 0
    max_failures: Annotated[
        int, Field(ge=0, description="restarts without progress before the job fails"), OPERATION
    ] = 3

    @classmethod
    def _place_of(cls, key: str, data: Mapping[str, Any]) -> str:
        """``num_timesteps`` is one of the degradation; ``train.seed`` is one without `train`."""
        name, value = "", data[key]
        if key == cls.verb:
            while isinstance(value, Mapping) and len(value) == 1:
                ((part, value),) = value.items()
                name = f"{name}.{part}".strip(".")
            if name.partition(".")[0] not in cls.model_fields:
                return nearest(name, cls.model_fields)
            return f"; did you mean {name!r}?"
        for name, field in cls.model_fields.items():
            there = data.get(name, None if field.is_required() else field.get_default())
            fields = type(there).model_fields if isinstance(there, Spec) else there
            if isinstance(fields, Mapping) and key in fields:
                return f"; did you mean '{name}.{key}'?"
        return ""

    def _changed_by(self, name: str) -> str:
        return f"job.with_({name}=...), or recipe.job({self.verb!r}, ['{name}=...'])"

    @classmethod
    def identity_fields(cls) -> list[str]:
        """Fields that decide the job id."""
        return [
            name
            for name, field in cls.model_fields.items()
            if not any(isinstance(mark, Operation) for mark in field.metadata)
        ]

    def identity(self) -> dict[str, Any]:
        """The identity fields as JSON-ready data."""
        return self.model_dump(mode="json", include=set(self.identity_fields()))

    def covered_by(self, result: Mapping[str, Any]) -> bool:
        """Whether a finished job's ``result.json`` holds all that is requested, extent aside."""
        return True

    def job_id(self, slug: str, content: Mapping[str, str]) -> str:
        """``<verb>-<slug>-<8 hex>``.

        ``content`` maps identity fields that are addresses to content digests: the same images at
        another address are the same job.
        """
        return id_of(self.verb, slug, digest({**self.identity(), **content}))


def place_within(section: str, key: str, data: Mapping[str, Any], fields: Collection[str]) -> str:
    """What to say of an unknown ``key`` of ``data`` that is one of ``fields``, of a training.

    They belong below ``section``; a ``train`` above them, as in a file of a training, does not.
    "" for any other key.

    >>> place_within("base", "train", {"train": {"num_steps": 20}}, {"num_steps"})
    "; did you mean 'base.num_steps'?"
    """
    value = data.get(key)  # of a key that is shortened, none
    written = value if key == "train" and isinstance(value, Mapping) else (key,)
    meant = [f"'{section}.{name}'" for name in written if name in fields]
    return f"; did you mean {', '.join(meant)}?" if meant else ""
