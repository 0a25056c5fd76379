"""``plan.json``: what the images at one place are a function of, and the grid of their shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from colddiff.errors import DataError, Exists, Missing, SpecError
from colddiff.jobspec import GenerateJob
from colddiff.ports import ImageFormat, Store
from colddiff.shards.tars import shard_key
from colddiff.spec import digest

KEY = "plan.json"
FORMAT = "colddiff-samples/1"
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


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to be made: its number on the grid, its first seed, how many images it holds."""

    number: int
    first_seed: int
    count: int
    measure: str = ""
    """sha256 of the stored shard where it is there already and lacks statistics alone."""

    @property
    def key(self) -> str:
        """Its key below the place of the samples."""
        return shard_key(self.number)

    @property
    def seeds(self) -> range:
        """Seeds of its images, in order."""
        return range(self.first_seed, self.first_seed + self.count)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``ShardTask(**data)`` is the inverse."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """What decides every byte of a sample set, and on how many threads it is computed.

    ``content`` is JSON: the weights' hash, the model's and the terminal's digests, sampler,
    severities, noise, seeds, sizes. How many images there are is not in it: more of them are more
    shards of the same grid, so that a set can be extended. ``threads`` is the number of the first
    run, which all later ones keep.
    """

    content: Mapping[str, Any]
    threads: int = 1

    @property
    def digest(self) -> str:
        """sha256 of the content: equal digests mean equal images, on equal machines."""
        return digest(dict(self.content))

    @property
    def image(self) -> ImageFormat:
        """Shape and depth of the images as they are stored."""
        return ImageFormat(**self.content["image"])

    @property
    def shard_size(self) -> int:
        """Images in every shard but a short last one."""
        return int(self.content["shard_size"])

    @property
    def batch_size(self) -> int:
        """Rows of every forward pass."""
        return int(self.content["batch_size"])

    @property
    def first_seed(self) -> int:
        """Seed of the first image of shard 0."""
        return int(self.content["first_seed"])

    @property
    def writer(self) -> str:
        """``webdataset`` or ``folder``."""
        return str(self.content["writer"])

    def num_shards(self, num_samples: int) -> int:
        """Shards of ``num_samples`` images, the last one short where they do not divide."""
        return -(-num_samples // self.shard_size)

    def task(self, number: int, num_samples: int) -> ShardTask:
        """Shard ``number`` of ``num_samples`` images, by arithmetic alone."""
        start = number * self.shard_size
        count = min(self.shard_size, num_samples - start)
        return ShardTask(number, self.first_seed + start, count)

    def to_bytes(self) -> bytes:
        """The content of ``plan.json``."""
        data = {
            "format": FORMAT,
            "digest": self.digest,
            "threads": self.threads,
            "content": dict(self.content),
        }
        return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()


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


def read_plan(store: Store) -> SamplePlan | None:
    """The plan of the samples in ``store``; None where there is none, DataError for a wrong one."""
    where = f"{store.uri}/{KEY}"
    try:
        data = json.loads(store.get(KEY))
        if data["format"] != FORMAT:
            raise DataError(f"{where}: is {data['format']!r}, this version reads {FORMAT!r}")
        plan = SamplePlan(data["content"], int(data["threads"]))
        image_is_readable = plan.image.channels >= 1 and plan.shard_size >= 1
    except Missing:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{where}: is no plan of samples ({type(error).__name__}); use another out"
        ) from None
    if not image_is_readable or plan.digest != data.get("digest"):
        raise DataError(f"{where}: is damaged, its digest does not fit; use another out")
    return plan


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


def differences(there: SamplePlan, ours: SamplePlan) -> list[str]:
    """What differs, such as ``batch_size is 8 there, 16 here``; hashes are cut short."""
    names = sorted({*there.content, *ours.content})
    return [
        f"{name} is {_short(there.content.get(name))} there, {_short(ours.content.get(name))} here"
        for name in names
        if there.content.get(name) != ours.content.get(name)
    ]


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


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    is_hash = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
    return f"{text[:12]}..." if is_hash else text
