"""Preflight checks before step 0: errors that would otherwise appear after hours."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from colddiff.checkpoints.pinned_inputs import check_pinned_digest
from colddiff.data import packed_sets as datasets
from colddiff.data.open import open_second_set, open_transformed, read_manifest
from colddiff.data.verify import MOST_LISTED
from colddiff.errors import DataError
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import ResolvedJob, refuse_missing_weights
from colddiff.rng import stream
from colddiff.stores.open import check_writable
from colddiff.terminal import terminal_spec
from colddiff.terminals.fit import make_terminal
from colddiff.terminals.stored import store_terminal, stored_terminal
from colddiff.verbs.train.checkpoint_evaluation import dry_evaluation
from colddiff.verbs.train.job import TrainJob

log = logging.getLogger(__name__)

VERIFY_S = 10.0
"""Time limit for hashing one data set; the remaining shards are checked when they are read."""


def check_before_training(resolved: ResolvedJob, folder: JobFolder) -> None:
    """Checks everything that training needs, before its first step.

    The storage is writable, training and test data match their manifests, the terminal can be
    fitted, the feature weights can be read, and an untrained restorer passes a whole evaluation on
    eight images. Raises ColddiffError, one line for each failure, before any step.
    """
    began = time.monotonic()
    job = resolved.job_as(TrainJob)
    check_writable(resolved.storage)
    if job.test_data is not None:
        # First, as it takes no time: hashing data and fitting a terminal may take a minute.
        refuse_missing_weights(job)
    other = job.degradation.second_set if "other" in resolved.content else None
    for field, uri in (("data", job.data), ("test_data", job.test_data), ("other", other)):
        if uri is not None:
            _verify_data(resolved, field, uri)
    _prepare_terminal(resolved, folder)
    if job.test_data is not None:
        dry_evaluation(job, stored_terminal(folder))
    log.info("preflight checks passed in %.1f s", time.monotonic() - began)


def _verify_data(resolved: ResolvedJob, field: str, uri: str) -> None:
    """Raises DataError if the set at ``uri`` changed since submission or has bad shards."""
    manifest = read_manifest(uri)
    check_pinned_digest(resolved, field, uri, manifest.digest)
    hashed, bad = datasets.verify_some(uri, VERIFY_S)
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise DataError(
            f"{field}: {uri}/{bad[0].key} {bad[0].problem}{more}; `colddiff data verify {uri}` "
            "lists all bad shards; pack them again"
        )
    if hashed < len(manifest.shards):
        listed = "all have the right size, " if len(manifest.shards) <= MOST_LISTED else ""
        log.info(
            "%s: of %d shards %s%d were hashed in %g s; the others are checked when they are read",
            field,
            len(manifest.shards),
            listed,
            hashed,
            VERIFY_S,
        )


def _prepare_terminal(resolved: ResolvedJob, folder: JobFolder) -> None:
    """Fits and stores the distribution of x_T, unless an earlier attempt did."""
    job = resolved.job_as(TrainJob)
    assert job.data is not None
    D = job.degradation.build(job.shape)
    spec = terminal_spec(D, job.terminal)
    if spec is None:
        log.info(
            "no terminal distribution: D(x0, T) of %s still depends on x0; sample from images",
            job.degradation.kind,
        )
        return
    fitted_on = {
        "data": resolved.content["data"],
        "degradation": job.degradation.to_dict(),
        "terminal": spec.to_dict(),
        "augment": job.augment,
    }
    if stored_terminal(folder, fitted_on) is None:
        began = time.monotonic()
        terminal = make_terminal(
            D, open_transformed(job.data, job.augment, job.shape), job.terminal
        )
        assert terminal is not None
        # One draw: fails now if the terminal does not suit D or the second set is unreadable.
        replace(terminal, images=open_second_set(D, job.augment)).draw(
            D, [stream(job.seed, "terminal/dry")]
        )
        store_terminal(folder, terminal, fitted_on)
        log.info("terminal distribution %s fitted in %.1f s", spec.kind, time.monotonic() - began)
