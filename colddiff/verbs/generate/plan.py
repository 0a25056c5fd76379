"""The plan of a generation job, and the check that stored samples are of the same plan."""

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
"""Job fields that every image depends on."""


def make_plan(job: GenerateJob, content: Mapping[str, str]) -> SamplePlan:
    """The plan of a resolved job; ``content`` holds the digests of what its addresses name.

    ``content["image"]`` is the shape as ``CxHxW``; ``job.severities`` must not be None.
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
    """The plan stored at ``store``, which must equal ``plan``; None if ``store`` is empty.

    Raises:
        SpecError: samples of another plan, naming the differences, or objects without a plan.
    """
    stored = read_plan(store)
    if stored is None:
        keys = (item.key for item in store.list(""))
        # Another submit may be probing whether it can write here.
        found = next((key for key in keys if not key.startswith("probes/")), None)
        if found is not None:
            raise SpecError(
                [
                    (
                        "out",
                        f"{store.uri} holds other objects ({found}) and no {KEY}; use an empty "
                        "location, or delete them",
                    )
                ]
            )
        return None
    if differing := differences(stored, plan):
        raise SpecError(
            [
                (
                    "out",
                    f"{store.uri} holds samples of another plan: {'; '.join(differing)}. Use "
                    "another out, or submit the job that was submitted there",
                )
            ]
        )
    return stored


def claim_plan(store: Store, plan: SamplePlan) -> SamplePlan:
    """The plan stored at ``store``, written by a conditional write if there is none yet.

    Raises SpecError like ``check_place``.
    """
    for _ in range(3):
        if (stored := check_place(store, plan)) is not None:
            return stored
        try:
            store.put_new(KEY, plan.to_bytes())
        except Exists:
            continue  # another driver was faster; its plan may differ
    raise DataError(
        f"{store.uri}/{KEY}: deleted while it was being written; is another process deleting it?"
    )
