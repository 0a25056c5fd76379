"""The training loop as jobs run it, from packed shards: fp32 against bf16, and its waits."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from colddiff.data.open import open_shards, pack_source
from colddiff.jobs.folder import JobFolder
from colddiff.spec import parse
from colddiff.stores.local_store import LocalStore
from colddiff.tracking.memory_tracker import MemoryRun, MemoryTracker
from colddiff.verbs.train.job import TrainJob
from colddiff.verbs.train.local_context import LocalContext
from colddiff.verbs.train.trainer import Trainer
from tests.bench import nets
from tests.bench.timing import precisions

IMAGES = 512
NO_BF16 = "not run: this CPU has no bf16 instructions and imitates them many times slower"
NO_GPU = "SKIPPED: no CUDA device here; MFU, device memory and D's share on a GPU were not measured"


def rows(place: torch.device, quick: bool) -> list[dict[str, Any]]:
    """For both nets at 32 px: images per second by precision in one run, and what holds it up."""
    with tempfile.TemporaryDirectory() as folder:
        data = _packed(Path(folder))
        return [
            _of(case, place, data, Path(folder), steps=3 if quick else 6)
            for case in nets.cases(place.type == "cuda")
            if case.size == 32
        ]


def gpu_rows(place: torch.device, quick: bool) -> list[dict[str, Any]]:
    """MFU of both nets in bf16, plain and with channels_last and compile, and D's share."""
    if place.type != "cuda":
        return [{"gpu": NO_GPU}]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        data = _packed(Path(folder))
        for case in (case for case in nets.cases(gpu=True) if case.size == 32):
            row: dict[str, Any] = {"net": case.name, "batch": case.batch}
            for name, fields in (
                ("plain", {}),
                ("channels_last", {"channels_last": True}),
                ("compiled", {"compile": True}),
            ):
                run = _train(case, place, data, Path(folder), "bf16", 20 if quick else 60, fields)
                row[f"{name}_img_s"] = _rate(run)
                row[f"{name}_mfu"] = _median(run, "train/mfu")
                row[f"{name}_memory_mb"] = _last(run, "system/gpu_peak_allocated_megabytes")
            row |= {
                name: value
                for name, value in nets.measure(case, place, 5).items()
                if name.startswith("degrade")
            }
            found.append(row)
    return found


def _of(
    case: nets.Case, place: torch.device, data: str, folder: Path, steps: int
) -> dict[str, Any]:
    row: dict[str, Any] = {"net": case.name, "batch": case.batch}
    rates: dict[str, list[float]] = {}
    # Twice in turn, so that what else the machine does falls on both.
    for _ in range(2):
        for precision in precisions(place):
            run = _train(case, place, data, folder, precision, steps, {})
            rates.setdefault(precision, []).append(_rate(run))
            share = _median(run, "time/data_s") / _median(run, "time/step_s")
            row[f"data_wait_share_{precision}"] = share
    row |= {f"train_{name}_img_s": statistics.median(found) for name, found in rates.items()}
    row["bf16_over_fp32"] = (
        row["train_bf16_img_s"] / row["train_fp32_img_s"] if "bf16" in rates else NO_BF16
    )
    return row


def _train(
    case: nets.Case,
    place: torch.device,
    data: str,
    folder: Path,
    precision: str,
    steps: int,
    fields: dict[str, Any],
) -> MemoryRun:
    job = parse(
        TrainJob,
        {
            "image_size": case.size,
            "degradation": nets.BLUR_300,
            "restorer": case.restorer,
            "global_batch_size": case.batch,
            "precision": precision,
            "num_steps": steps,
            "checkpoint_every": steps,
            "log_every": 1 if place.type == "cpu" else 10,
            **fields,
        },
    )
    tracker = MemoryTracker()
    # Another folder for each run: in the same one it would go on from the last.
    with tempfile.TemporaryDirectory(dir=folder) as storage:
        Trainer(
            job,
            open_shards(data, str(folder / "cache")),
            JobFolder(LocalStore(Path(storage)), "train-bench-00000000"),
            LocalContext(place),
            tracker,
            attempt=1,
        ).run()
    return tracker.run


def _packed(folder: Path) -> str:
    """Noise, which no PNG makes small: the most bytes that images of this size can have."""
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    (folder / "images").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / "images" / f"{number:04}.png")
    pack_source(f"folder:{folder / 'images'}", str(folder / "data"))
    return str(folder / "data")


def _rate(run: MemoryRun) -> float:
    return _median(run, "train/images_per_s")


def _median(run: MemoryRun, name: str) -> float:
    # The first reading holds what is done once.
    return statistics.median(value for _, value in run.history(name)[1:])


def _last(run: MemoryRun, name: str) -> float:
    return run.history(name)[-1][1]
