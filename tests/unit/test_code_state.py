"""Which code a job ran: its commit, and whether the package was changed since."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from colddiff.jobs import resolve


def git(root: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(root), *who, *words], check=True, capture_output=True)


def test_only_changes_of_the_package_are_local_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path.resolve()
    monkeypatch.setattr(resolve, "STAGED", root)
    assert resolve._git_state() == {}
    package = root / "colddiff"
    package.mkdir()
    (package / "blur.py").write_text("1")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    # What a newcomer leaves in a clone: results, data, a job file.
    for name in ("grid.png", "mine.yaml", "trial/x.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("")
    clean = resolve._git_state()
    assert (len(clean["commit"]), clean["dirty"]) == (40, False)
    (package / "added.py").write_text("")
    assert resolve._git_state() == {**clean, "dirty": True}
    (package / "added.py").unlink()
    (package / "blur.py").write_text("2")
    assert resolve._git_state() == {**clean, "dirty": True}
    # The package within another repository is not its code.
    monkeypatch.setattr(resolve, "STAGED", package)
    assert resolve._git_state() == {}
