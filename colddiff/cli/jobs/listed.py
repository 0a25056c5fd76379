"""`colddiff list`: the jobs of a storage."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from colddiff.cli.jobs.commands import as_data
from colddiff.cli.options import Address, Json, Storage
from colddiff.cli.output import emit_json, emit_table, note, terminal_width
from colddiff.jobs.status import WAITING, State
from colddiff.machine.wording import counted
from colddiff.stores.open import open_store, storage_at

if TYPE_CHECKING:
    from colddiff.jobs.listing.job_table import JobRow

LIMIT = 200
"""Jobs that a table shows where nothing else is asked for."""
All = Annotated[
    bool,
    typer.Option(
        "--all",
        help="Also the jobs that searches and studies run. --json always lists them, with the job "
        "that runs each as `part_of`.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        metavar="N",
        min=0,
        help="At most N jobs, the newest or the first of the order; 0: all. "
        f"Default: {LIMIT}, with --json all.",
    ),
]


def list_(
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state", metavar="STATE", help="Only jobs in this state; repeat it for several."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="TEXT",
            help="Only jobs whose name or id has this, or fits this pattern: 'deblur-*'.",
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="NAME", help="Only jobs that this user submitted."),
    ] = None,
    sort: Annotated[
        str, typer.Option("--sort", metavar="KEY", help="created, seen, name, state or best.")
    ] = "created",
    every: All = False,
    limit: Limit = None,
    address: Address = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """List jobs, and what tells them apart. The last submitted is last."""
    from colddiff.cluster.listing import current_rows
    from colddiff.jobs.listing import job_table
    from colddiff.jobs.listing.comparable import compare_line

    _refuse_unknown("--state", state or (), (*get_args(State), WAITING))
    _refuse_unknown("--sort", [sort], job_table.SORTS)
    store = open_store(storage_at(storage))
    found, problems = current_rows(store, address)
    for line in problems:
        note(line)
    rows = job_table.in_order(job_table.chosen(found, state or (), name, user), sort)
    ids = {row.folder.job_id for row in found}
    apart = rows if every or as_json else job_table.submitted(rows, ids)
    if limit is None:
        limit = 0 if as_json else LIMIT
    shown, more = job_table.page(apart, sort, limit)
    if more:
        note(f"{more} more; --limit 0 shows all, --state, --name and --user choose among them")
    if as_json:
        with ThreadPoolExecutor(job_table.READERS) as pool:
            emit_json(list(pool.map(_row_as_data, shown)))
        return
    if shown:
        _print(shown)
    elif not rows:
        note(f"no {'such ' * (len(found) > 0)}jobs in {store.uri}")
    if compare := compare_line(shown):
        note(compare)
    if hidden := len(rows) - len(apart):
        note(f"{counted(hidden, 'job')} of searches and studies not shown: --all")


def _refuse_unknown(option: str, given: Sequence[str], known: Sequence[str]) -> None:
    for word in given:
        if word not in known:
            from colddiff.errors import SpecError
            from colddiff.spec.base import nearest

            offered = ", ".join(known)
            raise SpecError(f"{option} {word}: not one of {offered}{nearest(word, known)}")


def _print(rows: Sequence[JobRow]) -> None:
    from colddiff.jobs.listing.job_table import table_of

    # Who reads a file or a pipe, such as grep, has room for whole reasons.
    emit_table(*table_of(rows, time.time(), cut=terminal_width() is not None))


def _row_as_data(row: JobRow) -> dict[str, Any]:
    from colddiff.jobs.listing.job_table import made_from

    best = None if row.score is None else {"metric": row.score[0], "value": row.score[1]}
    more = {"name": row.name, "verb": row.verb, "differs": row.differs, "best": best}
    more |= {"part_of": row.part_of, "of": made_from(row.job.get("spec") or {})}
    return {**more, **as_data(row.folder, row.status)}
