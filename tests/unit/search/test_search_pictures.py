"""Pictures of a search: what is drawn is what was measured, also where there is little."""

from __future__ import annotations

import io
import logging
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from PIL import Image

from colddiff.report.search.calls import base_band, calls_figure, calls_picture
from colddiff.report.search.figures import BASE, UNRANKED, rank_colour
from colddiff.report.search.parallel import height, parallel_figure, parallel_picture
from colddiff.report.search.paths import paths_figure, paths_picture
from colddiff.report.search.pictures import DRAWINGS, search_pictures
from colddiff.report.search.points_map import map_figure, map_picture, spread
from colddiff.report.search.results import SearchAxis, SearchResults, Strip, Strips
from colddiff.report.search.rungs import rungs_figure, rungs_picture
from colddiff.report.search.sentences import verdict
from colddiff.report.search.strips import strips_figure, strips_picture
from colddiff.report.value_axis import CUT
from tests.unit.search.drawn import (
    RUNGS,
    VALUES,
    drawn_results,
    drawn_strips,
    drawn_trials,
)

RESULTS = drawn_results()
KIND = SearchAxis("kind", choices=("linear", "exponential"))
RATE = SearchAxis("lr", log=True, ends=(1e-4, 1e-2))


def lines(figure: Figure, axes: int = 0) -> list[tuple[list[float], list[float], Any]]:
    """x, y and the line itself of every line that has points."""
    found = []
    for line in figure.axes[axes].lines:
        x, y = (np.asarray(side, dtype=float).tolist() for side in line.get_data())
        if x:
            found.append((x, y, line))
    return found


def drawn_at(figure: Figure, x: Any, y: Any, axes: int = 0) -> Any:
    """The one line through exactly these points."""
    (found,) = [line for a, b, line in lines(figure, axes) if (a, b) == (list(x), list(y))]
    return found


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def alt(picture: Any) -> str:
    assert picture is not None
    assert Image.open(io.BytesIO(picture.png)).width > 500
    return str(picture.alt)


def test_paths_show_what_each_trial_removes_beside_its_schedule() -> None:
    figure = paths_figure(RESULTS)
    for trial in RESULTS.trials:
        assert trial.removed is not None
        line = drawn_at(figure, trial.removed.x, trial.removed.y)
        assert to_hex(line.get_color()) == (BASE if trial.base else rank_colour(trial.rank, 5))
        assert (line.get_linestyle() == "--") == trial.base
        schedule = trial.schedules["sigma (px)"]
        assert drawn_at(figure, schedule.x, schedule.y, axes=1).get_color() == line.get_color()
    assert figure.axes[1].get_ylabel() == "sigma (px)"
    told = alt(paths_picture(RESULTS))
    assert "5 trials" in told
    assert "The base, base (trial 0), has removed 50% of its RMSE at T at t = T/2" in told


def test_the_base_and_the_best_lie_above_the_others() -> None:
    order = {}
    for trial in RESULTS.trials:
        assert trial.removed is not None
        line = drawn_at(paths_figure(RESULTS), trial.removed.x, trial.removed.y)
        order[trial.number] = (line.get_zorder(), line.get_linewidth())
    assert sorted(order, key=lambda number: order[number])[-2:] == [1, 0]


def test_a_degradation_without_a_schedule_has_one_panel() -> None:
    bare = tuple(replace(trial, schedules={}) for trial in RESULTS.trials)
    figure = paths_figure(drawn_results(trials=(replace(bare[0], rank=1),)))
    assert [axes.get_xlabel() for axes in figure.axes] == ["t / T"]
    assert (
        paths_picture(drawn_results(trials=tuple(replace(t, removed=None) for t in bare))) is None
    )


def test_ranks_are_in_perceptual_order_and_apart_from_the_base() -> None:
    def luminance(colour: str) -> float:
        red, green, blue = (
            c / 12.92 if c <= 0.04 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    colours = [rank_colour(rank, 12) for rank in range(1, 13)]
    assert sorted(colours, key=luminance) == colours
    assert BASE not in colours
    # Contrast with white: the lightest is still seen as a line.
    assert all(1.05 / (luminance(colour) + 0.05) > 1.5 for colour in colours)
    assert rank_colour(1, 1) == colours[0]
    assert rank_colour(None, 5) == UNRANKED


def test_the_map_has_every_value_at_its_point() -> None:
    figure = map_figure(RESULTS)
    pills = {text.get_text(): text for text in figure.axes[0].texts if isinstance(text, Annotation)}
    assert sorted(pills, key=float) == ["6", "7", "8", "45", "200"]
    for text, point in (("6", (10, 0.5)), ("8", (20, 4)), ("200", (40, 8))):
        assert pills[text].xy == point
    # A trial that was passed over is hollow; its value is of another step.
    patches = {text: pill.get_bbox_patch() for text, pill in pills.items()}
    faces = {text: to_hex(patch.get_facecolor()) for text, patch in patches.items() if patch}
    assert faces["45"] == faces["200"] == "#ffffff"
    assert faces["8"] == BASE
    assert (figure.axes[0].get_xscale(), figure.axes[0].get_yscale()) == ("log", "log")
    assert "Best: trial 1, num_timesteps 10, ratio 0.5: 6 at step 250" in alt(map_picture(RESULTS))


def test_choices_are_categories() -> None:
    points = ((20.0, 1.0), (10.0, 0.0), (8.0, 1.0), (9.0, 0.0), (7.0, math.nan))
    results = drawn_results(axes=(RESULTS.axes[0], KIND), trials=tuple(drawn_trials(points=points)))
    axes = map_figure(results).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["linear", "exponential"]
    # A point without a value of one field has no place on the map.
    assert len([t for t in axes.texts if isinstance(t, Annotation)]) == 4
    assert "kind linear" in alt(map_picture(results))


def test_a_map_is_of_two_fields() -> None:
    for axes in (RESULTS.axes[:1], (*RESULTS.axes, KIND)):
        points = tuple((1.0,) * len(axes) for _ in VALUES)
        assert (
            map_picture(drawn_results(axes=axes, trials=tuple(drawn_trials(points=points)))) is None
        )


def test_crowded_labels_are_moved_apart_within_the_axes() -> None:
    centres = np.full((24, 2), 100.0)
    sizes = np.tile([30.0, 15.0], (24, 1))
    places = spread(centres, sizes, (0.0, 0.0, 400.0, 300.0))
    for i in range(24):
        for j in range(i):
            assert (np.abs(places[i] - places[j]) >= sizes[0] - 0.1).any()
    assert (places >= sizes / 2).all()
    assert (places <= np.array([400.0, 300.0]) - sizes / 2).all()
    far = np.array([[10.0, 10.0], [300.0, 200.0]])
    assert np.array_equal(spread(far, sizes[:2], (-50.0, -50.0, 400.0, 300.0)), far)


def test_quality_against_calls() -> None:
    figure = calls_figure(RESULTS)
    base = drawn_at(figure, [2, 5, 10], [14.0, 9.5, 8.0])
    assert (base.get_linestyle(), to_hex(base.get_color())) == ("--", BASE)
    best = drawn_at(figure, [2, 5, 11], [14.0, 9.5, 6.0])
    assert best.get_linestyle() == "-"
    assert drawn_at(figure, [13], [7.0]).get_marker() == "o"
    assert {"base", "1", "3"} == set(texts(figure))
    assert figure.axes[0].get_ylabel().endswith(f"\n{CUT}")
    told = alt(calls_picture(RESULTS))
    assert "Trial 1: 14 with 2, 9.5 with 5, 6 with 11." in told
    assert "Trial 4" not in told  # passed over: its value is of another step
    alone = replace(RESULTS.trials[0], skipped={})
    assert calls_picture(drawn_results(trials=(alone,))) is None


def test_the_seed_band_is_the_bases_relative_spread() -> None:
    # Test values 9, 10, 11: sd 10 % of their mean; the base has 8 on validation images.
    assert base_band(RESULTS) == pytest.approx((7.2, 8.8))
    axes = calls_figure(RESULTS).axes[0]
    (band,) = axes.patches
    bounds = band.get_window_extent().transformed(axes.transData.inverted())
    assert (bounds.y0, bounds.y1) == pytest.approx((7.2, 8.8))
    for seeds in ((), (9.0,), (0.0, 0.0)):
        assert base_band(drawn_results(base_seeds=seeds)) is None


def test_strips_show_the_images_in_their_rows() -> None:
    figure = strips_figure(RESULTS)
    shown = [np.asarray(image.get_array()) for image in figure.axes[0].images]
    strips = drawn_strips().strips
    wanted = [
        image for strip in strips for row in (strip.degraded, strip.restored) for image in row
    ]
    assert len(shown) == len(wanted) == 18
    for found, image in zip(shown, wanted, strict=True):
        assert np.array_equal(found, np.broadcast_to(image, (3, 16, 16)).transpose(1, 2, 0))
    said = texts(figure)
    for text in ("best: trial 1", "base (trial 0)", "worst: trial 3", "t = T", "0.4 T", "t = 0"):
        assert text in said
    assert "fd_lenet 6" in said
    assert "best (trial 1), base (trial 0), worst (trial 3)" in alt(strips_picture(RESULTS))
    for channels in (2, 3):
        colour = drawn_results(strips=drawn_strips(channels=channels))
        assert strips_picture(colour) is not None


def test_learning_curves_pass_through_the_rungs() -> None:
    figure = rungs_figure(RESULTS)
    for trial in RESULTS.trials:
        steps = RUNGS[: len(trial.values)]
        line = drawn_at(figure, steps, list(trial.values.values()))
        assert (line.get_linestyle() == "--") == trial.base
        assert line.get_marker() == "o"
    for rung in RUNGS:
        assert drawn_at(figure, [rung, rung], [0, 1])
    assert texts(figure) == ["rung 1: 5", "rung 2: 4", "rung 3: 3"]
    assert "At step 120: 4 trials, the best 30." in alt(rungs_picture(RESULTS))


def five_fields(values: Any = VALUES) -> SearchResults:
    axes = (*RESULTS.axes, KIND, RATE, SearchAxis("width", ends=(1.0, 9.0)))
    points = tuple((8.0 + n, 2.0, n % 2, 10.0**-n if n else math.nan, 5.0) for n in range(5))
    return drawn_results(axes=axes, trials=tuple(drawn_trials(values, points)))


def test_parallel_coordinates_from_four_fields_on() -> None:
    assert parallel_picture(RESULTS) is None
    results = five_fields()
    figure = parallel_figure(results)
    marks = [x for x, _, _ in lines(figure)]
    assert marks.count([0, 1, 2, 3, 4, 5]) == 5
    best = next(y for x, y, _ in lines(figure) if len(x) == 6 and y[-1] == 1.0)
    # Of trial 1: T 9 of 6..40 and 2 of 1/8..8 on log axes, the second choice, 5 of 1..9.
    wanted = [math.log(9 / 6) / math.log(40 / 6), 2 / 3, 1.0, None, 0.5, 1.0]
    for found, value in zip(best, wanted, strict=True):
        assert value is None or found == pytest.approx(value)
    assert {"linear", "exponential"} <= set(texts(figure))
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()][-1] == "rank"
    assert "Best: trial 1, num_timesteps 9" in alt(parallel_picture(results))
    assert height(RATE, (1.0, 1.0), 1.0) == 0.5


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for box in figure.legends for text in box.get_texts()]


@pytest.mark.parametrize("own", [5.0, 6.0])  # 6.0 is the value of the next, and shares its rank
def test_where_the_base_is_the_best_nothing_calls_another_trial_the_best(own: float) -> None:
    values = ((100.0, 40.0, own), *VALUES[1:])
    trials = [
        replace(t, rank=1) if t.values[RUNGS[-1]] == own else t
        for t in drawn_trials(values)
        if t.finished
    ]
    results = drawn_results(trials=tuple(trials))
    next_best = "best but the base: trial 1"
    for figure in (paths_figure(results), map_figure(results), calls_figure(results)):
        named = [text.partition(", rank")[0] for text in legend(figure)[:2]]
        assert named == [next_best, "best: base (trial 0)"]
    said = texts(strips_figure(results))
    assert {next_best, "best: base (trial 0)", "worst: trial 3"} <= set(said)
    alts = " ".join(picture.alt for picture in search_pictures(results))
    assert "The best but the base, trial 1, has removed" in alts
    assert "The best, base (trial 0), has removed" in alts
    assert "Best but the base: trial 1, num" in alts
    assert "Best: base (trial 0), num" in alts
    assert "best but the base (trial 1), best (trial 0), worst (trial 3)" in alts
    assert "The best, trial 1" not in alts
    assert verdict(results).startswith("No trial of 3 is better than the base")


EMPTY = drawn_results(
    trials=(), axes=RESULTS.axes, strips=None, importance=None, base_seeds=(), complete=False
)
DEGENERATE = {
    "nothing": EMPTY,
    "asked": drawn_results(trials=tuple(drawn_trials([()])), strips=None, base_seeds=()),
    "base alone": drawn_results(trials=tuple(drawn_trials([(9.0, 8.0, 7.0)])), strips=None),
    "all failed": drawn_results(trials=tuple(drawn_trials([(), (), ()])), strips=None),
    "nan": drawn_results(
        trials=tuple(drawn_trials([(1.0, 1.0, 1.0), (math.nan,) * 3, (math.inf,) * 3])), strips=None
    ),
    "equal": drawn_results(trials=tuple(drawn_trials([(5.0, 5.0, 5.0)] * 4, [(10.0, 1.0)] * 4))),
    "zero": drawn_results(trials=tuple(drawn_trials([(0.0, 0.0, 0.0)] * 4))),
    "negative": drawn_results(trials=tuple(drawn_trials([(-5.0, 5.0, -2.0)] * 4))),
    "one field": drawn_results(
        axes=RESULTS.axes[:1], trials=tuple(drawn_trials(points=[p[:1] for p in ((6.0,),) * 5]))
    ),
    "choices": drawn_results(
        axes=(KIND, KIND), trials=tuple(drawn_trials(points=((0.0, 1.0),) * 5))
    ),
    "five fields": five_fields(),
    "many": drawn_results(
        trials=tuple(
            drawn_trials(
                [(90.0 + n, 30.0, 5.0 + n) for n in range(70)],
                [(6.0 + n % 30, 0.5 + n % 7) for n in range(70)],
            )
        )
    ),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_little_in_a_search_draws_little_and_fails_nowhere(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    results = DEGENERATE[name]
    with caplog.at_level(logging.WARNING):
        found = search_pictures(results)
    assert not caplog.records
    assert (name == "nothing") == (not found)
    assert all(picture.alt and picture.png.startswith(b"\x89PNG") for picture in found)


def test_equal_results_are_equal_bytes_and_are_drawn_once() -> None:
    first = search_pictures(RESULTS)
    names = [picture.name for picture in first]
    assert names == ["paths.png", "map.png", "calls.png", "strips.png", "rungs.png"]
    assert first == search_pictures(drawn_results())
    assert set(names) | {"parallel.png"} == {f"{name}.png" for name in DRAWINGS}
    # Before the confirmation, which changes quality against calls alone.
    trials = tuple(replace(trial, skipped={}) for trial in RESULTS.trials)
    before = replace(RESULTS, trials=trials, base_seeds=())
    again = search_pictures(RESULTS, (before, first))
    assert [a is b for a, b in zip(first, again, strict=True)] == [True, True, False, True, True]
    assert again == first
    other = replace(RESULTS, trials=trials[:2])
    assert not {id(picture) for picture in search_pictures(other, (before, first))} & set(
        map(id, first)
    )


def test_a_picture_that_fails_leaves_the_others_and_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = Strip("best", 77, drawn_strips().strips[0].degraded, drawn_strips().strips[0].restored)
    results = drawn_results(strips=Strips((1.0, 0.4, 0.0), "Algorithm 2", (broken,)))
    assert [picture.name for picture in search_pictures(results)] == [
        "paths.png",
        "map.png",
        "calls.png",
        "rungs.png",
    ]
    (record,) = caplog.records
    assert record.getMessage().startswith("strips.png was not drawn: ")
