"""The generation job: which images, from which checkpoint (identity), and how they are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from colddiff.errors import SpecError
from colddiff.features.spec import AnyFeatures
from colddiff.jobs.job import OPERATION, WORKERS, Job, LimitsSpec, ResourcesSpec, Workers
from colddiff.restorers.precision import Precision
from colddiff.samplers import DEFAULT, SamplerName
from colddiff.spec import Unit
from colddiff.terminal import AnyTerminal

MAX_SHARDS = 1_000_000
"""Shard numbers have six digits, so that their keys sort in order."""
MAX_FOLDER = 100_000
"""Largest number of images in a plain folder; more belong in tars."""


NUMBER_REQUIRED = "is required: how many images to make (or data=URI: all of a set, restored)"


class GenerateJob(Job):
    """Generate images from a checkpoint: from its terminal distribution, or from a set of images.

    Image n is a function of (checkpoint, n, sampler, severities, symmetry_noise, batch_size,
    precision), on equal cards and library versions, whatever the number of workers.
    """

    verb: ClassVar[str] = "generate"

    checkpoint: Annotated[
        str | None, Field(description="a checkpoint reference; null for the file's train job")
    ] = None
    sampler: Annotated[SamplerName, Field(description="how images are made from x_T")] = DEFAULT
    severities: Annotated[
        int | tuple[int, ...] | None,
        Field(description="null for T..0, n even steps, or a falling list down to 0"),
    ] = None
    symmetry_noise: Annotated[
        float,
        Field(ge=0, description="std added to each pixel of x_T; the paper's code: 0 or 0.002"),
    ] = 0.0
    terminal: Annotated[
        AnyTerminal | None,
        Field(description="distribution of x_T; null for the one the checkpoint holds"),
    ] = None
    data: Annotated[
        str | None,
        Field(description="URI of packed shards to degrade and restore; null draws x_T instead"),
    ] = None
    first_seed: Annotated[
        int, Field(ge=0, lt=10**12, description="seed of the first image; its number in `data`")
    ] = 0
    shard_size: Annotated[
        int, Field(ge=1, le=100_000, description="size of a tar file"), Unit("images per shard")
    ] = 1000
    batch_size: Annotated[
        int, Field(ge=1, le=65536, description="rows of every forward pass"), Unit("images")
    ] = 64
    precision: Precision = "fp32"
    writer: Annotated[
        Literal["webdataset", "folder"],
        Field(description="tars of PNG files, or single PNG files for small jobs"),
    ] = "webdataset"
    out: Annotated[
        str | None,
        Field(description="a path or s3://bucket/prefix; null for STORAGE/samples/<id>"),
    ] = None

    num_samples: Annotated[
        int | None,
        Field(ge=1, le=10**11, description="null for all images of `data`"),
        Unit("images"),
        OPERATION,
    ] = None
    workers: Annotated[Workers, Field(description=WORKERS), OPERATION] = 1
    resources: Annotated[ResourcesSpec, OPERATION] = ResourcesSpec()
    statistics: Annotated[
        tuple[AnyFeatures, ...],
        Field(description="networks whose feature statistics are computed for each shard"),
        OPERATION,
    ] = ()
    reference: Annotated[
        str | None,
        Field(description="URI of packed shards that `statistics` are compared with"),
        OPERATION,
    ] = None
    limits: Annotated[LimitsSpec, OPERATION] = LimitsSpec()

    def covered_by(self, result: Mapping[str, Any]) -> bool:
        wanted = [spec.to_dict() for spec in self.statistics]
        known = result.get("measured", ())
        return all(spec in known for spec in wanted) and (
            self.reference is None or result.get("reference") == self.reference
        )

    def refuse_unknown_number(self) -> None:
        """Raises SpecError if nothing says how many images to make."""
        if self.num_samples is None and self.data is None:
            raise SpecError([("num_samples", NUMBER_REQUIRED)])

    @model_validator(mode="after")
    def _within_limits(self) -> Self:
        if self.reference is not None and not self.statistics:
            raise SpecError([("reference", "requires statistics to compare, such as [lenet]")])
        if self.num_samples is None:
            return self
        shards = -(-self.num_samples // self.shard_size)
        if shards > MAX_SHARDS:
            enough = -(-self.num_samples // MAX_SHARDS)
            raise SpecError(
                [
                    (
                        "shard_size",
                        f"{self.num_samples} images make {shards} shards of {self.shard_size}, "
                        f"more than {MAX_SHARDS}; use at least {enough}",
                    )
                ]
            )
        if self.writer == "folder" and self.num_samples > MAX_FOLDER:
            raise SpecError(
                [("writer", f"a folder takes at most {MAX_FOLDER} images; use writer=webdataset")]
            )
        return self
