"""What the evaluations of a training take, beside its steps."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm

from colddiff.evaluation.bounds import refuse_beyond
from colddiff.evaluation.calls import calls_of_samples, calls_per_image
from colddiff.evaluation.generated import check_generated
from colddiff.jobs.status import hours_text
from colddiff.jobs.verb import BESIDES
from colddiff.machine.wording import counted
from colddiff.stores.open import storage_at
from colddiff.verbs.train.estimates.cost import si_text
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.resolve import inputs_of, is_evaluated


@dataclass(frozen=True, slots=True)
class EvaluationWork:
    """The evaluations of a training: how many, and the network calls of each."""

    count: int
    images: int | None
    """Test images of each; None where only data that is not here says how many."""
    calls_per_image: int
    calls_of_samples: int
    """For the samples that are made beside each."""

    @property
    def calls(self) -> int | None:
        """Network calls of one evaluation; None where the number of its images is not known."""
        if self.images is None:
            return None
        return self.images * self.calls_per_image + self.calls_of_samples

    def line(self, forward_flops: float, hours: float | None) -> str:
        """For people; ``forward_flops`` of one call, ``hours`` of all evaluations."""
        what = f"{BESIDES}{counted(self.count, 'evaluation', ',')}"
        each = f"{self.calls_per_image:,} calls of the network an image"
        made = self.calls_of_samples
        each += f" and {made:,} for samples" if made else ""
        if self.calls is None:
            per_image = self.calls_per_image * forward_flops
            return f"{what}, {each}: {si_text(per_image)}FLOP an image"
        flops = self.count * self.calls * forward_flops
        line = f"{what} of {self.images:,} test images, {each}: {si_text(flops)}FLOP"
        return line if hours is None else f"{line}, {hours_text(hours)} of one worker"


def evaluation_work(job: TrainJob) -> EvaluationWork | None:
    """What ``job`` evaluates; None without test images.

    Raises SpecError for more images, severities or calls than there are.
    """
    if not is_evaluated(job):
        return None
    evaluation, T = job.evaluation, job.degradation.num_timesteps
    every = job.evaluate_every and lcm(job.evaluate_every, job.checkpoint_every)
    on_the_way = (job.num_steps - 1) // every if every else 0
    storage, test = storage_at(job.storage), inputs_of(job)[1]
    manifest = test.manifest(storage)
    count = None if manifest is None else manifest.count
    if manifest is None and evaluation.num_images is not None:
        count = test.count(storage)  # listing a folder may take a while
    D = job.degradation.build(job.shape)
    refuse_beyond(evaluation, D, count, section="evaluation.")
    made = evaluation.generated
    if made is not None:
        check_generated(made, D, job.terminal)
    return EvaluationWork(
        on_the_way + 1,
        count if evaluation.num_images is None else evaluation.num_images,
        calls_per_image(evaluation, T),
        calls_of_samples(made, T) if made is not None else 0,
    )
