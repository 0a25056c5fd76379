"""A sampler is one file: found in its folder or brought by a plugin, and asked everywhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import colddiff
from colddiff.data.open import open_samples, pack_source
from colddiff.data.readers.memory_shards import MemoryShards
from colddiff.errors import SpecError
from colddiff.evaluation.evaluator import evaluate
from colddiff.evaluation.result import Evaluation
from colddiff.evaluation.spec import EvaluationSpec
from colddiff.jobs.recipes import load_recipe
from colddiff.report.card import _results
from colddiff.report.pictures import evaluation_pictures
from colddiff.report.tables import evaluation_table
from colddiff.samplers import SAMPLERS, column_labels, find_sampler
from colddiff.spec import parse
from colddiff.spec.plugins import load_plugin, unload_plugin
from colddiff.types import ImageShape
from colddiff.verbs.evaluate.job import EvaluateJob
from colddiff.verbs.generate.job import GenerateJob
from tests.in_process import Done, colddiff_here
from tests.restoring import picture, pixels_of
from tests.tiny_checkpoint import BLUR, tiny_checkpoint, tiny_job
from tests.unit.test_evaluate import PatchMeans, halfway, some_images

pytestmark = pytest.mark.usefixtures("unloaded_plugins")
DOCS = Path(__file__).resolve().parents[2] / "infra" / "docs" / "own-sampler.md"
HALVES = '''\
"""A sampler that goes half the way of Algorithm 1."""

from colddiff.samplers import SAMPLERS, Sampler, full


@SAMPLERS.register
class Halves(Sampler):
    """x_s = (D(x0_hat, s) + x_t) / 2."""

    name = "halves"
    label = "half way"

    def step(self, x_t, x0_hat, t, s, D, omega):
        return (D.degrade(x0_hat, full(x_t, s), omega) + x_t) / 2
'''
SHAPE = ImageShape(1, 12, 12)
BUILT_IN = ["direct", "naive", "improved", "improved_estimated", "interpolated"]
Here = Callable[..., Done]


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "halves.py"
    path.write_text(HALVES)
    return path


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Here:
    """The command line in this process, with a STORAGE of this test's own."""
    for name in ("HOME", "STORAGE", "CACHE"):
        monkeypatch.setenv(f"COLDDIFF_{name}", str(tmp_path / name.lower()))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return lambda *words: colddiff_here(monkeypatch, capsys, *words)


def result_of(done: Done) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(Path(json.loads(done.stdout)["result"]).read_text())
    return found


def evaluated(*samplers: str, **degradation: Any) -> Evaluation:
    D = colddiff.build_degradation({**BLUR, **degradation}, SHAPE)
    spec = EvaluationSpec(samplers=samplers)
    return evaluate(halfway, D, MemoryShards(some_images()), spec, PatchMeans(), keep=2)


def test_the_samplers_are_those_of_the_folder_in_their_order() -> None:
    assert list(SAMPLERS) == BUILT_IN
    columns = {name: sampler.column for name, sampler in SAMPLERS.items() if sampler.order < 3}
    assert columns == {"direct": "direct", "naive": "naive", "improved": "sampled"}
    labels = {
        "direct": "direct",
        "naive": "Algorithm 1 (naive)",
        "sampled": "Algorithm 2 (improved)",
    }
    there = ("sampled", "mine", "naive", "degraded", "direct", "original")
    shown = {"original": "original", "degraded": "degraded", **labels, "mine": "mine"}
    assert list(column_labels(there).items()) == list(shown.items())


def test_a_plugin_may_bring_nothing_but_a_sampler(plugin: Path) -> None:
    loaded = load_plugin(plugin)
    assert loaded.kinds == (("sampler", "halves"),)
    assert list(SAMPLERS) == [*BUILT_IN, "halves"]
    D = colddiff.build_degradation(BLUR, SHAPE)
    x_T = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (2, *SHAPE.chw)))
    x = x_T
    for t in (4, 3, 2, 1):
        x = (D.degrade(halfway(x, torch.full((2,), t)), torch.full((2,), t - 1)) + x) / 2
    torch.testing.assert_close(colddiff.sample(halfway, D, x_T, sampler="halves"), x)
    unload_plugin(loaded)
    assert list(SAMPLERS) == BUILT_IN
    with pytest.raises(SpecError, match="sampler: no 'halves'"):
        colddiff.sample(halfway, D, x_T, sampler="halves")


def test_the_example_of_the_docs_is_that_plugin() -> None:
    [shown] = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert shown == HALVES


def test_its_column_is_in_metrics_table_card_and_pictures(plugin: Path) -> None:
    load_plugin(plugin)
    found = evaluated("direct", "halves")
    assert {"eval/halves/fd_blocks", "eval/halves/ssim"} <= found.metrics.keys()
    assert list(found.pictures) == ["original", "degraded", "direct", "halves"]
    table = evaluation_table(found.metrics).splitlines()
    assert table[1].split()[-3:] == ["half", "way", "real"]
    best = "*" if found.metrics["eval/halves/rmse"] < found.metrics["eval/direct/rmse"] else ""
    assert f"{found.metrics['eval/halves/rmse']:.4f}{best}" in table[-2]
    assert found.trajectory is not None
    assert found.trajectory.label == "half way"
    np.testing.assert_array_equal(found.trajectory.states[-1], found.pictures["halves"])
    record = {"weights_sha256": "0", **found.provenance}
    assert "| half way |" in _results({"metrics": found.metrics, "provenance": record})
    drawn = evaluation_pictures(found)
    assert list(drawn) == ["grid.png", "strip.png", "strip.gif"]
    unload_plugin(load_plugin(plugin))
    assert "halves" in evaluation_table(found.metrics).splitlines()[1], "under its own name"


def test_any_sampler_that_d_supports_is_evaluated() -> None:
    found = evaluated("interpolated", "naive").metrics
    assert {path.split("/")[1] for path in found} == {"degraded", "interpolated", "naive", "floor"}
    message = r"^evaluation.samplers: improved_estimated: degradation 'blur' cannot re-estimate"
    with pytest.raises(SpecError, match=message):
        evaluated("improved_estimated")
    noise = colddiff.build_degradation({"kind": "noise", "num_timesteps": 3}, SHAPE)
    spec = EvaluationSpec(samplers=("improved_estimated",))
    made = evaluate(halfway, noise, MemoryShards(some_images()), spec, PatchMeans()).metrics
    assert "eval/improved_estimated/rmse" in made


@pytest.mark.parametrize(
    ("samplers", "label"),
    [
        (("direct",), None),
        (("direct", "naive"), "Algorithm 1 (naive)"),
        (("interpolated", "naive", "improved"), "Algorithm 2 (improved)"),
    ],
    ids=lambda value: str(value),
)
def test_the_trajectory_is_that_of_algorithm_2_or_of_the_first_that_takes_steps(
    samplers: tuple[str, ...], label: str | None
) -> None:
    path = evaluated(*samplers).trajectory
    assert (path.label if path else None) == label


class Halving(nn.Module):
    """A restorer with a part that is frozen in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Dropout(0.5)
        self.frozen = nn.Dropout(0.5).eval()

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        assert not any(module.training for module in self.modules())
        out: Tensor = self.frozen(self.layer(x_t)) / 2
        return out


def test_each_part_of_an_evaluated_restorer_gets_its_own_mode_back() -> None:
    R, D = Halving(), colddiff.build_degradation(BLUR, SHAPE)
    evaluate(R, D, MemoryShards(some_images()), EvaluationSpec(), PatchMeans())
    assert [module.training for module in R.modules()] == [True, True, False]


def test_a_job_takes_a_registered_name_and_names_the_nearest(plugin: Path) -> None:
    with pytest.raises(SpecError, match=r"^sampler: no 'halve'") as caught:
        parse(GenerateJob, {"sampler": "halve"})
    assert all(name in str(caught.value) for name in BUILT_IN)
    with pytest.raises(SpecError, match=r"^samplers.1: no 'naiv'; did you mean 'naive'\? \(one of"):
        parse(EvaluateJob, {"samplers": ["direct", "naiv"]})
    load_plugin(plugin)
    with pytest.raises(SpecError, match=r"^sampler: no 'halve'; did you mean 'halves'\?"):
        parse(GenerateJob, {"sampler": "halve"})
    assert GenerateJob.model_json_schema()["properties"]["sampler"]["enum"] == list(SAMPLERS)
    assert parse(GenerateJob, {"sampler": "halves"}).to_dict()["sampler"] == "halves"
    assert find_sampler("halves").label == "half way"


def test_a_job_file_brings_its_sampler(plugin: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("evaluate:\n  plugins: [./halves.py]\n  samplers: [direct, halves]\n")
    job = load_recipe(file).job("evaluate")
    assert isinstance(job, EvaluateJob)
    assert job.samplers == ("direct", "halves")
    assert job.plugins == (str(plugin),)


@pytest.mark.slow
def test_it_evaluates_restores_and_generates(plugin: Path, tmp_path: Path, here: Here) -> None:
    test = str(tmp_path / "test")
    pack_source("digits", test, image_size=16, channels=1, split="test", limit=12)
    noise = {"kind": "noise", "num_timesteps": 2}
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint", degradation=noise)
    local = (f"checkpoint={checkpoint}", "--plugin", plugin, "--local", "--json")
    words = ("submit", "evaluate", f"test_data={test}", "samplers=[direct,halves]")
    metrics = result_of(here(*words, *local))["metrics"]
    assert {"eval/direct/rmse", "eval/halves/rmse"} <= metrics.keys()

    start = ("terminal={kind: standard_normal}", "num_samples=3", "batch_size=2")
    made = result_of(here("submit", "generate", "sampler=halves", *start, *local))
    assert open_samples(made["samples"]).manifest.count == 3

    blur = tiny_checkpoint(tmp_path / "blur")
    given = picture(tmp_path / "a.png", 1)
    out = tmp_path / "out"
    ask = ("restore", tmp_path / "a.png", "--checkpoint", blur, "--out", out, "--sampler", "halves")
    done = here(*ask, "--plugin", plugin)
    assert done.returncode == 0, done.stderr
    assert not np.array_equal(pixels_of(out / "a.png"), given)
    unload_plugin(load_plugin(plugin))
    plugin.write_text(HALVES.replace("/ 2", "* 0.5"))
    done = here(*ask, "--plugin", plugin)
    assert done.returncode == 2, "made by other code"
    assert "sampler_sha256" in done.stderr
    unload_plugin(load_plugin(plugin))
    done = here(*ask, "--overwrite")
    assert done.returncode == 2
    assert "--sampler: no 'halves'; did you mean 'naive'? (one of direct, naive," in done.stderr


def test_a_sampler_that_d_does_not_support_is_refused_at_submission(
    tmp_path: Path, here: Here
) -> None:
    test = tmp_path / "test"
    pack_source("digits", str(test), image_size=16, channels=1, split="test", limit=12)
    section = tmp_path / "tiny.yaml"
    section.write_text(json.dumps({"train": tiny_job().to_dict()}))
    checkpoint = f"checkpoint={tiny_checkpoint(tmp_path / 'checkpoint')}"
    wrong = "samplers=[direct,improved_estimated]"
    for path, words in (
        ("samplers", ("evaluate", checkpoint, wrong)),
        ("evaluation.samplers", ("train", section, f"data={test}", f"evaluation.{wrong}")),
    ):
        done = here("submit", *words, f"test_data={test}", "--local")
        assert done.returncode == 2
        said = f"error: {path}: improved_estimated: degradation 'blur' cannot re-estimate omega"
        assert said in done.stderr.splitlines()[-1]
        assert not (tmp_path / "storage" / "jobs").exists()


def test_a_file_dropped_into_the_folder_is_found(tmp_path: Path) -> None:
    package = tmp_path / "colddiff"
    shutil.copytree(
        Path(colddiff.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    (package / "samplers" / "halves.py").write_text(HALVES)
    script = (
        "import colddiff, torch\n"
        "from colddiff.samplers import SAMPLERS\n"
        "from colddiff.spec import parse\n"
        "from colddiff.verbs.evaluate.job import EvaluateJob\n"
        f"D = colddiff.build_degradation({BLUR!r}, colddiff.ImageShape(1, 12, 12))\n"
        "x = colddiff.sample(lambda x, t: x, D, torch.ones(1, 1, 12, 12), sampler='halves')\n"
        "print(*SAMPLERS, *parse(EvaluateJob, {'samplers': ['halves']}).samplers, x.shape[0])\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == [*BUILT_IN, "halves", "halves", "1"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"halves"',
            '"naive"',
            "sampler 'naive' of .* is already defined by colddiff.samplers.naive",
        ),
        (
            '"halves"',
            '"naive/2"',
            "name must be lower case .* such as name = \"mine\", got 'naive/2'",
        ),
        ('    name = "halves"\n', "", "Halves: name must be lower case .* got None"),
        ('"half way"', '"half"\n    column = "sampled"', "'sampled' is taken by improved; choose"),
        ('"half way"', '"half"\n    column = "floor"', "column 'floor' is taken by evaluation"),
        ("def step", "def stride", "TypeError: Can't instantiate abstract class Halves"),
    ],
    ids=["taken", "path", "nameless", "column", "reserved", "abstract"],
)
def test_a_bad_sampler_is_one_clear_line_and_leaves_nothing(
    plugin: Path, old: str, new: str, message: str
) -> None:
    plugin.write_text(HALVES.replace(old, new, 1))
    with pytest.raises(SpecError, match=message) as caught:
        load_plugin(plugin)
    assert "\n" not in str(caught.value)
    assert list(SAMPLERS) == BUILT_IN
    assert SAMPLERS["naive"].label == "Algorithm 1 (naive)"
