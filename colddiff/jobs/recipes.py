"""Recipes: YAML files with a section per verb, from the catalogue or any path."""

from __future__ import annotations

import copy
import importlib.resources
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from colddiff.errors import SpecError
from colddiff.jobs.job import Job
from colddiff.jobs.verb import VERBS
from colddiff.spec import apply_overrides, nearest, parse
from colddiff.spec.plugins import load_plugins

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

ABOUT = ("name", "description", "pack", "targets", "variants")


def catalogue() -> Path:
    """The folder of built-in jobs: inside an installed package, at the root of a checkout."""
    package = Path(str(importlib.resources.files("colddiff")))
    installed = package / "catalogue"
    return installed if installed.is_dir() else package.parent / "jobs"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A named set of jobs: raw sections by verb, validated when ``job`` is called."""

    name: str
    description: str
    sections: Mapping[str, Any]
    pack: str | None = None
    """The command that packs its data, if the recipe names no data."""
    targets: Mapping[str, Any] | None = None
    """Published numbers it aims at, with their source."""
    variants: tuple[str, ...] = ()

    def job(self, verb: str, overrides: Iterable[str] = ()) -> Job:
        """The job of section ``verb`` with ``key=value`` overrides applied.

        Its plugins are loaded first: they may register the kinds it names. Raises SpecError.
        """
        if verb not in self.sections and verb not in VERBS:
            raise SpecError(f"recipe {self.name}: has no section {verb!r}")
        section = self.sections.get(verb, {})
        if not isinstance(section, Mapping):
            raise SpecError([(verb, f"expected a mapping of fields, got {section!r}")])
        written = apply_overrides(section, overrides)
        plugins = written.get("plugins")
        if isinstance(plugins, list | tuple) and all(isinstance(path, str) for path in plugins):
            load_plugins(plugins)
        return parse(VERBS[verb].spec(), written, verb)

    @property
    def train(self) -> TrainJob:
        """The recipe's training job."""
        return cast("TrainJob", self.job("train"))


def list_recipes() -> list[str]:
    """Names of the catalogue, such as ``paper/deblur-mnist``."""
    folder = catalogue()
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")
    )


def load_recipe(name: str | Path, variant: str | None = None) -> Recipe:
    """The recipe of that name in the catalogue, or the YAML file at that path.

    >>> recipe = load_recipe("paper/deblur-mnist")
    >>> recipe.train.degradation.kind, recipe.train.degradation.num_timesteps
    ('blur', 20)
    >>> recipe.job("train", ["optimizer.lr=1e-4"]).optimizer.lr
    0.0001

    Raises SpecError naming the nearest recipe, the YAML error's line, or an unknown section.
    """
    text = str(name)
    path = catalogue() / f"{text}.yaml"
    if text.endswith((".yaml", ".yml")):
        path = Path(text)
        if not path.is_file():
            raise SpecError(f"no job file {text!r}; `colddiff recipes` lists the built-in ones")
        text = path.stem
    elif not path.is_file():
        names = list_recipes()
        raise SpecError(
            f"no recipe {text!r}{nearest(text, names)} (see `colddiff recipes`, or give a .yaml "
            "file)"
        )
    return _recipe(path, text, variant)


def _recipe(path: Path, name: str, variant: str | None) -> Recipe:
    try:
        data = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise SpecError(f"{path}{line}: not YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(data, dict):
        raise SpecError(f"{path}: expected sections ({', '.join(VERBS)}), got {data!r}")
    known = [*ABOUT, *VERBS]
    for key in data:
        if key not in known:
            raise SpecError(f"{path}: no section {key!r}{nearest(str(key), known)}")
    variants = data.get("variants") or {}
    if variant is not None:
        if variant not in variants:
            offered = f"it has {', '.join(variants)}" if variants else "it has no variants"
            raise SpecError(f"{path}: no variant {variant!r}; {offered}")
        data = merged(data, variants[variant])
    return Recipe(
        name=str(data.get("name") or name),
        description=str(data.get("description") or ""),
        sections={verb: _placed(data[verb] or {}, path.parent) for verb in VERBS if verb in data},
        pack=data.get("pack"),
        targets=data.get("targets"),
        variants=tuple(variants),
    )


def _placed(section: Any, folder: Path) -> Any:
    """The section with absolute plugin paths: they are written relative to the job file."""
    if isinstance(section, Mapping) and isinstance(section.get("base"), Mapping):
        section = {**section, "base": _placed(section["base"], folder)}
    plugins = section.get("plugins") if isinstance(section, Mapping) else None
    if not isinstance(plugins, list) or not all(isinstance(plugin, str) for plugin in plugins):
        return section
    placed = [str((folder / Path(plugin).expanduser()).absolute()) for plugin in plugins]
    return {**section, "plugins": placed}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the fields of ``over``; a mapping of another kind replaces the one it meets."""
    found = copy.deepcopy(dict(base))
    for key, value in over.items():
        below = found.get(key)
        # Another kind has other fields: merging them into the old kind's would mix the two.
        same_kind = isinstance(value, Mapping) and value.get("kind", None) in (
            None,
            below.get("kind") if isinstance(below, Mapping) else None,
        )
        if isinstance(below, Mapping) and isinstance(value, Mapping) and same_kind:
            found[key] = merged(below, value)
        else:
            found[key] = copy.deepcopy(value)
    return found
