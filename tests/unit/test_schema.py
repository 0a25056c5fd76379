"""The JSON schema of job files: it takes what is valid and names what is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from colddiff.degradations import DEGRADATIONS
from colddiff.features.spec import FEATURES
from colddiff.jobs import recipes
from colddiff.jobs.recipes import catalogue, list_recipes
from colddiff.jobs.schema import job_file_schema
from colddiff.jobs.verb import VERBS
from colddiff.restorers import RESTORERS
from colddiff.spec.plugins import load_plugin, unload_plugin
from colddiff.terminal import TERMINALS
from tests.in_process import colddiff_here

KSPACE = Path(__file__).resolve().parents[2] / "infra/docs/own-degradation/kspace.py"


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    found = job_file_schema()
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


def problems(schema: Draft202012Validator, text: str) -> Iterator[tuple[str, str]]:
    """(path, message) of the innermost errors of a job file."""
    pending = list(schema.iter_errors(yaml.safe_load(text)))
    while pending:
        error = pending.pop()
        pending += error.context
        if not error.context:
            yield ".".join(map(str, error.absolute_path)), error.message


@pytest.mark.parametrize("name", list_recipes())
def test_every_job_of_the_catalogue_is_valid(schema: Draft202012Validator, name: str) -> None:
    assert list(problems(schema, (catalogue() / f"{name}.yaml").read_text())) == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_whole_job_as_dry_run_prints_it_is_valid(
    schema: Draft202012Validator,
    verb: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The quickstart trains with two workers, which no trial of a search has.
    name = "search/blur-digits" if verb == "search" else "quickstart"
    words = ("submit", verb, name, "--dry-run")
    printed = colddiff_here(monkeypatch, capsys, *words).stdout
    assert verb in yaml.safe_load(printed)
    assert list(problems(schema, printed)) == []


def test_it_has_exactly_the_keys_that_a_job_file_may_have() -> None:
    assert set(job_file_schema()["properties"]) == {*recipes.ABOUT, *VERBS}


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("tarin: {}", "", "'tarin' was unexpected"),
        ("train: {num_step: 3}", "train", "'num_step' was unexpected"),
        ("train: {optimizer: {rate: 1}}", "train.optimizer", "'rate' was unexpected"),
        ("train: {num_steps: 0}", "train.num_steps", "0 is less than the minimum of 1"),
        ("train: {degradation: {num_timesteps: 3}}", "train.degradation", "'kind' is a required"),
        ("train: {degradation: {kind: blurr}}", "train.degradation.kind", "'blurr' is not one of"),
        ("train: {degradation: {kind: noise, sigma: 1}}", "train.degradation", "'sigma' was unexp"),
        ("train: {restorer: {kind: convnext_unet, d: 1}}", "train.restorer", "'d' was unexpected"),
        ("generate: {terminal: {kind: nope}}", "generate.terminal.kind", "'nope' is not one of"),
        (
            "train: {degradation: {kind: blur, sigma: {kind: linear, value: 1}}}",
            "train.degradation.sigma",
            "'value' was unexpected",
        ),
        ("evaluate: {features: torchscript}", "evaluate.features", "is not one of ['inception'"),
        ("generate: {statistics: [lenet, 3]}", "generate.statistics.1", "3 is not one of"),
        ("variants: {v: {train: {nope: 1}}}", "variants.v.train", "'nope' is not one of"),
        ("variants: {v: {variants: {}}}", "variants.v", "'variants' was unexpected"),
    ],
)
def test_what_is_wrong_is_named(
    schema: Draft202012Validator, text: str, where: str, what: str
) -> None:
    found = list(problems(schema, text))
    assert any(path == where and what in message for path, message in found), found


def test_a_network_without_a_kind_is_of_the_default_one(schema: Draft202012Validator) -> None:
    assert list(problems(schema, "train: {restorer: {dim: 8}}")) == []
    assert list(problems(schema, "train: {restorer: {kind: ddpm_unet, dropout: 0.1}}")) == []
    found = list(problems(schema, "train: {restorer: {dropout: 0.1}}"))
    assert any(path == "train.restorer" and "'dropout' was unexp" in what for path, what in found)


def test_features_are_a_kind_or_its_name(schema: Draft202012Validator) -> None:
    for features in ("lenet", "{kind: lenet}", "{kind: inception, path: w.pt}"):
        assert list(problems(schema, f"evaluate: {{features: {features}}}")) == []
    assert FEATURES.parse("lenet") == FEATURES.parse({"kind": "lenet"})


@pytest.mark.parametrize(
    ("definition", "kinds"),
    [
        ("DegradationSpec", DEGRADATIONS),
        ("RestorerSpec", RESTORERS),
        ("TerminalSpec", TERMINALS),
    ],
)
def test_every_kind_that_is_registered_has_a_rule(definition: str, kinds: Any) -> None:
    choice = job_file_schema()["$defs"][definition]
    assert choice["properties"]["kind"]["enum"] == list(kinds)
    assert [rule["if"]["properties"]["kind"]["const"] for rule in choice["allOf"]] == list(kinds)


def test_kinds_of_a_loaded_plugin_are_among_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("recipes", "--schema", "--plugin", KSPACE)
    try:
        printed = json.loads(colddiff_here(monkeypatch, capsys, *words).stdout)
        assert "kspace" in printed["$defs"]["DegradationSpec"]["properties"]["kind"]["enum"]
    finally:
        unload_plugin(load_plugin(KSPACE))
    assert (
        "kspace" not in job_file_schema()["$defs"]["DegradationSpec"]["properties"]["kind"]["enum"]
    )


def test_the_command_prints_the_schema(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("recipes", "--schema"), ("recipes", "--schema", "--json")):
        done = colddiff_here(monkeypatch, capsys, *words)
        assert done.returncode == 0
        assert json.loads(done.stdout) == job_file_schema()


def test_a_plugin_without_a_schema_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = colddiff_here(monkeypatch, capsys, "recipes", "--plugin", KSPACE)
    assert (done.returncode, done.stdout) == (2, "")
    assert "goes with --schema" in done.stderr
