"""The training job: data, D, R and the optimizer (identity), and how it is run (operation)."""

from __future__ import annotations

from math import lcm
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from colddiff.degradations import AnyDegradation
from colddiff.degradations.blur import BlurSpec
from colddiff.errors import SpecError
from colddiff.evaluation.spec import EvaluationSpec
from colddiff.jobs.job import OPERATION, WORKERS, Job, LimitsSpec, ResourcesSpec, Workers
from colddiff.restorers import AnyRestorer, RestorerSpec
from colddiff.restorers.convnext_unet import ConvNextUnetSpec
from colddiff.restorers.precision import Precision
from colddiff.spec import LATER, Range, Spec, Unit, digest
from colddiff.terminal import AnyTerminal
from colddiff.transforms import Augment
from colddiff.types import ImageShape

MOST_BATCH_BYTES = 4 * 2**40
"""Of the images of one optimizer step, over all workers."""
ONE_STEP = 0.5
"""Most of the EMA that may be the weights of one step without a word about it."""
Network: TypeAlias = tuple[type[RestorerSpec], str, ImageShape]
_BUILDABLE: set[Network] = set()
"""Networks that were built once without an error."""


class OptimizerSpec(Spec):
    """Adam; the defaults are the paper's."""

    lr: Annotated[float, Field(gt=0, description="learning rate"), Range(1e-5, 3e-3, log=True)] = (
        2e-5
    )
    betas: Annotated[
        tuple[float, float], Field(description="decay of the averages of gradient and its square")
    ] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0, description="added to the root of the average square")] = 1e-8
    weight_decay: Annotated[float, Field(ge=0, description="L2 penalty")] = 0.0
    clip_norm: Annotated[
        float | None, Field(gt=0, description="largest gradient norm, null for no clipping")
    ] = None
    warmup_steps: Annotated[
        int, Field(ge=0, description="steps of linear rise of lr from 0"), Unit("optimizer steps")
    ] = 0


class EmaSpec(Spec):
    """Moving average of the weights, which images are made with; the defaults are the paper's."""

    decay: Annotated[float, Field(gt=0, lt=1, description="part of the average that is kept")] = (
        0.995
    )
    every: Annotated[int, Field(ge=1, description="between updates"), Unit("optimizer steps")] = 10
    start: Annotated[
        int, Field(ge=0, description="a plain copy of the weights before"), Unit("optimizer steps")
    ] = 2000


class TrainJob(Job):
    """Train a restorer R to invert D: minimise ||R(D(x, t), t) - x|| (Cold Diffusion, eq. 1)."""

    verb: ClassVar[str] = "train"

    data: Annotated[
        str | None, Field(description="URI of packed shards, or a SOURCE such as mnist:DIR")
    ] = None
    image_size: Annotated[
        int, Field(ge=1, le=1024, description="side of the images in training"), Unit("px")
    ] = 32
    channels: Annotated[int, Field(ge=1, le=4, description="1 for grey, 3 for colour")] = 3
    augment: Annotated[
        Augment,
        Field(
            description="augmentation of stored images: flip mirrors half of them; the paper's "
            "presets resize, crop and mirror, and also define what a test image is"
        ),
    ] = "none"
    degradation: Annotated[AnyDegradation, Field(description="D(x, t), which R inverts")] = (
        BlurSpec()
    )
    restorer: Annotated[AnyRestorer, Field(description="the network R(x_t, t)")] = (
        ConvNextUnetSpec()
    )
    global_batch_size: Annotated[
        int,
        Field(
            ge=1,
            le=2**20,
            description="images per optimizer step, over all workers and micro-batches",
        ),
    ] = 64
    optimizer: OptimizerSpec = OptimizerSpec()
    ema: EmaSpec = EmaSpec()
    loss: Annotated[Literal["l1", "l2"], Field(description="norm of equation 1")] = "l1"
    precision: Precision = "fp32"
    start_from: Annotated[
        str | None, Field(description="a checkpoint whose weights initialise R (--from)")
    ] = None
    seed: Annotated[
        int, Field(ge=0, description="of the weights, the order, t, omega and augmentation")
    ] = 0

    num_steps: Annotated[
        int,
        Field(ge=1, le=10**12, description="length of the training; a larger one extends it"),
        Unit("optimizer steps"),
        OPERATION,
    ] = 700_000
    workers: Annotated[Workers, Field(description=WORKERS), OPERATION] = 1
    resources: Annotated[ResourcesSpec, OPERATION] = ResourcesSpec()
    max_batch_per_worker: Annotated[
        int | None,
        Field(ge=1, le=2**20, description="largest micro-batch; accumulation follows from it"),
        OPERATION,
    ] = None
    compile: Annotated[bool, Field(description="compile the network with torch"), OPERATION] = False
    channels_last: Annotated[
        bool,
        Field(description="weights and images in NHWC order; faster on some devices only"),
        OPERATION,
    ] = False
    log_every: Annotated[
        int,
        Field(ge=1, description="between training metrics"),
        Unit("optimizer steps"),
        OPERATION,
    ] = 10
    checkpoint_every: Annotated[
        int, Field(ge=1, description="between checkpoints"), Unit("optimizer steps"), OPERATION
    ] = 1000
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
    on_nonfinite: Annotated[
        Literal["fail"],
        Field(description="what is done once loss or weights are not finite"),
        OPERATION,
    ] = "fail"
    hang_timeout_s: Annotated[
        float | None,
        Field(gt=0, le=1e7, description="workers are restarted after this long without a step"),
        Unit("s"),
        OPERATION,
    ] = 600.0
    store_patience_s: Annotated[
        float,
        Field(
            ge=0,
            le=1e7,
            description="how long writing a checkpoint is retried while the store is down",
        ),
        Unit("s"),
        OPERATION,
    ] = 600.0
    snapshot_every_s: Annotated[
        float,
        Field(
            ge=0,
            le=1e7,
            description="from one copy of the state in the machine's memory to the next, from "
            "which killed workers go on; more seldom where copying takes over 1 %; 0 for none",
        ),
        Unit("s"),
        OPERATION,
        LATER,
    ] = 3.0
    limits: Annotated[LimitsSpec, OPERATION] = LimitsSpec()

    @property
    def shape(self) -> ImageShape:
        """Shape of the images this job trains on."""
        return ImageShape(self.channels, self.image_size, self.image_size)

    @property
    def network(self) -> Network:
        """What its restorer is built from, hashable: kind, digest of its spec, image shape."""
        return type(self.restorer), digest(self.restorer.to_dict()), self.shape

    @property
    def evaluation_interval(self) -> int | None:
        """Checkpoints at multiples of this step are evaluated; None for the last one only."""
        return self.evaluate_every if self.test_data is not None else None

    def missed_evaluations(self) -> list[str]:
        """A line if ``evaluate_every`` names steps without a checkpoint: only those are evaluated.

        >>> TrainJob(evaluate_every=50, checkpoint_every=20, num_steps=400).missed_evaluations()
        ['evaluate_every=50: only checkpoints are evaluated, and with checkpoint_every=20 those of \
every 100 steps and the last; choose a multiple of 20, or checkpoint_every=50']
        """
        every, kept = self.evaluate_every, self.checkpoint_every
        if every is None or every % kept == 0:
            return []
        due = lcm(every, kept)
        found = f"those of every {due} steps and the last"
        return [
            f"evaluate_every={every}: only checkpoints are evaluated, and with "
            f"checkpoint_every={kept} {found if due < self.num_steps else 'the last alone'}; "
            f"choose a multiple of {kept}, or checkpoint_every={every}"
        ]

    def remarks(self) -> list[str]:
        """Lines on what this job does and few expect: evaluations it misses, an average of little.

        >>> TrainJob(num_steps=60).remarks()
        ["num_steps=60 is below ema.start=2000: images are made with a copy of step 60's weights, \
no average of them; to average the last steps, set ema.start=30 ema.every=1 ema.decay=0.833, which \
makes it another job"]
        """
        return [*self.missed_evaluations(), *self._little_average()]

    def _little_average(self) -> list[str]:
        """A line if most of the EMA at the end is the weights of one step."""
        ema, steps = self.ema, self.num_steps
        copied, last = (max(ema.start - 1, 0) // ema.every, steps // ema.every)
        share = ema.decay ** max(last - copied, 0)
        if share <= ONE_STEP:
            return []
        single = min(copied, last) * ema.every
        of = f"step {single}'s weights" if single else "the weights before the first step"
        if last <= copied:
            why = f"is below ema.every={ema.every}"
            if steps >= ema.every:
                why = f"is below ema.start={ema.start}"
            if steps >= max(ema.every, ema.start):
                why = f"has no multiple of ema.every={ema.every} from ema.start={ema.start} on"
            what = f"{why}: images are made with a copy of {of}, no average of them"
        else:
            what = (
                f"is short for ema.decay={ema.decay:g} from ema.start={ema.start}: of the average "
                f"that images are made with, {100 * share:.3g} % is {of}"
            )
        window = min(max(1 - 10 / steps, 0.5), ema.decay)
        way = f"ema.start={steps // 2} ema.every=1 ema.decay={window:.3g}"
        to_average = f"to average the last steps, set {way}, which makes it another job"
        return [f"num_steps={steps} {what}; {to_average}"]

    @model_validator(mode="after")
    def _fits_a_machine(self) -> Self:
        pixels = self.channels * self.image_size**2
        size = 4 * pixels * self.global_batch_size
        if size > MOST_BATCH_BYTES:
            raise SpecError(
                [
                    (
                        "global_batch_size",
                        f"{self.global_batch_size} images of {self.shape} take {size / 2**40:.0f} "
                        f"TiB; use at most {MOST_BATCH_BYTES // (4 * pixels)}",
                    )
                ]
            )
        return self

    @model_validator(mode="after")
    def _shapes_match(self) -> Self:
        # Built without weights or tables: a mismatch is an error here, not on a GPU.
        self.degradation.build(self.shape)
        # One process may read hundreds of jobs, such as the trials of a search.
        if self.network not in _BUILDABLE:
            self.restorer.check(self.shape)
            _BUILDABLE.add(self.network)
        return self
