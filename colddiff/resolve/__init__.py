"""From a job as somebody wrote it to one that can run anywhere: addresses, digests, an id."""

from __future__ import annotations

from colddiff.resolve.job import ResolvedJob, record_job, refuse_paths, resolve, trained_id

__all__ = ["ResolvedJob", "record_job", "refuse_paths", "resolve", "trained_id"]
