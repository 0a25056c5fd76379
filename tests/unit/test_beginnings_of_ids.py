"""A job is named by its id or by the beginning of one id alone, wherever a job is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from colddiff.checkpoints.references import find_checkpoint
from colddiff.errors import CheckpointError, Missing, SpecError
from colddiff.jobs.folder import JobFolder, list_jobs
from colddiff.jobs.listing.named import find_job, whole_id
from colddiff.jobs.pages.find import find_jobs
from colddiff.jobs.status import Status
from colddiff.stores.local_store import LocalStore
from tests.in_process import Done, colddiff_here
from tests.tiny_checkpoint import tiny_checkpoint
from tests.watched_store import Watched

EXACT, LONGER = "train-exp-12345678", "train-exp-12345678-0000000a"
QUICK = [f"train-quick-{number:08x}" for number in range(7)]
Run = Callable[..., Done]


class Listed(Watched):
    """A store that counts the listings and the requests for one object."""

    def __init__(self, root: Path) -> None:
        self.listings, self.requests = 0, 0
        super().__init__(root, self._count)

    def _count(self, operation: str, key: str) -> None:
        self.requests += 1

    def folders(self, prefix: str) -> Iterator[str]:
        self.listings += 1
        return super().folders(prefix)


@pytest.fixture
def store(tmp_path: Path) -> Listed:
    for job_id in (EXACT, LONGER, *QUICK, "evaluate-job-0000000b"):
        folder = JobFolder(LocalStore(tmp_path / "runs"), job_id)
        folder.write_job({"id": job_id, "slug": "x", "verb": job_id.partition("-")[0], "spec": {}})
        folder.write_status(Status("done", attempt=1))
    return Listed(tmp_path / "runs")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: Listed) -> Run:
    monkeypatch.setenv("COLDDIFF_STORAGE", store.uri)
    return lambda *words: colddiff_here(monkeypatch, capsys, *words)


def test_an_exact_id_wins_and_costs_one_request(store: Listed) -> None:
    assert find_job(store, EXACT).job_id == whole_id(store, EXACT) == EXACT
    assert (store.listings, store.requests) == (0, 2)


@pytest.mark.parametrize(
    ("name", "found"),
    [(LONGER[:-2], LONGER), (QUICK[5], QUICK[5]), ("e", "evaluate-job-0000000b")],
)
def test_the_beginning_of_one_id_names_it(store: Listed, name: str, found: str) -> None:
    assert find_job(store, name).job_id == whole_id(store, name) == found
    assert store.listings <= 2, "one for each"


def test_the_beginning_of_several_is_refused_with_the_first_of_them(store: Listed) -> None:
    for find in (find_job, whole_id):
        with pytest.raises(SpecError) as refused:
            find(store, "train-quick")
        assert str(refused.value) == (
            f"train-quick: the ids of 7 jobs begin with it: {', '.join(QUICK[:5])} and 2 more; "
            "write more of the one that is meant"
        )
    with pytest.raises(SpecError, match=f"of 2 jobs begin with it: {EXACT}, {LONGER}; write"):
        find_job(store, "train-e")


def test_what_names_nothing_is_answered_with_the_nearest(store: Listed) -> None:
    for find in (find_job, whole_id):
        with pytest.raises(Missing, match=r"no job 'evaluate-jib-0.*'evaluate-job-0000000b"):
            find(store, "evaluate-jib-0000000b")
    for name in ("", "a b", "../x", "x" * 300):
        with pytest.raises(SpecError, match="is not a job id"):
            find_job(store, name)


def test_what_cannot_be_undone_needs_more_of_it(store: Listed, run: Run) -> None:
    assert find_job(store, LONGER[:-4], surely=True).job_id == LONGER
    JobFolder(store, EXACT).store.clear(f"jobs/{EXACT}/")
    for name, why in (("evaluate-job", "fewer than 6"), (EXACT, "looks like the whole id of")):
        done = run("delete", "--yes", name)
        assert (done.returncode, why in done.stderr) == (2, True)
        assert find_job(store, name).job_id.startswith(name)
    assert run("delete", "evaluate-job-00", "--yes").returncode == 0
    assert "evaluate-job-0000000b" not in list_jobs(store)


def test_all_are_found_before_the_first_is_deleted(store: Listed, run: Run) -> None:
    """Else the beginning of two ids would be that of one once the other is deleted."""
    begins = "train-exp-1234"
    assert run("delete", EXACT, begins, "--yes").returncode == 2
    assert {EXACT, LONGER} <= set(list_jobs(store))
    deleted = run("delete", LONGER, LONGER[:-1], "--yes", "--json")
    assert [json.loads(line)["id"] for line in deleted.stdout.splitlines()] == [LONGER]


def test_commands_say_the_whole_id(store: Listed, run: Run) -> None:
    for command in ("status", "logs", "stop", "wait"):
        (line,) = run(command, "--json", "evaluate-job-000").stdout.splitlines()
        assert json.loads(line)["id"] == "evaluate-job-0000000b"
    assert len(run("status", "evaluate", "evaluate-job", "--json").stdout.splitlines()) == 1


def test_references_and_reports_take_it_too(store: Listed, tmp_path: Path) -> None:
    tiny_checkpoint(store.root / "jobs" / LONGER)
    for which in ("", "@last", "@step=3"):
        assert LONGER in find_checkpoint(f"{LONGER[:-1]}{which}", store.uri).uri
    with pytest.raises(SpecError, match="the ids of 7 jobs begin with it"):
        find_checkpoint("train-quick@best", store.uri)
    with pytest.raises(CheckpointError, match=r"no job 'train-quock-00000003'.*mean 'train-quick"):
        find_checkpoint("train-quock-00000003", store.uri)
    (named,) = find_jobs(["evaluate"], store.uri)
    assert named.folder.job_id == "evaluate-job-0000000b"
    with pytest.raises(SpecError, match="the ids of 7 jobs begin with it"):
        find_jobs(["train-quick@best"], store.uri)
    # Checkpoints that were copied without their job's record are a job's all the same.
    tiny_checkpoint(store.root / "jobs" / "train-quick")
    assert "jobs/train-quick/" in find_checkpoint("train-quick", store.uri).uri
