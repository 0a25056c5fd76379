"""Specs: unknown keys, wrong types and kinds end in one line naming path, value and way out."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field

from colddiff.errors import SpecError
from colddiff.jobs.listing.ids import slugify
from colddiff.restorers.convnext_unet import ConvNextUnetSpec
from colddiff.spec import LATER, Range, Spec, apply_overrides, digest, parse, search_ranges
from colddiff.types import ImageShape
from colddiff.verbs.train.job import TrainJob


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sede": 1}, "sede: no such field; did you mean 'seed'?"),
        # Keys of YAML need not be text, nor short.
        ({1: 2, False: 3}, r"^1: no such field; False: no such field \(fields: "),
        ({"a" * 120: 3}, "'aaa"),
        ({"degradation": {"kind": "blurr"}}, "degradation.kind: no 'blurr'; did you mean 'blur'?"),
        (
            {"degradation": {"kind": "blur", "kernel": 3}},
            "degradation.kernel: no such field; did you mean 'kernel_size'?",
        ),
        (
            {"degradation": {"kind": "blur", "kernel_size": 4}},
            "degradation.kernel_size: must be odd",
        ),
        ({"degradation": {"num_timesteps": 3}}, "degradation.kind: is required"),
        (
            {"degradation": {"kind": "blur", "sigma": {"start": 1, "step": 2}}},
            "degradation.sigma.kind: is required; one of constant, exponential, linear, table: "
            "write {kind: linear, start: 1, step: 2}",
        ),
        (
            {"restorer": {"dropout": 0.1}},
            "restorer.kind: is required; one of convnext_unet, ddpm_unet: write {kind: ddpm_unet, "
            "dropout: 0.1}",
        ),
        ({"restorer": {"dmi": 8}}, r"restorer.dmi: no such field; did you mean 'dim'\? \(fields: "),
        ({"restorer": {"dim:8": None}}, "YAML wants a space after the colon: dim: 8"),
        ({"degradation": 3}, "degradation: expected a mapping with a 'kind', got 3"),
        ({"num_steps": "many"}, "num_steps: input should be a valid integer"),
        ({"num_steps": 0}, "num_steps: input should be greater than or equal to 1, got 0"),
        ({"optimizer": {"lr": float("nan")}}, "optimizer.lr: input should be a finite number"),
        ({"workers": [3, 1]}, r"workers.*write n, \[min, max\] or all, got \[3, 1\]"),
        (
            {"degradation": {"kind": "blur", "sigma": {"kind": "linear", "start": 1}}},
            "degradation.sigma: set exactly one of step or end",
        ),
        (
            {
                "image_size": 4,
                "degradation": {"kind": "blur", "kernel_size": 9, "padding": "reflect"},
            },
            "degradation.kernel_size: reflect padding of 4 px does not fit an image of 4 px; "
            "use at most kernel_size=7",
        ),
    ],
)
def test_a_wrong_spec_is_one_clear_line(data: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse(TrainJob, data)
    assert "\n" not in str(caught.value)


def test_fields_of_a_network_are_of_the_default_kind() -> None:
    named = parse(TrainJob, {"restorer": {"kind": "convnext_unet", "dim": 8}})
    assert parse(TrainJob, {"restorer": {"dim": 8}}) == named
    assert named.job_id("x", {}) == parse(TrainJob, {"restorer": {"dim": 8}}).job_id("x", {})


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("restorer={ch: 64}", "restorer.ch=64"),
        ("degradation={num_timesteps: 7}", "degradation.num_timesteps=7"),
        ("degradation.sigma={step: 3}", "degradation.sigma.step=3"),
        ("degradation={sigma: {step: 3}}", "degradation.sigma.step=3"),
    ],
)
def test_a_mapping_without_a_kind_keeps_the_one_it_meets(override: str, field: str) -> None:
    sigma = {"kind": "linear", "start": 1, "step": 2}
    base = {
        "restorer": {"kind": "ddpm_unet", "ch": 32},
        "degradation": {"kind": "inpaint", "sigma": sigma},
    }
    assert apply_overrides(base, [override]) == apply_overrides(base, [field])
    parse(TrainJob, apply_overrides(base, [override]))
    other = apply_overrides(base, ["restorer={kind: convnext_unet}"])
    assert other["restorer"] == {"kind": "convnext_unet"}


def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(SpecError, match=r"resources\.\\ud800: no such field"):
        parse(TrainJob, {"degradation": {"kind": "blur"}, "resources": {"\ud800": 1}})


def test_every_wrong_path_is_named() -> None:
    with pytest.raises(SpecError) as caught:
        parse(TrainJob, {"num_steps": 0, "optimizer": {"lr": -1}}, "train")
    assert [path for path, _ in caught.value.problems] == ["train.optimizer.lr", "train.num_steps"]


def test_json_round_trip() -> None:
    job = parse(
        TrainJob, {"degradation": {"kind": "blur", "sigma": {"kind": "exponential", "rate": 0.01}}}
    )
    assert parse(TrainJob, job.to_dict()) == job


class Inner(Spec):
    rate: Annotated[float, Range(0.1, 1.0, log=True)] = 0.5


class Outer(Spec):
    inner: Inner = Inner()
    plain: int = 3


def test_search_ranges_are_read_off_the_fields() -> None:
    assert search_ranges(Outer()) == {"inner.rate": Range(0.1, 1.0, log=True)}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=1e-4", 1e-4),
        ("a.b=[20, 10, 0]", [20, 10, 0]),
        ("a.b=[1e-4, 2e0]", [1e-4, 2.0]),
        ("a.b=null", None),
        ("a.b=true", True),
        ("a.b=s3://bucket/x", "s3://bucket/x"),
        ("a.b={kind: constant, value: 2e0}", {"kind": "constant", "value": 2.0}),
        ("a.b=x=y", "x=y"),
    ],
)
def test_override_values_are_yaml(text: str, value: object) -> None:
    assert apply_overrides({"a": {"c": 1}}, [text]) == {"a": {"c": 1, "b": value}}


@pytest.mark.parametrize("text", ["seed", "=3", "a..b=3", "a=[1"])
def test_a_malformed_override_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        apply_overrides({}, [text])


def test_an_override_below_a_value_is_refused() -> None:
    with pytest.raises(SpecError, match=r"seed: is 3, which has no field 'x'"):
        apply_overrides({"seed": 3}, ["seed.x=1"])


def test_an_override_names_an_entry_of_a_list_by_its_number() -> None:
    data = {"jobs": ["a", {"recipe": "b"}]}
    for path in ("jobs.1", "jobs[1]"):
        found = apply_overrides(data, [f"{path}.overrides.data=./x", "jobs.0=c"])
        assert found == {"jobs": ["c", {"recipe": "b", "overrides": {"data": "./x"}}]}
    for path in ("jobs.2.recipe", "jobs.first"):
        with pytest.raises(SpecError, match=r"jobs: is a list.*; its entries are 0 to 1"):
            apply_overrides(data, [f"{path}=x"])


def test_overrides_do_not_change_what_they_are_given() -> None:
    data = {"a": {"b": 1}}
    apply_overrides(data, ["a.b=2"])
    assert data == {"a": {"b": 1}}


def test_the_id_follows_identity_and_nothing_else() -> None:
    content = {"data": "abc"}
    base = TrainJob().job_id("x", content)
    assert base == TrainJob(num_steps=5, workers=3, storage="/elsewhere").job_id("x", content)
    assert base == TrainJob(data="/somewhere").job_id("x", content)
    assert base != TrainJob(seed=1).job_id("x", content)
    assert base != TrainJob().job_id("x", {"data": "abd"})
    assert base.startswith("train-x-")
    assert len(base) == len("train-x-") + 8


def test_equal_numbers_of_different_type_are_one_identity() -> None:
    a = parse(TrainJob, {"optimizer": {"lr": 1}})
    b = parse(TrainJob, {"optimizer": {"lr": 1.0}})
    assert digest(a.identity()) == digest(b.identity())


@pytest.mark.parametrize(
    ("text", "slug"),
    [("paper/deblur-mnist", "paper-deblur-mnist"), ("My Job.v2", "my-job-v2"), ("///", "job")],
)
def test_slugs(text: str, slug: str) -> None:
    assert slugify(text) == slug


def test_a_field_of_a_later_version_is_written_only_where_it_is_set() -> None:
    class Older(Spec):
        size: int = 1

    class Newer(Older):
        names: Annotated[list[str], LATER] = Field(default_factory=list)
        deep: Annotated[Older | None, LATER] = None

    class Outer(Spec):
        inner: Newer = Newer()

    assert Newer().to_dict() == Older().to_dict() == {"size": 1}
    assert digest(Outer().to_dict()) == digest({"inner": {"size": 1}})
    wider = parse(Outer, {"inner": {"names": ["a"], "deep": {"size": 2}}})
    assert wider.to_dict() == {"inner": {"size": 1, "names": ["a"], "deep": {"size": 2}}}
    assert parse(Outer, wider.to_dict()) == wider


def test_a_network_is_checked_once_for_equal_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[ImageShape] = []
    check = ConvNextUnetSpec.check

    def noted(spec: ConvNextUnetSpec, shape: ImageShape) -> None:
        checked.append(shape)
        check(spec, shape)

    monkeypatch.setattr(ConvNextUnetSpec, "check", noted)
    job = {"data": "d", "restorer": {"kind": "convnext_unet", "dim": 12, "dim_mults": [1, 2]}}
    for size in (16, 16, 24, 16):
        parse(TrainJob, {**job, "image_size": size})
    assert checked == [ImageShape(3, 16, 16), ImageShape(3, 24, 24)]
    for _ in range(2):  # one that cannot be built is refused each time
        with pytest.raises(SpecError, match="17"):
            parse(TrainJob, {**job, "image_size": 17})


def test_the_alternatives_of_a_field_are_one_problem_by_its_name() -> None:
    with pytest.raises(SpecError) as caught:
        parse(TrainJob, {"workers": {}, "tracking": {"tags": {"a-b": 3}}})
    assert caught.value.problems == [
        ("tracking.tags.a-b", "input should be a valid string, got 3"),
        ("workers", "input should be 'all' or a valid integer or a valid tuple, got {}"),
    ]


def test_a_tag_that_does_not_fit_is_said_without_words_of_python() -> None:
    with pytest.raises(SpecError) as caught:
        apply_overrides({}, ["seed=!!timestamp x"])
    assert str(caught.value) == ("seed: '!!timestamp x': not YAML (a tag does not fit its value)")
