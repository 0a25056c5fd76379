"""The evaluation job: what is compared with which images (identity), and how it is run."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from colddiff.data.resolve import SOURCE
from colddiff.errors import SpecError
from colddiff.evaluation.spec import (
    BATCH_SIZE,
    EVALUATED,
    OF_TRAININGS,
    SAMPLERS,
    SEED,
    SEVERITIES,
    Calls,
    EvaluationPrecision,
    EvaluationSpec,
)
from colddiff.features.spec import AnyFeatures, LenetFeaturesSpec
from colddiff.jobs.job import OPERATION, WORKERS, Job, LimitsSpec, ResourcesSpec, Workers
from colddiff.samplers import SamplerName
from colddiff.spec import LATER


class EvaluateJob(Job):
    """Evaluate a checkpoint on test images, or samples against a reference set."""

    verb: ClassVar[str] = "evaluate"

    checkpoint: Annotated[
        str | None, Field(description="a checkpoint reference; null for the file's train job")
    ] = None
    samples: Annotated[
        str | None, Field(description="OUT of a generate job, or any packed images, instead")
    ] = None
    test_data: Annotated[
        str | None,
        Field(description="URI or SOURCE of test images; null for those of the checkpoint's job"),
    ] = None
    reference: Annotated[
        str | None, Field(description="URI or SOURCE of images that samples are compared with")
    ] = None
    num_images: Annotated[
        int | None, Field(ge=2, description="images evaluated, evenly spread; null for all")
    ] = None
    samplers: Annotated[tuple[SamplerName, ...], Field(description=SAMPLERS)] = EVALUATED
    severities: Annotated[int | tuple[int, ...] | None, Field(description=SEVERITIES)] = None
    curve: Calls = None
    precision: EvaluationPrecision = "fp32"
    set_metrics: Annotated[
        bool,
        Field(
            description="of samples also KID, precision, recall, density, coverage, copies of "
            "reference images, and the distance extrapolated to infinitely many"
        ),
        LATER,
    ] = False
    features: Annotated[
        AnyFeatures,
        Field(description="inception (fid), lenet, resnet20, or your own torchscript network"),
    ] = LenetFeaturesSpec()
    batch_size: Annotated[int, Field(ge=1, le=65536, description=BATCH_SIZE)] = 64
    seed: Annotated[int, Field(ge=0, description=SEED)] = 0

    workers: Annotated[Workers, Field(description=WORKERS), OPERATION] = 1
    resources: Annotated[ResourcesSpec, OPERATION] = ResourcesSpec()
    partial: Annotated[
        bool, Field(description="allow a sample set that is not complete"), OPERATION
    ] = False
    limits: Annotated[LimitsSpec, OPERATION] = LimitsSpec()

    @property
    def spec(self) -> EvaluationSpec:
        """How images are evaluated, as a training job's ``evaluation`` section."""
        names = EvaluationSpec.model_fields.keys() - set(OF_TRAININGS)
        return EvaluationSpec.model_validate({name: getattr(self, name) for name in names})

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        if self.checkpoint is not None and self.samples is not None:
            raise SpecError([("samples", "cannot be combined with checkpoint: give one of them")])
        if self.samples is None and self.set_metrics:
            raise SpecError([("set_metrics", "is for samples, which are compared as a set")])
        if self.samples is not None and self.curve is not None:
            raise SpecError([("curve", "is for checkpoints: samples are made already")])
        if self.samples is None and self.reference is not None:
            raise SpecError(
                [("reference", "is for samples; a checkpoint's images are compared with test_data")]
            )
        if self.samples is None and self.partial:
            raise SpecError([("partial", "is for samples, which may be incomplete")])
        reference = self.reference or self.test_data or ""
        if self.samples is not None and SOURCE.match(reference):
            what = (
                f"{reference!r} must be packed first: `colddiff data pack {reference} --out URI`, "
                "at the size of the samples"
            )
            raise SpecError([("reference", what)])
        return self
