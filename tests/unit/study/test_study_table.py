"""The table of a study: seeds of a job together, unlike numbers apart, what failed in words."""

from __future__ import annotations

from typing import Any

import pytest

from colddiff.verbs.study.table import best_mean, over_seeds, table_lines


def record(entry: int, seed: int, **fields: Any) -> dict[str, Any]:
    """A training that is done, as ``members.json`` has it."""
    plain = {
        "entry": entry,
        "name": "tiny",
        "differs": {"optimizer.lr": 10.0**-entry},
        "seed": seed,
        "state": "done",
        "message": "",
        "step": 4,
        "num_steps": 4,
        "measured": "a",
        "metrics": {
            "eval/floor/fd_lenet": 9.0,
            "eval/direct/fd_lenet": 20.0 + entry,
            "eval/sampled/fd_lenet": 10.0 + entry + seed,
            "eval/sampled/rmse": 0.1,
            "time/data_s": 3.0,
        },
    }
    return {**plain, **fields}


def test_seeds_of_a_job_have_a_mean_and_a_deviation() -> None:
    records = [record(entry, seed) for entry in (0, 1) for seed in (0, 1, 2)]
    lines = table_lines(records)
    assert [line.split()[:1] + line.split()[-3:] for line in lines[2:7]] == [
        ["tiny", "20", "10", "0.1000"],
        ["tiny", "20", "11", "0.1000"],
        ["tiny", "20", "12", "0.1000"],
        ["tiny", "20", "11", "0.1000"],
        ["tiny", "0", "1", "0.0000"],
    ]
    assert "mean of 3" in lines[5]
    assert " sd " in lines[6]
    assert len({len(line) for line in lines[1:]}) == 1
    assert not [line for line in lines if "averaged" in line]
    first, second = over_seeds(records)
    assert (first["n"], first["seeds"], second["differs"]) == (3, [0, 1, 2], {"optimizer.lr": 0.1})
    assert first["mean"]["eval/sampled/fd_lenet"] == pytest.approx(11)
    assert first["sd"]["eval/sampled/fd_lenet"] == pytest.approx(1)
    assert second["mean"]["eval/sampled/fd_lenet"] == pytest.approx(12)


def test_errors_of_a_terminal_are_those_of_direct_and_of_algorithm_2() -> None:
    errors = {"eval/direct/rmse": 0.2, "eval/sampled/rmse": 0.1, "eval/naive/rmse": 0.3}
    records = [record(0, seed, metrics=errors) for seed in (0, 1)]
    above, below, *rows = table_lines(records)
    assert below.split() == ["job", "seed", "rmse", "rmse"]
    assert (above.split()[0], above.count("Algorithm 2"), above.count("naive")) == ("direct", 1, 0)
    assert [row.split()[-2:] for row in rows[2:]] == [["0.2000", "0.1000"], ["0.0000", "0.0000"]]
    # A paper's table, which is no lines of a terminal, has all of them.
    head, _, first, *_ = table_lines(records, markdown=True)
    assert head.count("rmse") == 3
    assert "Algorithm 1 (naive) rmse" in head
    assert first.endswith("| 0.2000 | 0.3000 | 0.1000 |")


def test_the_label_of_a_sampler_stands_above_its_numbers_together() -> None:
    names = ("rmse", "ssim")
    errors = {f"eval/direct/{name}": 0.2 for name in names}
    errors |= {f"eval/sampled/{name}": 0.1 for name in names}
    above, below, row, *_ = table_lines([record(0, 0, metrics=errors)])
    assert below.split() == ["job", "seed", "ssim", "rmse", "ssim", "rmse"]
    assert row.split()[-4:] == ["0.200", "0.2000", "0.100", "0.1000"]
    assert above.split() == ["direct", "Algorithm", "2", "(improved)"]
    # The first of them ends before those of the second begin.
    assert above.index("direct") > below.index("seed")
    assert below.rindex("ssim") - 4 < above.index("Algorithm") < below.rindex("rmse")
    assert len(above) <= len(row)


def test_a_study_is_listed_by_the_best_mean_of_what_can_be_compared() -> None:
    records = [record(entry, seed) for entry in (0, 1) for seed in (0, 2)]
    assert best_mean(over_seeds(records)) == ("eval/sampled/fd_lenet", 11)
    # One seed that was trained longer says less than two.
    longer = record(0, 1, step=9, metrics={"eval/sampled/fd_lenet": 1.0})
    assert best_mean(over_seeds([*records, longer])) == ("eval/sampled/fd_lenet", 11)
    unlike = [*records, record(2, 0, measured="b")]
    assert best_mean(over_seeds(unlike)) is None
    assert best_mean(over_seeds([record(0, 0, state="failed", metrics={})])) is None


def test_a_single_seed_has_no_deviation() -> None:
    (found,) = over_seeds([record(0, 7)])
    assert (found["n"], found["sd"]["eval/sampled/rmse"]) == (1, None)
    assert not [line for line in table_lines([record(0, 7)]) if "mean" in line]


def test_numbers_that_were_not_measured_alike_are_in_tables_of_their_own() -> None:
    other = {"eval/sampled/fid": 3.0, "eval/sampled/rmse": 0.2}
    lines = table_lines([record(0, 0), record(1, 0, measured="b", metrics=other)])
    assert lines.count("") == 1
    above, below = lines[: lines.index("")], lines[lines.index("") + 1 :]
    assert ("fid" in above[1], "fid" in below[1]) == (False, True)
    assert "fd_lenet" not in below[1]


@pytest.mark.parametrize("unlike", [{"measured": "b"}, {"step": 9}], ids=str)
def test_seeds_that_are_unlike_have_no_mean_together(unlike: dict[str, Any]) -> None:
    records = [record(0, 0), record(0, 1, **unlike), record(0, 2), record(0, 3, state="waiting")]
    assert [item["seeds"] for item in over_seeds(records)] == [[0, 2, 3], [1]]
    means = [line for line in table_lines(records) if "mean of" in line]
    assert len(means) == 1
    assert "mean of 2" in means[0]
    # Nobody has to guess why.
    for markdown in (False, True):
        *_, why = table_lines(records, markdown=markdown)
        how = "9 steps" if "step" in unlike else "4 steps and another evaluation"
        assert why == (
            "tiny optimizer.lr=1 is not averaged over all its seeds: seeds 0, 2 and 3 have "
            f"4 steps, seed 1 has {how}"
        )


def test_what_failed_says_why_and_has_no_part_in_the_mean() -> None:
    why = "the loss is | not finite"
    failed = record(0, 1, state="failed", message=why, metrics={}, step=2)
    records = [record(0, 0), failed, record(0, 2)]
    lines = table_lines(records)
    assert lines[3].endswith(f"failed: {why}")
    (found,) = over_seeds(records)
    assert (found["n"], found["mean"]["eval/sampled/fd_lenet"]) == (2, 11)
    marked = table_lines(records, markdown=True)
    assert {line.count(" | ") for line in marked} == {marked[0].count(" | ")}
    assert r"failed: the loss is \| not finite" in marked[3]


def test_trainings_that_went_on_show_their_step() -> None:
    assert " step " in table_lines([record(0, 0), record(0, 1, step=9)])[1]
    assert " step " not in table_lines([record(0, 0), record(0, 1)])[1]
    unlike = [record(0, 0), record(1, 0, step=9, num_steps=9)]
    assert " step " in table_lines(unlike)[1]


def test_a_study_of_which_nothing_is_measured_is_shown_too() -> None:
    waiting = record(0, 0, state="waiting", metrics={}, step=0)
    assert table_lines([waiting])[-1].split()[-1] == "waiting"
    assert over_seeds([waiting])[0]["mean"] == {}
