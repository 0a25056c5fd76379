"""Generation composed from adapters and engine: a worker's shards, and the driver's whole job."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch

from colddiff.checkpoints.references import describe_checkpoint, find_checkpoint
from colddiff.checkpoints.submitted import refuse_changed, submitted_checkpoint
from colddiff.data.open import open_second_set, open_shards, open_transformed
from colddiff.data.sample_plan import SamplePlan
from colddiff.degradations.base import DrawImages
from colddiff.errors import ColddiffError, DataError, Stopped
from colddiff.evaluation.metrics import frechet_distance
from colddiff.features.open import open_features
from colddiff.jobs.attempt import Attempt
from colddiff.jobs.device import device_of
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.log import say
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.tracking_run import begin_tracking, ended_with_work
from colddiff.ports import Store, Tracker
from colddiff.report.contact_sheet import contact_sheet
from colddiff.restorers import for_inference
from colddiff.stores.open import open_store
from colddiff.terminal import Gmm, Terminal
from colddiff.terminals.fit import make_terminal
from colddiff.terminals.stored import store_terminal, stored_terminal
from colddiff.verbs.generate.dispatch import Crew, Dispatcher, Tally, missing_shards
from colddiff.verbs.generate.job import GenerateJob
from colddiff.verbs.generate.local_crew import LocalCrew
from colddiff.verbs.generate.maker import ImageMaker
from colddiff.verbs.generate.plan import make_plan, settle_plan
from colddiff.verbs.generate.progress import Progress
from colddiff.verbs.generate.resolve import place_of
from colddiff.verbs.generate.results import dead_letters, first_images, write_manifest
from colddiff.verbs.generate.statistics import folder_of, merged_statistics, reference_statistics
from colddiff.verbs.generate.worker import ShardWorker

SHOWN = 64
RECORDED = ("torch", "numpy", "pillow", "colddiff")


def samples_at(resolved: ResolvedJob) -> Store:
    """Where a generation job's samples are."""
    return open_store(place_of(resolved.job_as(GenerateJob), resolved.storage, resolved.id))


def open_worker(resolved: ResolvedJob, plan: SamplePlan) -> ShardWorker:
    """What makes shards in this process: the checkpoint loaded onto the device, checked by hash."""
    job = resolved.job_as(GenerateJob)
    device = device_of(job.resources)
    assert job.checkpoint is not None
    loaded = submitted_checkpoint(resolved, job.checkpoint)
    D, trained = loaded.degradation, loaded.spec
    images = open_second_set(D, trained.augment)
    source = None
    if job.data is not None:
        source = open_transformed(job.data, trained.augment, trained.shape)
        refuse_changed(resolved, "data", job.data, source.manifest.digest)
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
    fitted = stored_terminal(JobFolder(open_store(resolved.storage), resolved.id))
    if fitted is None:
        raise DataError("the fitted terminal is gone; submit the same job again")
    return replace(fitted, images=images)


def fit_terminal(resolved: ResolvedJob, folder: JobFolder) -> None:
    """Fits a mixture of the job's own to the training images, unless an earlier attempt did."""
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
        say(f"a mixture of {job.terminal.components} fitted to {trained.data}")


def machine(device: torch.device) -> dict[str, str]:
    """What images may depend on beside the plan: the card, and the versions of what computes."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    found = {"device": f"{device.type} {name}", "python": platform.python_version()}
    if device.type == "cpu":
        found["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    return found | {package: version(package) for package in RECORDED}


class Generation:
    """The driver's side of a generation job: plan, queue, progress, manifest, result."""

    def __init__(self, resolved: ResolvedJob, folder: JobFolder, attempt: int) -> None:
        self.resolved, self.folder, self.attempt = resolved, folder, attempt
        self.job = resolved.job_as(GenerateJob)
        assert self.job.num_samples is not None
        self.num_samples: int = self.job.num_samples
        self.store = samples_at(resolved)
        self.plan = settle_plan(self.store, make_plan(self.job, resolved.content))
        fit_terminal(resolved, folder)
        # Weights that are missing or others are found out before any image is made.
        self.extractors = [open_features(spec) for spec in self.job.statistics]
        self.tracker: Tracker = begin_tracking(resolved, folder)

    def run(self, crew: Crew) -> dict[str, Any]:
        """The content of ``result.json``; raises ColddiffError where shards were given up."""
        say(f"{self.num_samples} images in {self._shards(self.num_samples)} to {self.store.uri}")
        tally = Tally()
        progress = Progress(
            tally,
            self.num_samples,
            self.plan.num_shards(self.num_samples),
            write=lambda data: self.folder.write_progress(self.attempt, data),
            log=self.tracker.log_metrics,
            talk=say,
        )
        dispatcher = Dispatcher(
            missing_shards(
                self.store,
                self.plan,
                self.num_samples,
                tally,
                [folder_of(extractor) for extractor in self.extractors],
            ),
            crew,
            tally,
            max_failures=self.job.max_failures,
            on_change=progress,
            stop_requested=lambda: self.folder.stop_requested(self.attempt),
            talk=say,
        )
        with ended_with_work(self.tracker):
            dispatcher.run()
            progress.close()
            return self._end(tally, dispatcher.stopped)

    def _end(self, tally: Tally, stopped: bool) -> dict[str, Any]:
        outcome = {"step": tally.images, "stopped": stopped}
        self.folder.write_outcome(self.attempt, outcome)
        if tally.dead:
            raise ColddiffError(dead_letters(self.store, self.plan, tally))
        if stopped and tally.images < self.num_samples:
            raise Stopped(
                f"stopped with {tally.images} of {self.num_samples} images committed; submit the "
                "same job again to go on"
            )
        manifest = write_manifest(self.store, self.plan, self.num_samples)
        result = {
            "id": self.resolved.id,
            "samples": self.store.uri,
            "num_samples": self.num_samples,
            "plan": self.plan.digest,
            "made": tally.made,
            "retries": tally.retries,
            **self._statistics(),
            "pictures": self._pictures(),
            "tracking": {"uri": self.resolved.tracking_uri, "run_id": self.tracker.run_id},
        }
        if manifest is not None:
            result["manifest"] = manifest
        return result

    def _statistics(self) -> dict[str, Any]:
        """Merged statistics, and the distances they give to the reference, with provenance."""
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
        if metrics:
            self.tracker.log_metrics(metrics, self.num_samples)
            say(", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
        return {
            "metrics": metrics,
            "statistics": kept,
            "measured": [spec.to_dict() for spec in self.job.statistics],
            "reference": self.job.reference,
        }

    def _pictures(self) -> list[str]:
        images = first_images(self.store, self.plan, min(SHOWN, self.num_samples))
        data = contact_sheet(images)
        key = self.folder.key("pictures/contact_sheet.png")
        self.folder.store.put(key, data)
        if self.job.tracking.images:
            self.tracker.log_artifact("pictures/contact_sheet.png", data)
        return [f"{self.folder.store.uri}/{key}"]

    def _shards(self, num_samples: int) -> str:
        count = self.plan.num_shards(num_samples)
        return f"{count} shard{'s' * (count != 1)} of {self.plan.shard_size}"


def generate_here(resolved: ResolvedJob, attempt: int) -> int:
    """Exit code of one attempt at a generation job in this process, without Ray."""
    return run_attempt(resolved, attempt, _crew_here, {"local": True})


def _crew_here(resolved: ResolvedJob, plan: SamplePlan) -> LocalCrew:
    return LocalCrew(open_worker(resolved, plan).make)


def run_attempt(
    resolved: ResolvedJob,
    attempt: int,
    open_crew: Callable[[ResolvedJob, SamplePlan], Crew],
    claim: dict[str, Any],
    gpus: float = 0.0,
) -> int:
    """Exit code of one attempt at a generation job with the crew that ``open_crew`` makes."""
    folder = JobFolder(open_store(resolved.storage), resolved.id)
    job = resolved.job_as(GenerateJob)
    assert job.num_samples is not None
    run = Attempt(folder, attempt, num_steps=job.num_samples, gpus=gpus, limits=job.limits)

    def work() -> dict[str, Any]:
        run.phase("preparing")
        began = time.monotonic()
        generation = Generation(resolved, folder, attempt)
        crew = open_crew(resolved, generation.plan)
        run.phase("")
        try:
            result = generation.run(crew)
        finally:
            crew.close()
        return {**result, "time": {"generation_s": time.monotonic() - began}}

    return run.run(work, {"host": os.uname().nodename, "pid": os.getpid(), **claim})
