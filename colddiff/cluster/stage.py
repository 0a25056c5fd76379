"""Staging: a folder with what is sent to the cluster: the code, the job, its plugins."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from colddiff.spec.plugins import plugin_digest

if TYPE_CHECKING:
    from colddiff.jobs.resolve import ResolvedJob

PACKAGE = Path(__file__).resolve().parents[1]
"""The running package itself, not another one of that name on the import path."""
EXCLUDED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


STAGED = "colddiff-stage-"
"""Start of the name of a staged folder."""


@contextmanager
def staged(resolved: ResolvedJob) -> Iterator[Path]:
    """Within ``with``, a private folder with ``colddiff/``, ``job.json`` and ``plugins/``.

    Equal content gives equal trees, so that each is uploaded to the cluster only once. In
    ``job.json`` plugins are named ``plugins/<sha256>.py``, relative to the folder.
    """
    with tempfile.TemporaryDirectory(prefix=STAGED) as name:
        folder = Path(name)
        copy_package(folder)
        job = resolved.to_dict()
        job["spec"] = {**job["spec"], "plugins": _copy_plugins(resolved, folder)}
        text = json.dumps(job, indent=2, sort_keys=True) + "\n"
        (folder / "job.json").write_text(text)
        yield folder


def copy_package(folder: Path) -> None:
    """The running package's code, into ``folder``."""
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=EXCLUDED)


def _copy_plugins(resolved: ResolvedJob, folder: Path) -> list[str]:
    names = []
    for plugin in resolved.job.plugins:
        target = folder / "plugins" / f"{plugin_digest(plugin)}.py"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(plugin, target)
        names.append(str(target.relative_to(folder)))
    return names
