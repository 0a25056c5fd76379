"""Numbers that no machine holds are refused when a job is read, in one short line."""

from __future__ import annotations

from typing import Any

import pytest

from colddiff.errors import SpecError
from colddiff.jobs.verb import VERBS
from colddiff.spec import parse

HUGE = {
    "train": (
        "global_batch_size",
        "max_batch_per_worker",
        "num_steps",
        "image_size",
        "channels",
        "workers",
        "hang_timeout_s",
        "store_patience_s",
        "resources.cpus",
        "resources.gpus",
        "tracking.system_every_s",
        "evaluation.batch_size",
        "degradation.num_timesteps",
        "degradation.kernel_size",
        "restorer.dim",
    ),
    "evaluate": ("batch_size", "workers"),
    "generate": ("batch_size", "workers", "shard_size", "first_seed", "num_samples"),
    "search": ("num_trials", "max_concurrent", "confirm_best", "confirm_seeds"),
    "study": ("seeds", "max_concurrent"),
}
BASE: dict[str, dict[str, Any]] = {"search": {"base": {}, "over": ["optimizer.lr"]}}
KINDS = {"degradation": "blur", "restorer": "convnext_unet"}


@pytest.mark.parametrize(
    ("verb", "path"), [(verb, path) for verb, paths in HUGE.items() for path in paths]
)
@pytest.mark.parametrize("number", [10**15, 10**40])
def test_a_number_that_no_machine_holds_is_refused(verb: str, path: str, number: int) -> None:
    outer, _, inner = path.rpartition(".")
    kind = {"kind": KINDS[outer]} if outer in KINDS else {}
    given = {outer: {**kind, inner: number}} if outer else {inner: number}
    with pytest.raises(SpecError, match=path) as caught:
        parse(VERBS[verb].spec(), {**BASE.get(verb, {}), **given})
    assert len(str(caught.value)) < 400


def test_a_batch_of_images_that_no_machine_holds_is_refused() -> None:
    job = {"image_size": 1024, "channels": 4, "global_batch_size": 2**20}
    with pytest.raises(SpecError, match=r"1048576 images of 4x1024x1024 take 16 TiB; use at most"):
        parse(VERBS["train"].spec(), job)
