"""Incomplete or foreign weights: every reader refuses them, and names what differs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from colddiff.checkpoints.export import export
from colddiff.checkpoints.references import load_checkpoint, load_snapshot
from colddiff.checkpoints.weights import check_resumed, fitting
from colddiff.errors import CheckpointError, SpecError
from colddiff.rng import streams
from colddiff.terminal import Terminal
from tests.tiny_checkpoint import tiny_checkpoint, tiny_job

Tensors = dict[str, Tensor]


def with_ema(folder: Path, change: Callable[[Tensors], Any]) -> str:
    """A checkpoint whose averaged weights were changed, with hashes that agree."""
    checkpoint = tiny_checkpoint(folder)
    [step] = (folder / "checkpoints").iterdir()
    weights = step / "ema.safetensors"
    tensors = safetensors.torch.load(weights.read_bytes())
    change(tensors)
    data = safetensors.torch.save(tensors)
    weights.write_bytes(data)
    record = json.loads((step / "checkpoint.json").read_text())
    record["files"]["ema.safetensors"] = {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    (step / "checkpoint.json").write_text(json.dumps(record))
    return checkpoint


def first(tensors: Tensors) -> str:
    # By name: a file is read in any order.
    return min(name for name, value in tensors.items() if value.ndim > 1 and len(value) > 1)


def put(value: Callable[[Tensor], Tensor]) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[first(tensors)] = value(tensors[first(tensors)]).contiguous()

    return change


BAD = {
    "none": (lambda tensors: tensors.clear(), r"\d+ of \d+ tensors are missing, such as"),
    "one is missing": (
        lambda tensors: tensors.pop(first(tensors)),
        r"1 of \d+ tensors are missing",
    ),
    "one is unknown": (
        lambda tensors: tensors.update(other=torch.zeros(3)),
        "1 tensors are unknown, such as 'other'",
    ),
    "shape": (put(lambda t: t[:1]), r"has the shape \[1, .*\], not \["),
    "one value": (put(lambda t: t.flatten()[:1]), r"has the shape \[1\], not \["),
    "int": (put(lambda t: torch.ones_like(t, dtype=torch.int64)), "is int64, not float32"),
    "bool": (put(lambda t: t > 0), "is bool, not float32"),
    "half": (put(lambda t: t.double() + 1e-12), "is float64, not float32"),
    "complex": (put(lambda t: t.to(torch.complex64)), "is complex64, not float32"),
    "nan": (put(lambda t: torch.full_like(t, float("nan"))), "holds NaN or inf"),
    "inf": (put(lambda t: torch.full_like(t, float("inf"))), "holds NaN or inf"),
}


@pytest.mark.parametrize("name", BAD)
def test_every_reader_refuses_weights_that_are_not_the_networks(name: str, tmp_path: Path) -> None:
    change, said = BAD[name]
    checkpoint = with_ema(tmp_path / "job", change)
    out = tmp_path / "exported"
    readers: list[Callable[[], Any]] = [
        lambda: load_checkpoint(checkpoint),  # restore, generate, evaluate
        lambda: load_snapshot(checkpoint),  # train --from
        lambda: export(checkpoint, str(out)),
    ]
    for read in readers:
        with pytest.raises(CheckpointError, match=rf"step_00000003/ema: the weights .*{said}"):
            read()
    assert not out.exists()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_dtype_that_holds_the_same_values_is_converted(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    def change(tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            tensors[name] = tensor.to(torch.bfloat16).to(dtype)

    loaded = load_checkpoint(with_ema(tmp_path, change))
    assert {value.dtype for value in loaded.restorer.state_dict().values()} == {torch.float32}


def test_what_a_training_resumes_from_fits_its_network() -> None:
    job = tiny_job()
    network = job.restorer.build(job.shape)
    weights = network.state_dict()
    adam = {
        f"{name}.{key}": torch.zeros(()) if key == "step" else torch.zeros_like(value)
        for name, value in weights.items()
        for key in ("step", "exp_avg", "exp_avg_sq")
    }
    whole = {"model": weights, "ema": weights, "optimizer": adam}
    check_resumed(whole, network, "here")
    for part, tensors in whole.items():
        name = next(name for name, value in tensors.items() if value.ndim)
        rest = {key: value for key, value in tensors.items() if key != name}
        one = rest | {name: tensors[name].flatten()[:1].clone()}
        for changed in (rest, one, {}):
            with pytest.raises(CheckpointError, match=rf"here: {part}: the weights are not"):
                check_resumed(whole | {part: changed}, network, "here")


def test_many_differences_are_one_short_line() -> None:
    wanted = {f"{n}" * 20: torch.zeros(2) for n in range(100, 400)}
    found = dict.fromkeys(wanted, torch.zeros(3))
    with pytest.raises(CheckpointError, match="and 297 more") as caught:
        fitting(found, wanted, "here")
    assert len(str(caught.value)) < 600


def test_a_terminal_of_other_tensors_is_refused() -> None:
    job = tiny_job()
    D = job.degradation.build(job.shape)
    good = {
        "weights": torch.ones(2).double(),
        "means": torch.zeros(2, 1).double(),
        "factors": torch.ones(2, 1, 1).double(),
    }
    state = {"kind": "gmm", "components": 2, "grid": [1, 1]}
    rng = streams(0, "test", range(2))
    Terminal.from_files(good, state).draw(D, rng)
    for name, value in (
        ("means", torch.full((2, 1), float("nan")).double()),
        ("weights", torch.ones(2)),
    ):
        with pytest.raises(CheckpointError, match=f"terminal: {name} is not float64, or holds"):
            Terminal.from_files(good | {name: value}, state)
    for name, value in (
        ("weights", torch.ones(3)),
        ("weights", torch.ones(())),
        ("means", torch.zeros(2, 2)),
        ("factors", torch.ones(1, 1, 1)),
    ):
        with pytest.raises(SpecError, match="fitted for another degradation"):
            Terminal.from_files(good | {name: value.double()}, state).draw(D, rng)
