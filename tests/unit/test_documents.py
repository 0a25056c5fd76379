"""JSON and YAML of others: whatever it holds, it is a value or one short line that says why."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

import pytest

from colddiff.errors import SpecError
from colddiff.spec import Spec, apply_overrides, parse
from colddiff.spec.documents import (
    DocumentError,
    as_record,
    read_json,
    read_json_object,
    shown,
)
from colddiff.spec.yaml_documents import read_yaml

LAUGHS = "[&a0 [x,x,x,x,x,x,x,x,x]" + "".join(
    f", &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("y", "y"), ("true", True), ("FALSE", False),
        ("1:30", "1:30"), ("1:30:10.5", "1:30:10.5"), ("2024-13-45", "2024-13-45"),
        ("0", 0), ("-7", -7), ("+7", 7), ("1_000", 1000), ("0x1f", 31), ("0o17", 15), ("0b11", 3),
        ("1e-4", 1e-4), ("1E5", 1e5), (".5", 0.5), ("-1.", -1.0), ("1.5e+3", 1500.0),
        ("007.5", 7.5), ("'010'", "010"), ("1e-4x", "1e-4x"), ("12e", "12e"), ("~", None),
        ("", None), ("[1e-4, 2]", [1e-4, 2]),
        ("{a: &x {b: 1}, c: *x}", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: &x {b: 1}\nc: {<<: *x, b: 2}", {"a": {"b": 1}, "c": {"b": 2}}),
        ('"\\ud83d\\ude00"', "\N{GRINNING FACE}"), ("\N{GRINNING FACE}", "\N{GRINNING FACE}"),
    ],
    ids=lambda value: ascii(value)[:24],
)  # fmt: skip
def test_plain_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = read_yaml(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("010", "octal"), ("-007", "octal"), ("[1, 08]", "octal"),
        ("a: 1\nb: 2\na: 3", "line 3: has the key 'a' twice"),
        ("{a: {b: 1, b: 1}}", "'b' twice"), ("{1: a, 1: b}", "twice"),
        ("9" * 5000, "no machine holds"), ("0x" + "f" * 5000, "no machine holds"),
        ("-" + "9" * 400, "no machine holds"), ("18446744073709551616", "no machine holds"),
        ("[" * 3000 + "]" * 3000, "deeper"), ("[" * 3000, "deeper"), ("{" * 3000, "deeper"),
        ("- " * 3000, "deeper"), ("[" * 70 + "]" * 70, "deeper"), ("a: " * 90, "not YAML"),
        ("&a [*a]", "contains itself"), ("&a {b: *a}", "contains itself"), ("*no", "alias"),
        (LAUGHS + "]", "100,000 values"), ("x" * 2_000_000, "at most"),
        ("!!int x", "not YAML"), ("!!int ''", "not YAML"), ("!!float x", "not YAML"),
        ("!!timestamp x", "not YAML"), ("!!bool x", "not YAML"),
        ("!!python/object:os.system x", "not YAML"),
        ("!!timestamp 2024-13-45", "not YAML"), ("{[1]: 2}", "not YAML"), ("@x", "not YAML"),
        ('"\\ud800"', "half a character"), ('{"\\udfff": 1}', "half a character"),
        ("\0", "not YAML"), ("\x1b[31m", "not YAML"), ("a: 1\n---\nb: 2", "another document"),
    ],
    ids=lambda value: ascii(value)[:24],
)  # fmt: skip
def test_other_yaml_is_refused_in_time_and_in_one_short_line(text: str, says: str) -> None:
    began = time.monotonic()
    with pytest.raises(DocumentError) as error:
        read_yaml(text)
    assert says in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is not JSON"), (b"{", "is not JSON"), (b"\xff\xfe", "is not JSON"),
        (b"\xc3\x28", "is not JSON"), (b"[]", "not a JSON object"), (b"null", "not a JSON object"),
        (b"3", "not a JSON object"), (b'"x"', "not a JSON object"), (b"[" * 100_000, "deeper"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "deeper"), (b'{"a": 1, "a": 2}', "'a' twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", "no machine holds"), (b'{"a": 1} x', "is not JSON"),
    ],
    ids=lambda value: ascii(value)[:24],
)  # fmt: skip
def test_other_json_is_refused_in_one_short_line(data: bytes, says: str) -> None:
    with pytest.raises(DocumentError) as error:
        read_json_object(data)
    assert says in str(error.value)
    assert len(str(error.value)) < 300


def test_json_beyond_its_size_is_not_parsed() -> None:
    with pytest.raises(DocumentError, match="has 7 bytes, at most 6"):
        read_json(b'{"a":1}', most_bytes=6)
    assert read_json('{"a": [1, 2.5, null, "\\u0000"]}') == {"a": [1, 2.5, None, "\0"]}


@dataclass(frozen=True)
class Inner:
    name: str


@dataclass(frozen=True)
class Record:
    step: int
    inner: Inner
    rate: float = 1.0
    names: list[str] = field(default_factory=list)


def test_a_record_takes_no_other_types_and_ignores_later_fields() -> None:
    data = {"step": 3, "inner": {"name": "a", "later": 1}, "rate": 2, "names": ["x"], "new": None}
    assert as_record(Record, data) == Record(3, Inner("a"), 2.0, ["x"])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"inner": {"name": "a"}}, "step is missing"),
        ({"step": "3", "inner": {"name": "a"}}, "step is '3'"),
        ({"step": True, "inner": {"name": "a"}}, "step is True"),
        ({"step": 3.5, "inner": {"name": "a"}}, "step is 3.5"),
        ({"step": 3, "inner": {"name": None}}, "inner.name is None"),
        ({"step": 3, "inner": [], "names": "x"}, "names is 'x'"),
        ({"step": 3, "inner": {"name": "a"}, "names": [1]}, "names.0 is 1"),
        ([], "it is []"),
        (None, "it is None"),
    ],
)
def test_a_record_of_other_types_is_refused_by_field(data: object, says: str) -> None:
    with pytest.raises(DocumentError) as error:
        as_record(Record, json.loads(json.dumps(data)))
    assert "is damaged" in str(error.value)
    assert says in str(error.value)


@pytest.mark.parametrize(
    "value",
    ["x" * 9999, ["x" * 9999] * 99, {str(i): i for i in range(999)}, 9**9999, "\x1b]0;x\x07\udcff",
     [[[[[[[[[[[[1]]]]]]]]]]]], b"\0" * 999, -(10**400)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_any_value_is_shown_in_80_printable_characters(value: object) -> None:
    assert len(shown(value)) <= 80
    assert shown(value).isprintable()


class Counted(Spec):
    steps: int = 1
    rate: float | None = 0.5
    sizes: tuple[int, ...] = ()
    compiled: bool = False
    either: int | bool = 1
    name: str = "a"


@pytest.mark.parametrize("value", ["yes", "true", "on", "1:30", "010", "no", "''", "[1]", "1e300"])
def test_a_number_is_a_number(value: str) -> None:
    with pytest.raises(SpecError, match=r"steps"):
        parse(Counted, apply_overrides({}, [f"steps={value}"]))


@pytest.mark.parametrize("text", ["rate=false", "sizes=[1, true]", "sizes=[yes]"])
def test_a_truth_value_is_no_number_anywhere(text: str) -> None:
    with pytest.raises(SpecError, match=text.split("=")[0]):
        parse(Counted, apply_overrides({}, [text]))


def test_a_truth_value_may_be_written_as_before() -> None:
    found = parse(Counted, apply_overrides({}, ["compiled=yes", "either=true", "name=no"]))
    assert (found.compiled, found.either, found.name) == (True, True, "no")
