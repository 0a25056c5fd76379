"""The table of a study: a row a training, and the mean and deviation over the seeds of each job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from colddiff.jobs.results import score_of
from colddiff.machine.wording import counted
from colddiff.report.differences import differences_text
from colddiff.report.grids import distance_names, number
from colddiff.report.tables import DIGITS, FLOOR, NO_VALUE
from colddiff.samplers import column_labels

Record = Mapping[str, Any]
STATE = "state"
"""Heading of the column that says how a training stands, where one is not done."""
NEEDED = frozenset({"entry", "name", "differs", "seed", "state", "step", "num_steps", "measured"})
"""What a record has to say of how a training stands."""
BETWEEN = "   "
WITH_ERRORS = ("direct", "sampled")
"""The columns whose errors a terminal has room for: the question is which is better."""


def over_seeds(records: Sequence[Record]) -> list[dict[str, Any]]:
    """For each job its number of seeds that are done, and mean and deviation of each metric.

    ``sd`` is that of a sample, and null for a single seed. A metric that a seed lacks is left out.
    A job some of whose seeds were measured otherwise, or trained longer, has an item for each kind.
    """
    found = []
    for group in _alike(records):
        done = [record["metrics"] for record in group if record["state"] == "done"]
        shared = [path for path in done[0] if all(path in other for other in done)] if done else []
        values = {path: [metrics[path] for metrics in done] for path in shared}
        found.append(
            {
                "entry": group[0]["entry"],
                "name": group[0]["name"],
                "differs": dict(group[0]["differs"]),
                "measured": group[0]["measured"],
                "seeds": [record["seed"] for record in group],
                "left_out": group[0].get("left_out"),
                "n": len(done),
                "mean": {path: fmean(of) for path, of in values.items()},
                "sd": {path: stdev(of) if len(of) > 1 else None for path, of in values.items()},
            }
        )
    return found


def best_mean(jobs: Sequence[Record]) -> tuple[str, float] | None:
    """Metric and lowest mean among the jobs of ``over_seeds``; None where they are unlike.

    Of a job whose seeds have no mean together, that of most of them, or of the first ones.
    """
    if len({job["measured"] for job in jobs}) != 1:
        return None
    jobs = [max(group, key=lambda job: int(job["n"])) for group in _groups(jobs, "entry")]
    scores = (score_of({"metrics": _shown(job, "mean")}) for job in jobs)
    found = [score for score in scores if score is not None]
    if len({path for path, _ in found}) != 1:
        return None
    return min(found, key=lambda score: score[1])


def table_lines(records: Sequence[Record], *, markdown: bool = False) -> list[str]:
    """The table as text; numbers that were not measured alike are in tables of their own.

    As Markdown, for a paper, with the errors of all columns. Below them, which seeds of a job have
    no mean together, and why.
    """
    lines: list[str] = []
    for group in _groups(records, "measured"):
        table = _table(group, every=markdown)
        lines += ["", *(_markdown(table) if markdown else _aligned(table))]
    apart = averaged_apart(records)
    return [*lines[1:], *([""] if markdown and apart else []), *apart]


def averaged_apart(records: Sequence[Record]) -> list[str]:
    """A line for each job whose seeds were trained or evaluated in unlike ways.

    ``tiny is not averaged over all its seeds: seeds 0 and 2 have 4 steps, seed 1 has 9 steps``.
    """
    found = []
    for job in _groups(records, "entry"):
        first, *others = _alike(job)
        if others:
            told = ", ".join(_unlike(group, first) for group in (first, *others))
            found.append(f"{_title(job[0])} is not averaged over all its seeds: {told}")
    return found


def _unlike(group: Sequence[Record], first: Sequence[Record]) -> str:
    *seeds, last = [str(record["seed"]) for record in group]
    whose = f"seeds {', '.join(seeds)} and {last} have" if seeds else f"seed {last} has"
    other = group[0]["measured"] != first[0]["measured"]
    return f"{whose} {counted(_trained(group[0]), 'step', ',')}{' and another evaluation' * other}"


def _table(records: Sequence[Record], *, every: bool) -> list[list[str]]:
    """Rows of cells, the first two of them headings."""
    paths = _columns(records, every=every)
    labels = column_labels(path.split("/")[1] for path in paths)
    trained_on = any(r["state"] == "done" and r["step"] != r["num_steps"] for r in records)
    unlike = len({record["num_steps"] for record in records}) > 1
    steps = trained_on or unlike
    unfinished = any(record["state"] != "done" for record in records)
    fixed = ["job", "seed", *["step"] * steps]
    rows = [
        [*[""] * len(fixed), *[labels[path.split("/")[1]] for path in paths], *[""] * unfinished],
        [*fixed, *[path.rpartition("/")[2] for path in paths], *[STATE] * unfinished],
    ]
    for job in _alike(records):
        name = _title(job[0])
        for record in job:
            cells = [name, str(record["seed"]), *[str(record["step"])] * steps]
            cells += [_figure(path, record["metrics"].get(path)) for path in paths]
            rows.append([*cells, *[_state(record)] * unfinished])
        (found,) = over_seeds(job)
        if found["n"] > 1:
            for label, values in ((f"mean of {found['n']}", found["mean"]), ("sd", found["sd"])):
                cells = [name, label, *[""] * steps]
                cells += [_figure(path, values.get(path)) for path in paths]
                rows.append([*cells, *[""] * unfinished])
    return rows


def _columns(records: Sequence[Record], *, every: bool) -> list[str]:
    """Paths that are shown: distances of all columns, errors of ``WITH_ERRORS`` or of all."""
    there = {
        path: 0.0 for record in records for path in _shown(record, "metrics") if _is_shown(path)
    }
    columns = column_labels(dict.fromkeys(path.split("/")[1] for path in there))
    distances = [f"eval/{c}/{name}" for name in distance_names(there) for c in columns]
    errors = [f"eval/{c}/{name}" for name in DIGITS for c in columns if every or c in WITH_ERRORS]
    found = [path for path in (*distances, *errors) if path in there]
    if every:
        return found
    # A terminal has no room for the label of a sampler above each of its numbers.
    return sorted(found, key=lambda path: list(columns).index(path.split("/")[1]))


def _title(record: Record) -> str:
    return " ".join(filter(None, (record["name"], differences_text(record["differs"]))))


def _shown(record: Record, what: str) -> dict[str, float]:
    """The numbers without the distance that people are not shown, which older records lack."""
    hidden = record.get("left_out")
    return {path: value for path, value in record[what].items() if _name(path) != hidden}


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _is_shown(path: str) -> bool:
    # Real against real is a property of the test images, equal in all rows.
    return path.startswith("eval/") and path.count("/") == 2 and path.split("/")[1] != FLOOR


def _state(record: Record) -> str:
    return ": ".join(filter(None, (record["state"], record["message"])))


def _figure(path: str, value: float | None) -> str:
    if value is None:
        return NO_VALUE
    name = path.rpartition("/")[2]
    return f"{value:{DIGITS[name]}}" if name in DIGITS else number(value)


def _alike(records: Iterable[Record]) -> list[list[Record]]:
    """Trainings of one job together, those of which a mean can be taken."""
    groups: dict[Any, list[Record]] = {}
    for record in records:
        key = (record["entry"], record["measured"], _trained(record))
        groups.setdefault(key, []).append(record)
    return list(groups.values())


def _trained(record: Record) -> int:
    """Steps that a training has, or is to have."""
    return int(record["step" if record["state"] == "done" else "num_steps"])


def _groups(records: Iterable[Record], key: str) -> list[list[Record]]:
    """Records with equal ``key`` together, in the order of their first ones."""
    groups: dict[Any, list[Record]] = {}
    for record in records:
        groups.setdefault(record[key], []).append(record)
    return list(groups.values())


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    words = {0} | {i for i, head in enumerate(table[1]) if head == STATE}
    spans = _spans(table[0])
    widths = [max(len(row[i]) for row in table[1:]) for i in range(len(table[0]))]
    for first, end in spans:
        missing = len(table[0][first]) - len(BETWEEN.join("".ljust(w) for w in widths[first:end]))
        widths[end - 1] += max(missing, 0)
    above = [table[0][a].center(len(BETWEEN) * (b - a - 1) + sum(widths[a:b])) for a, b in spans]
    lines = [BETWEEN.join(above).rstrip()]
    for row in table[1:]:
        cells = [
            cell.ljust(width) if i in words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(BETWEEN.join(cells).rstrip())
    return lines


def _spans(heads: Sequence[str]) -> list[tuple[int, int]]:
    """First column and end of each run of equal headings; an empty one is of one column."""
    spans: list[tuple[int, int]] = []
    for column, head in enumerate(heads):
        if head and column and heads[column - 1] == head:
            spans[-1] = (spans[-1][0], column + 1)
        else:
            spans.append((column, column + 1))
    return spans


def _markdown(table: Sequence[Sequence[str]]) -> list[str]:
    above, below, *rows = table
    heads = [" ".join(filter(None, pair)) for pair in zip(above, below, strict=True)]
    ruled = [heads, [":---", *["---:"] * (len(heads) - 1)], *rows]
    cells = ([" ".join(c.replace("|", r"\|").split()) for c in row] for row in ruled)
    return [f"| {' | '.join(row)} |" for row in cells]
