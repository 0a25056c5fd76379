"""`colddiff check` and `colddiff preview`: what they print and draw, and how they fail."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colddiff.data.open import pack_source
from colddiff.errors import DataError
from colddiff.report.preview import Curve, draw_preview, shown_severities
from colddiff.report.sheets import TILE
from colddiff.spec.plugins import LoadedPlugin, load_plugin, unload_plugin
from tests.in_process import colddiff_here
from tests.tiny_checkpoint import tiny_checkpoint

KSPACE = Path(__file__).resolve().parents[2] / "infra/docs/own-degradation/kspace.py"
SIDE = -(-TILE // 32) * 32
Run = Callable[..., tuple[int, str, str]]

BROKEN = '''\
"""A file with a degradation that draws behind everybody's back, and one that does not."""

from typing import Literal

import torch

from colddiff.degradations import DEGRADATIONS, Degradation, DegradationSpec


@DEGRADATIONS.register
class GrainSpec(DegradationSpec):
    """Severity t adds grain."""

    kind: Literal["grain"] = "grain"
    amount: float = 0.1

    def build(self, shape):
        return Grain(self, shape)


class Grain(Degradation):
    def _degrade(self, x0, t, omega):
        grain = torch.randn_like(x0) if self.spec.amount else 0
        return x0 * (1 - 0.5 * t / self.num_timesteps).view(-1, 1, 1, 1) + self.spec.amount * grain
'''


@pytest.fixture(autouse=True, scope="module")
def _forgets_the_example() -> Iterator[None]:
    """Its kind would be in every later list of kinds."""
    yield
    unload_plugin(load_plugin(KSPACE))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        done = colddiff_here(monkeypatch, capsys, *arguments)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def grain(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "grain.py"
    path.write_text(BROKEN)
    yield path
    plugin: LoadedPlugin = load_plugin(path)
    unload_plugin(plugin)


def test_check_prints_laws_and_numbers(run: Run) -> None:
    code, out, err = run("check", "blur", "num_timesteps=8", "image_size=16")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "blur, T = 8, 16 x 16 px, colour"
    assert len([line for line in lines if "  holds  " in line]) == 11
    assert [line.split()[:2] for line in lines if "dB" in line] == [
        ["2", "T/4"],
        ["4", "T/2"],
        ["8", "T"],
    ]
    assert "dead steps: none" in out
    assert "times the mean step, from 0 to 1" in out


def test_check_takes_a_job_a_file_and_a_variant(run: Run) -> None:
    code, out, _ = run("check", KSPACE, "image_size=12", "channels=1", "keep=0.5", "--json")
    data = json.loads(out)
    assert (code, data["image"], data["degradation"]["keep"]) == (0, [1, 12, 12], 0.5)
    code, out, _ = run("check", "paper/deblur-mnist", "--variant", "paper", "--json")
    data = json.loads(out)
    assert (code, data["image"]) == (0, [1, 32, 32])
    assert data["degradation"]["num_timesteps"] == 40
    code, out, _ = run("check", "quickstart", "degradation.num_timesteps=4", "--json")
    assert (code, json.loads(out)["degradation"]["num_timesteps"]) == (0, 4)


def test_check_as_json_says_the_same(run: Run) -> None:
    code, out, _ = run("check", "downsample", "--json")
    data = json.loads(out)
    assert code == 0
    assert all(law["holds"] for law in data["laws"])
    assert {law["law"] for law in data["laws"]} >= {"identity_at_zero", "improved_restores"}
    removal = data["removal"]
    assert removal["num_images"] == 64
    assert removal["dead_steps"] == []
    assert set(removal["left"]) == {"T/2", "T"}, "a quarter of three severities is none"
    left = removal["left"]["T"]
    assert left["psnr"] == pytest.approx(-20 * np.log10(left["rmse"]), abs=1e-6)


def test_a_broken_law_is_named_with_its_error_and_ends_with_1(run: Run, grain: Path) -> None:
    code, out, err = run("check", grain)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "grain breaks" in err
    assert "same_omega_same_image: Equal x0, t and omega" in err
    assert "measured 0." in err
    assert "BROKEN" in out
    code, out, err = run("check", grain, "amount=0")
    assert (code, err) == (0, "")
    assert "BROKEN" not in out


def test_dead_steps_are_listed_as_runs(run: Run) -> None:
    code, out, _ = run("check", "fade_to_colour", "num_timesteps=300", "image_size=16")
    assert code == 0
    line = next(line for line in out.splitlines() if line.startswith("dead steps: "))
    first, last = line.split()[2].rstrip(",").split("-")
    assert int(first) == 1
    assert int(last) > 100


def test_a_degradation_that_changes_nothing_is_said_to(run: Run) -> None:
    code, out, _ = run("check", "decolor", "channels=1", "image_size=8", "num_timesteps=5")
    assert code == 0
    assert out.splitlines()[-1] == "dead steps: 1-5 (steps that change less than 1e-5)"


def test_check_measures_on_packed_images(run: Run, tmp_path: Path) -> None:
    uri = str(tmp_path / "digits")
    pack_source("digits", uri, split="test", image_size=8, channels=1, limit=6)
    code, out, _ = run("check", "blur", "kernel_size=5", "image_size=8", "channels=1",
                       "--data", uri, "--json")  # fmt: skip
    data = json.loads(out)
    assert (code, data["data"], data["removal"]["num_images"]) == (0, uri, 6)
    code, _, err = run("check", "blur", "--data", uri)
    assert code == 2
    assert (
        "has images 1x8x8, the job needs 3x32x32; pack it again, or set image_size=8 channels=1"
        in err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument"),
        (["blur", "noise"], "expected one JOB, KIND or FILE.py, got blur noise"),
        (["seed=3"], "expected one JOB, KIND or FILE.py, got none"),
        (["blurr"], "neither a kind of degradation nor a recipe; did you mean 'blur'?"),
        (["paper/deblur-mnits"], "did you mean 'paper/deblur-mnist'?"),
        (["train-blur-0a1b2c3d"], "no job 'train-blur-0a1b2c3d'"),
        (["missing.py"], "plugin 'missing.py' cannot be read"),
        (["missing.yaml"], "no job file 'missing.yaml'"),
        (["blur", "sgima.value=3"], "sgima: no such field; did you mean 'sigma'?"),
        (["blur", "image_size=big"], "image_size: must be a whole number from 1 to 1024"),
        (["blur", "channels=0"], "channels: must be a whole number"),
        (["downsample", "image_size=20"], "divisible by 8"),
        (["quickstart", "degradation.sigma.value=-1"], "sigma: must be positive"),
        (["blur", "--variant", "paper"], "--variant requires a JOB"),
        (["blur", "--data", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_checked_ends_with_2_and_one_line(
    run: Run, arguments: list[str], message: str
) -> None:
    code, out, err = run("check", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_a_file_with_two_kinds_asks_which(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "two.py"
    path.write_text(BROKEN + "\n\n" + "\n".join(BROKEN.splitlines()[9:]).replace("grain", "g2")
                    .replace("GrainSpec", "G2Spec"))  # fmt: skip
    try:
        code, _, err = run("check", path)
        assert code == 2
        assert "choose one degradation of the file: kind=g2 or kind=grain" in err
        assert run("check", path, "kind=g2", "amount=0")[0] == 0
    finally:
        unload_plugin(load_plugin(path))


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    """A wide colour image and a tall grey one, neither of the size of any job."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / "wide.png", tmp_path / "tall.jpg"]
    Image.fromarray(rng.integers(0, 256, (40, 64, 3), dtype=np.uint8)).save(paths[0])
    Image.fromarray(rng.integers(0, 256, (90, 50), dtype=np.uint8)).save(paths[1])
    return paths


def images(paths: list[Path]) -> list[str]:
    return [word for path in paths for word in ("--image", str(path))]


def test_preview_draws_the_strip_and_says_where(
    run: Run, photographs: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "strip.png"
    code, said, err = run(
        "preview", "blur", "image_size=32", *images(photographs), "--out", out, "--columns", 5
    )
    assert (code, said) == (0, f"{out}\n")
    assert err == "blur, T = 20, 32 x 32 px, colour\n"
    with Image.open(out) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.width > 5 * TILE
    code, _, _ = run(
        "preview", "blur", "image_size=32", *images(photographs), "--out", "b.png", "--columns", 5
    )
    assert code == 0
    assert Path("b.png").read_bytes() == out.read_bytes(), "the same command, the same bytes"


def test_preview_takes_a_training_by_its_checkpoint(
    run: Run, photographs: list[Path], tmp_path: Path
) -> None:
    trained = f"{tiny_checkpoint(tmp_path / 'trained')}@last"
    code, _, err = run("preview", trained, *images(photographs[:1]), "--out", "a.png")
    assert (code, err) == (0, f"{trained}: blur, T = 4, 16 x 16 px, grey\n")
    changed = ("degradation.num_timesteps=3", *images(photographs[:1]), "--out", "a.png")
    assert run("preview", trained, *changed)[2] == f"{trained}: blur, T = 3, 16 x 16 px, grey\n"


@pytest.mark.parametrize("seed", [1, 2])
def test_preview_draws_what_is_random_from_its_seed(
    run: Run, photographs: list[Path], seed: int
) -> None:
    for name, used in (("a.png", 1), ("b.png", seed)):
        code, _, _ = run(
            "preview", KSPACE, "image_size=16", *images(photographs), "--out", name, "--seed", used
        )
        assert code == 0
    assert (Path("a.png").read_bytes() == Path("b.png").read_bytes()) == (seed == 1)


def test_preview_takes_several_files_after_one_option_as_a_shells_pattern_gives_them(
    run: Run, photographs: list[Path]
) -> None:
    words = ("--columns", 5, "--out")
    assert run("preview", "blur", "image_size=32", *images(photographs), *words, "a.png")[0] == 0
    several = ("--image", *photographs, "image_size=32", "blur", *words)
    assert run("preview", *several, "b.png")[0] == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_preview_of_a_second_set_shows_each_image_on_its_way_to_the_next(
    run: Run, photographs: list[Path]
) -> None:
    arguments = ("preview", "animorph", "num_timesteps=4", "image_size=16", "--out", "a.png")
    code, _, err = run(*arguments, *images(photographs[:1]))
    assert code == 2
    assert "pass at least two --image" in err
    assert run(*arguments, *images(photographs))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "nowhere.png"], "--image: nowhere.png cannot be read (No such file"),
        (["--image", "wid.jpg"], "(No such file or directory); did you mean 'wide.png'?"),
        (["--image", "."], "--image: . is a folder; give files of it, such as "),
        (["--image", "text.png"], "text.png: not a supported image"),
        (["--image", "wide.png", "--out", "no/folder/a.png"], "no such folder: 'no/folder'"),
        (["--image", "wide.png", "--out", "."], "--out: . cannot be written"),
        (["--image", "wide.png", "--columns", "1"], "--columns"),
        (["--image", "wide.png", "channels=2"], "images with 1 or 3 channels, not 2"),
        ([], "Missing option '--image'"),
    ],
)
@pytest.mark.usefixtures("photographs")
def test_what_cannot_be_previewed_ends_with_2_and_one_line(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    out = [] if "--out" in arguments else ["--out", "a.png"]
    code, said, err = run("preview", "blur", "image_size=16", *out, *arguments)
    assert (code, said) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not Path("a.png").exists()


@pytest.mark.parametrize(
    ("T", "columns", "expected"),
    [
        (20, None, [*range(0, 21, 2)]),
        (200, None, [*range(0, 201, 25)]),
        (3, None, [0, 1, 2, 3]),
        (1, None, [0, 1]),
        (23, None, [0, 3, 6, 9, 12, 14, 17, 20, 23]),
        (20, 3, [0, 10, 20]),
        (4, 40, [0, 1, 2, 3, 4]),
    ],
)
def test_shown_severities_are_evenly_spaced_with_both_ends(
    T: int, columns: int | None, expected: list[int]
) -> None:
    assert shown_severities(T, columns) == expected


def test_tiles_are_the_pixels_themselves_over_their_place_on_the_axis() -> None:
    rng = np.random.default_rng(1)
    strips = rng.integers(0, 256, (2, 5, 3, 32, 32), dtype=np.uint8)
    curve = Curve("one", np.linspace(0, 1, 9))
    drawn = draw_preview(strips, [0, 2, 4, 6, 8], [curve], num_timesteps=8, title="a title")
    sheet = np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB"))
    for n in range(2):
        tops, lefts = zip(*(_find(sheet, strips[n, k]) for k in range(5)), strict=True)
        assert len(set(tops)) == 1
        assert set(np.diff(lefts)) == {SIDE + 8}
    # The curve's dot at severity 4 stands below the middle of the third tile.
    blue = np.all(np.abs(sheet.astype(int) - (0x2F, 0x6F, 0xDE)) < 12, axis=2)
    blue[: tops[0] + SIDE + 8] = False
    middle = round(float(lefts[2]) + SIDE / 2)
    heights = blue.sum(axis=0)
    assert heights[middle] > heights[middle - 20] > 0


def _find(sheet: np.ndarray, pixels: np.ndarray) -> tuple[int, int]:
    """Where an enlarged image stands in the sheet: top and left."""
    tile = pixels.transpose(1, 2, 0).repeat(SIDE // 32, axis=0).repeat(SIDE // 32, axis=1)
    corner = np.all(sheet[: -tile.shape[0], : -tile.shape[1]] == tile[0, 0], axis=2)
    for top, left in np.argwhere(corner):
        if np.array_equal(sheet[top : top + SIDE, left : left + SIDE], tile):
            return int(top), int(left)
    raise AssertionError("the image is not in the sheet pixel for pixel")


def test_strips_that_do_not_fit_their_severities_are_refused() -> None:
    strips = np.zeros((1, 4, 3, 8, 8), dtype=np.uint8)
    with pytest.raises(
        DataError, match=r"expected strips \[N, 3, C, H, W\], got \[1, 4, 3, 8, 8\]"
    ):
        draw_preview(strips, [0, 1, 2], [], num_timesteps=2, title="")


def test_preview_replaces_no_file_but_its_own_pictures(
    run: Run, tmp_path: Path, photographs: list[Path]
) -> None:
    photo = photographs[0]
    before = photo.read_bytes()
    for out, said in ((photo, "is one of the images"), (photographs[1], "was not drawn by")):
        code, _, err = run("preview", "blur", "image_size=16", "--image", photo, "--out", out)
        assert (code, said in err) == (2, True), err
    assert photo.read_bytes() == before
    for _ in range(2):
        words = ("preview", "blur", "image_size=16", "--image", photo)
        assert run(*words, "--out", "strip.png")[0] == 0
