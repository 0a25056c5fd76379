"""The search space: its dimensions, and the training job at one of its points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from colddiff.degradations import DEGRADATIONS
from colddiff.degradations.spec import DegradationSpec
from colddiff.errors import SpecError
from colddiff.rng import streams
from colddiff.schedules import PATHS, SCHEDULES, ScheduleSpec, path_ranges
from colddiff.spec import Choices, Range, SearchRange, Spec, nearest, parse, search_ranges

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

Point: TypeAlias = dict[str, Any]
"""Values by dotted path, JSON-ready: a point of the search space."""

DIGITS = 4
"""Significant digits of drawn values and of the schedules written from them."""

DEGRADATION = "degradation"
SLOPES = ("step", "rate", "end")
"""Fields of a schedule that say how it goes on from its start."""

HELD = {"plugins", "data", "image_size", "channels", "augment", "start_from", "seed"}
"""Identity fields of a training job that all trials share, so that they can be compared."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One searched field: ``low``..``high``, or one of ``choices``."""

    path: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    integer: bool = False
    choices: tuple[Any, ...] | None = None

    def at(self, u: float) -> Any:
        """The value at quantile ``u`` in [0, 1), rounded as ``rounded`` does."""
        if self.choices is not None:
            return self.choices[min(int(u * len(self.choices)), len(self.choices) - 1)]
        # So that the first and the last whole number are drawn as often as the others.
        margin = 0.5 if self.integer else 0.0
        low, high = self.low - margin, self.high + margin
        if self.log:
            return self.rounded(math.exp(math.log(low) + u * (math.log(high) - math.log(low))))
        return self.rounded(low + u * (high - low))

    def rounded(self, value: Any) -> Any:
        """``value`` as a point holds it: a whole number, or 4 significant digits, in the range."""
        if self.choices is not None:
            return value
        if self.integer:
            return int(min(max(round(value), self.low), self.high))
        return min(max(significant(value), self.low), self.high)


def significant(value: float) -> float:
    """``value`` rounded to ``DIGITS`` significant digits.

    >>> significant(0.123456), significant(1234.56)
    (0.1235, 1235.0)
    """
    return float(f"{value:.{DIGITS}g}")


def search_space(
    base_job: TrainJob, over: Sequence[str], ranges: Mapping[str, Any], compare: str
) -> tuple[Dimension, ...]:
    """The dimensions that ``over`` (paths with wildcards) names, in the order of the fields.

    ``ranges`` replaces declared ranges by path: {low, high, log} or {choices}; a field without a
    declared range can be searched if it is given one. With ``compare`` "same_end" a pattern may
    not name only what the end fixes. Raises SpecError naming the field.
    """
    spans = _searchable(base_job, ranges)
    fixed = _fixed_by_end(base_job, spans) if compare == "same_end" else {}
    named = _named(over, spans, fixed)
    _refuse_contradictions(base_job, named)
    dimensions = tuple(
        _dimension(path, spans[path], ranges.get(path), _value(base_job, path)) for path in named
    )
    for path in ranges:
        if path not in named:
            raise SpecError([(f"ranges.{path}", _not_searched(path, spans, named))])
    for dimension in dimensions:
        _refuse_outside(base_job, dimension)
    return dimensions


def job_at(base_job: TrainJob, point: Point, scale: float | None = None) -> TrainJob:
    """The training job at ``point``, with its schedules' values times ``scale``.

    A schedule that the point or the scale changes is written with 4 significant digits, so that
    points that round to the same schedule are the same job. SpecError for a point that is not a
    valid job.
    """
    data = written(base_job, point)
    changed = scale is not None and scale != 1.0
    degradation = base_job.degradation
    for name, schedule in schedules_at(degradation, point, scale or 1.0).items():
        if changed or any(path.startswith(f"{DEGRADATION}.{name}.") for path in point):
            data[DEGRADATION][name] = schedule.mapped(significant).to_dict()
    return parse(type(base_job), data)


def base_point(base_job: TrainJob, space: Sequence[Dimension]) -> Point:
    """The base's own values of the dimensions, which may lie outside their ranges.

    A path's ``ratio`` is the schedule's last value over its first; its ``kind`` is the schedule's.
    """
    point: Point = {}
    schedules = schedules_of_degradation(base_job.degradation)
    for dimension in space:
        field, _, last = dimension.path.removeprefix(f"{DEGRADATION}.").partition(".")
        if last == "ratio" and field in schedules:
            values = schedules[field].entries(base_job.degradation.num_timesteps)
            point[dimension.path] = significant(float(values[-1] / values[0]))
        elif last == "kind" and field in schedules:
            point[dimension.path] = schedules[field].kind
        else:
            point[dimension.path] = _value(base_job, dimension.path)
    return point


def degradation_at(base_job: TrainJob, point: Point, scale: float) -> DegradationSpec:
    """The degradation of ``job_at`` before it is rounded: a smooth function of ``scale``."""
    data = written(base_job, point)[DEGRADATION]
    exact = schedules_at(base_job.degradation, point, scale)
    data |= {name: schedule.to_dict() for name, schedule in exact.items()}
    try:
        return DEGRADATIONS.parse(data)
    except SpecError as error:
        raise SpecError(
            [(f"{DEGRADATION}.{path}".rstrip("."), what) for path, what in error.problems]
        ) from None


def schedules_of_degradation(spec: DegradationSpec) -> dict[str, ScheduleSpec]:
    """The fields of ``spec`` that are schedules."""
    values = {name: getattr(spec, name) for name in type(spec).model_fields}
    return {name: value for name, value in values.items() if isinstance(value, ScheduleSpec)}


def schedules_at(
    degradation: DegradationSpec, point: Point, scale: float
) -> dict[str, ScheduleSpec]:
    """The schedules of the base's ``degradation`` at ``point``, by field, times ``scale``."""
    found = {}
    for name, schedule in schedules_of_degradation(degradation).items():
        prefix = f"{DEGRADATION}.{name}."
        own = {p.removeprefix(prefix): value for p, value in point.items() if p.startswith(prefix)}
        if PATHS.keys() & own.keys():
            schedule = _path(schedule, own, degradation.num_timesteps, prefix.rstrip("."))
        elif own:
            data = {**schedule.to_dict(), **own}
            schedule = parse(type(schedule), data, prefix.rstrip("."))
        found[name] = _scaled(schedule, scale, prefix.rstrip("."))
    return found


def _scaled(schedule: ScheduleSpec, scale: float, where: str) -> ScheduleSpec:
    try:
        return schedule if scale == 1.0 else schedule.mapped(lambda value: value * scale)
    except SpecError as error:
        raise SpecError([(where, str(error))]) from None


def _path(
    schedule: ScheduleSpec, own: Mapping[str, Any], num_timesteps: int, where: str
) -> ScheduleSpec:
    """The path from a first value to ``ratio`` times it; what the point leaves out is the base's.

    Its largest value is the base's, unless the point has a start: a base may rise 750 times, so
    that a falling path from its first value would degrade nothing.
    """
    values = schedule.entries(num_timesteps)
    curve = schedule.kind if schedule.kind in ("linear", "exponential") else "exponential"
    kind = own.get("kind", curve)
    ratio = own.get("ratio", float(values[-1] / values[0]))
    start = own.get("start", own.get("value", float(max(values))) / max(1.0, ratio))
    allowed = PATHS["kind"]
    if isinstance(allowed, Choices) and kind not in allowed.values:
        raise SpecError([(f"{where}.kind", f"a path is {allowed}, got {kind!r}")])
    return parse(SCHEDULES[kind], {"kind": kind, "start": start, "end": start * ratio}, where)


def written(base_job: TrainJob, point: Point) -> dict[str, Any]:
    """The base's fields with the point's; those of schedules are left to ``schedules_at``."""
    data = base_job.to_dict()
    schedules = schedules_of_degradation(base_job.degradation)
    for path, value in point.items():
        *parents, last = path.split(".")
        if parents[:1] == [DEGRADATION] and len(parents) > 1 and parents[1] in schedules:
            continue
        inner: Any = data
        for name in parents:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if not isinstance(inner, dict) or last not in inner:
            raise SpecError([(path, "the base has no such field")])
        inner[last] = value
    return data


def _searchable(base_job: TrainJob, ranges: Mapping[str, Any]) -> dict[str, SearchRange | None]:
    """What can be searched, by path: declared ranges, paths of schedules, and what has a range."""
    found: dict[str, SearchRange | None] = {}
    found |= search_ranges(base_job)
    found |= path_ranges(base_job.degradation, f"{DEGRADATION}.")
    for path in sorted(ranges):
        if _value(base_job, path) is not None:
            found.setdefault(path, None)
    free = [name for name in type(base_job).identity_fields() if name not in HELD]
    return {
        path: span for name in free for path, span in found.items() if path.split(".")[0] == name
    }


def _value(spec: Spec, path: str) -> Any:
    """The value at ``path``; None where ``spec`` has none that a number or a choice can replace."""
    name, _, rest = path.partition(".")
    value = getattr(spec, name) if name in type(spec).model_fields and name != "kind" else None
    if isinstance(value, Spec):
        return _value(value, rest)
    return None if rest else value


def _named(
    over: Sequence[str], spans: Mapping[str, Any], fixed: Mapping[str, str]
) -> tuple[str, ...]:
    """The paths that ``over`` names; a wildcard passes over what the end fixes."""
    if not over:
        raise SpecError([("over", f"is empty: name what to search, of {', '.join(spans)}")])
    found: set[str] = set()
    for pattern in over:
        matched = [path for path in spans if fnmatchcase(path, pattern)]
        if not matched:
            what = f"{pattern!r} names nothing that can be searched{nearest(pattern, spans)}"
            raise SpecError([("over", f"{what} (one of {', '.join(spans)})")])
        free = [path for path in matched if path not in fixed]
        if not free:
            raise SpecError([("over", f"{matched[0]}: {fixed[matched[0]]}")])
        found.update(path for path in free if path not in _slopes_beside_paths(free))
    return tuple(path for path in spans if path in found)


def _slopes_beside_paths(paths: Sequence[str]) -> list[str]:
    """Those of ``paths`` that set a schedule's slope where another sets its path: of no effect."""
    bent = {path.rpartition(".")[0] for path in paths if path.rpartition(".")[2] in PATHS}
    ends = [path.rpartition(".") for path in paths]
    return [f"{above}.{field}" for above, _, field in ends if above in bent and field in SLOPES]


def _fixed_by_end(base_job: TrainJob, spans: Mapping[str, Any]) -> dict[str, str]:
    """What ``same_end`` leaves nothing to search in, by path, with the reason."""
    prefixes = [f"{DEGRADATION}.{name}." for name in schedules_of_degradation(base_job.degradation)]
    if not prefixes or not end_depends_on_scale(base_job):
        return {}
    return {
        path: f"the end fixes it; search {DEGRADATION}.num_timesteps or {prefix}ratio"
        for prefix in prefixes
        for path in spans
        if path.startswith(prefix) and path.removeprefix(prefix) not in PATHS
    }


def end_depends_on_scale(base_job: TrainJob) -> bool:
    """Whether D(x, T) changes with the schedules' values: not where it is one colour anyway."""
    shape = base_job.shape
    noise = torch.Generator().manual_seed(0)
    x0 = torch.rand(2, *shape.chw, generator=noise) * 2 - 1
    ends = []
    for scale in (1.0, 0.5):
        D = degradation_at(base_job, {}, scale).build(shape)
        if D.omega_images:
            return True
        omega = D.draw(2, rng=streams(0, "search/end", range(2)))
        ends.append(D.degrade(x0, torch.full((2,), D.num_timesteps), omega))
    return not torch.equal(*ends)


def _refuse_contradictions(base_job: TrainJob, named: Sequence[str]) -> None:
    """SpecError where two dimensions say the same of a schedule, or one says nothing."""
    for slope in _slopes_beside_paths(named):
        above = slope.rpartition(".")[0]
        raise SpecError([("over", f"{slope} and {above}.ratio both set the path; search one")])
    for name, schedule in schedules_of_degradation(base_job.degradation).items():
        prefix = f"{DEGRADATION}.{name}."
        values = schedule.entries(base_job.degradation.num_timesteps)
        alone = f"{prefix}kind" in named and f"{prefix}ratio" not in named
        if alone and math.isclose(values[0], values[-1]):
            what = f"{prefix}kind: the base's values are equal, in either kind; add {prefix}ratio"
            raise SpecError([("over", what)])


def _dimension(path: str, span: SearchRange | None, given: Any, value: Any) -> Dimension:
    """The dimension of ``path``: its declared ``span``, or what the user has ``given`` instead."""
    where = f"ranges.{path}"
    wanted = _given(given, where)
    choices = wanted.get("choices")
    if choices is None and isinstance(span, Choices):
        if wanted:
            raise SpecError([(where, f"is one of {span}: write {{choices: [...]}}")])
        choices = span.values
    if choices is not None:
        return Dimension(path, choices=tuple(choices))
    declared = span if isinstance(span, Range) else None
    low = wanted.get("low", declared.low if declared else None)
    high = wanted.get("high", declared.high if declared else None)
    if low is None or high is None:
        raise SpecError([(where, "write {low, high} (and log: true) or {choices: [...]}")])
    log = bool(wanted.get("log", declared.log if declared else False))
    integer = declared.integer if declared else isinstance(value, int)
    _refuse_backwards(where, low, high, log, integer)
    return Dimension(path, float(low), float(high), log, integer)


def _given(given: Any, where: str) -> dict[str, Any]:
    plain = given.to_dict() if isinstance(given, Spec) else given or {}
    if not isinstance(plain, Mapping):
        raise SpecError([(where, f"write {{low, high}} or {{choices: [...]}}, got {given!r}")])
    unknown = [key for key in plain if key not in ("low", "high", "log", "choices")]
    if unknown:
        raise SpecError([(where, f"no {unknown[0]!r}; write {{low, high, log}} or {{choices}}")])
    found = {key: value for key, value in plain.items() if value is not None}
    if "choices" in found and not found["choices"]:
        raise SpecError([(f"{where}.choices", "is empty")])
    return found


def _not_searched(path: str, spans: Mapping[str, Any], named: Sequence[str]) -> str:
    if path in spans:
        return "is not searched: add it to `over`"
    return f"is not searched{nearest(path, named)} (over names {', '.join(named)})"


def _refuse_backwards(where: str, low: Any, high: Any, log: bool, integer: bool) -> None:
    for name, value in (("low", low), ("high", high)):
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise SpecError([(f"{where}.{name}", f"expected a number, got {value!r}")])
        if integer and value != int(value):
            raise SpecError([(f"{where}.{name}", f"must be a whole number, got {value:g}")])
    if not low < high:
        raise SpecError([(where, f"low must be below high, got {low:g} and {high:g}")])
    if log and low <= 0:
        raise SpecError([(f"{where}.low", f"must be above 0 on a log scale, got {low:g}")])


def _refuse_outside(base_job: TrainJob, dimension: Dimension) -> None:
    """SpecError where the base cannot have one of the dimension's values."""
    ends = (dimension.rounded(dimension.low), dimension.rounded(dimension.high))
    if dimension.path == f"{DEGRADATION}.num_timesteps" and min(dimension.choices or ends) < 2:
        what = "with num_timesteps=1 there is no path to search; start at 2"
        raise SpecError([(f"ranges.{dimension.path}", what)])
    for value in dimension.choices or ends:
        try:
            job_at(base_job, {dimension.path: value})
        except SpecError as error:
            what = f"the base cannot have {value!r} here: {error}"
            raise SpecError([(dimension.path, what)]) from None
