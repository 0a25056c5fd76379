"""The table of a search: its trials, best first, as JSON, Markdown and HTML."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from colddiff.evaluation.best import MANY, is_distance, is_unasked, misfit
from colddiff.evaluation.set_comparison import COLUMN
from colddiff.machine.wording import counted
from colddiff.sampling import falling
from colddiff.verbs.search.points.same_end import TOLERANCE
from colddiff.verbs.search.promotion import BASE, passed_over
from colddiff.verbs.search.trials import TrialState

NO_VALUE = "-"
FORMS = {"rmse": ".4f", "ssim": ".3f", "psnr": ".2f"}


@dataclass(frozen=True, slots=True)
class LeaderboardRow:
    """A trial as the table shows it; None where there is no value."""

    rank: int | None
    """By the rung reached, then by the value there; equals share a rank."""
    number: int
    base: bool
    state: str
    reason: str
    """Why it failed or was passed over."""
    point: dict[str, Any]
    values: dict[int, float]
    """The metric by rung."""
    vs_base: float | None
    """Relative difference from the base at the highest rung that both reached."""
    direct: float | None
    """The metric of the direct restoration, R(x_T, T)."""
    rmse: float | None
    end_rmse: float | None
    end_distance: float | None
    """Frechet distance of the degraded images."""
    information: float | None
    """Part of the variance of x that D(x, T) holds, where that is limited."""
    redrawn: int
    """Points drawn before its own whose end cannot be compared."""
    steps: int
    calls: int | None
    """Calls of the network to restore an image."""
    job_id: str
    confirmed: str
    """What the confirmation on fresh seeds found."""


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """The rows, best first, and what they are ranked by."""

    metric: str
    lower_is_better: bool
    rungs: tuple[int, ...]
    rows: tuple[LeaderboardRow, ...]

    @property
    def caption(self) -> str:
        """What holds for the whole table: the metric, and the end that all trials share."""
        better = "lower" if self.lower_is_better else "higher"
        parts = [f"{self.metric} by optimizer step, {better} is better"]
        base = self._base_end
        if base is not None:
            held = f"within {TOLERANCE:.1%}" if not any(map(self._odd_end, self.rows)) else ""
            parts.append(f"end: RMSE {base:.4f} {held}".rstrip())
        left = [row.information for row in self.rows if row.information is not None]
        if left:
            parts.append(f"D(x, T) holds at most {max(left):.1%} of the variance of x")
        if redrawn := sum(row.redrawn for row in self.rows):
            parts.append(f"{counted(redrawn, 'point')} drawn again for another end")
        distances = [row.end_distance for row in self.rows if row.end_distance is not None]
        if distances and self._restores:
            low, high = _figure("", min(distances)), _figure("", max(distances))
            name = _last(self.metric) if is_distance(self.metric) else "Frechet distance"
            parts.append(f"degraded {name} {low if low == high else f'{low} to {high}'}")
        return "; ".join(parts)

    def columns(self) -> list[str]:
        """Headings, in the order of ``cells``."""
        used = {path: None for row in self.rows for path in row.point}
        fixed = ["rank", "trial", *short_paths(list(used))]
        fixed += [f"{_last(self.metric)} @{rung}" for rung in self.rungs]
        fixed.append("vs base")
        fixed += [f"direct {_last(self.metric)}", "rmse"] if self._restores else []
        fixed += ["calls", "steps"]
        fixed += ["end rmse"] if any(map(self._odd_end, self.rows)) else []
        fixed += ["confirmed"] if any(row.confirmed for row in self.rows) else []
        return [*fixed, "state"]

    def cells(self, row: LeaderboardRow) -> list[str]:
        """The texts of a row."""
        used = {path: None for other in self.rows for path in other.point}
        texts = [_text(row.rank), f"{row.number} (base)" if row.base else str(row.number)]
        texts += [_text(row.point.get(path)) for path in used]
        texts += [_figure(self.metric, row.values.get(rung)) for rung in self.rungs]
        texts.append(NO_VALUE if row.vs_base is None or row.base else f"{row.vs_base:+.1%}")
        if self._restores:
            texts += [_figure(self.metric, row.direct), _figure("rmse", row.rmse)]
        texts += [_text(row.calls), str(row.steps)]
        if any(map(self._odd_end, self.rows)):
            texts.append(_figure("rmse", row.end_rmse) if self._odd_end(row) else "")
        if any(other.confirmed for other in self.rows):
            texts.append(row.confirmed or NO_VALUE)
        return [*texts, f"{row.state}: {row.reason}" if row.reason else row.state]

    @property
    def _restores(self) -> bool:
        """Whether trials restore images; samples of a terminal have no original."""
        return not _of_samples(self.metric)

    @property
    def _base_end(self) -> float | None:
        return next((row.end_rmse for row in self.rows if row.base), None)

    def _odd_end(self, row: LeaderboardRow) -> bool:
        base = self._base_end
        if base is None or row.end_rmse is None:
            return False
        return abs(row.end_rmse - base) > TOLERANCE * base


def leaderboard(
    states: Sequence[TrialState],
    rungs: Sequence[int],
    metric: str,
    *,
    lower_is_better: bool = True,
    finished: bool = False,
    confirmed: Mapping[int, str] | None = None,
) -> Leaderboard:
    """The table of ``states`` (by number). ``confirmed``: what was found about a trial, by number.

    With ``finished`` trials below the last rung are passed over, with the reason.
    """
    failed = [state.trial.number for state in states if state.failed is not None]
    values = [state.values for state in states]
    rows = []
    for state in ranked(states, lower_is_better=lower_is_better):
        number = state.trial.number
        told = state.describe(rungs, finished=finished)
        reason = state.failed or ""
        if told == "passed over":
            reason = passed_over(
                values, rungs, number, failed=failed, lower_is_better=lower_is_better
            )
        better = sum(
            _order(other, lower_is_better) < _order(state, lower_is_better) for other in states
        )
        rows.append(
            LeaderboardRow(
                rank=better + 1 if state.values else None,
                number=number,
                base=number == BASE,
                state=told,
                reason=reason,
                point=dict(state.trial.point),
                values=dict(state.values),
                vs_base=_vs_base(state, values[BASE]),
                **_measured(state, metric),
                end_rmse=state.trial.end_rmse,
                information=state.trial.information,
                redrawn=state.trial.redrawn,
                steps=state.steps,
                calls=network_calls(state.trial.job, samples=_of_samples(metric)),
                job_id=state.trial.job_id,
                confirmed=(confirmed or {}).get(number, ""),
            )
        )
    return Leaderboard(metric, lower_is_better, tuple(rungs), tuple(rows))


def to_json(board: Leaderboard) -> str:
    """All values, unrounded; keys of ``values`` are optimizer steps."""
    return json.dumps({**asdict(board), "caption": board.caption}, indent=2) + "\n"


def to_markdown(board: Leaderboard) -> str:
    """A table for a terminal, a README or an issue; the base in bold."""
    heads = board.columns()
    lines = [_line(heads), _line([*["---:"] * (len(heads) - 1), ":---"])]
    for row in board.rows:
        cells = [" ".join(cell.replace("|", r"\|").split()) for cell in board.cells(row)]
        lines.append(_line([f"**{cell}**" if row.base and cell else cell for cell in cells]))
    return "\n".join([*lines, "", board.caption, ""])


def to_html(board: Leaderboard) -> str:
    """The table alone; the base's row has the class ``base``, which the page colours."""
    heads = "".join(f"<th>{html.escape(head)}</th>" for head in board.columns())
    lines = ["<table>", f"<caption>{html.escape(board.caption)}</caption>", f"<tr>{heads}</tr>"]
    for row in board.rows:
        *cells, state = map(html.escape, board.cells(row))
        figures = "".join(f"<td>{cell}</td>" for cell in cells)
        kind = ' class="base"' if row.base else ""
        lines.append(f'<tr{kind}>{figures}<td class="text">{state}</td></tr>')
    return "\n".join([*lines, "</table>", ""])


def network_calls(job: Mapping[str, Any], *, samples: bool = False) -> int | None:
    """Calls of the network per restored image in a training job's evaluation, or per sample."""
    num_timesteps = (job.get("degradation") or {}).get("num_timesteps")
    if num_timesteps is None:
        return None
    evaluation = job.get("evaluation") or {}
    severities = ((evaluation.get("generated") or {}) if samples else evaluation).get("severities")
    return len(falling(severities, num_timesteps)) - 1


def short_paths(paths: Sequence[str]) -> list[str]:
    """The last part of each path, or as many as tell them apart: ``sigma.ratio``."""
    for parts in range(1, 1 + max((path.count(".") + 1 for path in paths), default=0)):
        short = [".".join(path.split(".")[-parts:]) for path in paths]
        if len(set(short)) == len(short):
            return short
    return list(paths)


def ranked(states: Sequence[TrialState], *, lower_is_better: bool) -> list[TrialState]:
    """Trials in the order of the table, best first; equals by number."""
    return sorted(states, key=lambda s: (*_order(s, lower_is_better), s.trial.number))


def _order(state: TrialState, lower_is_better: bool) -> tuple[float, float]:
    """Further first, then better; values at different rungs are never compared."""
    if state.last is None:
        return 0.0, float(state.failed is not None)
    value = state.values[state.last]
    return -float(state.last), value if lower_is_better else -value


def _vs_base(state: TrialState, base: Mapping[int, float]) -> float | None:
    shared = state.values.keys() & base.keys()
    if not shared or not base[max(shared)]:
        return None
    return state.values[max(shared)] / base[max(shared)] - 1


def _measured(state: TrialState, metric: str) -> dict[str, float | None]:
    found, (_, column, name) = state.metrics, metric.split("/")
    spec = state.trial.job
    shape = (spec.get("channels", 0), *[spec.get("image_size", 0)] * 2)
    distances = sorted(
        path
        for path in found
        if path.startswith("eval/degraded/")
        and is_distance(path)
        and not is_unasked(_last(path), misfit(_last(path), shape, MANY), metric)
    )
    return {
        "direct": found.get(f"eval/direct/{name}"),
        "rmse": found.get(f"eval/{column}/rmse"),
        "end_distance": found[distances[0]] if distances else None,
    }


def _of_samples(metric: str) -> bool:
    return metric.startswith(f"{COLUMN}/")


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _figure(metric: str, value: float | None) -> str:
    if value is None:
        return NO_VALUE
    if _last(metric) in FORMS:
        return f"{value:{FORMS[_last(metric)]}}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _text(value: Any) -> str:
    if value is None:
        return NO_VALUE
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
