"""A new verb is one folder: everything that lists, resolves, runs or follows jobs finds it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colddiff.tracking.address import opened_at
from tests.toy_verb import CopiedPackage


@pytest.fixture(scope="module")
def package(
    tmp_path_factory: pytest.TempPathFactory, tracker_database: Path
) -> Iterator[CopiedPackage]:
    root = tmp_path_factory.mktemp("toy")
    storage = root / "runs"
    storage.mkdir()
    shutil.copy(tracker_database, storage / "mlflow.db")
    found = CopiedPackage(
        root, {"COLDDIFF_STORAGE": str(storage), "COLDDIFF_HOME": str(root / "home")}
    )
    yield found
    found.close()


def told(result: dict[str, Any]) -> list[str]:
    """The end of the toy's job, for people."""
    tracked = result["tracking"]
    run = f"MLflow: run {tracked['run_id']} {opened_at(tracked['uri'])}"
    report = f"report: {result['report']}"
    return ["pictures:", f"  {result['pictures'][0]}", report, run, "next:", "  sleep"]


def test_a_new_verb_is_submitted_in_this_process(package: CopiedPackage) -> None:
    helped = package.run("submit", "--help")
    assert "Count sheep." in helped.stdout
    dry = package.run("submit", "count", "goal=7", "--dry-run")
    assert "counts 7 sheep" in dry.stderr
    assert "goal: 7" in dry.stdout
    wrong = package.run("submit", "count", "gaol=7", "--local")
    assert (wrong.returncode, "goal" in wrong.stderr) == (2, True)

    failed = package.run("submit", "count", "goal=3", "fail=true", "--local")
    assert failed.returncode == 1
    assert "ended: failed (0 of 3 sheep): a sheep refused to jump; send another" in failed.stderr
    done = package.run("submit", "count", "goal=3", "--local", "--json")
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert (job["state"], job["attempt"]) == ("done", 2)
    assert job["id"].startswith("count-job-")
    result = json.loads(Path(job["result"]).read_text())
    assert (result["counted"], result["where"], result["id"]) == (3, "here", job["id"])
    assert Path(result["pictures"][0]).read_text() == "baa"
    assert result["tracking"]["run_id"]
    assert "sheep.txt" not in done.stderr  # for --json somebody else presents the result

    again = package.run("submit", "count", "goal=2", "--local")
    assert (again.returncode, again.stdout) == (0, f"{job['id']}\n")
    assert f"{job['id']} is done (3 of 3 sheep)" in again.stderr
    assert again.stderr.splitlines()[-6:] == told(result)
    more = package.run("submit", "count", "goal=5", "--local")
    assert f"{job['id']} is done (5 of 5 sheep)" in more.stderr
    assert json.loads(Path(job["result"]).read_text())["started_at"] == 3
    assert more.stderr.count("5 sheep have jumped\n") == 1
    lines = more.stderr.splitlines()
    assert [line for line in lines if line in told(result)] == told(result)
    shown = package.run("status", job["id"])
    assert [line[2:] for line in shown.stdout.splitlines() if line[2:] in told(result)] == told(
        result
    )
    assert package.run("wait", job["id"]).stderr.splitlines()[-6:] == told(result)
    assert "5 sheep have jumped" in package.run("logs", job["id"]).stdout
    assert "5/5 sheep" in package.run("list").stdout
    assert "is done (5 of 5 sheep)" in package.run("logs", job["id"]).stdout


def test_a_new_verb_is_a_function_of_the_package(package: CopiedPackage) -> None:
    script = (
        "import colddiff\n"
        "print(colddiff.count({'by': 2, 'goal': 4}, name='api')['counted'])\n"
        "print(colddiff.count.__doc__.splitlines()[0])\n"
        # A crash in it is printed.
        "import sys\n"
        "print('crash', file=sys.stderr)\n"
        "from colddiff.verbs.count.verb import Count\n"
        "Count.prepare = lambda self, attempt: 1 / 0\n"
        "try:\n"
        "    colddiff.count({'goal': 9}, name='crash')\n"
        "except colddiff.ColddiffError as error:\n"
        "    print(error)\n"
    )
    called = package.python("-c", script)
    assert called.returncode == 0, called.stderr
    assert called.stdout == "4\nCount sheep.\nZeroDivisionError: division by zero\n"
    before, *lines = called.stderr.splitlines()
    assert before == "crash"  # nothing was printed there
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert lines.count(lines[0]) == 1


def test_a_new_verb_has_its_section_in_job_files(package: CopiedPackage) -> None:
    (package.root / "sheep.yaml").write_text("count: {goal: 6}\n")
    dry = package.run("submit", "count", "sheep.yaml", "--dry-run")
    assert "counts 6 sheep" in dry.stderr
    schema = json.loads(package.run("recipes", "--schema").stdout)
    assert "count" in schema["properties"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("VERB = (", "SyntaxError: '(' was never closed (verb.py, line 1)"),
        ("", "AttributeError: module 'colddiff.verbs.broken.verb' has no attribute 'VERB'"),
        (None, "ModuleNotFoundError: No module named 'colddiff.verbs.broken.verb'"),
        ("VERB = 5", "TypeError: VERB is not an instance of a class derived from Verb"),
    ],
    ids=["syntax error", "no VERB", "no verb.py", "not a verb"],
)
def test_a_broken_folder_is_named_and_the_other_verbs_work(
    package: CopiedPackage, text: str | None, reason: str
) -> None:
    package.close()  # verbs are looked for once in a process
    folder = package.root / "colddiff" / "verbs" / "broken"
    folder.mkdir()
    try:
        (folder / "__init__.py").touch()
        if text is not None:
            (folder / "verb.py").write_text(text)
        line = f"colddiff/verbs/broken cannot be loaded: {reason}"
        listed = package.run("list")
        assert (listed.returncode, listed.stderr.splitlines()[0]) == (0, line)
        assert "Traceback" not in listed.stderr
        package.close()
        wanted = package.run("submit", "broken", "goal=3", "--local")
        assert wanted.returncode == 1
        assert wanted.stderr.splitlines() == [line, f"colddiff: error: {line}"]
    finally:
        package.close()
        shutil.rmtree(folder)
