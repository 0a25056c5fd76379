"""What all trials of a checkpoint's search share: the lists to choose from, and the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from colddiff.checkpoints.references import describe_checkpoint, find_checkpoint
from colddiff.jobs.resolve import ResolvedJob
from colddiff.verbs.search.job import SearchJob
from colddiff.verbs.search.settings import lower_is_better
from colddiff.verbs.search.severities.lists import ListSpace
from colddiff.verbs.search.severities.settings import CheckpointBase, list_space
from colddiff.verbs.search.severities.suggest import ListSearcher
from colddiff.verbs.search.splits import validation_part

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob


@dataclass(frozen=True, slots=True)
class ListTask:
    """What all trials share; ``validation`` is the address of the images they are compared on."""

    job: SearchJob
    base: CheckpointBase
    trained: TrainJob
    space: ListSpace
    validation: str

    @property
    def metric(self) -> str:
        """Name of the metric that lists are ranked by."""
        assert self.job.metric is not None
        return self.job.metric

    @property
    def lower_is_better(self) -> bool:
        """Whether smaller values of the metric are better."""
        return lower_is_better(self.metric)

    @property
    def searcher(self) -> ListSearcher:
        """What chooses the lists."""
        job = self.job
        return ListSearcher(job.searcher, self.space, job.seed, self.metric, self.lower_is_better)


def open_list_task(search: ResolvedJob) -> ListTask:
    """The task of a resolved search; the validation part is packed if that was not done yet."""
    job = search.job_as(SearchJob)
    base = CheckpointBase.of(job)
    assert base.data is not None
    trained = describe_checkpoint(find_checkpoint(base.checkpoint)).job
    part = validation_part(base.data, job.validation, search.storage)
    return ListTask(job, base, trained, list_space(job, base, trained), part)
