"""`make audit` names each finding, and says so where it could not ask."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PATH = Path(__file__).resolve().parents[2] / "infra" / "audit.py"
FOUND = {
    "name": "torch",
    "version": "2.0.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-2025-1"], "fix_versions": ["2.10.0"]}],
}


@pytest.fixture
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", PATH)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_finding_is_a_line_with_the_way_out(audit: ModuleType) -> None:
    packages: list[Any] = [FOUND, {"name": "numpy", "version": "2", "vulns": []}, {"name": "x"}]
    assert audit.findings(packages) == ["torch 2.0.0: PYSEC-1, fixed in 2.10.0"]


def test_what_was_accepted_with_a_reason_is_no_finding(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(audit.ACCEPTED, "CVE-2025-1", "never called")
    assert audit.findings([FOUND]) == []


def _answer(packages: list[Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], 0, json.dumps({"dependencies": packages}), "")


SKIPPED = {"name": "ray", "skip_reason": "Dependency not found on PyPI"}


def test_what_could_not_be_asked_for_is_named(
    audit: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.report(_answer([FOUND, SKIPPED])) == 1
    said = capsys.readouterr().err
    assert said == "1 packages audited, 1 known vulnerabilities; not audited: ray\n"
    # A mirror without advisories knows no package: that is no clean bill of health.
    assert audit.report(_answer([SKIPPED])) == 0
    assert capsys.readouterr().err == "not audited: Dependency not found on PyPI\n"


def test_without_an_answer_it_is_said_and_nothing_fails(
    audit: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.not_audited("Traceback\nConnectionError: no route\n\n") == 0
    assert capsys.readouterr().err == "not audited: ConnectionError: no route\n"
