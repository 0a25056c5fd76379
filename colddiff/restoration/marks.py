"""Files that a restoration wrote, by the mark in them: results, degraded images, omega."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from colddiff.data.pil_images import PNG_HEADER
from colddiff.machine.files import read_start

RECORD = "colddiff-restore"
"""Keyword of the PNG text chunk that records, as JSON, what a result was made from."""
DEGRADED_RECORD = "colddiff-degraded"
"""Keyword of the text chunk of an image that `--degrade` made; its text is the severity."""
DEGRADED = ".degraded.png"
STRIP = ".strip.png"
OMEGA_MARK = {"colddiff": "omega of one image"}


def is_result(path: Path) -> bool:
    """Whether the file is a restored image or a strip, by its first bytes."""
    return _keyword(path) == RECORD


def is_degraded(path: Path) -> bool:
    """Whether the file is an image that ``--degrade`` made, also one without the mark."""
    if _keyword(path) == DEGRADED_RECORD:
        return True
    name = path.name
    return name.endswith(DEGRADED) and is_result(
        path.with_name(f"{name.removesuffix(DEGRADED)}.png")
    )


def original_name(name: str) -> str:
    """The image that ``--degrade`` made the image ``name`` of; the name itself for others."""
    return name.removesuffix(DEGRADED.removesuffix(".png"))


def is_omega(path: Path) -> bool:
    """Whether the file is omega that ``--degrade`` wrote."""
    try:
        start = read_start(path, 8 + 2**16)
    except OSError:
        return False
    try:
        header = json.loads(start[8 : 8 + int.from_bytes(start[:8], "little")])
    except (ValueError, RecursionError):
        return False
    return isinstance(header, dict) and header.get("__metadata__") == OMEGA_MARK


def marked_omega(row: Mapping[str, Tensor]) -> bytes:
    """omega of one image as safetensors, with the mark."""
    tensors = {name: value.contiguous() for name, value in row.items()}
    return safetensors.torch.save(tensors, metadata=OMEGA_MARK)


def degraded_severity(path: Path) -> int | None:
    """The severity that ``--degrade`` degraded an image to, if the file says so."""
    keyword, text = _first_text(path)
    return int(text) if keyword == DEGRADED_RECORD and text.isdecimal() else None


def _keyword(path: Path) -> str | None:
    return _first_text(path)[0]


def _first_text(path: Path) -> tuple[str | None, str]:
    """Keyword and text, as far as it is read, of the chunk right after a PNG's header, ours."""
    if path.suffix.lower() != ".png":
        return None, ""
    try:
        start = read_start(path, PNG_HEADER + 64)
    except OSError:
        return None, ""
    size, chunk = int.from_bytes(start[PNG_HEADER:][:4], "big"), start[PNG_HEADER + 4 :]
    if not chunk.startswith(b"tEXt"):
        return None, ""
    keyword, _, text = chunk[4 : 4 + size].partition(b"\0")
    return keyword.decode("latin-1"), text.decode("latin-1")
