"""`colddiff figure`: from STORAGE alone, a block for each job, replacing nothing of others."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colddiff.jobs.folder import JobFolder
from colddiff.jobs.status import Status
from colddiff.report.figure import MARK
from colddiff.report.page.sprites import cells_of, sprite_sheet
from colddiff.stores.local_store import LocalStore
from tests.in_process import Done, colddiff_here
from tests.unit.report.made_runs import evaluated, train_job

Here = Callable[..., Done]


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Here:
    monkeypatch.setenv("COLDDIFF_STORAGE", str(tmp_path / "runs"))
    # Neither a cluster nor a tracker is there, and neither is asked for.
    monkeypatch.setenv("COLDDIFF_ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    return lambda *words: colddiff_here(monkeypatch, capsys, "figure", *words)


def tiles(png: bytes, pixels: np.ndarray) -> int:
    """How often an image, uint8 [C, H, W], is in a picture, enlarged without smoothing."""
    with Image.open(io.BytesIO(png)) as picture:
        seen = np.asarray(picture.convert("RGB"))
    factor = round(128 / pixels.shape[-1])
    wanted = np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0)
    wanted = wanted.repeat(factor, 0).repeat(factor, 1)
    views = np.lib.stride_tricks.sliding_window_view(seen, wanted.shape)[::1, ::1, 0]
    # By the first row first: comparing every window whole would take minutes.
    close = np.argwhere((views[:, :, 0] == wanted[0]).all((-1, -2)))
    return sum(bool((views[y, x] == wanted).all()) for y, x in close)


def test_it_holds_the_pixels_of_each_column(here: Here, tmp_path: Path) -> None:
    job = train_job(tmp_path / "runs")
    out = tmp_path / "figure.png"
    done = here(job.job_id, "--out", out, "--images", "2")
    assert (done.returncode, done.stdout) == (0, f"{out}\n"), done.stderr
    pictures = evaluated(0.9).pictures
    assert set(pictures) == {"original", "degraded", "direct", "naive", "sampled"}
    for name, images in pictures.items():
        assert tiles(out.read_bytes(), images[1]) >= 1, name
        assert tiles(out.read_bytes(), images[2]) == 0, "only two images are wanted"


def test_several_jobs_are_blocks_one_below_the_other(here: Here, tmp_path: Path) -> None:
    one, two = (train_job(tmp_path / "runs", f"train-blocks-0000000{n}") for n in (1, 2))
    heights = []
    for words in ((one.job_id,), (one.job_id, two.job_id)):
        done = here(*words, "--out", tmp_path / "figure.png")  # our own picture is replaced
        assert done.returncode == 0, done.stderr
        with Image.open(tmp_path / "figure.png") as picture:
            heights.append(picture.height)
    assert heights[1] == 2 * heights[0]


def test_what_cannot_be_drawn_is_one_line(here: Here, tmp_path: Path) -> None:
    bare = JobFolder(LocalStore(tmp_path / "runs"), "train-x-00000000")
    bare.write_job({"id": "train-x-00000000", "verb": "train", "slug": "x", "spec": {}})
    bare.write_status(Status(state="failed", attempt=1))
    none = "train-x-00000000 has no checkpoint (failed at step 0), so there is nothing to draw; "
    job = train_job(tmp_path / "runs")
    LocalStore(tmp_path / "runs").delete(f"jobs/{job.job_id}/evaluations/step_00000020.safetensors")
    other = tmp_path / "photo.png"
    Image.new("RGB", (4, 4)).save(other)
    before = other.read_bytes()
    for words, told in (
        (("train-x-00000000", "--out", tmp_path / "a.png"), none),
        (("train-x*", "--out", tmp_path / "a.png"), none),
        ((job.job_id, "--out", tmp_path / "a.png"), "keeps no images of its evaluation"),
        ((job.job_id, "--out", other), "was not drawn by `colddiff figure`"),
        ((job.job_id, "--out", tmp_path / "a.jpg"), "must end in .png"),
        (("train-nothing-00000000", "--out", tmp_path / "a.png"), "train-nothing-00000000"),
    ):
        done = here(*words)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert told in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert other.read_bytes() == before
    assert not (tmp_path / "a.png").exists()
    # Of a pattern, the others are drawn.
    train_job(tmp_path / "runs", "train-x-00000001")
    done = here("train-x-*", "--out", tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    told, *_ = done.stderr.splitlines()
    assert told.startswith(f"left out: {none}")
    with Image.open(tmp_path / "a.png") as picture:
        assert json.loads(picture.text[MARK]) == ["train-x-00000001"]  # type: ignore[attr-defined]


def test_cells_come_out_of_a_sheet_as_they_went_in() -> None:
    cells = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 5, 4), dtype=np.uint8)
    np.testing.assert_array_equal(cells_of(sprite_sheet(cells), 2, 3), cells)
