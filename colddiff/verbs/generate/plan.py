"""The plan of a generation job, and its agreement with what is at the place of its samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from colddiff.data.sample_plan import KEY, SamplePlan, differences, read_plan
from colddiff.errors import DataError, Exists, SpecError
from colddiff.ports import ImageFormat, Store
from colddiff.verbs.generate.job import GenerateJob

FIELDS = (
    "sampler",
    "severities",
    "symmetry_noise",
    "first_seed",
    "shard_size",
    "batch_size",
    "precision",
    "writer",
)
"""Fields of the job that every image depends on."""


def make_plan(job: GenerateJob, content: Mapping[str, str]) -> SamplePlan:
    """The plan of a resolved job; ``content`` holds the digests of what its addresses name.

    ``content["image"]`` is the shape as ``CxHxW``; ``job.severities`` is definite.
    """
    channels, height, width = map(int, content["image"].split("x"))
    spec = job.to_dict()
    return SamplePlan(
        {
            **{name: spec[name] for name in FIELDS},
            **{name: content.get(name) for name in ("model", "terminal", "data", "plugins")},
            "checkpoint": content["checkpoint"],
            "image": asdict(ImageFormat(channels, height, width)),
        },
        threads=max(1, int(job.resources.cpus)),
    )


def check_place(store: Store, plan: SamplePlan) -> SamplePlan | None:
    """The plan that is at ``store`` already and equals ours; None where nothing is there yet.

    Raises:
        SpecError: samples of another plan, naming what differs, or something else altogether.
    """
    there = read_plan(store)
    if there is None:
        keys = (item.key for item in store.list(""))
        # Another submit may be trying whether it can write here.
        found = next((key for key in keys if not key.startswith("probes/")), None)
        if found is not None:
            raise SpecError(
                [
                    (
                        "out",
                        f"{store.uri} holds something else ({found}) and no {KEY}; give an "
                        "empty place, or delete what is there",
                    )
                ]
            )
        return None
    if differing := differences(there, plan):
        raise SpecError(
            [
                (
                    "out",
                    f"{store.uri} holds samples of another plan: {'; '.join(differing)}. Give "
                    "another out, or submit what was submitted there",
                )
            ]
        )
    return there


def settle_plan(store: Store, plan: SamplePlan) -> SamplePlan:
    """The plan by which samples are made at ``store``: the one that was put there first.

    Raises SpecError as ``check_place``.
    """
    for _ in range(3):
        if (there := check_place(store, plan)) is not None:
            return there
        try:
            store.put_new(KEY, plan.to_bytes())
        except Exists:
            continue  # another driver was faster; it may have planned something else
    raise DataError(f"{store.uri}/{KEY}: comes and goes; is something deleting it?")
