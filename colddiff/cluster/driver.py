"""What a driver is started with: ``python -m colddiff.verbs.VERB.on_ray job.json --attempt N``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import ResolvedJob
from colddiff.stores.open import open_store


def handed_in(
    verb: str, arguments: Sequence[str] | None = None
) -> tuple[ResolvedJob, JobFolder, int]:
    """The staged job, its folder, and the number of this attempt at it."""
    parser = argparse.ArgumentParser(prog=f"colddiff.verbs.{verb}.on_ray")
    parser.add_argument("job", type=Path)
    parser.add_argument("--attempt", type=int, required=True)
    options = parser.parse_args(arguments)
    resolved = ResolvedJob.from_dict(json.loads(options.job.read_text()))
    return resolved, JobFolder(open_store(resolved.storage), resolved.id), options.attempt
