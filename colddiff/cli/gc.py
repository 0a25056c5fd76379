"""`colddiff gc`: deletes what nobody needs any more, after saying what."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colddiff.cli.options import Address, Json, Storage
from colddiff.cli.output import emit, emit_json, emit_table, note
from colddiff.machine.wording import counted

if TYPE_CHECKING:
    from colddiff.cleanup.find import Found
    from colddiff.cleanup.leftover import Leftover
    from colddiff.ports import Store

HOUR_S = 3600.0
UNITS = ("B", "kB", "MB", "GB", "TB")


def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be deleted.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    keep: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Checkpoints kept of each train job besides the best and those that other jobs "
            "name; default: its own `keep`.",
        ),
    ] = None,
    older_than: Annotated[
        float,
        typer.Option(
            "--older-than",
            min=0,
            metavar="HOURS",
            help="Leave alone what was written within this time, and jobs that were.",
        ),
    ] = 24.0,
    address: Address = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Delete what nobody needs any more. That is uploads and attempts that never ended, and old
    checkpoints.

    Nothing is deleted of a job that runs or waits, of the trials and members of one, no checkpoint
    that is its job's last or best or that any job in the storage names, no result, log, packed
    set or sample. On this machine also what killed clients staged, and killed trainings of this
    storage left in memory: of a deleted job at once.
    """
    from colddiff.errors import SpecError
    from colddiff.stores.open import open_store, storage_at

    store = open_store(storage_at(storage))
    if not (dry_run or yes or sys.stdin.isatty()):
        raise SpecError(
            f"gc of {store.uri}: add --yes, as stdin is not a terminal, or --dry-run to see what "
            "would be deleted"
        )
    found = _find(store, older_than, keep, address, writes=not dry_run)
    for line in found.left_alone:
        note(f"left alone: {line}")
    if not as_json and found.leftovers:
        _show(found.leftovers)
    deleted: list[Leftover] = []
    if found.leftovers and not dry_run:
        if not yes:
            typer.confirm(f"delete {_total(found.leftovers)}?", abort=True, err=True)
        again = _find(store, older_than, keep, address)
        deleted = _delete(found.leftovers, again.leftovers)
    shown = found.leftovers if dry_run else deleted
    said = f"{'would free' if dry_run else 'freed'} {_total(shown)}"
    note(f"{store.uri}: {said if found.leftovers else 'nothing is left over'}")
    if as_json:
        emit_json(_as_data(store.uri, shown, found.left_alone, dry_run=dry_run))


def _as_data(
    storage: str, shown: Sequence[Leftover], left_alone: Sequence[str], *, dry_run: bool
) -> dict[str, Any]:
    return {
        "storage": storage,
        "dry_run": dry_run,
        "bytes": sum(item.bytes for item in shown),
        "leftovers": [item.to_dict() for item in shown],
        "left_alone": list(left_alone),
    }


def _find(
    store: Store, older_than: float, keep: int | None, address: str | None, *, writes: bool = True
) -> Found:
    from colddiff.cleanup.sweep import find_all

    age_s = older_than * HOUR_S
    return find_all(store, older_than_s=age_s, keep=keep, address=address, writes=writes)


def _delete(shown: Sequence[Leftover], now: Sequence[Leftover]) -> list[Leftover]:
    """Deletes what was shown and is still left over ``now``; returns what was deleted.

    Since it was shown a job may have begun, or have named a checkpoint.
    """
    from colddiff.cleanup.sweep import delete_all

    return delete_all([item for item in shown if item in now])


def _show(leftovers: Sequence[Leftover]) -> None:
    rows = [[item.kind, _bytes(item.bytes), item.where, item.why] for item in leftovers]
    emit_table(["KIND", "SIZE", "WHERE", "WHY"], rows)
    emit("")


COUNTED = ("checkpoint", "upload", "attempt", "probe", "snapshot")
"""Kinds of leftovers that are nouns with a plural."""


def _total(leftovers: Sequence[Leftover]) -> str:
    """``1.2 GB: 3 checkpoints, 1 upload``."""
    counts: dict[str, int] = {}
    for item in leftovers:
        counts[item.kind] = counts.get(item.kind, 0) + 1
    parts = ", ".join(
        counted(count, kind) if kind in COUNTED else f"{count} {kind}"
        for kind, count in sorted(counts.items())
    )
    return f"{_bytes(sum(item.bytes for item in leftovers))}: {parts or 'nothing'}"


def _bytes(count: float) -> str:
    for unit in UNITS:
        if count < 1000 or unit == UNITS[-1]:
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError
