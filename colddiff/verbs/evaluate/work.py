"""Evaluation jobs composed from adapters and engine: what is measured, and the driver's work."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from colddiff.checkpoints.references import LoadedCheckpoint
from colddiff.checkpoints.submitted import refuse_changed, submitted_checkpoint
from colddiff.data.open import open_second_set, open_shards, open_transformed
from colddiff.errors import Stopped
from colddiff.evaluation.evaluator import Evaluation, Evaluator
from colddiff.evaluation.partition import Measured, merge_all, parts_of
from colddiff.evaluation.set_comparison import SetComparison
from colddiff.features.open import open_features
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.device import device_of
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.log import say
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.sigterm import stop_on_sigterm
from colddiff.jobs.tracking_run import begin_tracking, ended_with_work
from colddiff.ports import Tracker
from colddiff.report.pictures import evaluation_pictures
from colddiff.restorers import for_inference
from colddiff.stores.open import open_store
from colddiff.verbs.evaluate.job import EvaluateJob
from colddiff.verbs.evaluate.resolve import open_set

TALK_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Subject:
    """What a job measures, opened in this process, and the checkpoint it came from, if any."""

    measured: Measured
    checkpoint: LoadedCheckpoint | None = None

    @property
    def step(self) -> int:
        """Optimizer step of the checkpoint; 0 for samples."""
        return self.checkpoint.step if self.checkpoint else 0

    def record(self, tally: Any) -> tuple[dict[str, Any], Evaluation | None]:
        """``metrics`` and ``provenance`` of a tally over all images, and what can be drawn."""
        if isinstance(self.measured, SetComparison):
            metrics, provenance = self.measured.summary(tally)
            return {"metrics": metrics, "provenance": provenance}, None
        assert isinstance(self.measured, Evaluator)
        assert self.checkpoint is not None
        found, address = self.measured.summary(tally), self.checkpoint.address
        provenance = {"weights_sha256": address.weights_sha256, **found.provenance}
        return {
            "checkpoint": address.uri,
            "metrics": dict(found.metrics),
            "provenance": provenance,
        }, found


def open_subject(resolved: ResolvedJob) -> Subject:
    """Raises DataError, CheckpointError where something changed since the job was submitted."""
    job = resolved.job_as(EvaluateJob)
    device = device_of(job.resources)
    extractor = open_features(job.features, device)
    if job.samples is not None:
        assert job.reference is not None
        samples = open_set(job.samples, partial=job.partial)
        reference = open_shards(job.reference)
        refuse_changed(resolved, "samples", job.samples, samples.manifest.digest)
        refuse_changed(resolved, "reference", job.reference, reference.manifest.digest)
        return Subject(
            SetComparison(samples, reference, extractor, job.num_images, job.batch_size, job.seed)
        )
    assert job.checkpoint is not None
    assert job.test_data is not None
    loaded = submitted_checkpoint(resolved, job.checkpoint)
    trained = loaded.spec
    source = open_transformed(job.test_data, trained.augment, trained.shape, "test_data")
    refuse_changed(resolved, "test_data", job.test_data, source.manifest.digest)
    D = loaded.degradation.to(device)
    evaluator = Evaluator(
        for_inference(loaded.restorer.to(device)),
        D,
        source,
        job.spec,
        extractor,
        device=device,
        images=open_second_set(D, trained.augment),
    )
    return Subject(evaluator, loaded)


class Progress:
    """Tells the job's folder and its log how many images are done."""

    def __init__(self, folder: JobFolder, attempt: int, total: int) -> None:
        self._folder, self._attempt, self._total = folder, attempt, total
        self._began = self._said = time.monotonic()
        self.done = 0

    def __call__(self, images: int) -> None:
        """``images`` more are done."""
        self.done += images
        now = time.monotonic()
        if now - self._said < TALK_EVERY_S and self.done < self._total:
            return
        self._said = now
        rate = self.done / max(now - self._began, 1e-9)
        left_s = (self._total - self.done) / rate
        progress = {"step": self.done, "num_steps": self._total, "images_per_s": rate}
        self._folder.write_progress(
            self._attempt, {**progress, "eta_s": left_s, "phase": "evaluating"}
        )
        say(f"{self.done} of {self._total} images, {rate:.3g} img/s")


Tallying = Callable[[Subject, Callable[[int], None], Callable[[], None]], Any]
"""(subject, progress, raise if stopped) -> the tally over all of the subject's images."""


def tally_here(
    subject: Subject, progress: Callable[[int], None], mind_stop: Callable[[], None]
) -> Any:
    """All batches, one after the other, in this process."""

    def batch_done(images: int) -> None:
        progress(images)
        mind_stop()

    parts = [part.tally(subject.measured, batch_done) for part in parts_of(subject.measured)]
    return merge_all(parts)


def run_evaluation(
    resolved: ResolvedJob,
    attempt: int,
    tallying: Tallying,
    claim: dict[str, Any],
    gpus: float = 0.0,
) -> int:
    """Exit code of one attempt at an evaluation, whose batches ``tallying`` sees to."""
    folder = JobFolder(open_store(resolved.storage), resolved.id)
    run = Attempt(
        folder, attempt, num_steps=0, gpus=gpus, limits=resolved.job_as(EvaluateJob).limits
    )

    def mind_stop() -> None:
        if folder.stop_requested(attempt):
            raise Stopped("stopped before all images were measured; submit it again to begin anew")

    def work() -> dict[str, Any]:
        run.phase("preparing")
        subject = open_subject(resolved)
        tracker = begin_tracking(resolved, folder)
        run.phase("")
        began = time.monotonic()
        progress = Progress(folder, attempt, subject.measured.num_images)
        with ended_with_work(tracker):
            record, drawn = subject.record(tallying(subject, progress, mind_stop))
            tracker.log_metrics(record["metrics"], subject.step)
            for path, value in record["metrics"].items():
                say(f"{path} {value:.5g}")
            folder.write_outcome(attempt, {"step": progress.done})
            return {
                "id": resolved.id,
                "step": subject.step,
                **record,
                "pictures": _keep_pictures(resolved, folder, tracker, drawn),
                "time": {"evaluation_s": time.monotonic() - began},
                "tracking": {"uri": resolved.tracking_uri, "run_id": tracker.run_id},
            }

    with stop_on_sigterm(folder, attempt):
        return run.run(work, {"host": os.uname().nodename, "pid": os.getpid(), **claim})


def _keep_pictures(
    resolved: ResolvedJob, folder: JobFolder, tracker: Tracker, drawn: Evaluation | None
) -> list[str]:
    found = []
    for name, data in (evaluation_pictures(drawn) if drawn else {}).items():
        key = folder.key(f"pictures/{name}")
        folder.store.put(key, data)
        found.append(f"{folder.store.uri}/{key}")
        if resolved.job.tracking.images:
            tracker.log_artifact(f"pictures/{name}", data)
    return found


def evaluate_here(resolved: ResolvedJob, attempt: int) -> int:
    """Exit code of one attempt at an evaluation in this process, without Ray."""
    return run_evaluation(resolved, attempt, tally_here, {"local": True})
