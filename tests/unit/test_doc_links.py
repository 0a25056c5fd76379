"""Links of the documents lead somewhere, and the docs site has every page."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "infra" / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "colddiff" / "ARCHITECTURE.md"]
PAGES += [ROOT / "jobs" / "README.md", *sorted((ROOT / "infra").rglob("*.md"))]
LINK = re.compile(r"\[[^\]\n]*(?:\n[^\]\n]*)?\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    """A page without its code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`(?!\])", "", text)


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as sites make them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    plain = (re.sub(r"[^\w\- ]", "", head.lower()) for head in heads)
    return {head.strip().replace(" ", "-") for head in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in LINK.findall(prose(page)):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong


def test_links_are_found() -> None:
    found = {link for page in PAGES for link in LINK.findall(prose(page))}
    assert {"glossary.md", "../restore.md", "infra/docs/restore.md"} <= found


def test_the_site_has_every_page_and_links_within_itself() -> None:
    site = yaml.safe_load((ROOT / "infra" / "mkdocs.yml").read_text())
    shown = {page for entry in site["nav"] for page in _pages(entry)}
    assert shown == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    for page in DOCS.rglob("*.md"):
        for link in LINK.findall(prose(page)):
            if "://" not in link:
                assert (page.parent / link.partition("#")[0]).resolve().is_relative_to(DOCS), link


@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="the extra `docs` is not installed"
)
def test_the_site_is_built_strictly(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "infra", tmp_path / "infra")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    command += ["--config-file", str(tmp_path / "infra" / "mkdocs.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "severity" in (tmp_path / "site" / "glossary.html").read_text()
    home = tmp_path / "infra" / "docs" / "index.md"
    home.write_text(home.read_text().replace("tutorials/recover.md)", "tutorials/recover.md#gone)"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "#gone" in done.stderr) == (1, True)


def _pages(entry: object) -> list[str]:
    if isinstance(entry, dict):
        entry = next(iter(entry.values()))
    if isinstance(entry, list):
        return [page for part in entry for page in _pages(part)]
    assert isinstance(entry, str)
    return [entry]
