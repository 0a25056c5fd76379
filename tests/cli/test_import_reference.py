"""`colddiff import-reference` as a person types it, on a file in the layout of the paper's code."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from colddiff.checkpoints.references import load_checkpoint
from colddiff.data.open import pack_source
from colddiff.rng import streams
from colddiff.sampling import sample
from tests.in_process import Done, colddiff_here

TRAIN: dict[str, Any] = {
    "image_size": 32,
    "channels": 3,
    "degradation": {
        "kind": "blur",
        "num_timesteps": 20,
        "kernel_size": 27,
        "sigma": {"kind": "exponential", "start": 1.0, "rate": 0.2},
        "collapse_to_mean": True,
    },
    "restorer": {"kind": "convnext_unet", "dim": 8, "dim_mults": [1, 2, 4, 8]},
}


class ImportReference:
    """Runs the command with a recipe file of its own."""

    def __init__(
        self, folder: Path, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str]
    ) -> None:
        self._patch, self._captured = patch, captured
        self.recipe = folder / "mine.yaml"
        self.recipe.write_text(yaml.safe_dump({"train": TRAIN}))
        self.out = folder / "imported"

    def __call__(self, checkpoint: Path, *more: str) -> Done:
        arguments = (checkpoint, "--recipe", self.recipe, "--out", self.out, *more)
        return colddiff_here(self._patch, self._captured, "import-reference", *arguments)


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> ImportReference:
    monkeypatch.setenv("COLDDIFF_CACHE", str(tmp_path / "cache"))
    return ImportReference(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    return shared / "golden" / "convnext_small_rgb32.pt"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digits in three channels, at 32 px."""
    uri = str(tmp_path_factory.mktemp("packed") / "digits")
    pack_source("digits", uri, image_size=32, channels=3, limit=40)
    return uri


def error_of(done: Done) -> str:
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_the_imported_network_gives_the_golden_outputs(run: ImportReference, golden: Path) -> None:
    done = run(golden)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{run.out}/checkpoints/step_00000007\n"
    assert "step 7, ema weights, imported; no terminal" in done.stderr
    with np.load(golden.with_name("convnext_small_rgb32_io.npz")) as arrays:
        recorded = dict(arrays)
    for reference in (str(run.out), done.stdout.strip()):
        loaded = load_checkpoint(reference)
        assert (loaded.step, loaded.terminal) == (7, None)
        with torch.inference_mode():
            # The paper's code counts severities from 0.
            y = loaded.restorer(
                torch.from_numpy(recorded["x"]), torch.from_numpy(recorded["t"]).long() + 1
            )
        assert float((y - torch.from_numpy(recorded["y"])).abs().max()) < 1e-5


def test_with_data_it_can_generate(run: ImportReference, golden: Path, packed: str) -> None:
    done = run(golden, "--data", packed, "--json")
    assert json.loads(done.stdout) == {
        "uri": f"{run.out}/checkpoints/step_00000007",
        "step": 7,
        "terminal": "gmm",
        "fresh": True,
    }
    loaded = load_checkpoint(str(run.out))
    assert loaded.terminal is not None
    x_T, omega = loaded.terminal.draw(
        loaded.degradation, streams(1, "start", range(2)), symmetry_noise=0.002
    )
    made = sample(loaded.restorer, loaded.degradation, x_T, omega, severities=2)
    assert made.shape == (2, 3, 32, 32)
    assert bool(torch.isfinite(made).all())


def test_the_last_weights_can_be_had_too(run: ImportReference, golden: Path) -> None:
    assert run(golden, "--weights", "model").returncode == 0
    taken = load_checkpoint(str(run.out)).restorer.state_dict()
    content = torch.load(golden, weights_only=True)["model"]
    name = "time_mlp.1.weight"
    assert torch.equal(taken[name], content[f"module.denoise_fn.{name}"])


def test_again_is_fine_and_something_else_at_the_same_place_is_refused(
    run: ImportReference, golden: Path, packed: str
) -> None:
    first = run(golden)
    again = run(golden)
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert "already imported" in again.stderr
    assert "already holds another checkpoint" in error_of(run(golden, "--data", packed))


def test_a_network_of_other_widths_is_named_and_nothing_is_written(
    run: ImportReference, golden: Path
) -> None:
    message = error_of(run(golden, "restorer.dim=16"))
    assert "does not fit this ConvNextUnet" in message
    assert "another shape time_mlp.1.weight [32, 8] for [64, 16]" in message
    assert not run.out.exists()


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("sprung"),))


def test_bad_files_run_nothing_and_exit_2(
    run: ImportReference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pt"
    assert "cannot be read" in error_of(run(path))
    path.write_bytes(b"not a checkpoint")
    assert "rejected" in error_of(run(path))
    path.write_bytes(pickle.dumps({"ema": _Trap()}))
    assert "no code in it was run" in error_of(run(path))
    torch.save({"state_dict": {}}, path)
    assert "not a checkpoint of the paper's code" in error_of(run(path))
    assert not (tmp_path / "sprung").exists()
    assert not run.out.exists()


def test_words_that_cannot_be_meant(run: ImportReference, golden: Path, tmp_path: Path) -> None:
    assert "weights: one of ema, model, got 'best'" in error_of(run(golden, "--weights", "best"))
    small = tmp_path / "small"
    pack_source("digits", str(small), image_size=16, channels=3, limit=4)
    assert "data: has images 3x16x16, the job needs 3x32x32" in error_of(
        run(golden, "--data", str(small))
    )
