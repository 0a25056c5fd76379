"""Plugins that came with a checkpoint and that the user trusts by their sha256."""

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
    """The job with the plugins of its checkpoint whose sha256 is in ``trusted``; they are loaded.

    They are written to ``folder`` and staged with the job like the user's own. Raises SpecError if
    the checkpoint has no such plugin.
    """
    checkpoint_ref = getattr(job, "checkpoint", None)
    if checkpoint_ref is None:
        raise SpecError("--trust-plugin: is for a plugin that came with the job's checkpoint")
    address = find_checkpoint(checkpoint_ref, storage)
    kept = kept_plugins(open_store(address.storage), address.home)
    private = open_store(str(folder))
    paths = []
    for sha256 in trusted:
        if sha256 not in kept:
            offered = ", ".join(kept) or "none"
            raise SpecError(
                f"--trust-plugin {sha256}: no such plugin with {address.uri}, which has: {offered}"
            )
        private.put(f"{sha256}.py", kept[sha256])
        paths.append(str(folder / f"{sha256}.py"))
        load_plugin(paths[-1])
    return job.model_copy(update={"plugins": (*job.plugins, *paths)})
