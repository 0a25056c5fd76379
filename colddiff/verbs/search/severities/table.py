"""The table of a checkpoint's search: its best lists and all trials, as JSON, Markdown and HTML."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from colddiff.verbs.search.leaderboard import FORMS, NO_VALUE
from colddiff.verbs.search.severities.confirm import BestList
from colddiff.verbs.search.severities.journal import ListState
from colddiff.verbs.search.severities.lists import SeverityList
from colddiff.verbs.search.severities.results import short
from colddiff.verbs.search.severities.task import ListTask

ALSO = ("rmse", "ssim", "psnr")


@dataclass(frozen=True, slots=True)
class ListRow:
    """A trial as the table shows it; None where there is no value."""

    rank: int | None
    number: int
    base: bool
    calls: int
    severities: tuple[int, ...]
    sampler: str
    metrics: dict[str, float]
    even: bool
    """Whether its severities are evenly spaced."""
    vs_even: float | None
    """Relative difference from even spacing with as many calls, for the base's sampler."""
    vs_base: float | None
    best_of: tuple[int, ...]
    """The budgets that it is the best list of."""
    failed: str


@dataclass(frozen=True, slots=True)
class ListBoard:
    """The trials, best first, and the best lists with what their confirmation found."""

    metric: str
    lower_is_better: bool
    sampler: str
    """The base's, which the evenly spaced lists are for."""
    rows: tuple[ListRow, ...]
    best: tuple[BestList, ...]
    images: int | None
    """Validation images."""

    @property
    def caption(self) -> str:
        """What holds for all rows."""
        better = "lower" if self.lower_is_better else "higher"
        n = "" if self.images is None else f" of {self.images} validation images"
        return (
            f"{self.metric}{n}, {better} is better; vs even: against as many evenly spaced "
            f"severities, {self.sampler}"
        )

    def trial_table(self) -> list[list[str]]:
        """Headings, then a row of texts for each trial."""
        also = [name for name in ALSO if any(name in row.metrics for row in self.rows)]
        shown = [name for name in (self.metric, *also) if name != self.metric or also]
        names = list(dict.fromkeys([self.metric, *shown]))
        heads = ["rank", "trial", "calls", "sampler", *names, "vs even", "vs base", "severities"]
        return [heads, *(self._trial(row, names) for row in self.rows)]

    def _trial(self, row: ListRow, names: Sequence[str]) -> list[str]:
        texts = [NO_VALUE if row.rank is None else str(row.rank)]
        texts.append(f"{row.number} (base)" if row.base else str(row.number))
        texts += [str(row.calls), row.sampler]
        texts += [figure(name, row.metrics.get(name)) for name in names]
        texts += [_percent(None if row.even else row.vs_even)]
        texts += [_percent(None if row.base else row.vs_base)]
        found = f"failed: {row.failed}" if row.failed else short(row.severities)
        if row.best_of:
            found += f" (best of {', '.join(map(str, row.best_of))} calls)"
        return [*texts, found]

    def best_table(self) -> list[list[str]]:
        """Headings, then a row of texts for each budget."""
        confirmed = any(best.test is not None for best in self.best)
        heads = ["at most", "calls", "sampler", "severities", f"validation {self.metric}"]
        names: list[str] = []
        for best in self.best:
            names += [d.against for d in best.differences if d.against not in names]
        heads += [f"test {self.metric}"] if confirmed else []
        heads += [f"test, against {name}" for name in names]
        return [heads, *(self._best(best, names, confirmed) for best in self.best)]

    def _best(self, best: BestList, names: Sequence[str], confirmed: bool) -> list[str]:
        chosen, value = best.state.trial.chosen, best.state.value(self.metric)
        texts = [f"{best.budget} calls", str(chosen.calls), chosen.sampler]
        texts += [short(chosen.severities), figure(self.metric, value)]
        if confirmed:
            found = None if best.test is None else best.test.metrics[self.metric]
            texts.append(figure(self.metric, found))
        by_name = {d.against: d.sentence for d in best.differences}
        return [*texts, *(by_name.get(name, "the same") for name in names)]


def list_board(task: ListTask, states: Sequence[ListState], best: Sequence[BestList]) -> ListBoard:
    """The table of ``states`` (by number) and of the best lists among them."""
    metric, sign = task.metric, 1.0 if task.lower_is_better else -1.0
    values = {state.trial.chosen: state.value(metric) for state in states}
    measured = [sign * value for value in values.values() if value is not None]
    rows = []
    for state in states:
        trial, value = state.trial, state.value(metric)
        even = task.space.even(trial.chosen.calls)
        rows.append(
            ListRow(
                rank=None if value is None else 1 + sum(v < sign * value for v in measured),
                number=trial.number,
                base=trial.number == 0,
                calls=trial.chosen.calls,
                severities=trial.severities,
                sampler=trial.sampler,
                metrics={} if state.result is None else state.result.metrics,
                even=trial.chosen == even,
                vs_even=_relative(value, values.get(even)),
                vs_base=_relative(value, values.get(task.space.base)),
                best_of=tuple(b.budget for b in best if b.state.trial.number == trial.number),
                failed=state.failed or "",
            )
        )
    rows.sort(key=lambda row: (row.rank is None, row.rank, row.number))
    images = next((state.result.n for state in states if state.result is not None), None)
    sampler = task.space.base.sampler
    return ListBoard(metric, task.lower_is_better, sampler, tuple(rows), tuple(best), images)


def board_json(board: ListBoard) -> str:
    """All values, unrounded."""
    best = [
        {
            "budget": found.budget,
            "trial": found.state.trial.number,
            **_described(found.state.trial.chosen),
            "validation": found.state.result.metrics if found.state.result else None,
            "test": found.test.metrics if found.test else None,
            "test_images": found.test.n if found.test else None,
            "against": [difference.to_dict() for difference in found.differences],
        }
        for found in board.best
    ]
    data: dict[str, Any] = {
        "metric": board.metric,
        "lower_is_better": board.lower_is_better,
        "images": board.images,
        "caption": board.caption,
        "best": best,
        "rows": [asdict(row) for row in board.rows],
    }
    return json.dumps(data, indent=2) + "\n"


def board_markdown(board: ListBoard) -> str:
    """Both tables, for a terminal, a README or an issue; the base in bold."""
    parts = []
    if board.best:
        parts.append(_markdown(board.best_table(), bold=()))
    bold = [i for i, row in enumerate(board.rows) if row.base]
    return "\n\n".join([*parts, _markdown(board.trial_table(), bold), board.caption]) + "\n"


def board_html(board: ListBoard) -> str:
    """Both tables for a page; the base's row has the class ``base``."""
    base = [i for i, row in enumerate(board.rows) if row.base]
    tables = _html(board.best_table(), "the best lists", ()) if board.best else ""
    return tables + _html(board.trial_table(), board.caption, base)


def figure(metric: str, value: float | None) -> str:
    """A value with the digits that its metric deserves."""
    if value is None:
        return NO_VALUE
    return f"{value:{FORMS.get(metric, '.4g')}}"


def _described(chosen: SeverityList) -> dict[str, Any]:
    return {
        "calls": chosen.calls,
        "sampler": chosen.sampler,
        "severities": list(chosen.severities),
    }


def _relative(value: float | None, other: float | None) -> float | None:
    return None if value is None or not other else value / other - 1


def _percent(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:+.1%}"


def _markdown(table: Sequence[Sequence[str]], bold: Sequence[int]) -> str:
    heads, *rows = table
    lines = [_line(heads), _line([*["---:"] * (len(heads) - 1), ":---"])]
    for number, row in enumerate(rows):
        cells = [" ".join(cell.replace("|", r"\|").split()) for cell in row]
        lines.append(_line([f"**{cell}**" if number in bold and cell else cell for cell in cells]))
    return "\n".join(lines)


def _html(table: Sequence[Sequence[str]], caption: str, base: Sequence[int]) -> str:
    heads, *rows = table
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    lines = ["<table>", f"<caption>{html.escape(caption)}</caption>", f"<tr>{head}</tr>"]
    for number, row in enumerate(rows):
        *cells, last = map(html.escape, row)
        figures = "".join(f"<td>{cell}</td>" for cell in cells)
        kind = ' class="base"' if number in base else ""
        lines.append(f'<tr{kind}>{figures}<td class="text">{last}</td></tr>')
    return "\n".join([*lines, "</table>", ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
