"""The tutorials, command by command as they are written, in small."""

from __future__ import annotations

import csv
import io
import json
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colddiff.jobs.recipes import load_recipe
from tests.documented import ROOT, files_in, parsed, shown_in
from tests.in_process import Done, colddiff_here

TUTORIALS = ROOT / "infra" / "docs" / "tutorials"
# A hundredth of the work: what is tested are the commands, and that each finds what it needs.
SMALL = ["num_steps=4", "evaluate_every=2", "global_batch_size=8", "degradation.num_timesteps=4"]
SMALL += ["restorer.dim=4", "ema.start=0", "tracking.system_every_s=null"]


class Reader:
    """Somebody who works through a page, with small settings for what takes long."""

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        captured: pytest.CaptureFixture[str],
        folder: Path,
        small: Mapping[str, Sequence[str]],
    ) -> None:
        self._patch, self._captured, self._small = patch, captured, small
        self._names: dict[str, str] = {}
        patch.chdir(folder)
        for name in ("COLDDIFF_STORAGE", "COLDDIFF_ADDRESS", "RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        patch.setenv("COLDDIFF_HOME", str(folder / "home"))

    def write_files(self, page: Path) -> None:
        """The files whose content the page shows."""
        for name, text in files_in(page).items():
            Path(name).write_text(text)

    def run(self, words: list[str], name: str = "", code: int | None = None) -> Done:
        """Runs a command; it exits with ``code``, or 0."""
        for known, value in self._names.items():
            words = [word.replace(f"${known}", value) for word in words]
        more = self._small.get(" ".join(parsed(words)[0]), ())
        done = colddiff_here(self._patch, self._captured, *words, *more)
        assert done.returncode == (code or 0), (words, done.stderr)
        if name:
            (self._names[name],) = done.stdout.split()
        return done


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Forty photographs of a size of their own, and three blurred ones."""
    rng = np.random.default_rng(3)
    for folder, count in (("photos", 40), ("blurred", 3)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            coarse = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
            size = (48, 40) if folder == "photos" else (32, 32)
            Image.fromarray(coarse).resize(size).save(tmp_path / folder / f"{number:04}.png")
    return tmp_path


def test_own_images_to_a_restorer(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = TUTORIALS / "own-images.md"
    # Of 4 severities in place of 20; and the longer training is another one, as short.
    small = {"submit train": SMALL, "restore": ["--batch-size", "8"]}
    reader = Reader(monkeypatch, capsys, photos, small)
    reader.write_files(page)
    assert load_recipe("blur.yaml").train.missed_evaluations() == []
    monkeypatch.setattr("colddiff.verbs.train.estimates.measured_rate.MOST_S", 0.0)
    for shown in shown_in(page):
        words = [{"20": "4", "num_steps=900": "seed=1"}.get(word, word) for word in shown.words]
        reader.run(words, shown.name, shown.code)
    assert json.loads(Path("packed/train/manifest.json").read_text())["count"] == 36
    assert json.loads(Path("packed/test/manifest.json").read_text())["count"] == 4
    assert Path("worse.png").stat().st_size > 1000
    assert len(list(Path("restored").glob("*.png"))) == 3
    assert list(Path("strips").glob("*.png"))
    scores = list(csv.DictReader(io.StringIO(Path("trial/scores.csv").read_text())))
    assert len(scores) == 40
    assert {"psnr", "ssim"} <= {name.partition("_")[0] for name in scores[0]}


def test_recover_from_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = TUTORIALS / "recover.md"
    small = {"submit train": ["tracking.system_every_s=null", "tracking.images=false"]}
    reader = Reader(monkeypatch, capsys, tmp_path, small)
    reader.write_files(page)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    steps = list(shown_in(page))
    assert [step.code for step in steps] == [4, 0, 0, 0, 0, 1, 0, 0, 3, 2]
    done = [reader.run(step.words, step.name, step.code) for step in steps]
    stopped, status, finished, again, _, diverged, log, _, _, nothing = done
    assert stopped.stdout == finished.stdout == again.stdout  # one job
    assert "stopped" in status.stdout + status.stderr
    assert "is done (40 of 40 steps)" in again.stderr
    assert "is not finite" in diverged.stderr
    assert "lower optimizer.lr" in log.stdout
    assert "nothing" in nothing.stderr


@pytest.mark.parametrize("name", ["reproduce-a-table", "cluster"])
def test_what_needs_data_or_machines_is_a_valid_job(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dry = {"submit train": ["--dry-run", "--local"], "submit study": ["--dry-run", "--local"]}
    reader = Reader(monkeypatch, capsys, tmp_path, dry)
    monkeypatch.setattr("colddiff.verbs.train.estimates.measured_rate.MOST_S", 0.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody answers: none is asked
    published(tmp_path)
    shown = [
        step
        for step in shown_in(TUTORIALS / f"{name}.md")
        if step.words[0] in RUN
        or (step.words[:3] == ["data", "pack", "mnist:./MNIST"] and "s3://" not in step.words[4])
    ]
    assert len(shown) >= 2
    for step in shown:
        done = reader.run([word for word in step.words if word not in ("--detach", "--local")])
        if step.words[:2] == ["recipes", "paper/deblur-mnist"]:
            assert "targets" in done.stdout
        if step.words[0] == "submit":
            assert f"{step.words[1]}:" in done.stdout


RUN = ("recipes", "submit")


def published(folder: Path) -> None:
    """The sets that a page has its reader fetch, in the layouts of their files, ten images each."""
    (folder / "MNIST").mkdir()
    (folder / "CIFAR10").mkdir()
    for part in ("train", "t10k"):
        images = struct.pack(">4i", 2051, 10, 28, 28) + bytes(range(10)) * 784
        (folder / "MNIST" / f"{part}-images-idx3-ubyte").write_bytes(images)
        labels = struct.pack(">2i", 2049, 10) + bytes(range(10))
        (folder / "MNIST" / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    for batch in ("data_batch_1", "test_batch"):
        (folder / "CIFAR10" / f"{batch}.bin").write_bytes((b"\1" + bytes(3072)) * 10)


def test_the_glossary_explains_the_words_that_people_meet() -> None:
    text = (ROOT / "infra" / "docs" / "glossary.md").read_text()
    words = re.findall(r"^\| ([^|]+?) \|", text, re.M)[1:]
    assert words == sorted(words, key=str.lower)
    met = {word.partition(",")[0] for word in words}
    assert {"severity", "omega", "terminal", "sampler", "restorer", "STORAGE", "shard"} <= met
