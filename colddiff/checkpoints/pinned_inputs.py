"""Checks that a job's inputs are unchanged since it was submitted: weights and set digests."""

from __future__ import annotations

from colddiff.checkpoints.references import LoadedCheckpoint, load_checkpoint
from colddiff.errors import CheckpointError, DataError
from colddiff.jobs.resolve import ResolvedJob


def load_pinned_checkpoint(resolved: ResolvedJob, checkpoint_ref: str) -> LoadedCheckpoint:
    """The checkpoint of a generation or evaluation; CheckpointError if its weights changed."""
    loaded = load_checkpoint(checkpoint_ref)
    if loaded.address.weights_sha256 != resolved.content["checkpoint"]:
        raise CheckpointError(
            f"{checkpoint_ref} has changed since the job was submitted; submit again"
        )
    return loaded


def check_pinned_digest(resolved: ResolvedJob, field: str, place: str, digest: str) -> None:
    """DataError if the set at ``place`` is not the one that ``field`` was submitted with.

    Fields without a digest in the job are not checked.
    """
    submitted = resolved.content.get(field, digest)
    if digest != submitted:
        raise DataError(
            f"{field}: {place} has changed since the job was submitted (digest {digest[:12]}..., "
            f"was {submitted[:12]}...); submit again to use the new content"
        )
