"""A STORAGE on a disk is its user's own, unless a folder was made for others to share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from colddiff.data.readers.local_cache import LocalCache
from colddiff.errors import DataError
from colddiff.jobs.job import TrackingSpec
from colddiff.jobs.resolve import resolve
from colddiff.stores.local_store import LocalStore
from colddiff.stores.open import make_storage
from colddiff.verbs.train.job import TrainJob


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o002)
    yield
    os.umask(before)


def modes(root: Path) -> set[str]:
    """``f600`` and ``d700``: modes of all that is below ``root``."""
    return {
        f"{'d' if path.is_dir() else 'f'}{path.stat().st_mode & 0o777:o}"
        for path in root.rglob("*")
    }


def fill(root: Path) -> None:
    LocalStore(root).put("jobs/a/status.json", b"{}")
    LocalStore(root).put_new("jobs/a/attempts/1/claim.json", b"{}")
    # Stores of their own, whose root is not there yet.
    LocalStore(root / "samples" / "a").put("plan.json", b"{}")


@pytest.mark.usefixtures("umask")
def test_a_storage_that_is_made_is_private_with_all_that_is_in_it(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "runs"
    make_storage(str(root))
    assert root.stat().st_mode & 0o777 == 0o700
    fill(root)
    assert modes(root) == {"d700", "f600"}
    make_storage(str(root))


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(
    ("mode", "found"),
    [
        (0o770, {"d770", "f660"}),
        (0o750, {"d750", "f640"}),
        (0o755, {"d755", "f644"}),
        (0o777, {"d775", "f664"}),
        (0o700, {"d700", "f600"}),
    ],
)
def test_one_that_is_shared_on_purpose_keeps_what_its_folder_allows(
    tmp_path: Path, mode: int, found: set[str]
) -> None:
    root = tmp_path / "runs"
    root.mkdir()
    root.chmod(mode)
    make_storage(str(root))
    assert root.stat().st_mode & 0o777 == mode
    fill(root)
    assert modes(root) == found


def test_the_umask_excludes_whom_the_folder_would_not(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    root.mkdir()
    root.chmod(0o777)
    before = os.umask(0o077)
    try:
        fill(root)
    finally:
        os.umask(before)
    assert modes(root) == {"d700", "f600"}


def test_submitting_makes_a_private_storage(tmp_path: Path) -> None:
    job = TrainJob(data=str(tmp_path / "nothing"), tracking=TrackingSpec(required=False))
    with pytest.raises(DataError):
        resolve(job, "x", storage=str(tmp_path / "runs"))
    assert (tmp_path / "runs").stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("umask")
def test_the_cache_of_images_is_private_too(tmp_path: Path) -> None:
    cache = tmp_path / "home" / "colddiff"

    def make(file: BinaryIO) -> None:
        file.write(b"data")

    with LocalCache(cache).open("sets/a", 4, make) as file:
        assert file.read() == b"data"
    assert cache.stat().st_mode & 0o777 == 0o700
