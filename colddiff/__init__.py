"""Cold diffusion (arXiv 2208.09392) for any image degradation, as jobs on a Ray cluster.

Names are imported on first use: ``import colddiff`` alone imports neither torch nor a service.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ColddiffError": "colddiff.errors",
    "SpecError": "colddiff.errors",
    "ImageShape": "colddiff.types",
    "Image": "colddiff.types",
    "Omega": "colddiff.types",
    "Severity": "colddiff.types",
    "DEGRADATIONS": "colddiff.degradations",
    "Degradation": "colddiff.degradations",
    "DegradationSpec": "colddiff.degradations",
    "build_degradation": "colddiff.degradations",
    "RESTORERS": "colddiff.restorers",
    "Restorer": "colddiff.restorers",
    "RestorerSpec": "colddiff.restorers",
    "build_restorer": "colddiff.restorers",
    "sample": "colddiff.sampling",
    "sample_steps": "colddiff.sampling",
    "TrainJob": "colddiff.verbs.train.job",
    "EvaluateJob": "colddiff.verbs.evaluate.job",
    "GenerateJob": "colddiff.verbs.generate.job",
    "SearchJob": "colddiff.verbs.search.job",
    "StudyJob": "colddiff.verbs.study.job",
    "load_recipe": "colddiff.jobs.recipes",
    "import_reference_checkpoint": "colddiff.checkpoints.paper_weights",
    "load_checkpoint": "colddiff.checkpoints.references",
    "restore": "colddiff.restoration.arrays",
    "open_data": "colddiff.data.readers.image_data",
    "ImageData": "colddiff.data.readers.image_data",
    "list_jobs": "colddiff.notebook",
    "load_result": "colddiff.notebook",
    "JobResult": "colddiff.notebook",
    "plot_strip": "colddiff.report.plots",
    "plot_grid": "colddiff.report.plots",
    "plot_trajectory": "colddiff.report.plots",
}

__all__ = [
    "DEGRADATIONS",
    "RESTORERS",
    "ColddiffError",
    "Degradation",
    "DegradationSpec",
    "EvaluateJob",
    "GenerateJob",
    "Image",
    "ImageData",
    "ImageShape",
    "JobResult",
    "Omega",
    "Restorer",
    "RestorerSpec",
    "SearchJob",
    "Severity",
    "SpecError",
    "StudyJob",
    "TrainJob",
    "__version__",
    "build_degradation",
    "build_restorer",
    "evaluate",
    "generate",
    "import_reference_checkpoint",
    "list_jobs",
    "load_checkpoint",
    "load_recipe",
    "load_result",
    "open_data",
    "plot_grid",
    "plot_strip",
    "plot_trajectory",
    "restore",
    "sample",
    "sample_steps",
    "search",
    "study",
    "train",
]

if TYPE_CHECKING:
    from colddiff.checkpoints.paper_weights import import_reference_checkpoint
    from colddiff.checkpoints.references import load_checkpoint
    from colddiff.data.readers.image_data import ImageData, open_data
    from colddiff.degradations import (
        DEGRADATIONS,
        Degradation,
        DegradationSpec,
        build_degradation,
    )
    from colddiff.errors import ColddiffError, SpecError
    from colddiff.jobs.in_process import Run
    from colddiff.jobs.recipes import load_recipe
    from colddiff.notebook import JobResult, list_jobs, load_result
    from colddiff.report.plots import plot_grid, plot_strip, plot_trajectory
    from colddiff.restoration.arrays import restore
    from colddiff.restorers import RESTORERS, Restorer, RestorerSpec, build_restorer
    from colddiff.sampling import sample, sample_steps
    from colddiff.types import Image, ImageShape, Omega, Severity
    from colddiff.verbs.evaluate.job import EvaluateJob
    from colddiff.verbs.generate.job import GenerateJob
    from colddiff.verbs.search.job import SearchJob
    from colddiff.verbs.study.job import StudyJob
    from colddiff.verbs.train.job import TrainJob

    # Every verb in `verbs/` has such a function; these are declared for type checkers.
    train: Run[TrainJob]
    evaluate: Run[EvaluateJob]
    generate: Run[GenerateJob]
    search: Run[SearchJob]
    study: Run[StudyJob]


if not TYPE_CHECKING:  # seen by a type checker, it would allow every name

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            value = getattr(importlib.import_module(_HOMES[name]), name)
        elif name in importlib.import_module("colddiff.jobs.verb").VERBS:
            value = importlib.import_module("colddiff.jobs.in_process").function_of(name)
        else:
            raise AttributeError(f"module 'colddiff' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
