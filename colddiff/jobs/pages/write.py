"""The report page of a job, written into its folder when it ends."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from colddiff.errors import ColddiffError
from colddiff.jobs.folder import JobFolder
from colddiff.ports import Tracker

log = logging.getLogger(__name__)

PAGE = "report.html"


def write_page(folder: JobFolder, tracker: Tracker, result: Mapping[str, Any]) -> str | None:
    """Writes ``report.html`` of a job that ends with ``result``, and logs it to its run.

    Returns its address. A page that cannot be made is logged as a warning and never fails its job:
    returns None.
    """
    try:
        data = _page(folder, result).encode()
        folder.store.put(folder.key(PAGE), data)
        tracker.log_artifact(PAGE, data)
    except (ColddiffError, ValueError, KeyError, TypeError, OSError) as error:
        log.warning("%s was not written (%s: %s)", PAGE, type(error).__name__, error)
        return None
    return f"{folder.store.uri}/{folder.key(PAGE)}"


def _page(folder: JobFolder, result: Mapping[str, Any]) -> str:
    # Heavy, and only needed once a job has ended.
    from colddiff.jobs.pages.find import notes_of, reported
    from colddiff.jobs.pages.read import read_run
    from colddiff.report.page.page import report_page

    shown = reported(folder)
    if [one.job_id for one in shown] == [folder.job_id]:
        return report_page([read_run(folder, result)])
    return report_page(
        [read_run(one) for one in shown],
        over_seed=True,
        title=folder.job_id,
        notes=notes_of(folder),
    )
