"""The page of a search: what it says, and that it asks for nothing outside itself."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from colddiff.report.search.page import STYLE, search_page
from colddiff.report.search.pictures import search_pictures
from colddiff.report.search.results import Importance
from colddiff.report.search.sentences import (
    FEWEST_TRIALS,
    UNCONFIRMED,
    importance_sentence,
    verdict,
    verdict_sentences,
)
from tests.unit.search.drawn import IMPORTANCE, drawn_results, drawn_trials

RESULTS = drawn_results()
CONFIRMED = "trial 1, test eval/sampled/fd_lenet: -3.3 against the base: beats the base"


class Tags(HTMLParser):
    """All tags with their attributes, in order, and the text of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page() -> str:
    return search_page(
        "search <digits>",
        verdict_sentences(RESULTS, [CONFIRMED]),
        '<table><tr class="base"><td>1</td></tr></table>',
        search_pictures(RESULTS),
        [importance_sentence(RESULTS.importance, 12)],
    )


def test_the_page_asks_for_nothing_outside(page: str) -> None:
    written = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "data:", page)
    assert not re.findall(r"https?:|//|url\(|@import|<script|<link", written)
    assert len(page) < 5e6
    for tag, attrs in Tags(page).found:
        assert tag not in ("script", "link", "iframe", "object")
        assert all(attrs.get(name, "data:").startswith("data:") for name in ("src", "href"))  # type: ignore[union-attr]


def test_its_policy_allows_its_own_style_and_pictures_alone(page: str) -> None:
    metas = [attrs for tag, attrs in Tags(page).found if tag == "meta"]
    (policy,) = [
        attrs["content"] for attrs in metas if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'"
    assert not re.findall(r"<[^>]* style=", page)


def test_the_verdict_comes_first_then_the_paths_then_the_table(page: str) -> None:
    places = [
        page.index(text)
        for text in ("<h1>", "Best of 5 trials", "Trial 1, test", "RMSE of D(x, t)", "<table>")
    ]
    assert places == sorted(places)
    assert page.index("<table>") < page.index("Trials by num_timesteps and ratio")
    assert "<title>search &lt;digits&gt;</title>" in page


def test_pictures_are_embedded_with_what_they_say(page: str) -> None:
    images = [attrs for tag, attrs in Tags(page).found if tag == "img"]
    pictures = search_pictures(RESULTS)
    assert [image["alt"] for image in images] == [picture.alt for picture in pictures]
    # A dark page turns plots dark, and leaves images as they are.
    kinds = [attrs["class"] for tag, attrs in Tags(page).found if tag == "figure"]
    assert kinds == ["photo" if each.name == "strips.png" else "plot" for each in pictures]
    for image, picture in zip(images, pictures, strict=True):
        assert base64.b64decode(str(image["src"]).partition(",")[2]) == picture.png


def test_the_base_is_coloured_in_light_and_dark() -> None:
    assert "tr.base{background:var(--base)}" in STYLE
    light, _, dark = STYLE.partition("@media(prefers-color-scheme:dark)")
    for part in (light, dark.partition("}}")[0]):
        assert {"--paper", "--ink", "--soft", "--line", "--base"} <= set(re.findall(r"--\w+", part))


def test_equal_inputs_are_equal_bytes(page: str) -> None:
    again = search_page(
        "search <digits>",
        verdict_sentences(drawn_results(), [CONFIRMED]),
        '<table><tr class="base"><td>1</td></tr></table>',
        search_pictures(drawn_results()),
        [importance_sentence(IMPORTANCE, 12)],
    )
    assert again == page


def test_what_others_wrote_is_escaped() -> None:
    found = search_page("a", ["<b>&"], "<table></table>", [], ["<i>"])
    assert "&lt;b&gt;&amp;" in found
    assert "&lt;i&gt;" in found


def test_the_best_against_the_base() -> None:
    assert verdict(RESULTS) == (
        "Best of 5 trials on validation images: trial 1 (num_timesteps 10, ratio 0.5), fd_lenet 6 "
        "at step 250, against 8 of the base (-25.0 %)."
    )


def test_a_base_that_no_trial_beats() -> None:
    trials = tuple(drawn_trials([(9.0, 8.0, 5.0), (9.0, 8.0, 6.0)]))
    assert verdict(drawn_results(trials=trials)) == (
        "No trial of 2 is better than the base on validation images: fd_lenet 5 at step 250; next "
        "is trial 1 (num_timesteps 10, ratio 0.5) with 6 (+20.0 %)."
    )


def test_higher_may_be_better() -> None:
    found = verdict(drawn_results(lower_is_better=False, metric="eval/sampled/ssim"))
    assert found.startswith("No trial of 5 is better than the base")
    assert "ssim 8.000 at step 250" in found


def test_values_are_compared_at_the_last_rung_that_both_reached() -> None:
    trials = tuple(drawn_trials([(9.0, 8.0), (7.0,)]))
    assert "fd_lenet 7 at step 60, against 9 of the base" in verdict(drawn_results(trials=trials))


def test_a_search_that_goes_on_says_how_far_it_is() -> None:
    found = verdict(drawn_results(complete=False, num_trials=12))
    assert found.startswith("So far 5 of 12 trials asked for, 3 finished. Best of 5 trials")
    nothing = drawn_results(trials=(), complete=False)
    assert "has no value yet" in verdict(nothing)
    asked = drawn_results(trials=tuple(drawn_trials([(9.0,), ()])))
    assert verdict(asked).startswith("No trial beside the base has a value yet: fd_lenet 9")


def test_without_a_confirmation_it_says_so() -> None:
    assert verdict_sentences(RESULTS, [])[1:] == [UNCONFIRMED]
    assert verdict_sentences(replace(RESULTS, complete=False), [])[1:] == []
    told = verdict_sentences(RESULTS, [CONFIRMED], ["trial 1, seed 2 failed: out of memory"])
    assert told[1] == f"T{CONFIRMED[1:]}."
    assert told[2] == "Trial 1, seed 2 failed: out of memory."


def test_importance_is_a_sentence_with_its_uncertainty() -> None:
    found = importance_sentence(IMPORTANCE, 12)
    assert "fANOVA, 12 trials at step 60: rough" in found
    assert "over 20 resamples" in found
    assert found.endswith("ratio 0.82 (0.60 to 0.95), num_timesteps 0.18 (0.05 to 0.40).")
    enough = Importance("fANOVA", 60, 20, 20, {"a": (1.0, 1.0, 1.0)})
    assert "rough" not in importance_sentence(enough, 20)


def test_importance_of_too_few_trials() -> None:
    found = importance_sentence(None, FEWEST_TRIALS - 1)
    assert "too few trials to say (9 with a value at the same step, 10 needed)" in found
    assert "do not vary" in importance_sentence(None, FEWEST_TRIALS)
