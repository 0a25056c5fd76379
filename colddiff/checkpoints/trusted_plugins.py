"""Plugins that came with a checkpoint, given to a job by whoever read them and named their hash."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from colddiff.checkpoints.references import find_checkpoint
from colddiff.errors import SpecError
from colddiff.jobs.job import Job
from colddiff.jobs.plugins import kept_plugins
from colddiff.spec.plugins import load_plugin
from colddiff.stores.open import open_store


def with_trusted(job: Job, trusted: Sequence[str], folder: Path, storage: str) -> Job:
    """The job with the plugins of its checkpoint whose sha256 is among ``trusted``; they run.

    They become files in ``folder`` and travel with the job like its user's own. Raises SpecError
    where the checkpoint has no such plugin.
    """
    reference = getattr(job, "checkpoint", None)
    if reference is None:
        raise SpecError("--trust-plugin: is for a plugin that came with the job's checkpoint")
    address = find_checkpoint(reference, storage)
    kept = kept_plugins(open_store(address.storage), address.home)
    private = open_store(str(folder))
    paths = []
    for sha256 in trusted:
        if sha256 not in kept:
            offered = ", ".join(kept) or "none"
            raise SpecError(
                f"--trust-plugin {sha256}: came not with {address.uri}, which has: {offered}"
            )
        private.put(f"{sha256}.py", kept[sha256])
        paths.append(str(folder / f"{sha256}.py"))
        load_plugin(paths[-1])
    return job.model_copy(update={"plugins": (*job.plugins, *paths)})
