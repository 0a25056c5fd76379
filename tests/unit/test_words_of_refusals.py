"""What a person gets wrong from Python or in options is said in one plain line."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import colddiff
from colddiff.cleanup.leftover import Leftover
from colddiff.cli import dry_run
from colddiff.cli.data import summary_line
from colddiff.cli.gc import _total
from colddiff.cli.jobs.commands import logs
from colddiff.data.both_splits import pack_splits
from colddiff.data.open import pack_source
from colddiff.data.pack_settings import PackSettings
from colddiff.errors import SpecError
from colddiff.evaluation.best import misfit_warning
from colddiff.jobs.device import idle_gpu_line
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.job import ResourcesSpec
from colddiff.jobs.status import Status
from colddiff.jobs.verb import VERBS
from colddiff.report.tables import evaluation_table
from colddiff.spec import nearest, parse
from colddiff.stores.local_store import LocalStore
from colddiff.verbs.train.estimates.estimate import estimate
from tests.tiny_checkpoint import tiny_checkpoint, tiny_job

IMAGES = torch.zeros(1, 1, 8, 8)


def blur() -> colddiff.Degradation[Any]:
    return colddiff.build_degradation({"kind": "blur", "num_timesteps": 3}, (1, 8, 8))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return colddiff.load_checkpoint(str(tiny_checkpoint(tmp_path_factory.mktemp("trained"))))


@pytest.mark.parametrize(
    "wrong",
    [
        {"severity": "all"},
        {"severity": torch.tensor([1, 2])},
        {"severity": True},
        {"precision": None},
        {"precision": 3},
        {"batch_size": "a"},
        {"sampler": 3},
        {"device": "moon"},
    ],
)
def test_restore_refuses_arguments_of_another_kind(checkpoint: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=f"^{next(iter(wrong))}: ") as refused:
        colddiff.restore(checkpoint, torch.zeros(1, *checkpoint.spec.shape.chw), **wrong)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda any_: colddiff.load_checkpoint(any_(3)),
        lambda any_: colddiff.load_checkpoint(any_(None)),
        lambda any_: colddiff.load_checkpoint(any_(b"x")),
        lambda any_: colddiff.open_data(any_(3)),
        lambda any_: colddiff.open_data(any_(None)),
        lambda any_: colddiff.list_jobs(any_(3)),
        lambda any_: colddiff.list_jobs(name=any_(3)),
        lambda any_: colddiff.train(tiny_job(), name=any_(3)),
        lambda any_: colddiff.load_recipe("quickstart").job("evaluate", any_([3])),
        lambda any_: colddiff.load_recipe("quickstart").job("evaluate", any_(3)),
        lambda any_: tiny_job().with_(any_(5)),
        lambda any_: tiny_job().with_(any_({3: 4})),
        lambda any_: colddiff.plot_strip(blur(), any_(3)),
        lambda any_: colddiff.plot_strip(any_(3), IMAGES),
        lambda any_: colddiff.plot_strip(blur(), IMAGES, severities=any_(3)),
        lambda any_: colddiff.plot_grid(any_("x")),
        lambda any_: colddiff.plot_grid(IMAGES, columns=any_("x")),
        lambda any_: colddiff.plot_trajectory(any_(3)),
        lambda any_: colddiff.plot_trajectory(any_([3])),
        lambda any_: colddiff.build_degradation({"kind": "blur"}, any_((3, 16))),
        lambda any_: colddiff.build_degradation({"kind": "blur"}, any_(3)),
    ],
)
def test_what_is_of_another_kind_is_refused(call: Callable[[Callable[[Any], Any]], Any]) -> None:
    with pytest.raises(SpecError) as refused:
        call(lambda value: value)
    assert "\n" not in str(refused.value)


def test_a_shape_may_be_a_tuple() -> None:
    assert blur().shape == colddiff.ImageShape(1, 8, 8)


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_the_function_of_a_verb_describes_itself(verb: str) -> None:
    function = getattr(colddiff, verb)
    text = str(function.__doc__)
    assert text.startswith(VERBS[verb].help)
    assert f"colddiff.{verb}(job)" in text
    assert f"job: a {verb.capitalize()}Job" in text
    assert "verb:" not in text
    assert "run(" not in text


@pytest.mark.parametrize(
    ("bounds", "what"), [((-1.7e308, 1.7e308), "too wide"), ((0, 1e-320), "too narrow")]
)
def test_a_range_that_no_value_can_be_mapped_from_is_refused(
    bounds: tuple[float, float], what: str
) -> None:
    with pytest.raises(SpecError, match=f"^range: is {what}"):
        parse(PackSettings, {"range": bounds})


@pytest.mark.parametrize("rate", ["1e-320", "1e-300", "1e308TFLOP/s"])
def test_a_rate_without_a_number_of_hours_is_refused(rate: str) -> None:
    with pytest.raises(SpecError, match=r"^--rate: .* no number of hours"):
        estimate(tiny_job(), rate)


def test_the_words_of_an_estimate_that_there_is_not() -> None:
    with pytest.raises(SpecError, match="no estimate for an evaluate job"):
        VERBS["evaluate"].dry_run(None, "850")
    with pytest.raises(SpecError, match="no estimate for a generate job"):
        VERBS["generate"].dry_run(None, "850")


@pytest.mark.parametrize("gpus", [-1, 9, None, [1]])
def test_gpus_are_refused_in_one_plain_line(gpus: Any) -> None:
    with pytest.raises(SpecError, match=r"^gpus: [\w ,]+ auto, got [^;]*$") as refused:
        parse(ResourcesSpec, {"gpus": gpus})
    assert "constrained" not in str(refused.value)


def test_a_gpu_that_is_not_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(is_available=lambda: False))
    line = idle_gpu_line(1)
    assert idle_gpu_line(0) is None
    assert line is not None
    assert line.startswith("resources.gpus is 1, but")
    assert line.endswith("runs on the CPU, and no GPU hours are counted")
    job = tiny_job().model_copy(update={"resources": ResourcesSpec(gpus=1)})
    assert dry_run._idle(job) == line
    assert dry_run._idle(job.model_copy(update={"resources": ResourcesSpec(gpus="auto")})) is None


def test_a_comparison_of_sets_has_no_hint_at_errors_of_images() -> None:
    line = str(misfit_warning("fd_lenet", (1, 16, 16), 9, None, of_sets=True))
    assert "rmse" not in line
    assert "choose other features" in line


def test_a_table_says_why_metrics_are_missing() -> None:
    omitted = {
        "eval/samples/kid_lenet": "set metrics need 4 images on each side",
        "eval/floor/fd_lenet": "fewer than 2 images on a side",
    }
    table = evaluation_table({"eval/samples/fd_lenet": 3.0}, {"omitted": omitted})
    assert "kid and recall (samples): set metrics need 4 images on each side" in table
    assert "no fd_lenet (real against real): fewer than 2 images on a side" in table


def test_only_near_names_are_suggested() -> None:
    assert nearest("qqq", ["compile", "optimizer"]) == ""
    assert nearest("learning_rate", ["seed", "optimizer"]) == "; did you mean 'optimizer.lr'?"
    assert nearest("num_step", ["num_steps"]) == "; did you mean 'num_steps'?"


def test_a_beginning_of_one_name_and_a_name_with_more_words_are_near() -> None:
    ids = ["train-cpu-deblur-mnist-0a1b2c3d", "train-mine-0a1b2c3d", "train-mine-1a1b2c3d"]
    assert nearest("train-cpu", ids) == f"; did you mean {ids[0]!r}?"
    assert "deblur" not in nearest("train-min", ids)
    with pytest.raises(SpecError, match="cpus_per_worker: no such field; did you mean 'cpus'"):
        tiny_job(resources={"cpus_per_worker": 2})


def test_a_limit_is_of_both_splits_together(tmp_path: Any) -> None:
    packed = pack_splits("digits", str(tmp_path / "set"), holdout=0.2, limit=40)
    counts = {split: manifest.count for split, (manifest, _) in packed.items()}
    assert sum(counts.values()) == 40
    assert counts["train"] > counts["test"] > 0
    with pytest.raises(SpecError, match=r"^limit: is 1, of both splits together"):
        pack_splits("digits", str(tmp_path / "one"), holdout=0.2, limit=1)


def test_a_job_without_a_debug_log_says_so(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = JobFolder(LocalStore(tmp_path), "train-a-00000001")
    folder.write_job({"id": folder.job_id, "verb": "train", "storage": str(tmp_path)})
    folder.write_status(Status("done", 1, step=9, num_steps=9, heartbeat=8.0))
    folder.write_log(1, b"a line\n")
    logs(folder.job_id, attempt=1, debug=True, storage=str(tmp_path))
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"attempt 1 of {folder.job_id} has no debug log\n")


def test_numbers_and_their_nouns_agree(tmp_path: Any) -> None:
    store = LocalStore(tmp_path)
    one = Leftover("checkpoint", "a", "old", [], 500, store)
    assert _total([one]) == "500 B: 1 checkpoint"
    assert _total([one, one]).endswith(": 2 checkpoints")
    manifest = pack_source("digits", str(tmp_path / "set"), limit=1)[0]
    assert summary_line(manifest, "set").startswith("1 image 1x")
