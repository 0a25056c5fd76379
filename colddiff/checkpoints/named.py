"""A checkpoint that a job names, as `--dry-run` looks at it: on this machine's disks alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from colddiff.checkpoints.references import (
    CheckpointAbout,
    CheckpointAddress,
    describe_checkpoint,
    find_checkpoint,
    is_of_service,
)
from colddiff.errors import ColddiffError, SpecError

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

Find = Callable[[str, str], CheckpointAddress]
"""(reference, STORAGE) -> the checkpoint; raises CheckpointError or SpecError."""


def _suits_all(about: CheckpointAbout) -> None:
    return


@dataclass(frozen=True, slots=True)
class NamedCheckpoint:
    """A checkpoint that a job needs: the field that names it, and what it must be like.

    Args:
        field: the field.
        reference: its value; None where nothing names one.
        needed: what a submission says where nothing does.
        find: how the reference is resolved.
        suits: raises SpecError where the job cannot be run with the checkpoint.
        weights_alone: whether the job needs no more of it than its weights.
    """

    field: str
    reference: str | None
    needed: str = "is required"
    find: Find = find_checkpoint
    suits: Callable[[CheckpointAbout], object] = _suits_all
    weights_alone: bool = False

    def describe(self, storage: str) -> str:
        """One line: which checkpoint was found.

        Contacts nothing. Raises SpecError naming the field where a submission would fail.
        """
        if self.reference is None:
            raise SpecError([(self.field, self.needed)])
        if is_of_service(self.reference, storage):
            return f"{self.field}: {self.reference} is looked for when the job is submitted"
        try:
            address, what = self.find(self.reference, storage), ""
            if not self.weights_alone:
                about = describe_checkpoint(address)
                self.suits(about)
                D = about.job.degradation
                what = f" ({D.kind} T={D.num_timesteps}, images {about.job.shape})"
        except ColddiffError as error:
            raise error_of(self.field, error) from None
        of = "" if address.job is None else f" of {address.job.job_id}"
        return f"{self.field}: step {address.step}{of}{what}, in {address.uri}"

    def about(self, storage: str) -> CheckpointAbout | None:
        """Its description, whether or not it suits; None where it is not found on this machine."""
        if self.reference is None or is_of_service(self.reference, storage):
            return None
        try:
            return describe_checkpoint(self.find(self.reference, storage))
        except ColddiffError:
            return None

    def trained(self, storage: str) -> TrainJob | None:
        """The job that trained it; None where it is not found on this machine."""
        about = self.about(storage)
        return None if about is None else about.job

    def suited(self, storage: str) -> CheckpointAbout | None:
        """Its description; None where it is not found on this machine, or does not suit."""
        about = self.about(storage)
        try:
            if about is not None:
                self.suits(about)
        except ColddiffError:
            return None
        return about


def error_of(field: str, error: ColddiffError) -> SpecError:
    """``error`` of a job that names a checkpoint, with a field to blame: its own, or ``field``."""
    if isinstance(error, SpecError) and all(path for path, _ in error.problems):
        return error
    return SpecError([(field, str(error).removeprefix(f"{field}: "))])
