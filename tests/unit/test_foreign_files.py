"""Files of others: regular ones, up to a size, and never waited for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from colddiff.checkpoints.paper_weights import read_tensors
from colddiff.errors import CheckpointError, DataError, SpecError
from colddiff.machine.files import NotAFile, is_regular, read_regular, read_start
from colddiff.restoration.omega_files import OmegaFiles
from colddiff.spec.plugins import load_plugin


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    (tmp_path / "link").symlink_to(path)
    assert read_regular(path) == read_regular(tmp_path / "link", 1000) == b"x" * 1000
    assert read_start(path, 10) == b"x" * 10
    assert read_start(path, 10_000) == b"x" * 1000
    with pytest.raises(OSError, match="more than the limit of 999 bytes"):
        read_regular(path, 999)
    with path.open("ab") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="more than the limit"):
        read_regular(path, 2**20)


@pytest.mark.parametrize("kind", ["pipe", "zero", "null", "folder"])
def test_what_is_no_file_is_not_waited_for(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(f"/dev/{kind}")
    assert not is_regular(path)
    with pytest.raises(IsADirectoryError if kind == "folder" else NotAFile):
        read_regular(path)
    readers: list[tuple[Callable[[], object], type[Exception]]] = [
        (lambda: load_plugin(path), SpecError),
        (lambda: read_tensors(path), CheckpointError),
    ]
    if kind != "folder":  # a folder of omega is one file for each image
        readers.append((lambda: OmegaFiles(path), DataError))
    for read, error in readers:
        with pytest.raises(error, match=r"x\.json"):
            read()


def test_links_in_a_circle_are_no_file(tmp_path: Path) -> None:
    (tmp_path / "self").symlink_to("self")
    assert not is_regular(tmp_path / "self")
    with pytest.raises(SpecError, match="cannot be read"):
        load_plugin(tmp_path / "self")
    with pytest.raises(SpecError, match="holds a NUL character"):
        load_plugin("a\0b.py")
