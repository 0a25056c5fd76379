"""Standard streams that are closed, full, or a pipe that ends early: the exit code is true."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from colddiff.errors import ClusterError, DataError, SpecError, printable
from tests.terminal import read_to_its_end

ROOT = Path(__file__).resolve().parents[2]


def shell(line: str, folder: Path) -> tuple[int, str]:
    """Exit code and stderr of a line of bash in which ``$C`` is colddiff."""
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        env={
            **os.environ,
            "C": f"{sys.executable} -m colddiff.cli.main",
            "PYTHONPATH": str(ROOT),
            "COLDDIFF_HOME": str(folder / "home"),
            "COLDDIFF_STORAGE": str(folder / "runs"),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("$C degradations >&-", 0, ""),
        ("$C degradations <&- >&- 2>&-", 0, ""),
        ("$C degradations | true", 0, ""),
        ("$C recipes | head -1 >/dev/null", 0, ""),
        ("$C list >/dev/full", 0, "no jobs in"),
        ("$C degradations >/dev/full", 1, "stdout cannot be written (No space left on device)"),
        ("$C --version >/dev/full", 1, "its output is incomplete"),
        ("$C status nope 2>&-", 2, ""),
        ("$C status nope 2>/dev/full >&-", 2, ""),
        ("$C status nope 2>&1 | true", 2, ""),
        ("$C submit train quickstart seed=x --dry-run >/dev/full 2>&1", 2, ""),
    ],
)
def test_the_exit_code_is_true_and_nothing_else_is_said(
    tmp_path: Path, line: str, code: int, says: str
) -> None:
    found, said = shell(line, tmp_path)
    assert (found, says in said) == (code, True), said
    assert len(said.splitlines()) == bool(says)
    assert "bug" not in said


def test_a_terminal_is_told_that_pytorch_is_loaded_and_nothing_else(tmp_path: Path) -> None:
    words = ["restore", "nothing.png", "--checkpoint", "nothing", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "colddiff.cli.main", *words]
    ours, theirs = pty.openpty()
    with open(theirs, "wb") as terminal:  # noqa: PTH123  # a descriptor
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, cwd=tmp_path)
    said = read_to_its_end(ours)
    assert (done.returncode, done.stdout) == (2, b"")
    first, second = said.splitlines()
    assert "loading PyTorch ..." in first
    assert second.startswith("colddiff: error: nothing.png: no such file")
    in_a_log = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "loading" not in in_a_log.stderr


def test_the_output_of_a_driver_is_kept_where_its_own_stdout_is_full(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from colddiff.jobs.logs import printed\n"
        "with printed(Path(sys.argv[1]).write_bytes, lambda text: None):\n"
        "    for n in range(40000): print('line', n)\n"
    )
    log = tmp_path / "log"
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", script, str(log)], stdout=full, stderr=full, timeout=60
        )
    # More than a pipe holds: it would block if nobody read it.
    assert log.read_text().splitlines()[-1].endswith("Z line 39999")
    assert done.returncode == 0


def test_what_others_wrote_does_not_steer_the_terminal() -> None:
    assert printable("a\x1b]0;owned\x07\x1b[31mred\r\n\tä \N{SNOWMAN}\xa0.") == (
        "a\\x1b]0;owned\\x07\\x1b[31mred\\r\n\tä \N{SNOWMAN}\xa0."
    )
    assert printable("\udcff\u202e\x00\x9b") == "\\udcff\\u202e\\x00\\x9b"


def test_an_error_that_quotes_others_holds_no_control_characters() -> None:
    said = "no text: \x00\x18\x04 \x1b]0;title\x07, \u202eback"
    for error in (ClusterError(said), SpecError([("data", said)]), DataError(said)):
        assert str(error).isprintable()
        assert "no text: \\x00\\x18\\x04 \\x1b]0;title" in str(error)
