"""The journal of a checkpoint's search: what each trial evaluates, and what it measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from colddiff.errors import ColddiffError, Exists, Missing
from colddiff.jobs.folder import JobFolder
from colddiff.spec import digest
from colddiff.verbs.search.severities.lists import SeverityList
from colddiff.verbs.search.trials import read_trials


@dataclass(frozen=True, slots=True)
class ListTrial:
    """What was asked: a list of severities and a sampler. Never changed once written."""

    number: int
    """0 is the base."""
    severities: tuple[int, ...]
    sampler: str
    point: dict[str, Any]
    """Where the list lies in the space, by path; see ``ListSpace``."""
    known: int
    """How many results the suggestion saw."""

    @property
    def chosen(self) -> SeverityList:
        """The list and the sampler."""
        return SeverityList(self.severities, self.sampler)


@dataclass(frozen=True, slots=True)
class ListResult:
    """What was measured of a list on some images: JSON-ready, never changed once written."""

    metrics: dict[str, float]
    """By name: the Frechet distance, rmse, ssim, psnr."""
    n: int
    """Images evaluated."""
    replicates: dict[str, list[float]]
    """Each metric without one group of images at a time; empty where that was not asked for."""
    calls_made: int
    """Calls of the network that this took, in images; the others were shared with earlier lists."""
    seconds: float


@dataclass(frozen=True, slots=True)
class ListState:
    """How a trial stands."""

    trial: ListTrial
    result: ListResult | None = None
    failed: str | None = None

    def value(self, metric: str) -> float | None:
        """The metric that trials are ranked by; None before it was measured."""
        return None if self.result is None else self.result.metrics[metric]


_RESULT = TypeAdapter(ListResult)


def result_name(number: int) -> str:
    """Name of a trial's result in the folder of its search."""
    return f"results/{number:04d}.json"


def confirmation_name(chosen: SeverityList, images: str) -> str:
    """Name of a list's result on the test images whose manifest has the digest ``images``."""
    return f"confirm/{digest([list(chosen.severities), chosen.sampler, images])[:12]}.json"


def write_list_result(folder: JobFolder, name: str, result: ListResult) -> None:
    """Writes a result, unless it is there: the same list on the same images measures the same."""
    data = json.dumps(asdict(result), indent=2, sort_keys=True) + "\n"
    try:
        folder.store.put_new(folder.key(name), data.encode())
    except Exists:
        return


def read_list_result(folder: JobFolder, name: str, metric: str) -> ListResult | None:
    """A result with a finite ``metric``; None before it is there.

    Raises ColddiffError where the file is damaged.
    """
    try:
        result = _RESULT.validate_json(folder.store.get(folder.key(name)))
    except Missing:
        return None
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
    else:
        if math.isfinite(result.metrics.get(metric, math.nan)):
            return result
        problem = f"it has no finite {metric}"
    raise ColddiffError(
        f"{folder.store.uri}/{folder.key(name)} is not a result of this search ({problem}); delete "
        "it, and submit the search again to evaluate that list again"
    )


def list_states(
    folder: JobFolder,
    trials: Sequence[ListTrial],
    metric: str,
    failed: Mapping[int, str],
    before: Sequence[ListState] = (),
) -> list[ListState]:
    """How ``trials`` stand now; results that were read ``before`` are not read again."""
    known = {state.trial.number: state for state in before if state.result is not None}
    return [
        known.get(trial.number)
        or ListState(
            trial,
            read_list_result(folder, result_name(trial.number), metric),
            failed.get(trial.number),
        )
        for trial in trials
    ]


def read_list_trials(folder: JobFolder) -> list[ListTrial]:
    """All trials of a checkpoint's search, by number."""
    return read_trials(folder, ListTrial)
