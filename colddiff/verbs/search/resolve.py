"""Resolve a search: its base with packed data, the images split, and an end that can be reached."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

from colddiff.data.open import read_manifest
from colddiff.errors import SpecError
from colddiff.evaluation.bounds import refuse_more_images
from colddiff.jobs.results import warn_submitter
from colddiff.jobs.verb import VERBS
from colddiff.spec import digest
from colddiff.stores.open import absolute
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.room import needs_of
from colddiff.verbs.search.search_task import open_task, refuse_unreachable
from colddiff.verbs.search.settings import (
    base_of,
    check_settings,
    measured_as,
    metric_of,
    ranking_lines,
)
from colddiff.verbs.search.splits import split_images

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob


def resolve_search(job: SearchJob, storage: str, *, pack: bool) -> tuple[SearchJob, dict[str, str]]:
    """The search with its base resolved and written out, and the digest that stands for it.

    With ``pack`` the training images are split too, and points of the space are probed. Raises
    SpecError, DataError, CheckpointError: before anything is started.
    """
    base = base_of(job)
    check_settings(job, base)
    try:
        resolved, content = VERBS["train"].resolve(base, storage, pack=pack)
    except SpecError as error:
        problems = [(f"base.{path}" if path else "base", what) for path, what in error.problems]
        raise SpecError(problems) from None
    # A search stages and registers plugins for all its trials: the base has none of its own left.
    plugins = tuple(dict.fromkeys(map(absolute, (*job.plugins, *base.plugins))))
    base = cast("TrainJob", resolved).model_copy(update={"plugins": ()})
    if base.test_data is None and job.confirm_seeds and job.confirm_best:
        raise SpecError(
            [("base.test_data", "is required for the confirmation; or set confirm_seeds=0")]
        )
    asked, metric = job.metric, metric_of(job, base)
    changes = {
        "base": base.to_dict(),
        "metric": metric,
        "resources": needs_of(job, base).resources,
        "plugins": plugins,
    }
    job = job.model_copy(update=changes)
    if pack:
        assert base.data is not None
        for line in ranking_lines(asked, metric, base):
            warn_submitter(line)
        log.info(
            "splitting the training images, then checking that points of the space can be compared "
            "with the base: the first time this takes minutes where there are many images"
        )
        splits = split_images(base.data, job.validation, storage)
        refuse_more_images(
            base.evaluation.num_images,
            read_manifest(splits.validation).count,
            "base.evaluation.num_images",
            "images that trials are compared on",
        )
        refuse_unreachable(open_task(job, base, splits))
    rest = {"num_steps": base.num_steps, "evaluation": measured_as(base)}
    identity = digest({**base.identity(), **content, **rest})
    return job, {"base": identity, "metric": metric}
