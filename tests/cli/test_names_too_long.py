"""A name that is too long for a file is refused in one line, wherever one is typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.in_process import colddiff_here


@pytest.mark.parametrize("name", ["x" * 300, "y/" * 3000])
@pytest.mark.parametrize(
    "words",
    [
        ("restore", ".", "--out", "out", "--checkpoint"),
        ("export", "--out", "out"),
        ("gc", "--dry-run", "--storage"),
        ("data", "pack", "--out", "out"),
        ("report", "job", "--out"),
    ],
)
def test_a_name_that_no_file_can_have_is_no_bug(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLDDIFF_HOME", str(tmp_path / "home"))
    where = f"mnist:{name}" if words[0] == "data" else name
    done = colddiff_here(monkeypatch, capsys, *words, where)
    assert done.returncode in (2, 3), done.stderr
    assert "bug" not in done.stderr
    assert len(done.stderr) < 3000
