"""Sets that an earlier version packed of a folder of which it read fewer formats."""

from __future__ import annotations

from typing import Any

from colddiff.data.left_out import FRAMES
from colddiff.data.pack_settings import PackSettings, selected
from colddiff.data.sources.source import ImageSource, listing_digest
from colddiff.errors import DataError
from colddiff.ports import Manifest


def packed_earlier(source: ImageSource, settings: PackSettings, manifest: Manifest | None) -> bool:
    """Whether the set of ``manifest`` was packed from ``source`` with these settings.

    As it stands now, by a version that read one image a file and passed over the rest, as its
    list of what was left out shows: such a set, and what was trained on it, stays valid.
    """
    before = source.earlier
    if manifest is None or before is None:
        return False
    written: dict[str, Any] = {"source": source.uri.partition(":")[0], **settings.to_dict()}
    made = manifest.settings
    if any(made.get(name) != value for name, value in written.items()):
        return False
    try:
        entries = selected(before, settings)
    except DataError:
        return False
    listed = [reason for reason in made.get("left_out", ()) if reason["why"] != FRAMES]
    return (
        made.get("images_sha256") == listing_digest(entries) and listed == before.left_out.to_list()
    )
