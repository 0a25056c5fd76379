"""What travels to the cluster: the code, the job and its plugins, nothing else of the user's."""

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
"""This very package, not what happens to be called the same on the import path."""
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


@contextmanager
def staged(resolved: ResolvedJob) -> Iterator[Path]:
    """A private folder with ``colddiff/``, ``job.json`` and ``plugins/``, for a while.

    Equal content gives equal trees, so that the cluster is sent each only once. In ``job.json``
    the plugins are named as they lie there: ``plugins/<sha256>.py``, relative to the job's folder.
    """
    with tempfile.TemporaryDirectory(prefix="colddiff-stage-") as name:
        folder = Path(name)
        shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=LEFT_OUT)
        job = resolved.to_dict()
        job["spec"] = {**job["spec"], "plugins": _copy_plugins(resolved, folder)}
        text = json.dumps(job, indent=2, sort_keys=True) + "\n"
        (folder / "job.json").write_text(text)
        yield folder


def _copy_plugins(resolved: ResolvedJob, folder: Path) -> list[str]:
    names = []
    for plugin in resolved.job.plugins:
        target = folder / "plugins" / f"{plugin_digest(plugin)}.py"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(plugin, target)
        names.append(str(target.relative_to(folder)))
    return names
