"""Jobs as data: what is learnt or made (identity) and how it is run (operation), and their ids."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import BeforeValidator, Field, model_validator

from colddiff.degradations import AnyDegradation
from colddiff.degradations.blur import BlurSpec
from colddiff.errors import SpecError
from colddiff.restorers import AnyRestorer
from colddiff.restorers.convnext_unet import ConvNextUnetSpec
from colddiff.spec import Range, Spec, Unit, digest
from colddiff.terminal import AnyTerminal
from colddiff.types import ImageShape


class Operation:
    """Marks a field that can change between submissions of the same job."""


OPERATION = Operation()
SLUG = re.compile(r"[^a-z0-9]+")


class OptimizerSpec(Spec):
    """Adam (PAPER 2: 2e-5, default betas, no decay, no clipping)."""

    lr: Annotated[float, Field(gt=0), Range(1e-5, 3e-3, log=True)] = 2e-5
    betas: tuple[float, float] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip_norm: Annotated[
        float | None, Field(gt=0, description="largest gradient norm, null for no clipping")
    ] = None
    warmup_steps: Annotated[
        int, Field(ge=0, description="steps of linear rise of lr from 0"), Unit("optimizer steps")
    ] = 0


class EmaSpec(Spec):
    """Moving average of the weights (PAPER 2: 0.995 every 10 steps, a plain copy before 2000)."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.995
    every: Annotated[int, Field(ge=1), Unit("optimizer steps")] = 10
    start: Annotated[int, Field(ge=0), Unit("optimizer steps")] = 2000


class ResourcesSpec(Spec):
    """What one worker asks of the cluster."""

    gpus: Annotated[float, Field(ge=0, le=8)] = 0
    cpus: Annotated[float, Field(ge=0)] = 1
    accelerator: str | None = None


class LimitsSpec(Spec):
    """Budgets over all attempts; reaching one takes a checkpoint and ends with exit code 4."""

    hours: Annotated[float | None, Field(gt=0), Unit("hours of running")] = None
    gpu_hours: Annotated[float | None, Field(gt=0), Unit("GPU hours")] = None


class EvaluationSpec(Spec):
    """How a training job evaluates its checkpoints: degraded, direct, naive, sampled (PAPER 6)."""

    features: Literal["lenet"] = "lenet"
    num_images: Annotated[int | None, Field(ge=2, description="null for the whole test set")] = None
    samplers: tuple[Literal["direct", "naive", "improved"], ...] = ("direct", "naive", "improved")
    severities: int | tuple[int, ...] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 64
    seed: Annotated[int, Field(ge=0)] = 0


class TrackingSpec(Spec):
    """Where numbers go: MLFLOW_TRACKING_URI, else a sqlite file in STORAGE."""

    experiment: str = "colddiff"
    images: Annotated[bool, Field(description="false keeps pictures out of the tracker")] = True
    required: Annotated[
        bool,
        Field(description="false submits although the tracker is down; numbers follow later"),
    ] = True


def _worker_counts(value: Any) -> Any:
    if isinstance(value, list | tuple):
        if len(value) != 2 or not all(isinstance(n, int) for n in value) or value[0] > value[1]:
            raise SpecError(f"write n, [min, max] or all, got {value!r}")
        return tuple(value)
    return value


Workers = Annotated[
    Literal["all"] | Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], int],
    BeforeValidator(_worker_counts),
]


class Job(Spec):
    """A unit of work submitted to a cluster; ``verb`` names what it does."""

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
    max_failures: Annotated[
        int, Field(ge=0, description="restarts without progress before the job fails"), OPERATION
    ] = 3

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

    def job_id(self, slug: str, content: Mapping[str, str]) -> str:
        """``<verb>-<slug>-<8 hex>``.

        ``content`` gives, for identity fields that are addresses, the digest of what is there: the
        same images under another address are the same job.
        """
        return f"{self.verb}-{slugify(slug)}-{digest({**self.identity(), **content})[:8]}"


class TrainJob(Job):
    """Train a restorer R to invert D: minimise ||R(D(x, t), t) - x|| (Cold Diffusion, eq. 1)."""

    verb: ClassVar[str] = "train"

    data: Annotated[
        str | None, Field(description="URI of packed shards, or a SOURCE such as mnist:DIR")
    ] = None
    image_size: Annotated[int, Field(ge=1, le=1024), Unit("px")] = 32
    channels: Annotated[int, Field(ge=1, le=4)] = 3
    augment: Annotated[
        Literal["none", "flip"], Field(description="what happens to each training image")
    ] = "none"
    degradation: AnyDegradation = BlurSpec()
    restorer: AnyRestorer = ConvNextUnetSpec()
    global_batch_size: Annotated[
        int,
        Field(ge=1, description="images per optimizer step, over all workers and micro-batches"),
    ] = 64
    optimizer: OptimizerSpec = OptimizerSpec()
    ema: EmaSpec = EmaSpec()
    loss: Annotated[Literal["l1", "l2"], Field(description="norm of equation 1")] = "l1"
    precision: Literal["fp32", "bf16"] = "fp32"
    start_from: Annotated[
        str | None, Field(description="a checkpoint whose weights are the start (--from)")
    ] = None
    seed: Annotated[int, Field(ge=0)] = 0

    num_steps: Annotated[int, Field(ge=1), Unit("optimizer steps"), OPERATION] = 700_000
    workers: Annotated[Workers, OPERATION] = 1
    resources: Annotated[ResourcesSpec, OPERATION] = ResourcesSpec()
    max_batch_per_worker: Annotated[
        int | None,
        Field(ge=1, description="largest micro-batch; accumulation follows from it"),
        OPERATION,
    ] = None
    compile: Annotated[bool, OPERATION] = False
    log_every: Annotated[int, Field(ge=1), Unit("optimizer steps"), OPERATION] = 10
    checkpoint_every: Annotated[int, Field(ge=1), Unit("optimizer steps"), OPERATION] = 1000
    evaluate_every: Annotated[
        int | None,
        Field(ge=1, description="null evaluates the last checkpoint only"),
        Unit("optimizer steps"),
        OPERATION,
    ] = None
    evaluation: Annotated[EvaluationSpec, OPERATION] = EvaluationSpec()
    test_data: Annotated[
        str | None,
        Field(description="URI or SOURCE; null takes the test split of a SOURCE in `data`"),
        OPERATION,
    ] = None
    keep: Annotated[
        int, Field(ge=1, description="checkpoints kept besides the best and the last"), OPERATION
    ] = 3
    terminal: Annotated[
        AnyTerminal | None,
        Field(
            description="distribution of x_T kept in checkpoints; null for the degradation's own"
        ),
        OPERATION,
    ] = None
    on_nonfinite: Annotated[Literal["fail"], OPERATION] = "fail"
    limits: Annotated[LimitsSpec, OPERATION] = LimitsSpec()

    @property
    def shape(self) -> ImageShape:
        """Shape of the images this job trains on."""
        return ImageShape(self.channels, self.image_size, self.image_size)

    @property
    def evaluated_every(self) -> int | None:
        """Checkpoints at multiples of this are evaluated on the way; None where none can be."""
        return self.evaluate_every if self.test_data is not None else None

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        # Built without weights or tables: what does not fit is an error here, not on a GPU.
        self.degradation.build(self.shape)
        with torch.device("meta"):
            self.restorer.build(self.shape)
        return self


JOBS: dict[str, type[Job]] = {TrainJob.verb: TrainJob}


def slugify(text: str) -> str:
    """``text`` in ``[a-z0-9-]``, at most 40 characters."""
    return SLUG.sub("-", text.lower()).strip("-")[:40].strip("-") or "job"
