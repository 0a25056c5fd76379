"""The ledger of the golden vectors is complete and true. Runs last: it looks at what was read."""

from __future__ import annotations

import importlib
import itertools
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest

from tests.golden.conftest import READ
from tests.golden.ledger import LEDGER, NOT_ARRAYS, Row


def names_in(folder: Path, file: str) -> list[str]:
    with np.load(folder / f"{file}.npz", allow_pickle=False) as vectors:
        return list(vectors.files)


def takes(row: Row, name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in row.arrays.split())


def test_every_file_is_in_the_ledger(golden_folder: Path) -> None:
    there = {path.name for path in golden_folder.iterdir()}
    assert there - NOT_ARRAYS - {f"{file}.npz" for file in LEDGER} == set()


@pytest.mark.parametrize("file", LEDGER)
def test_every_array_has_one_row_and_every_row_arrays(golden_folder: Path, file: str) -> None:
    if not (golden_folder / f"{file}.npz").exists():
        pytest.skip(f"{file}.npz is not among the vectors here")
    names, rows = names_in(golden_folder, file), LEDGER[file]
    found = {name: [row.arrays for row in rows if takes(row, name)] for name in names}
    assert {name: taken for name, taken in found.items() if len(taken) != 1} == {}
    for row in rows:
        for pattern in row.arrays.split():
            assert any(fnmatchcase(name, pattern) for name in names), f"{pattern} is not there"


def test_the_ledger_names_tests_that_exist() -> None:
    for row in itertools.chain.from_iterable(LEDGER.values()):
        module, _, name = row.test.partition("::")
        assert hasattr(importlib.import_module(f"tests.golden.{module}"), name), row.test


def test_the_tests_of_the_ledger_read_the_arrays_they_stand_for(
    golden_folder: Path, request: pytest.FixtureRequest
) -> None:
    named = {row.test.partition("::")[2] for rows in LEDGER.values() for row in rows}
    running = {getattr(item, "originalname", item.name) for item in request.session.items}
    config = request.config
    if named - running or config.option.keyword or any("::" in word for word in config.args):
        pytest.skip("not all of the tests it names run in this session")
    unread = []
    for file, rows in LEDGER.items():
        if not (golden_folder / f"{file}.npz").exists():
            continue
        for name in names_in(golden_folder, file):
            row = next(row for row in rows if takes(row, name))
            if (file, name) not in READ.get(row.test, set()):
                unread.append(f"{file}/{name} by {row.test}")
    assert unread == []
