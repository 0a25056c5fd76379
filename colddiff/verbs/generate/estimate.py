"""What a generation will take, and what is said of it, from what is on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from colddiff.checkpoints.named import NamedCheckpoint
from colddiff.checkpoints.sampling_cost import calls_line
from colddiff.data.resolve import Input
from colddiff.jobs.verb import DryRun
from colddiff.sampling import falling
from colddiff.stores.open import storage_at
from colddiff.verbs.generate.held import held_in
from colddiff.verbs.generate.job import NUMBER_REQUIRED, GenerateJob
from colddiff.verbs.generate.resolve import REQUIRED, refuse_other_checkpoint

if TYPE_CHECKING:
    from colddiff.checkpoints.references import CheckpointAbout


def checkpoint_of(job: GenerateJob) -> NamedCheckpoint:
    """The checkpoint that images are made with."""
    return NamedCheckpoint(
        "checkpoint",
        job.checkpoint,
        REQUIRED,
        suits=lambda about: refuse_other_checkpoint(job, about),
    )


def inputs_of(job: GenerateJob) -> list[Input]:
    """The images of a generation: those it restores, and those that it is compared with."""
    trained = checkpoint_of(job).trained(storage_at(job.storage))
    found = [] if job.data is None else [Input("data", job.data, trained)]
    if job.reference is not None:
        # Its images may be of another size: nothing but their features is compared.
        found.append(Input("reference", job.reference))
    return found


def dry_run(job: GenerateJob) -> DryRun:
    """Shards, batches, calls of the network and their FLOPs; contacts nothing."""
    storage = storage_at(job.storage)
    about = checkpoint_of(job).suited(storage)
    notes = [] if about is None else _notes(job, about)
    if job.num_samples is None and job.data is None:
        # Not refused: what is printed is a job to be filled in.
        return DryRun(notes, problems=[("num_samples", NUMBER_REQUIRED)])
    if about is None:
        return DryRun(notes, estimate=[_grid(job, job.num_samples)])
    images = job.num_samples
    manifest = None if job.data is None else inputs_of(job)[0].manifest(storage)
    if images is None and manifest is not None:
        images = max(manifest.count - job.first_seed, 0)
    severities = falling(job.severities, about.job.degradation.num_timesteps, job.sampler)
    calls = len(severities) - 1
    line, flops = calls_line(about.job, calls, images)
    data: dict[str, Any] = {"images": images, "calls_per_image": calls, "flops": flops}
    return DryRun(notes, {"estimate": data}, [_grid(job, images), line])


def _notes(job: GenerateJob, about: CheckpointAbout) -> Sequence[str]:
    """What the submission says of poor samples, where the training images are here."""
    return [] if "://" in (about.job.data or "") else held_in(job, about)


def _grid(job: GenerateJob, images: int | None) -> str:
    """The shards and batches of a generation job of so many images, in one line."""
    place = job.out or "STORAGE/samples/<id>"
    if images is None:
        return f"as many images as `data` holds, {job.shard_size} per shard, to {place}"
    shards, rest = divmod(images, job.shard_size)
    batches = shards * -(-job.shard_size // job.batch_size) + -(-rest // job.batch_size)
    last = f", the last of {rest}" if rest and shards else ""
    return (
        f"{images} images, shards of {job.shard_size}: {shards + bool(rest)}{last}, "
        f"batches of {job.batch_size} rows: {batches}, to {place}"
    )
