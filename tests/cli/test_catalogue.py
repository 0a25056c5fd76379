"""Every catalogue there is: kinds, fields of jobs, recipes, and the reference made of them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import runpy
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from colddiff.cli import output
from colddiff.cli.catalogue import commands
from colddiff.cli.catalogue.fields import find_fields, shown_fields, specs_below
from colddiff.cli.catalogue.kinds import CATALOGUES, find_kind, list_kinds
from colddiff.cli.catalogue.recipe import recipe_text
from colddiff.errors import SpecError
from colddiff.jobs.recipes import list_recipes, load_recipe
from colddiff.jobs.verb import VERBS
from colddiff.spec import Spec
from colddiff.spec.plugins import load_plugin, unload_plugin
from tests.in_process import Done, colddiff_here
from tests.terminal import read_to_its_end

ROOT = Path(__file__).resolve().parents[2]
KSPACE = ROOT / "infra/docs/own-degradation/kspace.py"


class Colddiff:
    def __init__(self, patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str]) -> None:
        self._patch, self._captured = patch, captured

    def __call__(self, *words: object) -> Done:
        return colddiff_here(self._patch, self._captured, *words)

    def json(self, *words: object) -> Any:
        return json.loads(self(*words, "--json").stdout)


@pytest.fixture
def colddiff(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Colddiff:
    return Colddiff(monkeypatch, capsys)


def every_spec() -> Iterator[tuple[str, type[Spec]]]:
    """Each job, each kind, and all that lies below them."""
    pending: list[tuple[str, type[Spec]]] = [(verb, VERBS[verb].spec()) for verb in VERBS]
    seen = set()
    while pending:
        path, spec = pending.pop()
        if spec in seen:
            continue
        seen.add(spec)
        yield path, spec
        for name, field in shown_fields(spec).items():
            pending += [(f"{path}.{name}.{kind}", below) for kind, below in specs_below(field)]


EVERY_SPEC = dict(every_spec())


@pytest.mark.parametrize(("path", "spec"), EVERY_SPEC.items(), ids=list(EVERY_SPEC))
def test_every_field_says_what_it_means(path: str, spec: type[Spec]) -> None:
    verb, _, below = path.removesuffix(".").partition(".")
    place = find_fields(verb, below.replace("..", "."))
    (found,) = [part for part in place.below if set(part.fields) == set(shown_fields(spec))]
    assert [name for name, field in found.fields.items() if not field.description] == []
    assert found.description


@pytest.mark.parametrize("noun", CATALOGUES)
def test_a_catalogue_lists_its_kinds_and_shows_each(colddiff: Colddiff, noun: str) -> None:
    kinds = colddiff.json(noun)
    assert set(kinds) == set(CATALOGUES[noun])
    assert all(kinds.values())
    assert [line.split()[0] for line in colddiff(noun).stdout.splitlines()[1:]] == list(
        CATALOGUES[noun]
    )
    for kind, about in kinds.items():
        assert colddiff(noun, kind).stdout.startswith(f"{kind}: {about}\n")
        assert colddiff.json(noun, kind)["description"] == about


@pytest.mark.parametrize("noun", CATALOGUES)
def test_an_unknown_kind_names_the_nearest(colddiff: Colddiff, noun: str) -> None:
    known = next(iter(CATALOGUES[noun]))
    done = colddiff(noun, f"{known}x")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"did you mean {known!r}?" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_sampler_says_where_its_metrics_are_and_what_it_costs() -> None:
    found = find_kind("samplers", "improved").properties
    assert found["metrics"] == "eval/sampled/..."
    assert found["network calls"] == "one for each of the job's `severities`"
    assert find_kind("samplers", "direct").properties["network calls"] == "one an image"


def test_kinds_of_a_plugin_are_listed(colddiff: Colddiff) -> None:
    try:
        assert "kspace" in colddiff.json("degradations", "--plugin", KSPACE)
        below = colddiff.json("fields", "train", "degradation", "--plugin", KSPACE)["kinds"]
        assert "kspace" in below
    finally:
        unload_plugin(load_plugin(KSPACE))
    assert "kspace" not in list_kinds("degradations")


def test_fields_of_a_job_are_told_apart_by_what_decides_its_id(colddiff: Colddiff) -> None:
    shown = colddiff("fields", "train").stdout
    identity, operation = shown.split("operation: these may change")
    assert "\nseed " in identity
    assert "\nnum_steps " in operation
    assert "\nnum_steps " not in identity
    fields = colddiff.json("fields", "train")["fields"]
    assert (fields["num_steps"]["changes"], fields["seed"]["changes"]) == (True, False)
    assert fields["num_steps"]["unit"] == "optimizer steps"
    assert fields["workers"]["type"] == "all, int or [int, int]"
    assert fields["workers"]["bounds"] == ">= 1, <= 10,000"
    assert fields["precision"]["bounds"] == "fp32 | bf16"
    assert fields["degradation"]["default"] == "{kind: blur}"


def test_a_path_goes_into_the_fields_and_kinds_of_a_job(colddiff: Colddiff) -> None:
    optimizer = colddiff.json("fields", "train", "optimizer")
    assert optimizer["fields"]["lr"]["search"] == "1e-05..0.003 (log)"
    sigma = colddiff.json("fields", "train", "degradation.sigma")
    assert {field["of"] for field in sigma["field"]} == {"blur", "fade_to_colour", "inpaint"}
    assert set(sigma["kinds"]) == set(CATALOGUES["schedules"])
    (rate,) = colddiff.json("fields", "train", "degradation.blur.sigma.rate")["field"]
    assert rate["of"] == "exponential"
    assert "sigma (blur)" in colddiff("fields", "train", "degradation.sigma").stdout
    assert set(colddiff.json("fields", "generate", "statistics")["kinds"]) == set(
        CATALOGUES["features"]
    )
    assert "low" in colddiff.json("fields", "search", "ranges")["fields"]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("trian",), "no verb 'trian'; did you mean 'train'? (one of "),
        (("train", "optimiser"), "optimiser: no such field; did you mean 'optimizer'?"),
        (("train", "optimizer.lrr"), "optimizer.lrr: no such field; did you mean 'lr'?"),
        (("train", "degradation.blurr"), "degradation.blurr: no such field; did you mean 'blur'?"),
        (("train", "seed.x"), "seed.x: there is nothing below it"),
        (("train", "degradation..sigma"), "degradation.: no such field"),
    ],
    ids=str,
)
def test_an_unknown_verb_or_path_names_the_nearest(
    colddiff: Colddiff, words: tuple[str, ...], what: str
) -> None:
    done = colddiff("fields", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert what in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_is_shown_as_a_job_file_that_says_the_same(name: str) -> None:
    recipe = load_recipe(name)
    data = yaml.safe_load(text := recipe_text(recipe))
    assert {verb: data[verb] for verb in recipe.sections} == recipe.sections
    assert data.get("variants", {}) == recipe.variants
    assert (data.get("targets"), data.get("measured")) == (recipe.targets, recipe.measured)
    assert (data["description"], data.get("pack")) == (recipe.description, recipe.pack)
    assert max(len(line) for line in text.splitlines() if "#" in line) <= 100


def test_each_field_of_a_recipe_has_a_comment() -> None:
    lines = recipe_text(load_recipe("quickstart")).splitlines()
    for number, line in enumerate(lines):
        if line.strip().partition(":")[0] not in {"", "#"} and not line.strip().startswith("#"):
            assert "  # " in line or lines[number - 1].strip().startswith("# "), line
    assert "    kernel_size: 5  # taps of each truncated Gaussian, odd [px]" in lines


def test_a_recipe_is_shown_with_its_pack_commands_and_targets(colddiff: Colddiff) -> None:
    shown = colddiff("recipes", "paper/deblur-mnist").stdout
    assert "colddiff data pack mnist:MNIST --out URI/mnist --split both" in shown
    assert "eval/sampled/fid: 4.69" in shown
    assert "      degradation:\n        num_timesteps: 40  # number of severities T" in shown
    found = colddiff.json("recipes", "paper/deblur-mnist")
    assert found["targets"]["eval/sampled/fid"] == 4.69
    assert found["sections"]["train"]["degradation"]["kind"] == "blur"
    assert found["measured"] is None
    assert "# measured here, by this project" in colddiff("recipes", "cpu/deblur-mnist").stdout
    own = colddiff.json("recipes", "cpu/deblur-mnist")
    assert (own["targets"], own["measured"]["eval/sampled/rmse"]) == (None, 0.2668)


def test_a_job_file_of_ones_own_is_shown_and_checked(colddiff: Colddiff, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train: {seed: 3}\ngenerate:\n")
    assert yaml.safe_load(colddiff("recipes", file).stdout)["train"] == {"seed": 3}
    file.write_text("train: {sed: 3}\n")
    done = colddiff("recipes", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert "train.sed: no such field; did you mean 'seed'?" in done.stderr
    assert "did you mean 'quickstart'?" in colddiff("recipes", "quickstat").stderr


def test_a_schema_of_one_recipe_is_refused(colddiff: Colddiff) -> None:
    done = colddiff("recipes", "quickstart", "--schema")
    assert (done.returncode, done.stdout) == (2, "")
    assert "leave the name out" in done.stderr


def test_the_reference_is_fresh() -> None:
    made = runpy.run_path(str(ROOT / "infra/docs/make_reference.py"))["reference"]()
    page = (ROOT / "infra/docs/reference.md").read_text()
    assert page == made, "run `make docs-reference`"


LISTS = (
    *((noun,) for noun in CATALOGUES),
    *((noun, "--json") for noun in CATALOGUES),
    ("recipes",),
    ("recipes", "quickstart"),
    *(("fields", verb) for verb in VERBS),
    ("fields", "train", "degradation.sigma"),
    ("degradations", "blur"),
)
"""What the catalogues print."""


@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_a_list_fits_a_terminal_and_loses_nothing(
    colddiff: Colddiff, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    piped = colddiff(*words).stdout
    monkeypatch.setattr(output, "terminal_width", lambda: None)
    monkeypatch.setattr(commands, "terminal_width", lambda: None)
    assert colddiff(*words).stdout == piped
    for width in (80, 100, 2000):
        monkeypatch.setattr(output, "terminal_width", lambda width=width: width)
        monkeypatch.setattr(commands, "terminal_width", lambda width=width: width)
        shown = colddiff(*words).stdout
        if "--json" in words or width == 2000:
            assert shown == piped
            continue
        wide = [line for line in shown.splitlines() if len(line) > width]
        # A value of a job file stays on its line, its comment does not.
        assert [
            line for line in wide if "#" in line or words[:2] != ("recipes", "quickstart")
        ] == []
        assert words_of(piped) - HEADINGS <= words_of(shown)


HEADINGS = {"FIELD", "TYPE", "DEFAULT", "UNIT", "BOUNDS", "SEARCH", "RECIPE", "VERBS", "KIND"}


def words_of(text: str) -> set[str]:
    """Its words, without the signs that part a row's cells where it stands by itself."""
    return {word.rstrip(";") for word in text.split()}


def test_a_terminal_of_80_columns_is_asked_for_its_width() -> None:
    done, lines = at_a_terminal("degradations", columns=80)
    assert done == 0
    assert lines[0].split() == ["KIND"]
    assert max(map(len, lines)) <= 80
    assert len(lines) > len(CATALOGUES["degradations"]) + 1


def at_a_terminal(*words: str, columns: int) -> tuple[int, list[str]]:
    """Exit code and lines of a command whose stdout is a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    code = subprocess.call(
        [sys.executable, "-m", "colddiff.cli.main", *words], stdout=theirs, env=environment
    )
    os.close(theirs)
    return code, read_to_its_end(ours).splitlines()


def test_a_kind_that_nobody_knows_is_an_error_of_ours() -> None:
    with pytest.raises(SpecError, match="sampler: no 'x'"):
        find_kind("samplers", "x")
