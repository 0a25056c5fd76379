"""Jobs in a STORAGE for reports: evaluated for real on small images, without training."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from colddiff.evaluation.result import Evaluation
from colddiff.evaluation.spec import EvaluationSpec
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.status import Status
from colddiff.report.page.details import details_to_bytes
from colddiff.stores.local_store import LocalStore
from tests.unit.test_evaluate import BLUR, of, some_images

SPEC = {
    "data": "digits",
    "image_size": 12,
    "channels": 1,
    "degradation": BLUR,
    "restorer": {"kind": "convnext_unet", "dim": 8, "dim_mults": [1, 2]},
    "num_steps": 20,
}


def restorer(strength: float) -> Any:
    """A restorer whose error depends on ``strength``, the severity and the place."""

    def restore(x_t: Tensor, t: Tensor) -> Tensor:
        return strength * x_t + 0.02 * t.view(-1, 1, 1, 1) + (1 - strength) * x_t.flip(-1)

    return restore


def evaluated(strength: float = 0.9, count: int = 23, **options: Any) -> Evaluation:
    """An evaluation of ``restorer(strength)`` on ``count`` images of 12 px."""
    spec = EvaluationSpec(batch_size=6, **options)
    return of(some_images(count), restore=restorer(strength), spec=spec)


@cache
def _at_step(step: int, strength: float, count: int) -> tuple[Evaluation, bytes]:
    """The evaluation after so many steps, and its details: made once, for all jobs."""
    found = evaluated(strength, count)
    losses = [(number, 1 / number) for number in range(1, step + 1)]
    return found, details_to_bytes(found, losses)


def train_job(
    storage: Path,
    name: str = "train-blocks-00000001",
    strengths: tuple[float, ...] = (0.7, 0.9),
    state: str = "done",
    **fields: Any,
) -> JobFolder:
    """A training job's folder with an evaluation at steps 10, 20, ...; ``fields`` of its spec."""
    folder = JobFolder(LocalStore(storage), name)
    spec = {**SPEC, **fields}
    folder.write_job(
        {
            "id": name,
            "verb": "train",
            "slug": "blocks",
            "spec": spec,
            "storage": str(storage),
            "created": 1.8e9,
            "versions": {"colddiff": "0.1.0", "torch": "2.13.0"},
            "git": {"commit": "0123456789abcdef0123", "dirty": True},
            "content": {"data": "ab" * 32},
        }
    )
    count, seed = int(fields.get("count", 23)), int(fields.get("seed", 0))
    record: dict[str, Any] = {"metrics": {}, "provenance": {}}
    for number, strength in enumerate(strengths, 1):
        found, details = _at_step(10 * number, strength + 0.01 * seed, count)
        record = {"metrics": dict(found.metrics), "provenance": dict(found.provenance)}
        folder.write_evaluation(10 * number, record)
        folder.write_details(10 * number, details)
    folder.claim(1, {"host": "here", "pid": 1, "time": 1.8e9})
    folder.take_fencing_token(
        1, {"world_size": 2, "time": 1.8e9 + 5, "step": 0, "repeated_steps": 7}
    )
    step = 10 * len(strengths)
    folder.write_outcome(1, {"step": step})
    if state == "done":
        result = {"id": name, "step": step, "checkpoint": f"{folder.uri}checkpoints/x", **record}
        folder.write_result({**result, "time": {"training_s": 12.5}})
    folder.write_status(
        Status(state=state, attempt=1, step=step, num_steps=20, running_s=90.0)  # type: ignore[arg-type]
    )
    return folder
