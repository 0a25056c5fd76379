"""Recipes: YAML files with a section per verb, from the catalogue or any path."""

from __future__ import annotations

import difflib
import importlib.resources
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from colddiff.errors import SpecError
from colddiff.evaluation.best import is_distance
from colddiff.jobs.job import Job
from colddiff.jobs.verb import VERBS
from colddiff.spec import apply_overrides, nearest, parse
from colddiff.spec.documents import DocumentError, shown
from colddiff.spec.overrides import changed, merged
from colddiff.spec.plugins import load_plugins
from colddiff.spec.yaml_documents import MOST_YAML_BYTES, read_yaml
from colddiff.stores.open import object_at
from colddiff.stores.paths import absolute_path, expanded

if TYPE_CHECKING:
    from colddiff.verbs.train.job import TrainJob

FEATURES_OF = {"fid": "inception"}
"""The features whose distance has that name, of those that are published."""
TARGETS = "the targets of"
"""How a line begins on the targets of a recipe that a job does not measure."""
ABOUT = ("name", "description", "pack", "targets", "measured", "variants")


def catalogue() -> Path:
    """The folder of built-in jobs: inside an installed package, at the root of a checkout."""
    package = Path(str(importlib.resources.files("colddiff")))
    installed = package / "catalogue"
    return installed if installed.is_dir() else package.parent / "jobs"


@dataclass(frozen=True, slots=True, repr=False)
class Recipe:
    """A named set of jobs: raw sections by verb, validated when ``job`` is called."""

    name: str
    description: str
    sections: Mapping[str, Any]
    pack: str | None = None
    """The command that packs its data, if the recipe names no data."""
    targets: Mapping[str, Any] | None = None
    """Published numbers it aims at, with their source."""
    measured: Mapping[str, Any] | None = None
    """Numbers of it that this project has measured, with their source and how."""
    variants: Mapping[str, Any] = field(default_factory=dict)
    """By name: what `--variant NAME` merges over the sections."""

    @property
    def pack_command(self) -> str | None:
        """The first of its commands that pack data: that of its training images."""
        lines = (line.strip() for line in (self.pack or "").splitlines())
        return next((line for line in lines if line.startswith("colddiff data pack ")), None)

    def __repr__(self) -> str:
        variants = f"; variants: {', '.join(self.variants)}" if self.variants else ""
        return f"Recipe({self.name}: {', '.join(self.sections)}{variants})"

    def job(self, verb: str, overrides: Iterable[str] = ()) -> Job:
        """The job of section ``verb`` with ``key=value`` overrides applied.

        Its plugins are loaded first: they may register the kinds it names. Raises SpecError.
        """
        if verb not in self.sections and verb not in VERBS:
            raise SpecError(f"recipe {self.name}: has no section {verb!r}")
        section = self.sections.get(verb, {})
        if not isinstance(section, Mapping):
            raise SpecError([(verb, f"expected a mapping of fields, got {shown(section)}")])
        if isinstance(overrides, str) or not isinstance(overrides, Iterable):
            what = "expected a list of overrides, such as ['seed=3']"
            raise SpecError([(verb, f"{what}, got {shown(overrides)}")])
        written = apply_overrides(section, overrides)
        plugins = written.get("plugins")
        if isinstance(plugins, list | tuple) and all(isinstance(path, str) for path in plugins):
            load_plugins(plugins)
        return parse(VERBS[verb].spec(), written, verb)

    def varied(self, verb: str, fields: Mapping[str, Any]) -> Recipe:
        """The recipe with ``fields`` of section ``verb`` set, nested or by dotted path.

        A mapping is merged with the one it meets, unless that is of another kind. Raises SpecError.
        """
        section = self.sections.get(verb)
        if not isinstance(section, Mapping):
            return self
        return replace(self, sections={**self.sections, verb: changed(section, fields)})

    @property
    def train(self) -> TrainJob:
        """The recipe's training job."""
        return cast("TrainJob", self.job("train"))


_SUBMITTED: ContextVar[Recipe | None] = ContextVar("colddiff_submitted", default=None)


@contextmanager
def submitted_from(recipe: Recipe) -> Iterator[None]:
    """Within ``with``, what is said of a job may name the recipe that it is submitted from."""
    token = _SUBMITTED.set(recipe)
    try:
        yield
    finally:
        _SUBMITTED.reset(token)


def submitted_recipe() -> Recipe | None:
    """The recipe of ``submitted_from``, if there is one."""
    return _SUBMITTED.get()


def untold_targets(distance: str) -> list[str]:
    """A line where the submitted recipe has targets, and ``distance`` is none of theirs."""
    recipe, found = submitted_recipe(), dict[str, list[str]]()
    for path, value in ((recipe and recipe.targets) or {}).items():
        if is_distance(str(path)) and isinstance(value, int | float):
            column, _, metric = str(path).removeprefix("eval/").rpartition("/")
            found.setdefault(metric, []).append(f"{value:.2f} {column}")
    if recipe is None or not found or distance in found:
        return []
    text = "; ".join(f"{metric} ({', '.join(values)})" for metric, values in found.items())
    way = "; ".join(
        f"evaluation.features={FEATURES_OF[name]}" for name in found.keys() & FEATURES_OF.keys()
    )
    return [f"{TARGETS} {recipe.name} are {text}; this job measures none: {way}"]


def packed_option(command: str, option: str) -> int | None:
    """The number that a command has for an option.

    >>> packed_option("colddiff data pack digits --out URI --channels 1", "--channels")
    1
    """
    found = re.search(rf"{option}[ =](\d+)", command)
    return int(found[1]) if found else None


def list_recipes() -> list[str]:
    """Names of the catalogue, such as ``paper/deblur-mnist``."""
    folder = catalogue()
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")
    )


def load_recipe(name: str | Path, variant: str | None = None) -> Recipe:
    """The recipe of that name in the catalogue, or the YAML file at that path or URI.

    >>> recipe = load_recipe("paper/deblur-mnist")
    >>> recipe
    Recipe(paper/deblur-mnist: train; variants: paper)
    >>> recipe.train.degradation.kind, recipe.train.degradation.num_timesteps
    ('blur', 20)
    >>> recipe.job("train", ["optimizer.lr=1e-4"]).optimizer.lr
    0.0001

    Raises SpecError naming the nearest recipe, the YAML error's line, or an unknown section.
    """
    text = str(name)
    if _is_job_file(text) and "://" in text:
        return _recipe(text, _parsed(text, _fetched(text)), None, Path(text).stem, variant)
    path = catalogue() / f"{text}.yaml"
    if _is_job_file(text):
        path = Path(text)
        if not _is_file(path):
            close = _file_beside(path) or nearest(text.removesuffix(path.suffix), list_recipes())
            raise SpecError(
                f"no job file {shown(text)}{close} (`colddiff recipes` lists the built-in ones)"
            )
        text = path.stem
    elif not _is_file(path):
        names = list_recipes()
        if _is_file(Path(f"{text}.yaml")):
            raise SpecError(
                f"no recipe {shown(text)}: for the file of this folder write {text}.yaml"
            )
        if Path(text).is_dir():
            raise SpecError(
                f"{shown(text)} is a folder, and no recipe: a job takes images as "
                f"data=folder:{text}, and JOB is a recipe or a YAML file"
            )
        raise SpecError(
            f"no recipe {shown(text)}{nearest(text, names)} (nor is there a file of that name; "
            "`colddiff recipes` lists the built-in ones)"
        )
    return _recipe(str(path), _parsed(str(path), _read(path)), path.parent, text, variant)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False  # a name too long, a link to itself, a NUL


def _file_beside(path: Path) -> str:
    """``; did you mean 'x.yaml'?`` if a job file in the folder of ``path`` has nearly its name."""
    try:
        files = {file.stem: file for file in path.parent.iterdir() if _is_job_file(file.name)}
    except (OSError, ValueError):
        return ""
    # By what tells them apart: with folder and suffix any two names are alike.
    close = difflib.get_close_matches(path.stem, files, n=1)
    return f"; did you mean {shown(str(files[close[0]]))}?" if close else ""


def _recipe(path: str, data: Any, folder: Path | None, name: str, variant: str | None) -> Recipe:
    """What the content of the file at ``path`` says; ``folder``: its folder on this machine."""
    if data is None:
        raise SpecError(
            f"{path}: is empty; write a job's fields below its section, such as `train:`"
        )
    if not isinstance(data, dict):
        raise SpecError(f"{path}: expected sections ({', '.join(VERBS)}), got {shown(data)}")
    known = [*ABOUT, *VERBS]
    for key in data:
        if key not in known:
            raise SpecError(f"{path}: no section {shown(key)}{_meant(str(key), data, known)}")
    variants = data.get("variants") or {}
    if not isinstance(variants, dict):
        raise SpecError(f"{path}: variants: expected them by name, got {shown(variants)}")
    if variant is not None:
        data = merged(data, _variant(path, variants, variant))
    return Recipe(
        name=_text(path, data, "name") or name,
        description=_text(path, data, "description"),
        sections={verb: _placed(data[verb] or {}, folder) for verb in VERBS if verb in data},
        pack=_text(path, data, "pack") or None,
        targets=_numbers(path, data, "targets"),
        measured=_numbers(path, data, "measured"),
        variants={str(name): changed for name, changed in variants.items()},
    )


def _meant(key: str, data: Mapping[Any, Any], known: list[str]) -> str:
    """The way out for a key that is no section: the nearest, or where a field of a job belongs."""
    fields = {verb: set(VERBS[verb].spec().model_fields) for verb in VERBS}
    verbs = [verb for verb in VERBS if key in fields[verb]]
    if not verbs:
        return nearest(key, known)
    # Many verbs have `data` and `seed`: of which job they are, the other keys tell.
    verb = max(verbs, key=lambda verb: (len(fields[verb] & set(data)), verb == "train"))
    return f"; put fields below `{verb}:`, the section of the job"


def _read(path: Path) -> bytes:
    try:
        _refuse_too_large(str(path), path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror})") from None


def _fetched(uri: str) -> bytes:
    """A job file in a store, such as that of a search's best trial."""
    store, name = object_at(uri)
    size = store.size(name)
    if size is None:
        raise SpecError(f"no job file {shown(uri)} (`colddiff recipes` lists the built-in ones)")
    _refuse_too_large(uri, size)
    return store.get(name)


def _refuse_too_large(path: str, size: int) -> None:
    if size > MOST_YAML_BYTES:
        raise SpecError(f"{path}: a job file has at most {MOST_YAML_BYTES:,} bytes")


def _parsed(path: str, content: bytes) -> Any:
    try:
        return read_yaml(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise SpecError(f"{path}: not UTF-8 text, so not a job file") from None
    except DocumentError as error:
        raise SpecError(f"{path} {error}") from None


def _variant(path: str, variants: Mapping[Any, Any], name: str) -> Mapping[str, Any]:
    found = {str(key): value for key, value in variants.items()}
    if name not in found:
        offered = f"it has {', '.join(found)}" if found else "it has no variants"
        raise SpecError(f"{path}: no variant {shown(name)}; {offered}")
    changed = found[name]
    if not isinstance(changed, Mapping) or not all(key in (*ABOUT, *VERBS) for key in changed):
        raise SpecError(
            f"{path}: variants.{name}: expected sections ({', '.join(VERBS)}), got {shown(changed)}"
        )
    return changed


def _numbers(path: str, data: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    value = data.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise SpecError(f"{path}: {key}: expected numbers by name, got {shown(value)}")
    return value


def _text(path: str, data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if isinstance(value, Mapping | list):
        raise SpecError(f"{path}: {key}: expected text, got {shown(value)}")
    return "" if value is None else str(value)


def _placed(section: Any, folder: Path | None) -> Any:
    """The section with absolute paths of plugins, and of a study's job files.

    They are written relative to the file that the section is in, in ``folder``, if that is on this
    machine.
    """
    if not isinstance(section, Mapping):
        return section
    placed = dict(section)
    for below in ("base", "train", "overrides"):
        if isinstance(section.get(below), Mapping):
            placed[below] = _placed(section[below], folder)
    plugins = section.get("plugins")
    if isinstance(plugins, list) and all(isinstance(plugin, str) for plugin in plugins):
        placed["plugins"] = [_beside(plugin, folder) for plugin in plugins]
    if isinstance(section.get("jobs"), list):
        placed["jobs"] = [_placed_member(member, folder) for member in section["jobs"]]
    return placed


def _beside(name: str, folder: Path | None) -> str:
    """The absolute path or URI of a file that a job file in ``folder`` names."""
    if "://" in name:
        return name
    if folder is None and not expanded(name).is_absolute():
        raise SpecError(
            f"{shown(name)} is relative to its job file, which is in a store: copy that file and "
            "what it names to this machine"
        )
    return str(absolute_path((folder or Path()) / expanded(name)))


def _placed_member(member: Any, folder: Path | None) -> Any:
    """An entry of a study's ``jobs``: a recipe's name, or a mapping with a recipe or train job."""
    if _is_job_file(member):
        return _beside(member, folder)
    placed = _placed(member, folder)
    if isinstance(placed, dict) and _is_job_file(placed.get("recipe")):
        placed["recipe"] = _beside(placed["recipe"], folder)
    return placed


def _is_job_file(name: Any) -> bool:
    """Whether the name of a recipe is the path of a file, and none of the catalogue's."""
    return isinstance(name, str) and name.endswith((".yaml", ".yml"))
