"""What a job was submitted with is still what is there: checkpoints by weights, sets by digest."""

from __future__ import annotations

from colddiff.checkpoints.references import LoadedCheckpoint, load_checkpoint
from colddiff.errors import CheckpointError, DataError
from colddiff.jobs.resolve import ResolvedJob


def submitted_checkpoint(resolved: ResolvedJob, reference: str) -> LoadedCheckpoint:
    """The checkpoint of a generation or evaluation; CheckpointError where it has other weights."""
    loaded = load_checkpoint(reference)
    if loaded.address.weights_sha256 != resolved.content["checkpoint"]:
        raise CheckpointError(f"{reference} has changed since the job was submitted; submit again")
    return loaded


def refuse_changed(resolved: ResolvedJob, field: str, place: str, digest: str) -> None:
    """DataError where the set at ``place`` is not the one that ``field`` was submitted with.

    A field whose digest is no part of the job may hold anything.
    """
    submitted = resolved.content.get(field, digest)
    if digest != submitted:
        raise DataError(
            f"{field}: {place} has changed since the job was submitted (digest {digest[:12]}..., "
            f"was {submitted[:12]}...); submit again to use what is there now"
        )
