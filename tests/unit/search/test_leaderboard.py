"""The leaderboard: order, ties, what is missing, and its three forms."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest

from colddiff.verbs.search.leaderboard import (
    NO_VALUE,
    Leaderboard,
    LeaderboardRow,
    leaderboard,
    network_calls,
    short_paths,
    to_html,
    to_json,
    to_markdown,
)
from colddiff.verbs.search.trials import Trial, TrialState

RUNGS = (60, 120, 250)
METRIC = "eval/sampled/fd_lenet"
T = "degradation.num_timesteps"
RATIO = "degradation.sigma.ratio"


def stood(number: int, *values: float, failed: str | None = None, **changes: Any) -> TrialState:
    reached = dict(zip(RUNGS, values, strict=False))
    fields: dict[str, Any] = {
        "seed": 0,
        "point": {T: 10 + number, RATIO: 0.5 * number} if number else {},
        "scale": 1.0,
        "end_rmse": 0.2333,
        "job": {"degradation": {"num_timesteps": 10 + number}},
        "job_id": f"train-digits-trial-{number:08x}",
        "known": 0,
    }
    metrics = (
        {
            METRIC: values[-1],
            "eval/direct/fd_lenet": 2 * values[-1],
            "eval/sampled/rmse": 0.06 + number / 1000,
            "eval/degraded/fd_lenet": 1056.0 + number,
        }
        if values
        else {}
    )
    trial = Trial(number, **{**fields, **changes})
    return TrialState(trial, reached, max(reached, default=0), failed, metrics)


STATES = [
    stood(0, 100, 40, 8.0),
    stood(1, 90, 30, 6.0),
    stood(2, 95, 45),
    stood(3, 92, 33, 8.0),
    stood(4, 200),
    stood(5, failed="the loss is nan | at step 12\n<b>"),
    stood(6),
]


@pytest.fixture
def board() -> Leaderboard:
    return leaderboard(STATES, RUNGS, METRIC, finished=True, confirmed={1: "beats the base 3 of 3"})


def row(board: Leaderboard, number: int) -> LeaderboardRow:
    return next(each for each in board.rows if each.number == number)


def test_the_best_comes_first_and_what_got_further_before_what_did_not(board: Leaderboard) -> None:
    assert [each.number for each in board.rows] == [1, 0, 3, 2, 4, 6, 5]


def test_equals_share_a_rank_and_what_has_no_value_has_none(board: Leaderboard) -> None:
    assert [each.rank for each in board.rows] == [1, 2, 2, 4, 5, None, None]


def test_values_are_compared_at_the_same_rung_only() -> None:
    found = leaderboard([stood(0, 100, 40), stood(1, 30)], RUNGS, METRIC)
    assert [each.number for each in found.rows] == [0, 1]
    assert row(found, 1).vs_base == pytest.approx(-0.7)


def test_higher_is_better_ranks_the_other_way() -> None:
    states = [stood(0, 1, 1, 20.0), stood(1, 1, 1, 25.0), stood(2, 1, 1, 15.0)]
    found = leaderboard(states, RUNGS, "eval/sampled/psnr", lower_is_better=False)
    assert [each.number for each in found.rows] == [1, 0, 2]
    assert "higher is better" in found.caption
    assert "25.00" in to_markdown(found)


def test_a_row_says_what_was_measured(board: Leaderboard) -> None:
    best = row(board, 1)
    assert best.vs_base == pytest.approx(-0.25)
    assert best.rmse == pytest.approx(0.061)
    assert (best.direct, best.end_rmse) == (12.0, 0.2333)
    assert (best.end_distance, best.calls, best.steps) == (1057.0, 11, 250)
    assert best.values == {60: 90, 120: 30, 250: 6.0}
    assert best.confirmed == "beats the base 3 of 3"


def test_states_have_their_reasons(board: Leaderboard) -> None:
    told = {each.number: (each.state, each.reason) for each in board.rows}
    assert told[1] == ("done", "")
    assert told[2] == ("passed over", "at step 120: 4th of 4, best 3 went on")
    assert told[4] == ("passed over", "at step 60: 5th of 5, best 4 went on")
    assert told[5][0] == "failed"
    assert told[6] == ("asked", "")


def test_while_it_runs_nothing_is_passed_over_yet() -> None:
    found = leaderboard(STATES, RUNGS, METRIC)
    assert (row(found, 2).state, row(found, 2).reason) == ("at step 120", "")


def test_a_table_before_any_result() -> None:
    for states in ([], [stood(0)]):
        found = leaderboard(states, RUNGS, METRIC)
        assert "fd_lenet @250" in to_markdown(found)
        assert "<table>" in to_html(found)
        assert json.loads(to_json(found))["metric"] == METRIC


def test_missing_values_are_dashes_and_null() -> None:
    found = leaderboard([stood(0), stood(1, job={}, end_rmse=None)], RUNGS, METRIC)
    data = json.loads(to_json(found))
    assert [each["vs_base"] for each in data["rows"]] == [None, None]
    assert [each["calls"] for each in data["rows"]] == [10, None]
    assert found.cells(row(found, 1)).count(NO_VALUE) == 1 + len(RUNGS) + 4


def test_json_holds_every_value_unrounded(board: Leaderboard) -> None:
    data = json.loads(to_json(board))
    assert [each["number"] for each in data["rows"]] == [1, 0, 3, 2, 4, 6, 5]
    assert data["rows"][0]["values"] == {"60": 90, "120": 30, "250": 6.0}
    assert data["rows"][0]["point"] == {T: 11, RATIO: 0.5}
    assert data["rows"][1]["base"] is True


def test_markdown_is_a_table_with_the_base_in_bold(board: Leaderboard) -> None:
    lines = to_markdown(board).splitlines()
    table = lines[: lines.index("")]
    bars = {line.replace(r"\|", "").count("|") for line in table}
    assert len(table) == 2 + len(STATES)
    assert len(bars) == 1
    assert [line for line in table if "**" in line] == [table[3]]
    assert "**0 (base)**" in table[3]
    assert "the loss is nan \\| at step 12 <b>" in to_markdown(board)


class Cells(HTMLParser):
    """Rows as (class, texts)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[tuple[str | None, list[str]]] = []
        self.tags: set[str] = set()
        self._open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append((dict(attrs).get("class"), []))
        self._open = tag in ("td", "th")
        if self._open:
            self.rows[-1][1].append("")

    def handle_data(self, data: str) -> None:
        if self._open and self.rows:
            self.rows[-1][1][-1] += data


def test_html_marks_the_base_and_escapes_what_others_wrote(board: Leaderboard) -> None:
    page = Cells(to_html(board))
    assert page.tags == {"table", "caption", "tr", "th", "td"}
    assert [kind for kind, _ in page.rows] == [None, None, "base", None, None, None, None, None]
    assert {len(cells) for _, cells in page.rows} == {len(board.columns())}
    assert page.rows[7][1][-1].strip() == "failed: the loss is nan | at step 12\n<b>"


def test_the_shared_end_is_said_once(board: Leaderboard) -> None:
    assert "end: RMSE 0.2333 within 0.1%" in board.caption
    assert "degraded fd_lenet 1056 to 1060" in board.caption
    assert "end rmse" not in board.columns()


def test_an_end_that_differs_is_shown_in_its_row() -> None:
    found = leaderboard([stood(0, 5), stood(1, 4, end_rmse=0.25), stood(2, 6)], RUNGS, METRIC)
    assert "within" not in found.caption
    place = found.columns().index("end rmse")
    assert [found.cells(each)[place] for each in found.rows] == ["0.2500", "", ""]


def test_the_confirmation_has_a_column_only_once_there_is_one(board: Leaderboard) -> None:
    assert "confirmed" in board.columns()
    assert "confirmed" not in leaderboard(STATES, RUNGS, METRIC).columns()


def test_calls_of_the_network() -> None:
    degradation = {"num_timesteps": 20}
    assert network_calls({"degradation": degradation}) == 20
    for severities, calls in ((None, 20), (5, 5), ([20, 10, 0], 2)):
        evaluation = {"severities": severities}
        assert network_calls({"degradation": degradation, "evaluation": evaluation}) == calls
    assert network_calls({}) is None


def test_paths_are_shortened_as_far_as_they_stay_apart() -> None:
    assert short_paths([T, RATIO]) == ["num_timesteps", "ratio"]
    assert short_paths(["a.sigma.ratio", "a.alpha.ratio"]) == ["sigma.ratio", "alpha.ratio"]
    assert short_paths(["lr", "optimizer.lr"]) == ["lr", "optimizer.lr"]
    assert short_paths([]) == []
