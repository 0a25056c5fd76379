"""Reading checkpoints of the paper's code: what is taken, what is refused, and in which words."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from colddiff.checkpoints.paper_weights import import_reference_checkpoint
from colddiff.errors import CheckpointError, SpecError
from colddiff.restorers import Restorer, build_restorer
from colddiff.types import ImageShape


def build(**fields: Any) -> Restorer:
    spec = {"kind": "convnext_unet", "dim": 8, "dim_mults": [1, 2], **fields}
    return build_restorer(spec, ImageShape(1, 8, 8))


def reference(R: Restorer, prefix: str = "module.denoise_fn.") -> dict[str, Tensor]:
    kernels = {f"module.gaussian_kernels.{i}.weight": torch.zeros(1, 1, 3, 3) for i in range(2)}
    return kernels | {f"{prefix}{name}": value.clone() for name, value in R.state_dict().items()}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def same(R: Restorer, other: Restorer) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in R.state_dict().items())


@pytest.mark.parametrize(
    "prefix", ["module.denoise_fn.", "denoise_fn.", "module.defade_fn.", "restore_fn.module."]
)
def test_ema_weights_are_taken_under_any_of_the_papers_prefixes(
    tmp_path: Path, prefix: str
) -> None:
    ema, model = build(), build()
    content = {"step": 700, "model": reference(model, prefix), "ema": reference(ema, prefix)}
    path = saved(tmp_path / "model.pt", content)
    R = build()
    assert import_reference_checkpoint(path, R) == 700
    assert same(R, ema)
    import_reference_checkpoint(str(path), R, weights="model")
    assert same(R, model)


def test_a_file_without_a_step_loads_and_says_none(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", {"ema": reference(build())})
    assert import_reference_checkpoint(path, build()) is None


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("mid_attn", "middle"): value for name, value in state.items()}


def dropped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if "ups." not in name}


def infinite(state: dict[str, Tensor]) -> dict[str, Tensor]:
    state["module.denoise_fn.time_mlp.1.bias"][0] = float("inf")
    return state


def listed(state: dict[str, Any]) -> dict[str, Any]:
    return state | {"module.denoise_fn.time_mlp.1.bias": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, r"missing mid_attn\S+, \S+, \S+ and 2 more, unexpected middle"),
        (dropped, r"missing ups\.0\.0\.mlp\.1\.weight, \S+, \S+ and \d+ more"),
        (infinite, r"not finite time_mlp\.1\.bias;"),
        (listed, r"not a float tensor time_mlp\.1\.bias;"),
    ],
)
def test_weights_that_differ_are_named_and_nothing_is_loaded(
    tmp_path: Path, change: Any, message: str
) -> None:
    path = saved(tmp_path / "model.pt", {"ema": change(reference(build()))})
    R = build()
    before = {name: value.clone() for name, value in R.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as caught:
        import_reference_checkpoint(path, R)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in R.state_dict().items())


def test_other_widths_are_named_by_shape(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", {"ema": reference(build(dim=16))})
    with pytest.raises(CheckpointError, match=r"another shape \S+ \[64, 16\] for \[32, 8\]"):
        import_reference_checkpoint(path, build())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}}, r"not a checkpoint of the paper's code.*it holds state_dict"),
        ([1, 2], r"not a checkpoint of the paper's code.*it holds a list"),
        ({"ema": {}}, r"holds no network.*it holds nothing"),
        ({"ema": {"encoder.weight": torch.zeros(2)}}, r"holds no network.*encoder\.weight"),
    ],
)
def test_a_file_of_something_else_says_what_it_holds(
    tmp_path: Path, content: Any, message: str
) -> None:
    path = saved(tmp_path / "model.pt", content)
    with pytest.raises(CheckpointError, match=message):
        import_reference_checkpoint(path, build())


class Exploit:
    """Runs a command in whoever unpickles it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("layout", ["torch.save", "bare pickle"])
def test_code_in_a_checkpoint_is_refused_and_never_run(tmp_path: Path, layout: str) -> None:
    trace, path = tmp_path / "was-run", tmp_path / "model.pt"
    content = {"step": 1, "ema": reference(build()), "model": Exploit(trace)}
    if layout == "torch.save":
        saved(path, content)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match=r"rejected.*no code in it was run") as caught:
        import_reference_checkpoint(path, build())
    assert not trace.exists()
    assert "weights_only" not in str(caught.value)
    assert caught.value.__cause__ is None
    # The file does what it is here for, where it is allowed to.
    torch.load(path, weights_only=False) if layout == "torch.save" else pickle.loads(
        path.read_bytes()
    )
    assert trace.exists()


@pytest.mark.parametrize("kept", [0, 10, 1000])
def test_a_damaged_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = saved(tmp_path / "model.pt", {"ema": reference(build())})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="damaged"):
        import_reference_checkpoint(path, build())


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pt: cannot be read \(No such file"):
        import_reference_checkpoint(tmp_path / "none.pt", build())
    with pytest.raises(CheckpointError, match=r": is not a file"):
        import_reference_checkpoint(tmp_path, build())


def test_only_ema_and_model_weights_exist(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="one of ema, model, got 'best'"):
        import_reference_checkpoint(tmp_path, build(), weights="best")  # type: ignore[arg-type]
