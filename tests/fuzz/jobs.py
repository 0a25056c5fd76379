"""Job files and overrides that a person typed, or a program made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from colddiff.cli.submit import Request, submit_verb
from colddiff.degradations import DEGRADATIONS
from colddiff.jobs.recipes import load_recipe
from colddiff.jobs.verb import VERBS
from colddiff.restorers import RESTORERS
from colddiff.samplers import SAMPLERS
from tests.fuzz.harness import Target
from tests.fuzz.odd import BYTES, VALUES, broken, changed, places

RECIPES = ("quickstart", "search/blur-digits", "study/paper-restoration-small")
WORDS = (*DEGRADATIONS, *RESTORERS, *SAMPLERS, *VERBS, "linear", "exponential", "table", "all")
ODD_YAML = st.sampled_from(
    [
        "010", "1:30", "2024-13-45", "!!python/object:os.system x", "&a [*a]", "{a: 1, a: 2}", "*x",
        "- " * 300, "[" * 300, "9" * 5000, "1e400", ".inf", "!!binary x", "? [a]\n: b", "a: b: c",
        "!!set {a}", "!!omap [a: 1]", "<<: 1", "{<<: [1]}", "\t", "@", "`", "%TAG ! x", "---\n---",
    ]
)  # fmt: skip


def _documents() -> list[dict[str, Any]]:
    """Whole job files: sections with all of their fields."""
    found = []
    for name in RECIPES:
        recipe = load_recipe(name)
        sections = dict(recipe.sections)
        for verb in ("evaluate", "generate", *["train"] * ("train" in sections)):
            sections[verb] = recipe.job(verb).to_dict()
        found.append({"name": recipe.name, **sections})
    return found


@st.composite
def files(draw: st.DrawFn, documents: list[dict[str, Any]]) -> tuple[str, bytes]:
    """A verb, and a job file that is almost one of ``documents``."""
    document = draw(st.sampled_from(documents))
    verb = draw(st.sampled_from([name for name in VERBS if name in document] * 4 + list(VERBS)))
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return verb, draw(BYTES)
    text = yaml.safe_dump(document).encode()
    if kind <= 2:
        return verb, draw(broken(text))
    if kind == 3:
        odd = f"{verb}: {{seed: {draw(ODD_YAML)}}}\n"
        return verb, odd.encode()
    # JSON is YAML, but for the numbers that it writes in its own way.
    return verb, json.dumps(draw(changed(document, WORDS))).encode()


def job_file(folder: Path) -> Target:
    """A job file, as `submit VERB FILE --dry-run` and `--json` read it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.yaml"

    def check(drawn: Any) -> None:
        verb, data = drawn
        path.write_bytes(data)
        submit_verb(verb, Request(words=(str(path),), dry_run=True))

    documents = _documents()
    check(("train", yaml.safe_dump(documents[0]).encode()))
    return Target("job", files(documents), check)


@st.composite
def overrides(draw: st.DrawFn, documents: list[dict[str, Any]]) -> tuple[str, list[str]]:
    """A verb and one to three ``key=value``."""
    verb = draw(st.sampled_from([*["train"] * 4, *VERBS]))
    section = draw(st.sampled_from(documents)).get(verb) or {}
    fields = list(VERBS[verb].spec().model_fields)
    paths = [".".join(map(str, path)) for path in places(section) if path] or fields
    found = []
    for _ in range(draw(st.integers(1, 3))):
        key = draw(st.sampled_from(paths) | st.sampled_from(fields) | st.text(max_size=6))
        value = draw(
            VALUES.map(lambda value: json.dumps(value, ensure_ascii=False))
            | st.sampled_from(WORDS)
            | ODD_YAML
            | st.text(max_size=8)
        )
        found.append(f"{key}={value}")
    return verb, found


def override(folder: Path) -> Target:
    """Overrides on the command line of a submit."""

    def check(drawn: Any) -> None:
        verb, words = drawn
        submit_verb(verb, Request(words=("quickstart", *words), dry_run=True))

    check(("train", ["seed=3"]))
    return Target("override", overrides(_documents()), check)
