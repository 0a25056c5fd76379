"""Jobs as data: what is learnt or made (identity) and how it is run (operation), and their ids."""

from __future__ import annotations

from colddiff.jobspec.evaluate import EvaluateJob
from colddiff.jobspec.generate import GenerateJob
from colddiff.jobspec.job import Job, LimitsSpec, ResourcesSpec, TrackingSpec, slugify
from colddiff.jobspec.train import EmaSpec, EvaluationSpec, OptimizerSpec, TrainJob

JOBS: dict[str, type[Job]] = {job.verb: job for job in (TrainJob, EvaluateJob, GenerateJob)}

__all__ = [
    "JOBS",
    "EmaSpec",
    "EvaluateJob",
    "EvaluationSpec",
    "GenerateJob",
    "Job",
    "LimitsSpec",
    "OptimizerSpec",
    "ResourcesSpec",
    "TrackingSpec",
    "TrainJob",
    "slugify",
]
