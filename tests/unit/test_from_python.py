"""What a person calls from Python: copies of jobs, images, restorations, jobs as rows, figures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pictures
from torch.utils.data import DataLoader

import colddiff
from colddiff.checkpoints.references import load_checkpoint
from colddiff.errors import ColddiffError, DataError, Missing, RecordError, SpecError
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.status import Status
from colddiff.restoration import ImageFile, Restoration, RestoreSettings
from colddiff.stores.local_store import LocalStore
from tests.restoring import picture
from tests.tiny_checkpoint import RANDOM_INPAINT, tiny_checkpoint, tiny_job

BLUR = {"kind": "blur", "num_timesteps": 6, "sigma": {"kind": "constant", "value": 1.0}}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> colddiff.ImageData:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLDDIFF_CACHE", str(tmp_path_factory.mktemp("cache")))
        storage = str(tmp_path_factory.mktemp("runs"))
        data = colddiff.open_data("digits", storage=storage)
        assert len(colddiff.open_data("digits", storage=storage)) == len(data)
        return data


def blur(size: int = 8) -> colddiff.Degradation[Any]:
    return colddiff.build_degradation(BLUR | {"kernel_size": 3}, colddiff.ImageShape(1, size, size))


def test_every_public_name_is_there() -> None:
    missing = [name for name in colddiff.__all__ if not hasattr(colddiff, name)]
    assert missing == []
    assert callable(colddiff.restore)


def test_a_copy_of_a_job_has_other_fields_and_is_checked() -> None:
    job = tiny_job()
    other = job.with_(num_steps=7, optimizer={"lr": 0.5}).with_({"degradation.num_timesteps": 3})
    assert (other.num_steps, other.optimizer.lr, other.degradation.num_timesteps) == (7, 0.5, 3)
    assert other.optimizer.clip_norm == job.optimizer.clip_norm
    assert job == tiny_job()
    other = job.with_(degradation={"kind": "decolor", "num_timesteps": 2}, channels=3)
    assert other.degradation.kind == "decolor"
    with pytest.raises(SpecError, match=r"num_step: no such field; did you mean 'num_steps'"):
        job.with_(num_step=7)
    with pytest.raises(SpecError, match=r"num_steps: must be a number, got True"):
        job.with_(num_steps=True)
    with pytest.raises(SpecError, match="is not the path of a field"):
        job.with_({"optimizer.": 7})


def test_setting_a_field_says_how_to_make_a_changed_copy() -> None:
    job: Any = tiny_job()
    with pytest.raises(
        SpecError,
        match=r"^num_steps: TrainJob is frozen: .*job\.with_\(num_steps=.*recipe\.job\('train'",
    ):
        job.num_steps = 7
    with pytest.raises(SpecError, match=r"^num_step: .* did you mean 'num_steps'"):
        job.num_step = 7
    with pytest.raises(
        SpecError, match=r"\.with_\(lr=\.\.\.\), or of its job, job\.with_\(FIELD={'lr'"
    ):
        job.optimizer.lr = 7
    with pytest.raises(SpecError, match=r"\.with_\(seed="):
        del job.seed


def test_sampling_shows_a_bar_where_there_is_something_to_wait_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colddiff.machine.tqdm_bar.DELAY_S", 0)
    D, seen = blur(), list[tuple[int, int]]()

    def sampled(progress: Any, sampler: str = "improved") -> colddiff.Image:
        x_T = torch.zeros(1, 1, 8, 8)
        return colddiff.sample(lambda x, t: x, D, x_T, sampler=sampler, progress=progress)

    sampled(lambda done, total: seen.append((done, total)))
    assert seen == [(n, 6) for n in range(1, 7)]
    sampled(False)
    sampled(True, "direct")
    assert capsys.readouterr() == ("", "")
    sampled(True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "improved: 100%" in shown.err
    assert "6/6" in shown.err


def test_restored_images_are_those_of_the_command(tmp_path: Path) -> None:
    levels = np.stack([picture(tmp_path / f"{n}.png", n) for n in range(3)])
    checkpoint = load_checkpoint(tiny_checkpoint(tmp_path / "checkpoint"))
    settings = RestoreSettings(severity=3, severities=2)
    files = [ImageFile(tmp_path / f"{n}.png", str(n)) for n in range(3)]
    Restoration(checkpoint, settings, tmp_path / "out").run(files)
    made = [np.asarray(Pictures.open(tmp_path / "out" / f"{n}.png")) for n in range(3)]
    seen: list[int] = []
    restored = colddiff.restore(
        checkpoint,
        levels[:, None],
        severity=3,
        severities=2,
        progress=lambda done, total: seen.append(done),
    )
    assert restored.shape == (3, 1, 16, 16)
    assert restored.dtype == torch.float32
    assert seen == [3, 6]
    again = np.rint((restored.double().numpy() + 1) * 127.5)
    assert np.array_equal(again[:, 0], np.stack(made))
    one = colddiff.restore(
        str(tmp_path / "checkpoint"), levels[1:2, None], severity=3, severities=2
    )
    assert torch.equal(one[0], restored[1])


def test_a_loaded_checkpoint_is_shown_in_one_line(tmp_path: Path) -> None:
    for place, name in (("jobs/train-a-12345678", "train-a-12345678"), ("copy", "")):
        shown = repr(load_checkpoint(tiny_checkpoint(tmp_path / place)))
        called = name or rf"{re.escape(str(tmp_path))}/copy/checkpoints/step_00000003"
        about = r"step 3, blur T=4, 1x16x16, convnext_unet \d+\.\d [kM]"
        assert re.fullmatch(rf"LoadedCheckpoint\({called}, {about}\)", shown)


def test_a_degradation_is_shown_with_its_fields() -> None:
    spec = {"kind": "blur", "num_timesteps": 3, "kernel_size": 5}
    shown = repr(colddiff.build_degradation(spec, colddiff.ImageShape(1, 16, 16)))
    assert shown.startswith("<blur of 1x16x16: num_timesteps=3, kernel_size=5, sigma={'kind': ")


def test_what_cannot_be_restored_is_said_in_the_words_of_python(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint(tmp_path))
    x = torch.zeros(2, 1, 16, 16)
    images: Any
    for images, said in (
        (x[0], r"must be \[B, C, H, W\].*image\[None\]"),
        (x[:0], "at least one"),
        (x[0, 0], r"one grey image \[H, W\] use image\[None, None\]"),
        (
            np.zeros((16, 24, 3), np.uint8),
            r"one image \[H, W, C\] use numpy\.transpose\(image, \(2, 0, 1\)\)\[None\]$",
        ),
        (
            np.zeros((2, 16, 24, 3), np.uint8),
            r"16 channels.*takes 1; if they are \[B, H, W, C\], use numpy\.transpose\(images, \(0,",
        ),
        ([tmp_path / "a.png", x], r"^images\[1\]: must be a path or a PIL image"),
        (tmp_path, "is a folder; give a list of files"),
        (x * torch.nan, "NaN or inf"),
        (x + 255, "values must be in \\[-1, 1\\], got 255"),
        (x.long(), "got torch.int64"),
        (np.array([object()]), "cannot be read as an array"),
        (x.expand(2, 3, 16, 16), "have 3 channels, the checkpoint takes 1"),
        (torch.zeros(2, 1, 8, 24), r"are 8x24 px, the checkpoint takes 16x16; fit=True crops"),
    ):
        with pytest.raises(SpecError, match=said):
            colddiff.restore(checkpoint, images)
    for settings, said in (
        ({"severity": 9}, r"^severity: must be 1\.\.4"),
        ({"sampler": "best"}, r"^sampler: "),
        ({"severities": 0}, r"^severities: must be at least 1"),
        ({"severities": [4, 4, 0]}, r"^severities: a list must fall"),
        ({"batch_size": 0}, r"^batch_size: "),
        ({"precision": "fp8"}, r"^precision: must be fp32 or bf16"),
    ):
        with pytest.raises(SpecError, match=said):
            colddiff.restore(checkpoint, x, **settings)


def test_images_of_another_size_are_fitted_or_restored_at_it_on_demand(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint(tmp_path / "checkpoint"))
    levels = picture(tmp_path / "wide.png", 1, (24, 40))
    Restoration(checkpoint, RestoreSettings(fit=True), tmp_path / "out").run(
        [ImageFile(tmp_path / "wide.png", "wide")]
    )
    made = np.asarray(Pictures.open(tmp_path / "out" / "wide.png"))
    fitted = colddiff.restore(checkpoint, levels[None, None], fit=True)
    assert np.array_equal(np.rint((fitted.double().numpy() + 1) * 127.5)[0, 0], made)
    x = torch.from_numpy(levels[None, None] / 127.5 - 1)
    floating = colddiff.restore(checkpoint, x, fit=True)
    assert floating.shape == (1, 1, 16, 16)
    assert float((floating - fitted).abs().max()) < 0.05, "the same but for rounding to levels"
    assert colddiff.restore(checkpoint, x, any_size=True).shape == (1, 1, 24, 40)
    # [0, 1] is another range than is taken; levels are none of it, however bright.
    with pytest.warns(UserWarning, match=r"images: are 0\.\d+ to .* x \* 2 - 1") as warned:
        colddiff.restore(checkpoint, levels[None, None] / 255.0, fit=True)
    assert warned[0].filename == __file__
    colddiff.restore(checkpoint, [[levels // 2 + 128]], fit=True)


def test_an_alpha_that_is_dropped_is_warned_of(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint(tmp_path / "checkpoint"))
    (tmp_path / "photos").mkdir()
    glass = Pictures.new("LA", (16, 16), (200, 90))
    glass.save(tmp_path / "photos" / "glass.png")
    opaque = Pictures.new("LA", (16, 16), (200, 255))
    said = r"left out: the alpha of images with transparency: 2 \(.*glass.png, images\[0\]\)"
    given: Any = [glass, opaque, tmp_path / "photos" / "glass.png"]
    with pytest.warns(UserWarning, match=said) as found:
        colddiff.restore(checkpoint, given)
    assert found[0].filename == __file__
    with pytest.warns(UserWarning, match="1 image with transparency: its alpha") as found:
        colddiff.open_data(f"folder:{tmp_path / 'photos'}", storage=str(tmp_path / "runs"))
    assert found[0].filename == __file__


def test_a_network_gone_wrong_is_an_error_that_names_the_images(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint(tmp_path))
    with torch.no_grad():
        for weights in checkpoint.restorer.parameters():
            weights.fill_(torch.inf)
    with pytest.raises(ColddiffError, match=r"NaN or inf for images \[0, 1\]"):
        colddiff.restore(checkpoint, torch.zeros(2, 1, 16, 16))


def test_omega_is_given_for_each_image(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint(tmp_path, degradation=RANDOM_INPAINT))
    D, x0 = checkpoint.degradation, torch.rand(3, 1, 16, 16) * 2 - 1
    omega = D.draw(3, rng=np.random.default_rng(0))
    x_T = D.observe(x0, torch.full((3,), 4), omega)
    restored = colddiff.restore(checkpoint, x_T, omega=omega)
    alone = colddiff.restore(checkpoint, x_T[2:], omega={"centre": omega["centre"][2:]})
    assert torch.equal(alone[0], restored[2])
    with pytest.raises(SpecError, match="needs it: provide it with omega, JSON such as"):
        colddiff.restore(checkpoint, x_T)
    with pytest.raises(SpecError, match=r"omega\['centre'\]: must have a row for each of 3"):
        colddiff.restore(checkpoint, x_T, omega={"centre": omega["centre"][:2]})


def test_the_page_on_restoring_shows_how_omega_is_drawn(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path, degradation=RANDOM_INPAINT)
    page = Path(__file__).parents[2] / "infra" / "docs" / "restore.md"
    [shown] = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    images = 'colddiff.open_data("digits", image_size=16)[:8]'
    assert images in shown
    found: dict[str, Any] = {}
    exec(shown.replace("JOB@best", path).replace(images, "torch.zeros(8, 1, 16, 16)"), found)
    assert torch.allclose(found["x_0"].clamp(-1, 1), found["same"].clamp(-1, 1), atol=1e-5)
    with pytest.raises(
        SpecError, match=r"no 'centre'; draw .*rng=RNG\), where RNG is a torch\.Gen"
    ):
        colddiff.sample(found["R"], found["D"], found["x_T"], {})


def test_packed_images_are_a_sequence(digits: colddiff.ImageData) -> None:
    assert len(digits) == 1797
    assert digits.shape == colddiff.ImageShape(1, 8, 8)
    assert digits[5].shape == (1, 8, 8)
    assert torch.equal(digits[-1], digits[1796])
    batch = digits[[3, 900, 3]]
    assert batch.shape == (3, 1, 8, 8)
    assert torch.equal(batch[0], digits[3])
    assert torch.equal(digits[3:9:2], torch.stack([digits[3], digits[5], digits[7]]))
    assert digits[5:5].shape == (0, 1, 8, 8)
    assert (float(digits[:50].min()), float(digits[:50].max())) == (-1, 1)
    with pytest.raises(IndexError, match="image 1797 of a set of 1797"):
        digits[1797]
    assert next(iter(DataLoader(digits, batch_size=4))).shape == (4, 1, 8, 8)
    assert digits.labels[:3] == (0, 1, 2)
    assert digits.classes[digits.labels[9] or 0] == "9"
    assert "1797 images 1x8x8, 8 bit, 10 classes" in repr(digits)


def test_data_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data pack SOURCE"):
        colddiff.open_data(str(tmp_path))
    with pytest.raises(SpecError, match="image_size: of a SOURCE that is packed"):
        colddiff.open_data(str(tmp_path), image_size=8)
    with pytest.raises(SpecError, match="image_sizes: no such field; did you mean 'image_size'"):
        colddiff.open_data("digits", storage=str(tmp_path), image_sizes=8)
    np.save(tmp_path / "x.npy", np.array([[-1000.0, 0.0, 1000.0]]))
    settings = {"bits": 16, "range": (-1000, 1000)}
    data = colddiff.open_data(f"folder:{tmp_path}", storage=str(tmp_path / "runs"), **settings)
    assert torch.allclose(data[0], torch.tensor([[[-1.0, 0.0, 1.0]]]), atol=1e-4)


@pytest.fixture
def storage(tmp_path: Path) -> str:
    """Two jobs, one with evaluations on the way."""
    for n, state in ((1, "done"), (2, "failed")):
        job_id = f"train-blur-0000000{n}"
        folder = JobFolder(LocalStore(tmp_path), job_id)
        spec = {"seed": n, "degradation": {"kind": "blur"}}
        job = {"id": job_id, "verb": "train", "slug": "blur", "created": 5.0 + n, "spec": spec}
        folder.write_job({**job, "storage": str(tmp_path)})
        folder.write_status(Status(state, 1, step=9, num_steps=9, heartbeat=8.0 + n))  # type: ignore[arg-type]
    folder = JobFolder(LocalStore(tmp_path), "train-blur-00000001")
    for step in (4, 9):
        metrics = {
            "eval/sampled/rmse": 1 / step,
            "eval/sampled/psnr": 2.0,
            "eval/floor/fd_lenet": 3.0,
        }
        folder.write_evaluation(step, {"metrics": metrics})
    best = {"step": 9, "metric": "eval/sampled/rmse", "value": 1 / 9}
    folder.write_result({"metrics": metrics, "best": best, "checkpoint": f"{tmp_path}/x"})
    return str(tmp_path)


def test_jobs_are_flat_rows(storage: str) -> None:
    first, second = colddiff.list_jobs(storage)
    assert (first["id"], first["state"]) == ("train-blur-00000001", "done")
    assert (first["metric"], first["score"]) == ("eval/sampled/rmse", 1 / 9)
    assert (first["seed"], second["seed"], second["score"]) == (1, 2, None)
    assert (first["created"].timestamp(), first["seen"].timestamp()) == (6, 9)
    assert all(not isinstance(value, dict | list) for value in first.values())
    assert colddiff.list_jobs(storage, name="*00002") == [second]


def test_a_result_is_rows_for_a_table(storage: str) -> None:
    pandas = pytest.importorskip("pandas")
    result = colddiff.load_result("train-blur-00000001", storage)
    assert (result.id, result.state) == ("train-blur-00000001", "done")
    assert result.metrics["eval/sampled/psnr"] == 2
    assert result.checkpoint == f"{storage}/x"
    table = pandas.DataFrame(result.rows)
    assert list(table["step"]) == [4, 4, 9, 9]
    assert set(table["label"]) == {"Algorithm 2 (improved)", "real against real"}
    sampled = table[table.column == "sampled"].set_index("step")
    assert list(sampled["rmse"]) == [1 / 4, 1 / 9]
    for other in (f"{storage}/jobs/train-blur-00000001", {"id": "train-blur-00000001"}):
        assert colddiff.load_result(other, storage).rows == result.rows
    unfinished = colddiff.load_result("train-blur-00000002", storage)
    assert (unfinished.state, unfinished.rows, unfinished.checkpoint) == ("failed", [], None)


def test_the_trials_of_a_search_are_flat_rows(storage: str) -> None:
    store = LocalStore(Path(storage))
    folder = JobFolder(store, "search-a-00000001")
    folder.write_job({"id": "search-a-00000001", "verb": "search", "slug": "a", "spec": {}})
    row = {"rank": 1, "point": {"degradation.sigma.start": 0.5}, "values": {"8": 2.0}}
    store.put(folder.key("leaderboard.json"), json.dumps({"rows": [row]}).encode())
    found = colddiff.load_result("search-a-00000001", storage).rows
    assert found == [
        {
            "job": "search-a-00000001",
            "rank": 1,
            "degradation.sigma.start": 0.5,
            "values.8": 2.0,
        }
    ]
    store.put(folder.key("leaderboard.json"), b"{")
    with pytest.raises(RecordError, match="leaderboard"):
        colddiff.load_result("search-a-00000001", storage)


def test_a_result_of_nothing(storage: str) -> None:
    with pytest.raises(Missing, match="did you mean 'train-blur-00000001'"):
        colddiff.load_result("train-blur-00000011", storage)
    with pytest.raises(SpecError, match="is not the folder of a job"):
        colddiff.load_result(storage)
    with pytest.raises(SpecError, match="takes a job's id"):
        colddiff.load_result({})
