"""The work of a generation job: opening a worker, and the driver's part."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import torch

from colddiff.checkpoints.pinned_inputs import check_pinned_digest, load_pinned_checkpoint
from colddiff.checkpoints.references import describe_checkpoint, find_checkpoint
from colddiff.data.open import open_second_set, open_shards, open_transformed
from colddiff.data.sample_plan import SamplePlan, ShardTask
from colddiff.degradations.base import DrawImages
from colddiff.errors import ColddiffError, DataError, Stopped
from colddiff.evaluation.metrics import frechet_distance
from colddiff.features.open import open_features
from colddiff.image_maker import ImageMaker
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.device import device_of
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import ResolvedJob, refuse_missing_weights
from colddiff.jobs.status import AGAIN
from colddiff.jobs.work_queue import LocalWorkers, QueueCounts, Workers, WorkQueue
from colddiff.machine.wording import counted
from colddiff.ports import FeatureExtractor, Store
from colddiff.report.contact_sheet import contact_sheet
from colddiff.restorers import for_inference
from colddiff.restorers.precision import warn_of_slow_bf16
from colddiff.stores.open import open_store
from colddiff.terminal import Gmm, Terminal
from colddiff.terminals.fit import make_terminal
from colddiff.terminals.stored import store_terminal, stored_terminal
from colddiff.verbs.generate.held import held_lines
from colddiff.verbs.generate.job import GenerateJob
from colddiff.verbs.generate.missing import ShardCounts, missing_shards
from colddiff.verbs.generate.plan import claim_plan, make_plan
from colddiff.verbs.generate.progress import GenerationProgress
from colddiff.verbs.generate.resolve import place_of
from colddiff.verbs.generate.results import describe_dead, first_images, write_manifest
from colddiff.verbs.generate.statistics import folder_of, merged_statistics, reference_statistics
from colddiff.verbs.generate.worker import ShardReport, ShardWorker

log = logging.getLogger(__name__)

SHOWN = 64
"""Images on the contact sheet."""
IN_FLIGHT = 2
"""Shards a worker holds at once: one on the device, one being packed and uploaded."""
RECORDED = ("torch", "numpy", "pillow", "colddiff")


def samples_at(resolved: ResolvedJob) -> Store:
    """The store of a generation job's samples."""
    return open_store(place_of(resolved.job_as(GenerateJob), resolved.storage, resolved.id))


def open_worker(resolved: ResolvedJob, plan: SamplePlan) -> ShardWorker:
    """A worker in this process, its checkpoint loaded onto the device.

    Raises DataError, CheckpointError if inputs changed since the job was submitted.
    """
    job = resolved.job_as(GenerateJob)
    device = device_of(job.resources)
    assert job.checkpoint is not None
    loaded = load_pinned_checkpoint(resolved, job.checkpoint)
    D, trained = loaded.degradation, loaded.spec
    warn_of_slow_bf16(job.precision, device)
    images = open_second_set(D, trained.augment)
    source = None
    if job.data is not None:
        source = open_transformed(job.data, trained.augment, trained.shape)
        check_pinned_digest(resolved, "data", job.data, source.manifest.digest)
    maker = ImageMaker(
        for_inference(loaded.restorer.to(device)),
        D.to(device),
        job.sampler,
        job.severities,
        job.symmetry_noise,
        terminal=None if source is not None else _terminal(resolved, loaded.terminal, images),
        source=source,
        images=images,
        precision=job.precision,
        device=device,
    )
    return ShardWorker(
        plan,
        maker,
        samples_at(resolved),
        record={"machine": machine(device)},
        extractors=[open_features(spec, device) for spec in job.statistics],
    )


def _terminal(
    resolved: ResolvedJob, held: Terminal | None, images: DrawImages | None
) -> Terminal | None:
    wanted = resolved.job_as(GenerateJob).terminal
    if wanted is None:
        return held
    if not isinstance(wanted, Gmm):
        return Terminal(wanted, {}, images)
    fitted = stored_terminal(resolved.folder)
    if fitted is None:
        raise DataError("the fitted terminal was deleted; submit the same job again")
    return replace(fitted, images=images)


def fit_terminal(resolved: ResolvedJob, folder: JobFolder) -> None:
    """Fits the job's mixture, if it has one, to the training images, unless it is stored."""
    job = resolved.job_as(GenerateJob)
    if not isinstance(job.terminal, Gmm) or job.checkpoint is None:
        return
    trained = describe_checkpoint(find_checkpoint(job.checkpoint)).job
    fitted_on = {"terminal": resolved.content["terminal"], "model": resolved.content["model"]}
    if stored_terminal(folder, fitted_on) is None:
        assert trained.data is not None
        source = open_transformed(trained.data, trained.augment, trained.shape)
        D = trained.degradation.build(trained.shape)
        terminal = make_terminal(D, source, job.terminal)
        assert terminal is not None
        store_terminal(folder, terminal, fitted_on)
        log.info("a mixture of %d fitted to %s", job.terminal.components, trained.data)


def machine(device: torch.device) -> dict[str, str]:
    """What images may depend on besides the plan: the device, and library versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    found = {"device": f"{device.type} {name}", "python": platform.python_version()}
    if device.type == "cpu":
        found["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    return found | {package: version(package) for package in RECORDED}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a generation job needs before its first shard: the plan, the feature networks."""

    plan: SamplePlan
    extractors: Sequence[FeatureExtractor]


OpenWorkers = Callable[[Attempt, SamplePlan], Workers[ShardTask, ShardReport]]


def prepare(attempt: Attempt) -> Prepared:
    """Writes or reads the plan, fits the terminal, opens the feature networks."""
    resolved = attempt.resolved
    job = resolved.job_as(GenerateJob)
    refuse_missing_weights(job)
    plan = claim_plan(samples_at(resolved), make_plan(job, resolved.content))
    fit_terminal(resolved, attempt.folder)
    return Prepared(plan, [open_features(spec) for spec in job.statistics])


def generate(attempt: Attempt, prepared: Prepared, open_workers: OpenWorkers) -> dict[str, Any]:
    """The driver's part: queue, progress, manifest; returns the result.

    Raises ColddiffError if shards are dead letters, Stopped if it was stopped before the end.
    """
    began = time.monotonic()
    workers = open_workers(attempt, prepared.plan)
    try:
        result = _Generation(attempt, prepared).run(workers)
    finally:
        workers.close()
    spent = {"generation_s": time.monotonic() - began}
    # Said again with the result: whoever looks at the images may not be who submitted them.
    remarks = held_lines(attempt.resolved.job_as(GenerateJob))
    return {**result, "remarks": remarks, "time": spent}


def open_local_workers(attempt: Attempt, plan: SamplePlan) -> LocalWorkers[ShardTask, ShardReport]:
    """One worker, in threads of this process."""
    worker = open_worker(attempt.resolved, plan)
    return LocalWorkers(worker.make, IN_FLIGHT, how_far=worker.begun, abandon=worker.abandon)


class _Generation:
    def __init__(self, attempt: Attempt, prepared: Prepared) -> None:
        self.attempt, self.plan, self.extractors = attempt, prepared.plan, prepared.extractors
        self.job = attempt.resolved.job_as(GenerateJob)
        assert self.job.num_samples is not None
        self.num_samples: int = self.job.num_samples
        self.store = samples_at(attempt.resolved)

    def run(self, workers: Workers[ShardTask, ShardReport]) -> dict[str, Any]:
        plan, counts, queue_counts = self.plan, ShardCounts(), QueueCounts()
        num_shards = plan.num_shards(self.num_samples)
        log.info(
            "%d images in %s of %d to %s",
            self.num_samples,
            counted(num_shards, "shard"),
            plan.shard_size,
            self.store.uri,
        )
        progress = GenerationProgress(
            counts,
            queue_counts,
            self.num_samples,
            plan.shard_size,
            begun=workers.begun,
            write=lambda data: self.attempt.progress(**data),
            track=self.attempt.tracker.log_metrics,
        )
        folders = [folder_of(extractor) for extractor in self.extractors]
        queue = WorkQueue(
            missing_shards(self.store, plan, self.num_samples, counts, folders),
            workers,
            max_failures=self.job.max_failures,
            counts=queue_counts,
            on_report=counts.committed,
            on_poll=progress,
            stop_requested=self.attempt.stop_requested,
            finish_s=progress.finish_s,
        )
        queue.run()
        progress.close()
        return self._end(counts, queue_counts, queue.stopped)

    def _end(self, counts: ShardCounts, queue: QueueCounts, stopped: bool) -> dict[str, Any]:
        self.attempt.reached(counts.images, stopped=stopped)
        if queue.dead:
            raise ColddiffError(describe_dead(self.store, queue.dead, counts.images))
        if stopped and counts.images < self.num_samples:
            committed = f"{counts.images} of {self.num_samples} images committed"
            lost = f", {counted(queue.in_flight, 'shard')} in progress abandoned"
            raise Stopped(f"stopped with {committed}{lost * bool(queue.in_flight)}; {AGAIN}")
        kept = self.attempt.retried
        manifest = kept(
            lambda: write_manifest(self.store, self.plan, self.num_samples), "the manifest"
        )
        measured = kept(self._measured, "the statistics")
        result = {
            "samples": self.store.uri,
            "num_samples": self.num_samples,
            "plan": self.plan.digest,
            "made": counts.made,
            "retries": queue.retries,
            **self._statistics(*measured),
        }
        shown = min(SHOWN, self.num_samples)
        images = kept(lambda: first_images(self.store, self.plan, shown), "the first images")
        self.attempt.keep_picture("contact_sheet.png", contact_sheet(images))
        if manifest is not None:
            result["manifest"] = manifest
        return result

    def _measured(self) -> tuple[dict[str, Any], dict[str, float]]:
        """Merged statistics with provenance, and their distances to the reference."""
        kept: dict[str, Any] = {}
        metrics: dict[str, float] = {}
        for extractor in self.extractors:
            found = merged_statistics(self.store, self.plan, self.num_samples, extractor)
            kept[extractor.metric] = {
                "uri": f"{self.store.uri}/{folder_of(extractor)}all.safetensors",
                "n": found.n,
                "feature_weights_sha256": extractor.weights_sha256,
                "protocol": f"clamped, rounded to 8 bit, {extractor.protocol}",
            }
            if self.job.reference is not None:
                source = open_shards(self.job.reference)
                against = reference_statistics(source, extractor)
                metrics[f"generate/{extractor.metric}"] = frechet_distance(found, against)
                kept[extractor.metric]["reference"] = {
                    "uri": self.job.reference,
                    "manifest": source.manifest.digest,
                    "n": against.n,
                }
        return kept, metrics

    def _statistics(self, kept: dict[str, Any], metrics: dict[str, float]) -> dict[str, Any]:
        """What the result says of them; distances are logged, once."""
        if metrics:
            self.attempt.tracker.log_metrics(metrics, self.num_samples)
            log.info(", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
        return {
            "metrics": metrics,
            "statistics": kept,
            "measured": [spec.to_dict() for spec in self.job.statistics],
            "reference": self.job.reference,
        }
