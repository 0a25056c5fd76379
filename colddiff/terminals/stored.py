"""Stores a job's terminal in its folder: fitted once, the same for all ranks and attempts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch

from colddiff.errors import Missing
from colddiff.jobs.folder import JobFolder
from colddiff.spec.documents import DocumentError, read_json_object
from colddiff.terminal import Terminal

TENSORS, STATE = "terminal.safetensors", "terminal.json"


def store_terminal(folder: JobFolder, terminal: Terminal, fitted_on: Mapping[str, Any]) -> None:
    """Write the tensors, then ``terminal.json`` with their hash, which commits them.

    ``fitted_on`` is JSON: everything that the fit depends on.
    """
    data = safetensors.torch.save(dict(terminal.tensors))
    record = {
        "terminal": terminal.state(),
        "fitted_on": dict(fitted_on),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    folder.store.put(folder.key(TENSORS), data)
    folder.store.put(folder.key(STATE), json.dumps(record, indent=2, sort_keys=True).encode())


def stored_terminal(
    folder: JobFolder, fitted_on: Mapping[str, Any] | None = None
) -> Terminal | None:
    """The job's terminal; None if it is missing, incomplete, or was fitted on something else."""
    try:
        record = read_json_object(folder.store.get(folder.key(STATE)))
        data = folder.store.get(folder.key(TENSORS))
    except (Missing, DocumentError):
        return None
    if fitted_on is not None and record.get("fitted_on") != dict(fitted_on):
        return None
    if hashlib.sha256(data).hexdigest() != record.get("sha256"):
        return None
    return Terminal.from_files(safetensors.torch.load(data), record.get("terminal", {}))
