"""What is random in D, given to `colddiff restore` or saved by it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tests.restoring import Restore, error_of, picture, pixels_of
from tests.tiny_checkpoint import RANDOM_INPAINT


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Restore:
    monkeypatch.chdir(tmp_path)
    return Restore(tmp_path, monkeypatch, capsys)


def test_degraded_first_with_an_omega_that_can_be_used_again(run: Restore, tmp_path: Path) -> None:
    run.use(degradation=RANDOM_INPAINT)
    names = [f"{n}.png" for n in range(3)]
    for n, name in enumerate(names):
        picture(tmp_path / "in" / name, n)
    assert run(tmp_path / "in", "--degrade", "--seed", "4").returncode == 0
    saved = [safetensors.numpy.load_file(run.out / f"{n}.omega.safetensors") for n in range(3)]
    assert len({tuple(omega["centre"].tolist()) for omega in saved}) > 1
    first, run.out = run.out, tmp_path / "again"
    assert run(tmp_path / "in" / "2.png", "--degrade", "--omega", first).returncode == 0
    for suffix in (".degraded.png", ".png"):
        assert np.array_equal(pixels_of(first / f"2{suffix}"), pixels_of(run.out / f"2{suffix}"))
    # `inpaint` records in 8 bit, so the degraded file is the very state that was restored.
    (tmp_path / "2.png").write_bytes((first / "2.degraded.png").read_bytes())
    run.out = tmp_path / "from-file"
    assert run(tmp_path / "2.png", "--omega", first).returncode == 0
    assert np.array_equal(pixels_of(first / "2.png"), pixels_of(run.out / "2.png"))
    run.out = tmp_path / "another-seed"
    assert run(tmp_path / "in", "--degrade", "--seed", "5").returncode == 0
    other = [safetensors.numpy.load_file(run.out / f"{n}.omega.safetensors") for n in range(3)]
    assert any((a["centre"] != b["centre"]).any() for a, b in zip(saved, other, strict=True))


def test_a_degraded_image_is_restored_with_what_lies_beside_it(
    run: Restore, tmp_path: Path
) -> None:
    run.use(degradation=RANDOM_INPAINT)
    for name in ("a", "b"):
        picture(tmp_path / "in" / f"{name}.png", ord(name))
    assert run(tmp_path / "in", "--degrade").returncode == 0
    trial, run.out = run.out, tmp_path / "restored"
    done = run(trial / "a.degraded.png", "--reference", tmp_path / "in")
    assert done.returncode == 0, done.stderr
    beside = trial / "a.omega.safetensors"
    assert f"what is random in inpaint is read beside the images, such as {beside}" in done.stderr
    # `inpaint` records in 8 bit, so the degraded file is the very state that was restored.
    first = pixels_of(trial / "a.png")
    assert np.array_equal(pixels_of(run.out / "a.degraded.png"), first)
    for n, omega in enumerate((trial, beside)):
        run.out = tmp_path / f"as-before-{n}"
        assert run(trial / "a.degraded.png", "--omega", omega).returncode == 0
        assert np.array_equal(pixels_of(run.out / "a.degraded.png"), first)
    each = {f"{name}.png": {"centre": [3, 12]} for name in ("a", "b")}
    (tmp_path / "each.json").write_text(json.dumps(each))
    run.out = tmp_path / "by-name"
    degraded = trial / "*.degraded.png"
    assert run(degraded, "--omega", tmp_path / "each.json").returncode == 0
    (trial / "b.omega.safetensors").unlink()
    run.out = tmp_path / "one-is-gone"
    done = run(degraded)
    assert done.returncode == 1
    assert (run.out / "a.degraded.png").exists()
    assert "b.degraded.omega.safetensors lies beside it" in done.stderr
    beside.unlink()
    assert "--omega FILE" in error_of(run(degraded))


def test_the_severity_that_an_image_was_degraded_to_is_asked_for(
    run: Restore, tmp_path: Path
) -> None:
    picture(tmp_path / "in" / "a.png", 1)
    assert run(tmp_path / "in", "--degrade", "--severity", "2").returncode == 0
    trial, run.out = run.out, tmp_path / "restored"
    done = run(trial / "a.degraded.png")
    assert done.returncode == 1
    assert "was degraded to severity 2, and is taken for one of 4: add --severity 2" in done.stderr
    done = run(trial / "a.degraded.png", "--severity", "2")
    assert done.returncode == 0, done.stderr
    run.out = tmp_path / "other"
    assert run(trial / "a.degraded.png", "--severity", "4").returncode == 0
    assert f"by name: '{trial}/*.degraded.png'" in error_of(run(trial))


def test_the_draw_of_a_file_is_the_same_whatever_files_are_beside_it(
    run: Restore, tmp_path: Path
) -> None:
    run.use(degradation=RANDOM_INPAINT)
    for n in range(3):
        picture(tmp_path / "in" / f"{n}.png", n)
    assert run(tmp_path / "in", "--degrade", "--seed", "4").returncode == 0
    together, run.out = run.out, tmp_path / "alone"
    assert run(tmp_path / "in" / "2.png", "--degrade", "--seed", "4").returncode == 0
    for name in ("2.omega.safetensors", "2.degraded.png", "2.png"):
        assert (run.out / name).read_bytes() == (together / name).read_bytes()


def test_omega_that_nobody_can_know_is_asked_for(run: Restore, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    run.use(degradation=RANDOM_INPAINT)
    message = error_of(run(tmp_path / "a.png"))
    assert "what is random in inpaint (omega: centre) cannot be inferred from an image" in message
    assert "--omega FILE" in message
    assert "improved_estimated" not in message
    assert "--degrade" in message
    assert not run.out.exists()
    assert run(tmp_path / "a.png", "--sampler", "direct").returncode == 0
    # What it shows can be written into the file as it is.
    example = message.partition("--omega FILE, JSON such as ")[2].partition(", or use")[0]
    (tmp_path / "omega.json").write_text(example)
    assert list(json.loads(example)) == ["centre"]
    run.out = tmp_path / "known"
    told = run(tmp_path / "a.png", "--omega", tmp_path / "omega.json")
    assert told.returncode == 0, told.stderr
    run.use(degradation={"kind": "noise", "num_timesteps": 4}, step=4)
    run.out = tmp_path / "noise"
    ways = (
        '{"z": (1 x 16 x 16 numbers)}, or use --sampler direct or improved_estimated or '
        "interpolated, which does not need it"
    )
    assert ways in error_of(run(tmp_path / "a.png"))
    assert run(tmp_path / "a.png", "--sampler", "improved_estimated").returncode == 0


def test_omega_in_its_forms(run: Restore, tmp_path: Path) -> None:
    run.use(degradation=RANDOM_INPAINT)
    for name in ("a", "b"):
        picture(tmp_path / "in" / f"{name}.png", 1)
    forms: dict[str, Path] = {
        name: tmp_path / name
        for name in ("one.json", "each.json", "one.safetensors", "each.safetensors")
    }
    centre = np.array([3, 12], dtype=np.float32)
    forms["one.json"].write_text(json.dumps({"centre": [3, 12]}))
    forms["each.json"].write_text(
        json.dumps({"a.png": {"centre": [3, 12]}, "b": {"centre": [3.0, 12.0]}})
    )
    safetensors.numpy.save_file({"centre": centre[None]}, forms["one.safetensors"])
    safetensors.numpy.save_file(
        {"a.png/centre": centre, "b.png/centre": centre}, forms["each.safetensors"]
    )
    made = []
    for name, path in forms.items():
        run.out = tmp_path / f"out-{name}"
        done = run(tmp_path / "in", "--omega", path)
        assert done.returncode == 0, done.stderr
        made += [(run.out / image).read_bytes() for image in ("a.png", "b.png")]
    assert len(set(made)) == 1
    forms["one.json"].write_text(json.dumps({"centre": [0, 0]}))
    run.out = tmp_path / "elsewhere"
    assert run(tmp_path / "in", "--omega", forms["one.json"]).returncode == 0
    assert (run.out / "a.png").read_bytes() != made[0]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "cannot be parsed"),
        ("[1, 2]", "must contain entries by name"),
        (
            '{"middle": [1, 2]}',
            'has no centre for a.png (inpaint needs centre, such as {"centre": [',
        ),
        ('{"centre": [1, 2, 3]}', "omega['centre'] must be [1, 2] for 1 images, got [1, 3]"),
        ('{"centre": [1, 99]}', "must be whole pixels"),
        ('{"centre": "here"}', "is not an array of numbers"),
    ],
)
def test_omega_that_is_none(run: Restore, tmp_path: Path, content: str, complaint: str) -> None:
    run.use(degradation=RANDOM_INPAINT)
    picture(tmp_path / "a.png", 1)
    (tmp_path / "omega.json").write_text(content)
    done = run(tmp_path / "a.png", "--omega", tmp_path / "omega.json")
    assert done.returncode in (1, 2)
    assert complaint in done.stderr
    assert not run.out.exists()
