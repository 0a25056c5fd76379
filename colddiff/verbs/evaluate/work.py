"""The work of an evaluation job: opening what is evaluated, summing its batches, the result."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from colddiff.checkpoints.pinned_inputs import check_pinned_digest, load_pinned_checkpoint
from colddiff.checkpoints.references import LoadedCheckpoint
from colddiff.data.open import open_second_set, open_shards, open_transformed
from colddiff.errors import Stopped
from colddiff.evaluation.evaluator import KEPT_IMAGES, Evaluator
from colddiff.evaluation.partition import BatchedEvaluation, sum_all
from colddiff.evaluation.result import Evaluation
from colddiff.evaluation.set_comparison import SetComparison
from colddiff.features.open import open_features
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.device import device_of
from colddiff.jobs.resolve import ResolvedJob
from colddiff.machine.logged_progress import LOG_EVERY_S
from colddiff.report.page.details import details_to_bytes
from colddiff.report.pictures import evaluation_pictures
from colddiff.restorers import for_inference
from colddiff.restorers.precision import warn_of_slow_bf16
from colddiff.terminals.held import poor_samples
from colddiff.verbs.evaluate.job import EvaluateJob
from colddiff.verbs.evaluate.resolve import open_set

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Subject:
    """What a job evaluates, opened in this process, and its checkpoint, if any."""

    evaluation: BatchedEvaluation
    checkpoint: LoadedCheckpoint | None = None

    @property
    def step(self) -> int:
        """Optimizer step of the checkpoint; 0 for samples."""
        return self.checkpoint.step if self.checkpoint else 0

    def record(self, sums: Any) -> tuple[dict[str, Any], Evaluation | None]:
        """``metrics`` and ``provenance`` from the sums over all images, and what can be drawn."""
        if isinstance(self.evaluation, SetComparison):
            metrics, provenance = self.evaluation.summary(sums)
            return {"metrics": metrics, "provenance": provenance}, None
        assert isinstance(self.evaluation, Evaluator)
        assert self.checkpoint is not None
        found, address = self.evaluation.summary(sums), self.checkpoint.address
        provenance = {"weights_sha256": address.weights_sha256, **found.provenance}
        if (asked := self.checkpoint.spec.evaluation.best) is not None:
            provenance["best"] = asked  # the training's: who trained with it wants to see it
        terminal = self.checkpoint.terminal
        return {
            "checkpoint": address.uri,
            "omega": list(self.checkpoint.degradation.omega_names),
            "terminal": terminal is not None,
            "poor_samples": bool(terminal and poor_samples(self.checkpoint.spec, terminal.spec)),
            "metrics": dict(found.metrics),
            "provenance": provenance,
        }, found


def open_subject(resolved: ResolvedJob) -> Subject:
    """Opens what the job evaluates.

    Raises DataError or CheckpointError if its content changed since the job was submitted.
    """
    job = resolved.job_as(EvaluateJob)
    device = device_of(job.resources)
    extractor = open_features(job.features, device)
    if job.samples is not None:
        assert job.reference is not None
        samples = open_set(job.samples, partial=job.partial)
        reference = open_shards(job.reference)
        check_pinned_digest(resolved, "samples", job.samples, samples.manifest.digest)
        check_pinned_digest(resolved, "reference", job.reference, reference.manifest.digest)
        return Subject(
            SetComparison(
                samples,
                reference,
                extractor,
                job.num_images,
                job.batch_size,
                job.seed,
                job.set_metrics,
            )
        )
    assert job.checkpoint is not None
    assert job.test_data is not None
    loaded = load_pinned_checkpoint(resolved, job.checkpoint)
    trained = loaded.spec
    source = open_transformed(job.test_data, trained.augment, trained.shape, "test_data")
    check_pinned_digest(resolved, "test_data", job.test_data, source.manifest.digest)
    D = loaded.degradation.to(device)
    warn_of_slow_bf16(job.precision, device)
    evaluator = Evaluator(
        for_inference(loaded.restorer.to(device)),
        D,
        source,
        job.spec,
        extractor,
        device=device,
        keep=KEPT_IMAGES if job.tracking.images else 0,
        images=open_second_set(D, trained.augment),
    )
    return Subject(evaluator, loaded)


class Progress:
    """Writes the number of images done, and logs it every ``LOG_EVERY_S`` seconds."""

    def __init__(self, attempt: Attempt, total: int) -> None:
        self._attempt, self._total = attempt, total
        self._began = self._logged = time.monotonic()
        self._has_begun = False
        self.done = 0

    def __call__(self, images: int) -> None:
        """Counts ``images`` more."""
        self.done += images
        self.look(())

    def look(self, begun: Sequence[float]) -> None:
        """Writes if it is time; ``begun``: ``Workers.begun``, images of each part in progress.

        At once where the work has just begun.
        """
        first = not self._has_begun
        if first and not begun and not self.done:
            return
        now = time.monotonic()
        if first:
            self._has_begun, self._began = True, now if begun else self._began
        elif now - self._logged < LOG_EVERY_S and self.done < self._total:
            return
        self._logged = now
        made = self.done + sum(begun)
        rate = made / max(now - self._began, 1e-9)
        self._attempt.progress(
            step=int(made),
            num_steps=self._total,
            images_per_s=0.0 if first else rate,
            eta_s=None if first or not made else (self._total - made) / rate,
            phase="evaluating",
        )
        if not first or self.done == self._total:
            log.info("%d of %d images, %.3g img/s", made, self._total, rate)


SumBatches = Callable[[Attempt, Subject, Progress], Any]
"""(attempt, subject, progress) -> the merged sums over all of the subject's images."""


def sum_in_process(attempt: Attempt, subject: Subject, progress: Progress) -> Any:
    """The sums over all batches, computed in this process."""

    progress.look([0.0])

    def batch_done(images: int) -> None:
        progress(images)
        # After the last one nothing is left to stop.
        if progress.done < subject.evaluation.num_images and attempt.stop_requested():
            raise_stopped()

    return sum_all(subject.evaluation, batch_done)


def raise_stopped() -> None:
    """Raises Stopped: an evaluation keeps no partial sums."""
    raise Stopped("stopped before all images were evaluated; submit it again to start over")


def evaluate(attempt: Attempt, subject: Subject, sum_batches: SumBatches) -> dict[str, Any]:
    """Evaluates ``subject``: logs metrics, stores pictures; returns the result."""
    began = time.monotonic()
    progress = Progress(attempt, subject.evaluation.num_images)
    record, drawn = subject.record(sum_batches(attempt, subject, progress))
    attempt.tracker.log_metrics(record["metrics"], subject.step)
    attempt.reached(progress.done)
    if drawn is not None and attempt.job.tracking.images:
        details = details_to_bytes(drawn)
        attempt.retried(
            lambda: attempt.folder.write_details(subject.step, details), "the details of images"
        )
        for name, data in evaluation_pictures(drawn).items():
            attempt.keep_picture(name, data)
    return {
        "step": subject.step,
        **record,
        "time": {"evaluation_s": time.monotonic() - began},
    }
