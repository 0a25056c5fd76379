"""`colddiff restore` as a person types it, on files of their own."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from colddiff.checkpoints.references import load_checkpoint
from colddiff.sampling import sample
from colddiff.transforms import normalise
from tests.restoring import Restore, error_of, picture, pixels_of


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Restore:
    monkeypatch.chdir(tmp_path)
    return Restore(tmp_path, monkeypatch, capsys)


def test_a_result_is_algorithm_2_on_the_file_as_it_is(run: Restore, tmp_path: Path) -> None:
    given = picture(tmp_path / "a.png", 1)
    done = run(tmp_path / "a.png", "--severity", "3", "--batch-size", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{run.out}/a.png\n"
    assert "blur of severity 3 (T = 4), improved, checkpoint of step 3" in done.stderr
    loaded = load_checkpoint(run.checkpoint)
    x_t = normalise(torch.from_numpy(given.copy())[None, None])
    x_0 = sample(loaded.restorer, loaded.degradation, x_t, {}, severities=[3, 2, 1, 0])
    expected = ((x_0.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)[0, 0].numpy()
    assert np.array_equal(pixels_of(run.out / "a.png"), expected)


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (("--severities", "4,1,0"), [4, 1, 0]),
        (("--severities", "3,1,0"), [3, 1, 0]),
        (("--severities", "[4, 2, 0]", "--severity", "3"), [3, 2, 0]),
        (("--severities", "4,1,0", "--severity", "1"), [1, 0]),
    ],
)
def test_severities_may_be_a_list_of_which_those_below_the_image_are_used(
    run: Restore, tmp_path: Path, words: tuple[str, ...], steps: list[int]
) -> None:
    given = picture(tmp_path / "a.png", 1)
    for state in ("restored", "skipped"):
        done = run(tmp_path / "a.png", "--batch-size", "1", *words)
        assert done.returncode == 0, done.stderr
        assert f"1 {state}" in done.stderr
    assert f"blur of severity {steps[0]} (T = 4)" in done.stderr
    loaded = load_checkpoint(run.checkpoint)
    x_t = normalise(torch.from_numpy(given.copy())[None, None])
    x_0 = sample(loaded.restorer, loaded.degradation, x_t, {}, severities=steps)
    expected = ((x_0.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)[0, 0].numpy()
    assert np.array_equal(pixels_of(run.out / "a.png"), expected)


def test_a_result_does_not_depend_on_its_neighbours(run: Restore, tmp_path: Path) -> None:
    for n in range(11):
        picture(tmp_path / "photos" / "deep" / f"{n}.png", n)
    assert run(tmp_path / "photos").returncode == 0
    together = (run.out / "deep" / "9.png").read_bytes()
    run.out = tmp_path / "alone"
    assert run(tmp_path / "photos" / "deep" / "9.png").returncode == 0
    assert (run.out / "9.png").read_bytes() == together


def test_the_depth_is_kept_and_a_bad_file_holds_nobody_back(run: Restore, tmp_path: Path) -> None:
    picture(tmp_path / "in" / "deep.png", 1, dtype=np.uint16)
    picture(tmp_path / "in" / "plain.jpg", 2)
    (tmp_path / "in" / "bad.png").write_bytes(b"not an image")
    picture(tmp_path / "in" / "wide.png", 3, (16, 24))
    done = run(tmp_path / "in")
    assert done.returncode == 1
    assert done.stdout.split() == [f"{run.out}/deep.png", f"{run.out}/plain.png"]
    assert pixels_of(run.out / "deep.png").dtype == np.uint16
    assert (pixels_of(run.out / "deep.png") % 257).any()
    assert pixels_of(run.out / "plain.png").dtype == np.uint8
    counts, *failed = done.stderr.splitlines()[-3:]
    assert counts == "2 restored, 2 failed"
    assert f"failed: {tmp_path}/in/bad.png: not a supported image" in failed[0]
    assert "wide.png: is 16x24 px, the checkpoint takes 16x16; --fit crops" in failed[1]
    assert sorted(path.name for path in run.out.iterdir()) == ["deep.png", "plain.png"]


def test_images_of_unknown_severity_are_told_how_to_find_it(run: Restore, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    Image.new("RGBA", (16, 16), (9, 9, 9, 128)).save(tmp_path / "glass.png")
    hint = "--severity all shows each from several"
    guessed = run(tmp_path / "a.png", tmp_path / "glass.png")
    assert hint in guessed.stderr
    assert "left out: the alpha of images with transparency: 1 (glass)" in guessed.stderr
    assert hint not in run(tmp_path / "a.png", "--severity", "4").stderr
    assert hint not in run(tmp_path / "a.png", "--severities", "4,1,0").stderr
    run.out = tmp_path / "trial"
    assert hint not in run(tmp_path / "a.png", "--degrade").stderr
    made = tmp_path / "trial" / "a.degraded.png"
    run.out = tmp_path / "of made"
    assert hint not in run(made).stderr


def test_what_is_wrong_with_many_images_is_said_once(run: Restore, tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / "in" / f"{number}.png", number, (16, 20 + number))
    (tmp_path / "in" / "bad.png").write_bytes(b"not an image")
    done = run(tmp_path / "in")
    counts, *failed = done.stderr.splitlines()[-3:]
    assert (done.returncode, counts) == (1, "5 failed")
    assert "0.png: is 16x20 px, the checkpoint takes 16x16; --fit crops" in failed[0]
    assert failed[0].endswith(" (and 3 more images like it)")
    assert "bad.png: not a supported image" in failed[1]


def test_another_size_can_be_fitted_or_kept(run: Restore, tmp_path: Path) -> None:
    picture(tmp_path / "wide.png", 3, (16, 24))
    picture(tmp_path / "odd.png", 3, (15, 15))
    kept = run(tmp_path / "wide.png", "--any-size")
    assert kept.returncode == 0
    assert "their own size (trained on 1x16x16 px; other sizes were not measured)" in kept.stderr
    assert "written at" not in kept.stderr
    assert pixels_of(run.out / "wide.png").shape == (16, 24)
    done = run(tmp_path / "odd.png", "--any-size")
    assert done.returncode == 1
    assert "cannot be restored at their original size: restorer.dim_mults" in done.stderr
    run.out = tmp_path / "fitted"
    picture(tmp_path / "as is.png", 3)
    fitted = run(tmp_path / "wide.png", tmp_path / "odd.png", tmp_path / "as is.png", "--fit")
    assert fitted.returncode == 0
    assert "2 images are written at 16x16 px (from 15x15 and 1 other size): --fit" in fitted.stderr
    assert pixels_of(run.out / "wide.png").shape == pixels_of(run.out / "odd.png").shape == (16, 16)


def test_grey_and_colour(run: Restore, tmp_path: Path) -> None:
    colour = picture(tmp_path / "colour.png", 1, (16, 16, 3))
    grey = picture(tmp_path / "grey.png", 2)
    Image.fromarray(np.stack([grey] * 3, axis=2)).save(tmp_path / "three.png")
    done = run(tmp_path / "colour.png", tmp_path / "grey.png", tmp_path / "three.png")
    assert done.returncode == 1
    assert "colour.png: a colour image, but the checkpoint takes grey images" in done.stderr
    assert np.array_equal(pixels_of(run.out / "three.png"), pixels_of(run.out / "grey.png"))
    run.use(channels=3)
    run.out = tmp_path / "colours"
    assert run(tmp_path / "colour.png", tmp_path / "grey.png").returncode == 0
    assert pixels_of(run.out / "grey.png").shape == colour.shape
    picture(tmp_path / "deep.png", 1, dtype=np.uint16)
    assert (
        "a 16-bit grey image, but the checkpoint produces colour"
        in run(tmp_path / "deep.png").stderr
    )


def test_again_skips_and_something_else_is_refused(run: Restore, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    assert run(tmp_path / "a.png").returncode == 0
    first = (run.out / "a.png").stat()
    again = run(tmp_path / "a.png")
    assert (again.returncode, again.stdout) == (0, f"{run.out}/a.png\n")
    assert "1 skipped" in again.stderr
    assert (run.out / "a.png").stat().st_mtime_ns == first.st_mtime_ns
    message = error_of(run(tmp_path / "a.png", "--severity", "2"))
    assert "a.png already exists and was made with severity 4, not 2" in message
    picture(tmp_path / "a.png", 2)
    changed = run(tmp_path / "a.png")
    assert changed.returncode == 1
    assert "was made from a different input; use --overwrite to replace it" in changed.stderr
    assert run(tmp_path / "a.png", "--severity", "2", "--overwrite").returncode == 0
    assert "1 skipped" in run(tmp_path / "a.png", "--severity", "2").stderr


def test_a_file_that_is_no_result_is_never_replaced(run: Restore, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    mine = picture(run.out / "a.png", 2)
    for words in ((), ("--overwrite",)):
        message = error_of(run(tmp_path / "a.png", *words))
        assert "already exists and was not made by `colddiff restore`" in message
    run.out = tmp_path
    assert "a.png is an input and would be replaced" in error_of(run(tmp_path / "a.png"))
    assert np.array_equal(pixels_of(tmp_path / "out" / "a.png"), mine)


def test_all_severities_are_shown_in_a_strip(run: Restore, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    done = run(tmp_path / "a.png", "--severity", "all", "--json")
    assert done.returncode == 0, done.stderr
    assert [row["output"] for row in json.loads(done.stdout)["images"]] == [
        f"{run.out}/a.strip.png"
    ]
    height, width, _ = pixels_of(run.out / "a.strip.png").shape
    assert width > 5 * 128
    assert height < 300
    degraded = run(tmp_path / "a.png", "--severity", "all", "--degrade", "--overwrite", "--json")
    rows = json.loads(degraded.stdout)["images"]
    assert [row["severity"] for row in rows] == [1, 2, 3, 4]
    # Blur takes more away at each severity.
    before = [row["input_psnr_db"] for row in rows]
    assert before == sorted(before, reverse=True)
    assert len(pixels_of(run.out / "a.strip.png")) > height + 100


def test_below_its_end_a_collapsed_blur_is_a_blur(run: Restore, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    run.use(degradation={"kind": "blur", "num_timesteps": 4, "collapse_to_mean": True})
    done = run(tmp_path / "a.png", "--severity", "all", "--degrade", "--json")
    assert done.returncode == 0, done.stderr
    assert [row["severity"] for row in json.loads(done.stdout)["images"]] == [1, 2, 3, 4]


def test_scores_against_a_reference(run: Restore, tmp_path: Path) -> None:
    for n in range(2):
        picture(tmp_path / "in" / f"{n}.png", n)
        picture(tmp_path / "clean" / f"{n}.jpg", n + 10)
    done = run(tmp_path / "in", "--reference", tmp_path / "clean")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    rows = json.loads((run.out / "scores.json").read_text())
    with (run.out / "scores.csv").open() as file:
        table = list(csv.DictReader(file))
    for n, (line, row, cells) in enumerate(zip(lines, rows["images"], table, strict=True)):
        a, b, c = (
            pixels_of(folder / f"{n}{suffix}").astype(float) / 255
            for folder, suffix in (
                (run.out, ".png"),
                (tmp_path / "clean", ".jpg"),
                (tmp_path / "in", ".png"),
            )
        )
        psnr, before = (-10 * np.log10(((x - b) ** 2).mean()) for x in (a, c))
        assert row["psnr_db"] == pytest.approx(psnr, rel=1e-5)
        assert row["input_psnr_db"] == pytest.approx(before, rel=1e-5)
        assert float(cells["ssim"]) == row["ssim"]
        assert f"{run.out}/{n}.png  psnr {psnr:.2f} dB  ssim" in line
    assert rows["mean"]["psnr_db"] == pytest.approx(
        np.mean([row["psnr_db"] for row in rows["images"]])
    )
    errors = [10 ** (-row["psnr_db"] / 10) for row in rows["images"]]
    names = ("psnr_db", "input_psnr_db", "ssim", "input_ssim")
    means = [rows["mean"][name] for name in names]
    means.insert(1, -10 * np.log10(np.mean(errors)))
    assert done.stderr.splitlines()[-1] == (
        "mean over 2: psnr {:.2f} dB ({:.2f} dB of the mean error, as evaluations count it; "
        "degraded {:.2f}), ssim {:.3f} (degraded {:.3f})"
    ).format(*means)
    first = (run.out / "scores.json").read_text()
    again = run(tmp_path / "in", "--reference", tmp_path / "clean")
    assert again.stdout.splitlines() == lines
    assert (run.out / "scores.json").read_text() == first.replace('"restored"', '"skipped"')
    (tmp_path / "clean" / "1.jpg").unlink()
    missing = run(tmp_path / "in", "--reference", tmp_path / "clean")
    assert missing.returncode == 1
    assert f"--reference: {tmp_path}/clean has no image named 1" in missing.stderr
    assert "mean over" not in missing.stderr, "of the one image that is left"


def test_a_network_that_makes_nan_spoils_its_own_image_only(
    run: Restore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from colddiff.restorers.networks.convnext_unet import ConvNextUnet

    forward = ConvNextUnet.forward

    def fails_on_white(self: ConvNextUnet, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        white = (x > 0.99).flatten(1).all(dim=1)
        return torch.where(white.view(-1, 1, 1, 1), torch.nan, forward(self, x, t))

    monkeypatch.setattr(ConvNextUnet, "forward", fails_on_white)
    picture(tmp_path / "in" / "a.png", 1)
    Image.fromarray(np.full((16, 16), 255, np.uint8)).save(tmp_path / "in" / "white.png")
    done = run(tmp_path / "in")
    assert done.returncode == 1
    assert done.stdout == f"{run.out}/a.png\n"
    assert "white.png: R(x_t, t) contains NaN or inf when started at severity 4" in done.stderr
    assert not (run.out / "white.png").exists()
    monkeypatch.undo()
    run.out = tmp_path / "alone"
    assert run(tmp_path / "in" / "a.png").returncode == 0
    assert (run.out / "a.png").read_bytes() == (tmp_path / "out" / "a.png").read_bytes()


def test_what_is_in_the_folder_of_results_is_not_restored_again(
    run: Restore, tmp_path: Path
) -> None:
    picture(tmp_path / "in" / "a.png", 1)
    picture(tmp_path / "in" / ".hidden.png", 1)
    run.out = tmp_path / "in" / "results"
    for state in ("restored", "skipped"):
        done = run(tmp_path / "in")
        assert done.stdout == f"{run.out}/a.png\n"
        assert f"1 {state}" in done.stderr


def test_images_of_one_name_and_two_suffixes_have_results_that_keep_them(
    run: Restore, tmp_path: Path
) -> None:
    for number, suffix in enumerate(("png", "tif")):
        picture(tmp_path / "in" / f"a.{suffix}", number)
    picture(tmp_path / "in" / "b.png", 3)
    both = ["in", "--batch-size", "1"]
    done = run(*both, "--reference", "in")
    written = [line.split()[0] for line in done.stdout.splitlines()][:3]
    assert written == [f"{run.out}/{name}.png" for name in ("a.png", "a.tif", "b")]
    assert "2 images have one name and two suffixes: their results have both" in done.stderr
    assert "such as a.png.png" in done.stderr
    first, second = (pixels_of(run.out / f"{name}.png") for name in ("a.png", "a.tif"))
    assert not np.array_equal(first, second)
    scored = csv.DictReader((run.out / "scores.csv").read_text().splitlines())
    assert {row["input_psnr_db"] for row in scored} == {""}  # each with itself: no error
    assert "3 skipped" in run(*both).stderr
    # As one alone: what is beside an image decides its name, and not its pixels.
    run.out = tmp_path / "alone"
    assert run("in/a.tif", "--batch-size", "1").stdout == f"{run.out}/a.png\n"
    assert np.array_equal(pixels_of(run.out / "a.png"), second)
    picture(tmp_path / "in" / "a.png.jpg", 4)
    assert "would both become a.png.png" in error_of(run("in"))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("nowhere.png",), "nowhere.png: no such file or folder"),
        (("in/b.png",), "in/b.png: no such file or folder"),
        (("inn",), "inn: no such file or folder; did you mean 'in'? (files"),
        (("in/long-nme.png",), "did you mean 'in/long-name.png'? (files"),
        (("in/*.tif",), "in/*.tif: no such file or folder"),
        (("empty",), "empty: no images found"),
        (("in/a.png", "other/a.png"), "would both become a.png"),
        (("in/a.png", "--severity", "5"), "--severity: must be 1..4"),
        (("in/a.png", "--severity", "most"), "must be a whole number or all, got 'most'"),
        (("in/a.png", "--severities", "0"), "--severities: must be at least 1 step, got 0"),
        (("in/a.png", "--severities", "few"), "a list such as 20,13,7,3,0, got 'few'"),
        (("in/a.png", "--severities", "4,2"), "--severities: a list must fall strictly from at"),
        (("in/a.png", "--severities", "5,2,0"), "from at most 4 (T of the checkpoint) down to 0"),
        (("in/a.png", "--sampler", "improve"), "did you mean 'improved'?"),
        (("in/a.png", "--sampler", "improved_estimated"), "'blur' cannot re-estimate omega"),
        (("in/a.png", "--omega", "none.json"), "--omega: none.json does not exist"),
        (("in/a.png", "--reference", "none"), "--reference: no such folder: none"),
        (("in/a.png", "--fit", "--any-size"), "mutually exclusive"),
    ],
)
def test_words_that_cannot_be_meant(
    run: Restore, tmp_path: Path, words: tuple[str, ...], complaint: str
) -> None:
    for suffix in ("png", "jpg"):
        picture(tmp_path / "in" / f"a.{suffix}", 1)
    picture(tmp_path / "in" / "long-name.png", 1)
    picture(tmp_path / "other" / "a.png", 1)
    (tmp_path / "empty").mkdir()
    assert complaint in error_of(run(*words))
    assert not run.out.exists()


@pytest.mark.parametrize("given", ["set", "set/test"])
def test_a_packed_set_is_answered_with_how_to_score_on_it(
    run: Restore, tmp_path: Path, given: str
) -> None:
    (tmp_path / "set" / "test").mkdir(parents=True)
    (tmp_path / "set" / "test" / "manifest.json").write_text("{}")
    said = error_of(run(given))
    assert f"{given}: is a packed set" in said
    assert "`colddiff submit evaluate checkpoint=C test_data=set/test`" in said


def test_a_pattern_finds_what_a_shell_would(run: Restore, tmp_path: Path) -> None:
    for name in ("a1", "a2", "b"):
        picture(tmp_path / "in" / f"{name}.png", 1)
    done = run("in/a*.png")
    assert done.stdout.split() == [f"{run.out}/a1.png", f"{run.out}/a2.png"]
