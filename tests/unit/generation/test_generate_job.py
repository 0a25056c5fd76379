"""Whole generation jobs in this process: resolved, run, done once, extended, refused."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from colddiff.checkpoints.references import describe_checkpoint
from colddiff.data.open import open_samples, open_shards, read_manifest
from colddiff.errors import CheckpointError, ColddiffError, DataError, SpecError
from colddiff.evaluation.metrics import FeatureStatistics, frechet_distance
from colddiff.features.open import open_features
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.resolve import ResolvedJob
from colddiff.jobs.submit import is_done
from colddiff.stores.open import open_store
from colddiff.terminals.stored import stored_terminal
from colddiff.verbs.generate.job import GenerateJob
from colddiff.verbs.generate.statistics import statistics_of
from tests.unit.generation.running import place, run
from tests.unit.generation.sets import seeds, tars


def test_made_once_then_extended(submitted: Callable[..., ResolvedJob], storage: Path) -> None:
    first = submitted(tracking={"system_every_s": None})
    code, folder = run(first)
    assert code == 0
    store = place(first)
    assert store.uri == f"{storage}/samples/{first.id}"
    assert seeds(store) == list(range(25))
    result, status = folder.result(), folder.status()
    assert result
    assert status
    assert (result["samples"], result["num_samples"], result["made"]) == (store.uri, 25, 25)
    assert (status.state, status.step, status.num_steps) == ("done", 25, 25)
    assert status.detail == "3/3 shards"
    sheet = Image.open(io.BytesIO(Path(result["pictures"][0]).read_bytes()))
    assert sheet.size == (5 * 66 + 2, 5 * 66 + 2)
    assert "contact_sheet.png" in Path(result["report"]).read_text()
    more = submitted(num_samples=40)
    assert more.id == first.id
    times = {p.name: p.stat().st_mtime_ns for p in Path(store.uri).glob("*.tar")}
    assert run(more)[0] == 0
    assert seeds(store) == list(range(40))
    kept = [name for name, at in times.items() if Path(store.uri, name).stat().st_mtime_ns == at]
    assert sorted(kept) == ["shard-000000.tar", "shard-000001.tar"]
    again = folder.result()
    assert again
    assert again["made"] == 20


def test_what_was_lost_is_made_again_with_the_same_bytes(
    submitted: Callable[..., ResolvedJob],
) -> None:
    resolved = submitted()
    run(resolved)
    store = place(resolved)
    before = tars(store)
    folder = JobFolder(open_store(resolved.storage), resolved.id)
    status = folder.status()
    assert status
    assert is_done(resolved, folder, status)
    store.delete("shard-000001.tar")
    store.delete("manifest.json")
    assert not is_done(resolved, folder, status)
    code, folder = run(resolved)
    assert code == 0
    result = folder.result()
    assert result
    assert result["made"] == 10
    assert tars(store) == before


def test_the_id_is_what_is_made_not_how(submitted: Callable[..., ResolvedJob]) -> None:
    one = submitted()
    assert submitted(workers=4, resources={"cpus": 2}, num_samples=9).id == one.id
    assert submitted(severities=3).id == one.id
    for changes in ({"batch_size": 4}, {"sampler": "naive"}, {"first_seed": 1}, {"severities": 2}):
        assert submitted(**changes).id != one.id


def test_the_images_of_a_set_are_restored(
    submitted: Callable[..., ResolvedJob], trained: dict[str, str]
) -> None:
    resolved = submitted(
        data=trained["test"], num_samples=None, sampler="direct", severities=[2, 0]
    )
    count = read_manifest(trained["test"]).count
    assert resolved.job_as(GenerateJob).num_samples == count
    assert run(resolved)[0] == 0
    assert seeds(place(resolved)) == list(range(count))
    made = open_samples(place(resolved)).images(0, count)
    images = open_shards(trained["test"]).images(0, count)
    assert made.shape == images.shape
    # From the images themselves, not from drawn starts: what remains of each can be seen.
    centred = made - made.mean(axis=0)
    own, others = ((centred * np.roll(images, n, axis=0)).mean() for n in (0, 1))
    assert own > others


def test_a_folder_of_png_for_a_small_job(submitted: Callable[..., ResolvedJob]) -> None:
    resolved = submitted(writer="folder", num_samples=5)
    code, folder = run(resolved)
    assert code == 0
    names = [p.name for p in sorted(Path(place(resolved).uri).glob("*.png"))]
    assert names == [f"{seed:012d}.png" for seed in range(5)]
    assert folder.result() is not None


def test_another_plan_at_the_same_place_is_refused_at_submission(
    submitted: Callable[..., ResolvedJob], tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    run(submitted(out=out))
    assert submitted(out=out, num_samples=99).id == submitted(out=out).id
    with pytest.raises(SpecError, match=r"out: .* sampler is improved there, naive here"):
        submitted(out=out, sampler="naive")
    with pytest.raises(SpecError, match=r"batch_size is 8 there, 4 here; shard_size is 10 there"):
        submitted(out=out, batch_size=4, shard_size=5)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"")
    with pytest.raises(SpecError, match=r"holds other objects \(a.jpg\)"):
        submitted(out=str(tmp_path / "photos"))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"checkpoint": None}, SpecError, "checkpoint: is required"),
        ({"checkpoint": "train-nobody-00000000"}, CheckpointError, "no committed checkpoint"),
        ({"checkpoint": "TRAINED@step=9"}, CheckpointError, "no checkpoint of step 9"),
        ({"num_samples": None}, SpecError, "num_samples: is required: .*data=URI"),
        ({"num_samples": 0}, SpecError, "num_samples: .*greater than or equal to 1"),
        ({"shard_size": 0}, SpecError, "shard_size: .*greater than or equal to 1"),
        ({"batch_size": 0}, SpecError, "batch_size: .*greater than or equal to 1"),
        ({"num_samples": 10**8}, SpecError, r"more than 1000000; use at least 100"),
        ({"writer": "folder", "num_samples": 200_000}, SpecError, "at most 100000 images"),
        ({"sampler": "best"}, SpecError, "sampler: "),
        ({"severities": 4}, SpecError, "severities: must be 1..3 steps"),
        ({"severities": [2, 0]}, SpecError, "severities: must start at T = 3"),
        ({"terminal": {"kind": "solid_colour"}}, SpecError, "has no omega entry 'colour'"),
        ({"data": "/nowhere"}, DataError, "/nowhere"),
        ({"data": "TEST", "num_samples": 10**6}, SpecError, "num_samples: 1000000 images from"),
        ({"data": "TEST", "terminal": {"kind": "standard_normal"}}, SpecError, "use one of them"),
        ({"reference": "TEST"}, SpecError, "reference: requires statistics"),
        ({"out": "/proc/nowhere"}, ColddiffError, "/proc/nowhere"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_input_is_one_clear_error_before_anything_starts(
    submitted: Callable[..., ResolvedJob],
    trained: dict[str, str],
    storage: Path,
    changes: dict[str, Any],
    error: type[ColddiffError],
    message: str,
) -> None:
    places = {"TEST": trained["test"], "TRAINED@step=9": f"{trained['job']}@step=9"}
    changes = {k: places.get(v, v) if isinstance(v, str) else v for k, v in changes.items()}
    with pytest.raises(error, match=message) as caught:
        submitted(**changes)
    assert "\n" not in str(caught.value)
    assert not (storage / "samples").exists()


def test_a_checkpoint_that_was_not_committed_or_is_damaged(
    submitted: Callable[..., ResolvedJob], trained: dict[str, str], tmp_path: Path
) -> None:
    copy = tmp_path / "jobs" / "copy"
    shutil.copytree(trained["job"], copy)
    (step,) = (copy / "checkpoints").iterdir()
    state = json.loads((step / "state.json").read_text())
    state["job"]["degradation"]["kind"] = "kspace"
    (step / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match=r"state.json: has \d+ bytes, checkpoint.json says"):
        submitted(checkpoint=str(copy))
    (step / "checkpoint.json").unlink()
    with pytest.raises(CheckpointError, match="no committed checkpoint"):
        submitted(checkpoint=str(copy))


def test_a_kind_whose_end_shows_the_image_needs_images(
    submitted: Callable[..., ResolvedJob], trained: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from colddiff.degradations import DEGRADATIONS
    from colddiff.verbs.generate import resolve as generation

    def decolor(address: Any) -> Any:
        about = describe(address)
        spec = DEGRADATIONS.parse({"kind": "decolor", "num_timesteps": 3})
        job = about.job.model_copy(update={"degradation": spec})
        return replace(about, job=job, terminal=None, terminal_sha256=None)

    describe = describe_checkpoint
    monkeypatch.setattr(generation, "describe_checkpoint", decolor)
    with pytest.raises(SpecError, match=r"decolor has no terminal .* data=URI"):
        submitted()
    with pytest.raises(SpecError, match=r"improved_estimated: degradation 'decolor' cannot"):
        submitted(sampler="improved_estimated", data=trained["test"])
    assert submitted(data=trained["test"]).id


def test_images_under_a_collapsed_blur_are_restored_from_its_end(
    submitted: Callable[..., ResolvedJob], trained: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from colddiff.degradations import DEGRADATIONS
    from colddiff.verbs.generate import resolve as generation

    def collapsed(address: Any) -> Any:
        about = describe(address)
        blur = {"kind": "blur", "num_timesteps": 3, "collapse_to_mean": True}
        job = about.job.model_copy(update={"degradation": DEGRADATIONS.parse(blur)})
        return replace(about, job=job)

    describe = describe_checkpoint
    monkeypatch.setattr(generation, "describe_checkpoint", collapsed)
    with pytest.raises(SpecError, match=r"severities: with collapse_to_mean .* starts at T = 3"):
        submitted(data=trained["test"], severities=[2, 0])
    assert submitted(data=trained["test"], severities=[3, 1, 0]).id


def test_a_mixture_of_ones_own_is_fitted_once_to_the_training_images(
    submitted: Callable[..., ResolvedJob], blurred: dict[str, str]
) -> None:
    changes = {"checkpoint": blurred["job"], "num_samples": 4}
    held = submitted(**changes)
    # The same mixture in other words is the checkpoint's own.
    assert submitted(**changes, terminal={"kind": "gmm", "components": 1}).id == held.id
    other = submitted(**changes, terminal={"kind": "gmm", "components": 2})
    assert other.id != held.id
    assert run(held)[0] == 0
    code, folder = run(other)
    assert code == 0
    fitted = stored_terminal(folder)
    assert fitted is not None
    assert fitted.tensors["means"].shape == (2, 1)
    assert tars(place(held)) != tars(place(other))
    before = tars(place(other))
    for key in before:
        place(other).delete(key)
    assert run(other)[0] == 0
    assert tars(place(other)) == before


def test_statistics_gathered_on_the_way_or_asked_for_later_are_the_same(
    submitted: Callable[..., ResolvedJob], trained: dict[str, str]
) -> None:
    on_the_way = submitted(statistics=["lenet"], reference=trained["test"])
    code, folder = run(on_the_way)
    result = folder.result()
    assert code == 0
    assert result
    kept = result["statistics"]["fd_lenet"]
    streamed = FeatureStatistics.from_bytes(Path(kept["uri"]).read_bytes())
    made = open_samples(place(on_the_way)).images(0, 25).astype(np.uint8)
    lenet = open_features("lenet")
    whole = statistics_of(lenet, made)
    assert streamed.n == kept["n"] == 25
    np.testing.assert_allclose(streamed.mean, whole.mean, rtol=1e-5)
    np.testing.assert_allclose(streamed.m2, whole.m2, rtol=1e-4, atol=1e-4)
    images = open_shards(trained["test"])
    against = statistics_of(lenet, images.images(0, images.manifest.count).astype(np.uint8))
    distance = frechet_distance(whole, against)
    assert result["metrics"]["generate/fd_lenet"] == pytest.approx(distance, rel=1e-4)
    assert kept["reference"]["manifest"] == images.manifest.digest

    later = submitted(writer="webdataset", out=place(on_the_way).uri + "-later")
    run(later)
    asked = submitted(out=later.job_as(GenerateJob).out, statistics=["lenet"])
    _, folder = run(later)
    assert asked.id == later.id
    assert not asked.job.covered_by(folder.result() or {})
    times = {p.name: p.stat().st_mtime_ns for p in Path(place(later).uri).glob("*.tar")}
    assert run(asked)[0] == 0
    again = folder.result()
    assert again
    assert again["made"] == 0
    assert asked.job.covered_by(again)
    assert not on_the_way.job.covered_by(again)
    assert times == {p.name: p.stat().st_mtime_ns for p in Path(place(later).uri).glob("*.tar")}
    found = Path(again["statistics"]["fd_lenet"]["uri"]).read_bytes()
    assert found == Path(kept["uri"]).read_bytes()


def test_no_space_is_found_out_at_submission(
    submitted: Callable[..., ResolvedJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colddiff.verbs.generate.resolve.free_bytes", lambda uri: 7_000_000)
    assert submitted(num_samples=100_000).id
    with pytest.raises(DataError, match=r"0.007 GB free, 1000000 images of 1x8x8 take up to 0.064"):
        submitted(num_samples=1_000_000)


@pytest.mark.parametrize("field", ["checkpoint", "data"])
def test_what_changed_since_submission_is_refused(
    submitted: Callable[..., ResolvedJob], trained: dict[str, str], field: str
) -> None:
    given = {"data": trained["test"]} if field == "data" else {}
    data = submitted(**given, max_failures=0).to_dict()
    data["content"] = {**data["content"], field: "0" * 64}
    code, folder = run(ResolvedJob.from_dict(data))
    status = folder.status()
    assert code == 1
    assert status
    assert "has changed since the job was submitted" in status.message
