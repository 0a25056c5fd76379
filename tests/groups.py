"""Which tests run one after the other in one process, where several processes run tests at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

# By what they share: a Ray cluster, images packed and modules imported once, a real S3 service, a
# server of ranks, a trained checkpoint. The longest first, so that short ones fill up what is left.
# A test file that is named nowhere here is a group of its own.
GROUPS: dict[str, tuple[str, ...]] = {
    "mlflow server": ("cluster/test_mlflow_server.py",),
    "s3": (
        "cluster/test_s3_server.py",
        "cluster/test_whole_chain.py",
        "cli/test_data_places.py",
        "unit/test_s3_store.py",
        "unit/test_stores.py",
    ),
    # Three clusters, each with a third of what runs on one: no process waits for another.
    "faults": (
        "cluster/test_faults.py",
        "cluster/test_lost_machine.py",
        "cluster/test_wheel.py",
    ),
    "searches on a cluster": ("cluster/test_search*.py", "cluster/test_study.py"),
    "slurm": ("cluster/test_slurm.py",),
    "cluster": ("cluster/test_*.py",),
    "training": (
        "unit/test_aws.py",
        "unit/test_estimate.py",
        "unit/test_evaluate_job.py",
        "unit/test_preflight.py",
        "unit/test_run.py",
        "unit/test_terminal_training.py",
        "unit/test_tracked_job.py",
    ),
    "searches": ("unit/search/test_search_here.py",),
    "old layout": ("compat/test_*.py",),
    "ranks": ("unit/test_resume.py", "unit/test_train.py"),
    "generation": ("unit/generation/test_*.py",),
    # Its last test asks what the ones before have read.
    "golden": ("golden/test_*.py",),
}
FIRST = (
    "cluster",
    "faults",
    "searches on a cluster",
    "slurm",
    "searches",
    "training",
    "ranks",
    "s3",
    "mlflow server",
    "generation",
    "old layout",
    "golden",
)


@dataclass(frozen=True)
class Group:
    """A group of tests; those of a lower ``rank`` are begun first."""

    name: str
    rank: int


def group_of(path: PurePath) -> Group:
    """The group of the tests in ``path``, relative to the repository."""
    for name, patterns in GROUPS.items():
        if any(path.match(f"tests/{pattern}") for pattern in patterns):
            return Group(name, FIRST.index(name))
    return Group(path.with_suffix("").as_posix(), len(FIRST))
