"""The pinned sets, newest and oldest, hold every dependency and are within what is promised."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]


def pins(name: str) -> dict[str, Version]:
    lines = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE)
    return {canonicalize_name(package): Version(version) for package, version in lines}


def promised() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in project["dependencies"]]


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-oldest.txt"])
def test_a_pinned_set_is_one_that_is_promised_to_work(name: str) -> None:
    pinned = pins(name)
    for needed in promised():
        assert pinned[canonicalize_name(needed.name)] in needed.specifier, needed.name


def test_the_oldest_set_is_at_the_floors() -> None:
    """`make constraints-oldest` after a change of `pyproject.toml`."""
    oldest = pins("constraints-oldest.txt")
    above = {
        needed.name
        for needed in promised()
        for floor in needed.specifier
        if not str(oldest[canonicalize_name(needed.name)]).startswith(floor.version)
    }
    # Another dependency needs a later one.
    assert above <= {"pydantic", "webdataset"}
