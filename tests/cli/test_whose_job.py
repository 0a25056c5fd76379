"""Who submitted a job, where several people share a storage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from colddiff.jobs.status import Status
from colddiff.stores.local_store import LocalStore
from tests.cli.test_job_table import write
from tests.in_process import colddiff_here


def test_whose_job_is_whose_is_shown_where_several_have_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*words: str) -> str:
        env = {"COLDDIFF_STORAGE": str(tmp_path / "runs")}
        return str(colddiff_here(monkeypatch, capsys, *words, **env).stdout)

    store = LocalStore(tmp_path / "runs")
    for number, user in enumerate(("ann", "bob", "")):  # the last of an earlier version
        folder = write(store, f"train-blur-0000000{number}", seed=number)
        folder.claim(1, {"user": user, "host": "here"} if user else {"host": "here"})
        folder.write_status(Status("done", attempt=1, user=user))
    header, *lines = told("list").splitlines()
    assert header.split()[:3] == ["ID", "USER", "STATE"]
    assert [line.split()[1] for line in lines] == ["ann", "bob", "-"]
    (header, line) = told("list", "--user", "bob").splitlines()
    assert (header.split()[1], line.split()[0]) == ("STATE", "train-blur-00000001")
    assert [row["user"] for row in json.loads(told("list", "--json"))] == ["ann", "bob", None]
    assert "\n  submitted by ann on here\n" in told("status", "train-blur-00000000")
    assert "submitted" not in told("status", "train-blur-00000002")
    assert json.loads(told("status", "train-blur-00000002", "--json"))["user"] is None
