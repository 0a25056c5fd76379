"""Grids, strips, curves and tables: the pixels and figures a person would look for are there."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from colddiff.data.readers.memory_shards import MemoryShards
from colddiff.degradations import build_degradation
from colddiff.errors import DataError
from colddiff.evaluation.evaluator import evaluate
from colddiff.evaluation.spec import EvaluationSpec
from colddiff.evaluation.trajectory import Trajectory
from colddiff.features.lenet import LenetFeatures
from colddiff.report.curves import loss_curve, running_mean
from colddiff.report.grids import comparison_grid
from colddiff.report.pictures import evaluation_pictures
from colddiff.report.sheets import SheetColumn, draw_sheet, font
from colddiff.report.strips import trajectory_animation, trajectory_strip
from colddiff.report.tables import evaluation_table
from colddiff.types import ImageShape

RNG = np.random.default_rng(0)
METRICS = {
    "eval/degraded/fd_lenet": 1695.2,
    "eval/direct/fd_lenet": 203.0,
    "eval/naive/fd_lenet": 435.4,
    "eval/sampled/fd_lenet": 85.31,
    "eval/floor/fd_lenet": 8.25,
    "eval/degraded/ssim": 0.1,
    "eval/direct/ssim": 0.75,
    "eval/naive/ssim": 0.5,
    "eval/sampled/ssim": 0.7,
    "eval/direct/psnr": 17.0,
    "eval/direct/rmse": 0.1413,
}


def noise(rows: int, channels: int = 1, side: int = 16) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, (rows, channels, side, side), dtype=np.uint8)


def opened(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def enlarged(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """What nearest-neighbour enlargement makes of uint8 [C, H, W], as [H', W', 3]."""
    rgb = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)
    return rgb.repeat(factor, axis=0).repeat(factor, axis=1)


def place_of(tile: NDArray[np.uint8], sheet: NDArray[np.uint8]) -> tuple[int, int] | None:
    """Where ``tile`` stands in ``sheet``, pixel by pixel: (top, left)."""
    h, w = tile.shape[:2]
    corner = (sheet[: -h + 1 or None, : -w + 1 or None] == tile[0, 0]).all(axis=2)
    for top, left in np.argwhere(corner):
        if np.array_equal(sheet[top : top + h, left : left + w], tile):
            return int(top), int(left)
    return None


def ink(sheet: NDArray[np.uint8], top: int, bottom: int, left: int, right: int) -> int:
    """Number of pixels that are not paper."""
    return int((sheet[top:bottom, left:right] < 200).all(axis=2).sum())


def test_the_grid_shows_every_image_in_its_place() -> None:
    names = ("sampled", "original", "direct", "degraded", "naive")
    pictures = {name: noise(3) for name in names}
    sheet = opened(comparison_grid(pictures))
    order = ("original", "degraded", "direct", "naive", "sampled")
    places = [
        [place_of(enlarged(pictures[name][row], 8), sheet) for name in order] for row in range(3)
    ]
    assert all(place is not None for row in places for place in row)
    lefts = [place[1] for place in places[0] if place]
    tops = [row[0][0] for row in places if row[0]]
    assert lefts == sorted(lefts)
    assert tops == sorted(tops)
    # A label stands over every column, and white between the tiles.
    for left in lefts:
        assert ink(sheet, tops[0] - 36, tops[0], left, left + 128) > 50
    assert (sheet[tops[0] + 128 : tops[1]] == 255).all()
    assert (sheet[tops[0], lefts[0] + 128 : lefts[1]] == 255).all()


def test_the_grid_keeps_colours_and_large_images() -> None:
    pictures = {name: noise(2, channels=3, side=128) for name in ("original", "degraded")}
    sheet = opened(comparison_grid(pictures))
    for images in pictures.values():
        assert place_of(enlarged(images[1], 1), sheet) is not None


def test_the_grid_stops_at_max_rows() -> None:
    pictures = {"original": noise(20), "degraded": noise(20)}
    assert len(opened(comparison_grid(pictures, max_rows=2))) < 400


def test_captions_stand_below_their_columns() -> None:
    pictures = {name: noise(1) for name in ("original", "degraded", "direct")}
    bare, told = (opened(comparison_grid(pictures, metrics)) for metrics in (None, METRICS))
    # Two lines under degraded (no rmse was given), three under direct.
    assert len(told) > len(bare) + 3 * 16
    place = place_of(enlarged(pictures["direct"][0], 8), told)
    assert place is not None
    assert ink(told, place[0] + 128, len(told), place[1], place[1] + 128) > 100


def test_pictures_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="keep=1"):
        comparison_grid({})
    with pytest.raises(DataError, match="equally many images"):
        comparison_grid({"original": noise(2), "direct": noise(3)})


def test_long_labels_make_room() -> None:
    columns = [
        SheetColumn("a label much wider than one tile of this size", noise(1)) for _ in range(2)
    ]
    # 900 px: two labels of 400 px or more side by side, where tiles alone would need 330.
    assert draw_sheet(columns).width > 800


def trajectory(frames: int = 21, images: int = 4) -> Trajectory:
    shape = (frames, images, 1, 16, 16)
    states = RNG.integers(0, 256, shape, dtype=np.uint8)
    estimates = RNG.integers(0, 256, shape, dtype=np.uint8)
    return Trajectory(tuple(range(frames - 1, -1, -1)), states, estimates, "Algorithm 2")


def test_the_strip_runs_from_the_start_to_the_end() -> None:
    path = trajectory()
    sheet = opened(trajectory_strip(path, title="Algorithm 2"))
    first, last = (place_of(enlarged(path.states[i, 0], 8), sheet) for i in (0, -1))
    below = place_of(enlarged(path.estimates[0, 0], 8), sheet)
    assert first is not None
    assert last is not None
    assert below is not None
    assert first[0] == last[0]
    assert last[1] - first[1] == 7 * 136
    assert below == (first[0] + 136, first[1])
    assert place_of(enlarged(path.states[10, 3], 8), sheet) is None


def test_a_short_strip_has_each_severity_once() -> None:
    path = trajectory(frames=3)
    wide, short = (opened(trajectory_strip(p)).shape[1] for p in (trajectory(), path))
    assert wide - short == 5 * 136


def test_the_animation_ends_at_zero_and_loops() -> None:
    path = trajectory(frames=5, images=2)
    with Image.open(io.BytesIO(trajectory_animation(path))) as gif:
        assert gif.n_frames == 5  # type: ignore[attr-defined]
        assert gif.info["loop"] == 0
        frames: list[Any] = []
        durations = []
        for i in range(5):
            gif.seek(i)
            durations.append(gif.info["duration"])
            frames.append(np.asarray(gif.convert("RGB")).astype(int))
    assert durations[-1] == max(durations)
    # Grey images survive the palette of 256 colours almost unchanged.
    last = enlarged(path.states[-1, 0], 8).astype(int)
    top, left = next(
        (top, left)
        for top in range(60, 140)
        for left in range(60, 180)
        if np.abs(frames[-1][top : top + 128, left : left + 128] - last).max() < 12
    )
    first = frames[0][top : top + 128, left : left + 128]
    assert np.abs(first - enlarged(path.states[0, 0], 8)).max() < 12


def test_one_palette_serves_all_frames_of_an_animation() -> None:
    """With one each, a colour would be another in each frame, and flat areas would flicker."""
    frames = 6
    states = RNG.integers(0, 256, (frames, 2, 3, 16, 16), dtype=np.uint8)
    path = Trajectory(tuple(range(frames - 1, -1, -1)), states, states[::-1], "Algorithm 2")
    colours: set[int] = set()
    with Image.open(io.BytesIO(trajectory_animation(path))) as gif:
        for i in range(frames):
            gif.seek(i)
            red, green, blue = np.moveaxis(np.asarray(gif.convert("RGB")).astype(int), 2, 0)
            colours |= set(np.unique(red << 16 | green << 8 | blue).tolist())
    assert 100 < len(colours) <= 256


def test_pictures_of_a_real_evaluation() -> None:
    def halfway(x_t: Tensor, t: Tensor) -> Tensor:
        return 0.9 * x_t

    D = build_degradation({"kind": "blur", "num_timesteps": 3}, ImageShape(1, 16, 16))
    images = noise(6)

    def pictures(**fields: Any) -> dict[str, bytes]:
        spec = EvaluationSpec(**fields)
        found = evaluate(halfway, D, MemoryShards(images), spec, LenetFeatures(), keep=2)
        return evaluation_pictures(found)

    found = pictures()
    assert list(found) == ["grid.png", "strip.png", "strip.gif"]
    assert place_of(enlarged(images[1], 8), opened(found["grid.png"])) is not None
    assert found == pictures()
    assert list(pictures(samplers=("direct",))) == ["grid.png"]


def test_the_loss_curve_is_a_picture_of_the_losses() -> None:
    steps = list(range(10, 510, 10))
    falling = [1.0 / (1 + step / 50) for step in steps]
    picture = opened(loss_curve(steps, falling))
    assert picture.shape[0] > 500
    blue = (picture[:, :, 2].astype(int) - picture[:, :, 0]) > 100
    rows = [np.flatnonzero(blue[:, column]).mean() for column in np.flatnonzero(blue.any(axis=0))]
    # Image rows grow downwards: a falling loss ends lower than it began.
    assert rows[-1] > rows[0] + 100
    assert loss_curve([1], [0.0])


@pytest.mark.parametrize(
    ("steps", "losses"), [([], []), ([1, 2], [0.5]), ([1, 2], [0.5, float("nan")])], ids=str
)
def test_losses_that_cannot_be_drawn(steps: list[int], losses: list[float]) -> None:
    with pytest.raises(DataError, match="as many finite losses as steps"):
        loss_curve(steps, losses)


def test_the_running_mean_looks_back() -> None:
    found = running_mean(np.array([1.0, 3.0, 5.0, 7.0]), 2)
    np.testing.assert_allclose(found, [1, 2, 4, 6])


TABLE = """\
                                Algorithm 1   Algorithm 2   real against
           degraded    direct       (naive)    (improved)           real
fd_lenet       1695       203           435          85.3*          8.25    lower is better
ssim          0.100     0.750*        0.500         0.700              -    higher is better
rmse              -    0.1413             -             -              -    lower is better
psnr (dB)         -     17.00             -             -              -    higher is better"""


def test_the_table() -> None:
    assert evaluation_table(METRICS) == TABLE


def test_the_table_without_numbers() -> None:
    assert evaluation_table({"train/loss_l1": 0.1}) == "no evaluation yet"


def test_sheets_and_plots_have_one_font() -> None:
    assert font(14).getname()[0] == FontProperties().get_name()
