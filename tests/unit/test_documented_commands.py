"""Commands of the documents are what the command line takes, and the jobs in them are valid."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from colddiff.cli.catalogue.commands import KINDS
from colddiff.cli.submit import Request, read_job
from colddiff.stores.open import storage_at
from colddiff.tracking.address import checked_uri, opened_at, tracking_address
from tests.documented import ROOT, commands_in, documents, files_in, is_usage, parsed
from tests.in_process import colddiff_here

PAGES = documents()
RUN_AS_WRITTEN = ({"degradations", "fields", "recipes", "cluster status"} | set(KINDS)) - {""}
"""Commands that contact nothing, write nothing and take no time."""
NOT_THERE = re.compile(r"search-ID/best\.yaml")
"""Files that only a job would write."""
WRITTEN = re.compile(
    r"(?:\b(?:mnist|cifar10|folder|webdataset):|(?<![\w.~/}])\./|--(?:out|image)[ =]|\bout="
    r"|[^-\w]> |sqlite:///|^```yaml\n# (?=[\w.-]+\.yaml\n))(?:\./)?(?!\w+:)([\w-][\w.-]*)",
    re.M,
)
"""What a page names in the folder where its reader is: images, outputs, job files."""
PLACEHOLDERS = {"0", "DIR", "FILE", "FOLDER", "URI"}


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that pages tell their reader to write."""
    (job,) = (t for t in blocks(ROOT / "jobs" / "README.md", "yaml") if "generate:" in t)
    (study,) = blocks(ROOT / "infra" / "docs" / "study.md", "yaml")
    trained = study.replace("train: {...}\n", "")
    search = "search:\n  over: [degradation.num_timesteps]\n"
    (tmp_path / "my-job.yaml").write_text(job + trained + search)
    for page in (ROOT / "infra" / "docs" / "tutorials").glob("*.md"):
        for name, text in files_in(page).items():
            (tmp_path / name).write_text(text)
    for file in (ROOT / "infra" / "docs" / "own-degradation").iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    (sampler,) = blocks(ROOT / "infra" / "docs" / "own-sampler.md", "python")
    (tmp_path / "halves.py").write_text(sampler)
    (tmp_path / "my_kind.py").write_text((tmp_path / "kspace.py").read_text())
    for name in ("photo.png", "photo.jpg", "scan.png"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.usefixtures("workplace", "unloaded_plugins")
def test_a_page_shows_commands_that_work(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = []
    for words in commands_in(page):
        if is_usage(words) or words == ["--install-completion"]:
            continue
        try:
            path, params = parsed(words)
            if path[0] in ("submit", "slurm"):
                _read(path, params)
        except Exception as error:  # each of them is a finding, and named with the others
            wrong.append(f"colddiff {' '.join(words)}: {error}")
            continue
        if " ".join(path) in RUN_AS_WRITTEN:
            done = colddiff_here(monkeypatch, capsys, *words)
            if done.returncode:
                wrong.append(f"colddiff {' '.join(words)}: {done.stderr}")
    assert not wrong, "\n".join(wrong)


def _read(path: list[str], params: dict[str, Any]) -> None:
    words = tuple(params["words"] or ())
    if not any(map(NOT_THERE.search, words)):
        verb = path[1] if path[0] == "submit" else params["verb"]
        plugins = tuple(params.get("plugin") or ())
        read_job(verb, Request(words=words, plugins=plugins, variant=params.get("variant")))


def test_the_command_that_opens_mlflow_names_where_jobs_are_tracked_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {page.name: re.findall(r"\bmlflow ui ([^`\n]+)", page.read_text()) for page in PAGES}
    assert {"README.md", "cluster.md"} <= {name for name, commands in found.items() if commands}
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("COLDDIFF_STORAGE", raising=False)
    default = tracking_address(storage_at()).uri
    for command in (command for commands in found.values() for command in commands):
        option, uri = command.split()
        # A relative path is one of the folder where the reader is.
        tracked = tracking_address("/absolute/path/of/STORAGE").uri if "////" in uri else default
        assert checked_uri(uri) == tracked
        assert opened_at(uri) == f"by `mlflow ui {option} {uri}`"
    # Read and not imported, which would take seconds.
    spec = importlib.util.find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    text = (Path(spec.origin).parent / "cli" / "__init__.py").read_text()
    assert '"--backend-store-uri"' in text
    assert re.search(r"""["']ui["']|def ui\(""", text)  # another name of `server`


def test_commands_are_found_and_wrong_ones_noticed(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(
        "    colddiff submit train quickstart \\\n        num_steps=3   # a comment\n"
        "```\n$ colddiff status ID; colddiff logs ID -f\n```\nIn text, `colddiff list` is none.\n"
        "    colddiff report RUN... --out DIR [--over seed]\n    colddiff stop ID --grce 3\n"
    )
    first, status, logs, usage, stop = commands_in(tmp_path / "page.md")
    assert first == ["submit", "train", "quickstart", "num_steps=3"]
    assert (status, logs) == (["status", "ID"], ["logs", "ID", "-f"])
    assert is_usage(usage)
    assert not is_usage(first)
    assert parsed(first)[0] == ["submit", "train"]
    with pytest.raises(Exception, match="No such option: --grce"):
        parsed(stop)


@pytest.mark.parametrize("page", [page for page in PAGES if "ray start --head" in page.read_text()])
def test_who_starts_a_cluster_is_told_what_its_jobs_need_in_their_environment(page: Path) -> None:
    before = page.read_text().partition("ray start --head")[0]
    exported = " ".join(re.findall(r"^\s*(?:- )?export (.*)", before, re.M))
    # On AWS, machines have a role, and the page says how they get the rest.
    assert "AWS_" in exported or "IamInstanceProfile" in page.read_text()
    assert "MLFLOW_TRACKING_URI" in before


def test_most_pages_show_some() -> None:
    shown = {page: sum(1 for _ in commands_in(page)) for page in PAGES}
    assert shown[ROOT / "README.md"] > 15
    assert sum(shown.values()) > 180


def test_readme_restores_photographs_as_its_tutorial_does() -> None:
    """Whose commands a test runs (tests/cli/test_tutorials.py)."""
    readme, page = ROOT / "README.md", ROOT / "infra" / "docs" / "tutorials" / "own-images.md"
    job, told = (yaml.safe_load(files_in(where)["blur.yaml"]) for where in (readme, page))
    assert job == told
    first = [w for w in commands_in(readme) if {"folder:./photos", "blur.yaml"} & set(w)][:3]
    restored = [words for words in commands_in(readme) if words[0] == "restore"]
    assert (len(first), len(restored)) == (3, 2)
    there = list(commands_in(page))
    assert [words for words in [*first, *restored] if words not in there] == []


def test_what_a_reader_makes_in_a_clone_is_no_change_of_it() -> None:
    """Each would be untracked, and a job's record would say that the code has local changes."""
    ask = ["git", "-C", str(ROOT)]
    tracked = subprocess.run([*ask, "ls-files"], stdout=subprocess.PIPE, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a checkout")
    ours = {path.partition("/")[0] for path in tracked.stdout.splitlines()}
    named = {
        name
        for page in [*PAGES, ROOT / "infra" / "docs" / "notebook.ipynb"]
        for name in WRITTEN.findall(page.read_text())
        if name not in PLACEHOLDERS | ours and not (page.parent / name).exists()
    }
    assert {"MNIST", "CIFAR10", "packed", "strips", "blur.yaml", "worse.png", "mlflow.db"} <= named
    paths = sorted(name if "." in name else f"{name}/" for name in named)
    told = subprocess.run(
        [*ask, "check-ignore", "--no-index", "--", *paths],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert sorted(set(paths) - set(told.stdout.splitlines())) == []
