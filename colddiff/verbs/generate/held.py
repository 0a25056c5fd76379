"""What is said of a generation whose samples will be poor, at submission and with its result."""

from __future__ import annotations

from colddiff.checkpoints.references import CheckpointAbout, describe_checkpoint, find_checkpoint
from colddiff.errors import ColddiffError
from colddiff.terminals.held import poor_samples
from colddiff.verbs.generate.job import GenerateJob


def held_lines(job: GenerateJob) -> list[str]:
    """A line where samples of ``job`` will be poor; never raises a ColddiffError."""
    if job.checkpoint is None:
        return []
    try:
        return held_in(job, describe_checkpoint(find_checkpoint(job.checkpoint)))
    except ColddiffError:
        return []


def held_in(job: GenerateJob, about: CheckpointAbout) -> list[str]:
    """A line where samples made with the checkpoint will be poor; never raises a ColddiffError."""
    if job.data is not None:
        return []
    try:
        terminal = job.terminal or about.terminal_spec
    except ColddiffError:
        return []
    why = poor_samples(about.job, terminal)
    way = (
        "restore the images of a set with data=URI, or train with a larger T or a stronger "
        "degradation, until D(x, T) is a mere colour or noise, as in the recipes named *generation*"
    )
    return [f"{why}; {way}"] if why else []
