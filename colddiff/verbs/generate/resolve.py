"""Resolve a generation job: pin its checkpoint and data by digest, and check its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colddiff.checkpoints.references import CheckpointAbout, describe_checkpoint, find_checkpoint
from colddiff.data.open import open_second_set, read_manifest
from colddiff.data.resolve import packed, refuse_other_shape
from colddiff.degradations import Degradation
from colddiff.errors import DataError, SpecError
from colddiff.features.open import located_features
from colddiff.rng import stream
from colddiff.samplers import check_samplers
from colddiff.sampling import falling
from colddiff.spec import digest
from colddiff.stores.open import absolute, check_writable, free_bytes, open_store
from colddiff.terminal import Gmm, Terminal, TerminalSpec, terminal_spec
from colddiff.verbs.generate.job import GenerateJob
from colddiff.verbs.generate.plan import check_place, make_plan

MAX_COMPRESSION = 8
"""PNG files of natural images take more than an eighth of the raw pixels."""
REQUIRED = (
    "is required (a checkpoint folder or URI, a job's id or folder, an export; with @last, @best "
    "or @step=N)"
)


def resolve_generation(
    job: GenerateJob, storage: str, *, pack: bool
) -> tuple[GenerateJob, dict[str, str]]:
    """The job with its checkpoint pinned to a step and hash, its data packed, its severities set.

    Raises SpecError, DataError, CheckpointError, before anything is started.
    """
    if job.checkpoint is None:
        raise SpecError([("checkpoint", REQUIRED)])
    address = find_checkpoint(job.checkpoint, storage)
    about = describe_checkpoint(address)
    D = about.job.degradation.build(about.job.shape)
    _check_sampling(job, D)
    content = {
        "checkpoint": address.weights_sha256,
        "image": str(D.shape),
        "model": _model_digest(about, D),
    }
    changes: dict[str, Any] = {"checkpoint": address.uri}
    if job.severities is None:
        changes["severities"] = D.num_timesteps
    if job.out is not None:
        changes["out"] = absolute(job.out)
    if job.data is None:
        changes["terminal"] = _chosen_terminal(job, about, D)
        content["terminal"] = _terminal_digest(changes["terminal"], about, D)
        job.refuse_unknown_number()
    else:
        uri = packed(job.data, "test", False, about.job, storage, pack=pack)
        refuse_other_shape("data", uri, about.job)
        changes |= {"data": uri, "num_samples": _images_of(job, uri)}
        content["data"] = read_manifest(uri).digest
    changes |= _statistics(job, about, storage, pack=pack)
    # Validated again: num_samples of a whole set may exceed the limits of the writer.
    return GenerateJob.model_validate({**dict(job), **changes}), content


def refuse_other_checkpoint(job: GenerateJob, about: CheckpointAbout) -> None:
    """Raises SpecError where images cannot be made with the checkpoint as the job says."""
    D = about.job.degradation.build(about.job.shape)
    _check_sampling(job, D)
    if job.data is None:
        _chosen_terminal(job, about, D)


def place_of(job: GenerateJob, storage: str, job_id: str) -> str:
    """Address of the samples: ``out``, else STORAGE/samples/<id>."""
    return job.out or f"{storage}/samples/{job_id}"


def samples_exist(job: GenerateJob, storage: str, job_id: str) -> bool:
    """Whether a finished job's samples still exist: a user may have deleted them.

    Checks only the object that is written last.
    """
    store = open_store(place_of(job, storage, job_id))
    return store.size("plan.json" if job.writer == "folder" else "manifest.json") is not None


def check_generation(
    job: GenerateJob, storage: str, job_id: str, content: Mapping[str, str]
) -> None:
    """Checks the location of the samples, which is known once the job has its id.

    Raises SpecError if it holds other samples or other objects, DataError if there is not enough
    space, StoreError if it is not writable.
    """
    place = place_of(job, storage, job_id)
    plan = make_plan(job, content)
    stored = check_place(open_store(place), plan)
    if job.out is not None:
        check_writable(place)  # STORAGE was written to already
    free = free_bytes(place)
    image = plan.image
    raw = (job.num_samples or 0) * image.channels * image.height * image.width
    if free is not None and stored is None and free < raw // MAX_COMPRESSION:
        raise DataError(
            f"out: {place} has {free / 1e9:.3g} GB free, {job.num_samples} images of "
            f"{content['image']} take up to {raw / 1e9:.3g} GB; free some space, or use another "
            "out"
        )


def _check_sampling(job: GenerateJob, D: Degradation[Any]) -> None:
    shape = D.shape
    if shape.channels not in (1, 3):
        raise SpecError(
            f"checkpoint: images of {shape} have {shape.channels} channels, PNG supports 1 or 3; "
            "sample with colddiff.sample in Python"
        )
    check_samplers([job.sampler], D)
    severities = falling(job.severities, D.num_timesteps, job.sampler)
    if job.data is not None:
        D.check_start(severities[0])
    if job.data is None and severities[0] != D.num_timesteps:
        raise SpecError(
            [
                (
                    "severities",
                    f"must start at T = {D.num_timesteps}, where x_T is drawn, got "
                    f"{severities[0]}; only images of a set (data) may start elsewhere",
                )
            ]
        )
    if job.data is not None and job.terminal is not None:
        raise SpecError(
            [("terminal", "cannot be combined with `data`, whose images give x_T; use one of them")]
        )


def _images_of(job: GenerateJob, uri: str) -> int:
    count = read_manifest(uri).count
    available = count - job.first_seed
    wanted = job.num_samples or max(available, 0)
    if not 1 <= wanted <= available:
        raise SpecError(
            [
                (
                    "num_samples",
                    f"{wanted} images from number {job.first_seed} on, but {uri} holds {count}; "
                    f"use first_seed below {count} and at most {max(available, 0)} images",
                )
            ]
        )
    return wanted


def _model_digest(about: CheckpointAbout, D: Degradation[Any]) -> str:
    """Digest of R's and D's specs; a second set counts by its content, not its address."""
    spec = D.spec
    if open_second_set(D) is not None:
        spec = spec.with_second_set(read_manifest(spec.second_set).digest)
    # The transform from stored images to D's images is part of the model.
    return digest(
        {
            "degradation": spec.to_dict(),
            "restorer": about.job.restorer.to_dict(),
            "augment": about.job.augment,
        }
    )


def _chosen_terminal(
    job: GenerateJob, about: CheckpointAbout, D: Degradation[Any]
) -> TerminalSpec | None:
    """The terminal spec that x_T is drawn from; None for the checkpoint's own.

    Raises SpecError if there is neither.
    """
    held = about.terminal
    if job.terminal is None:
        if held is None:
            raise SpecError(
                f"checkpoint: {D.spec.kind} has no terminal distribution to draw x_T from; "
                "restore the images of a set with data=URI, or set terminal"
            )
        return None
    wanted = terminal_spec(D, job.terminal)
    assert wanted is not None
    return None if held is not None and wanted.to_dict() == dict(held) else wanted


def _terminal_digest(
    wanted: TerminalSpec | None, about: CheckpointAbout, D: Degradation[Any]
) -> str:
    if wanted is None:
        return digest([about.terminal, about.terminal_sha256])
    if not isinstance(wanted, Gmm):
        # One draw: fails now if the distribution does not suit this D.
        images = open_second_set(D, about.job.augment)
        Terminal(wanted, {}, images).draw(D, [stream(0, "terminal/dry")])
        return digest([wanted.to_dict(), None])
    if about.job.data is None:
        raise SpecError(
            [("terminal", "a mixture is fitted to training images, the checkpoint names none")]
        )
    return digest([wanted.to_dict(), read_manifest(about.job.data).digest])


def _statistics(
    job: GenerateJob, about: CheckpointAbout, storage: str, *, pack: bool
) -> dict[str, Any]:
    changes: dict[str, Any] = {
        "statistics": tuple(located_features(spec) for spec in job.statistics)
    }
    if job.reference is not None:
        uri = packed(job.reference, "test", False, about.job, storage, pack=pack)
        changes["reference"] = uri
        read_manifest(uri)
    return changes
