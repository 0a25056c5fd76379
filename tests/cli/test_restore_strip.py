"""`colddiff restore --strip`: beside each result a picture of given, restored and original."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.restoring import Restore, error_of, picture, pixels_of


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Restore:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "in" / "a.png", 1)
    return Restore(tmp_path, monkeypatch, capsys)


def names(run: Restore) -> set[str]:
    return {path.name for path in run.out.iterdir()}


def test_a_strip_lies_beside_the_result_which_stays_as_it_is(run: Restore) -> None:
    assert run("in").returncode == 0
    plain = (run.out / "a.png").read_bytes()
    run.out = run.out.with_name("strips")
    done = run("in", "--strip")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{run.out}/a.png"]
    assert names(run) == {"a.png", "a.strip.png"}
    assert (run.out / "a.png").read_bytes() == plain


def test_the_original_is_shown_where_it_is_known(run: Restore, tmp_path: Path) -> None:
    shapes = {}
    for name, words in {
        "given": (),
        "degraded": ("--degrade",),
        "reference": ("--reference", tmp_path / "in"),
    }.items():
        run.out = tmp_path / name
        assert run("in", "--strip", *words).returncode == 0
        shapes[name] = pixels_of(run.out / "a.strip.png").shape
    # A column more, and the scores below.
    assert shapes["degraded"] == shapes["reference"]
    assert shapes["degraded"][1] > shapes["given"][1] + 100
    assert shapes["degraded"][0] > shapes["given"][0]


def test_what_it_says_is_not_cut_off_at_the_right(run: Restore) -> None:
    assert run("in", "--strip").returncode == 0
    drawn = pixels_of(run.out / "a.strip.png")
    margin = drawn[:, -10:].reshape(-1, drawn.shape[-1])
    assert (margin == drawn[0, 0]).all()


@pytest.mark.parametrize("words", [(), ("--degrade",)])
def test_a_result_that_is_there_gets_its_strip(run: Restore, words: tuple[str, ...]) -> None:
    assert run("in", *words).returncode == 0
    plain = (run.out / "a.png").stat().st_mtime_ns
    done = run("in", *words, "--strip")
    assert "1 skipped" in done.stderr
    drawn = (run.out / "a.strip.png").read_bytes()
    assert (run.out / "a.png").stat().st_mtime_ns == plain
    written = (run.out / "a.strip.png").stat().st_mtime_ns
    assert run("in", *words, "--strip").returncode == 0
    assert (run.out / "a.strip.png").stat().st_mtime_ns == written
    assert run("in", *words, "--strip", "--overwrite").returncode == 0
    assert (run.out / "a.strip.png").read_bytes() == drawn


def test_a_strip_of_others_or_of_other_settings_is_not_replaced(run: Restore) -> None:
    assert run("in", "--severity", "all").returncode == 0
    before = (run.out / "a.strip.png").read_bytes()
    assert "a.strip.png already exists and was made with" in error_of(run("in", "--strip"))
    assert (run.out / "a.strip.png").read_bytes() == before
    assert run("in", "--strip", "--overwrite").returncode == 0
    picture(run.out / "a.strip.png", 3)
    mine = (run.out / "a.strip.png").read_bytes()
    for more in ((), ("--overwrite",)):
        message = error_of(run("in", "--strip", *more))
        assert "a.strip.png already exists and was not made by `colddiff restore`" in message
    assert (run.out / "a.strip.png").read_bytes() == mine


def test_all_severities_are_strips_already(run: Restore) -> None:
    assert "--strip: " in error_of(run("in", "--severity", "all", "--strip"))
