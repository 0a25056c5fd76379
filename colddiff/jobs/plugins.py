"""Plugins stored beside a job's checkpoints: code that runs only when it is trusted."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path

from colddiff.errors import CheckpointError, SpecError
from colddiff.ports import Store
from colddiff.spec.plugins import is_loaded, load_plugin_source

FOLDER = "plugins"


def keep_plugins(store: Store, prefix: str, sources: Iterable[bytes]) -> list[str]:
    """Writes each source to ``plugins/<sha256>.py`` below ``prefix``; returns those names."""
    names = []
    for source in sources:
        name = f"{FOLDER}/{hashlib.sha256(source).hexdigest()}.py"
        key = _below(prefix, name)
        if store.size(key) != len(source):
            store.put(key, source)
        names.append(name)
    return sorted(names)


def kept_plugins(store: Store, prefix: str) -> dict[str, bytes]:
    """The sources below ``prefix`` by sha256; raises CheckpointError if one was modified."""
    found = {}
    for item in list(store.list(_below(prefix, f"{FOLDER}/"))):
        source, expected = store.get(item.key), Path(item.key).stem
        if hashlib.sha256(source).hexdigest() != expected:
            raise CheckpointError(
                f"{store.uri}/{item.key}: its content does not match the sha256 in its name; "
                "restore the file or export the checkpoint again"
            )
        found[expected] = source
    return found


def run_kept_plugins(store: Store, prefix: str, trusted: Collection[str]) -> None:
    """Loads the plugins stored below ``prefix``, each once in this process.

    Raises CheckpointError for one that is neither loaded already nor in ``trusted`` (sha256, hex):
    it may be code from a third party.
    """
    for sha256, source in kept_plugins(store, prefix).items():
        place = f"{store.uri}/{_below(prefix, f'{FOLDER}/{sha256}.py')}"
        if is_loaded(sha256):
            continue
        if sha256 not in trusted:
            raise CheckpointError(
                f"this checkpoint needs a plugin, code that came with it: read {place} and, if you "
                f"trust it, add --trust-plugin {sha256}"
            )
        try:
            load_plugin_source(source, place)
        except SpecError as error:
            raise CheckpointError(f"the checkpoint's {error}") from None


def _below(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix else name
