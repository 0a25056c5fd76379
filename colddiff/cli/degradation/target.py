"""Target of `check` and `preview`: the degradation of a job, a kind, or a user's file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from colddiff.degradations import DegradationSpec
    from colddiff.transforms import Augment
    from colddiff.types import ImageShape

JOB_FIELDS = ("image_size", "channels")
REFERENCE = re.compile(r"^train-|^mlflow:|://|@(last|best|step=\d+)$|/jobs/|/step_\d+/?$")
"""What only the name of a training, or of a checkpoint, looks like."""

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="JOB|KIND|FILE.py [key=value ...]",
        help="A recipe or YAML file, a training's id or checkpoint, a kind of degradation, or a "
        "Python file that registers one; then fields to set (of the job; else of the degradation, "
        "image_size and channels).",
        show_default=False,
    ),
]
Variant = Annotated[str | None, typer.Option(help="Variant of the recipe.")]


@dataclass(frozen=True, slots=True)
class Target:
    """A degradation and the shape of the images it is built for."""

    name: str
    spec: DegradationSpec
    shape: ImageShape
    augment: Augment = "none"

    def __str__(self) -> str:
        size = f"{self.shape.height} x {self.shape.width} px"
        colours = {1: "grey", 3: "colour"}.get(
            self.shape.channels, f"{self.shape.channels} channels"
        )
        T, kind = self.spec.num_timesteps, self.spec.kind
        name = kind if self.name == kind else f"{self.name}: {kind}"
        return f"{name}, T = {T}, {size}, {colours}"


def read_target(
    words: Sequence[str], variant: str | None = None, *, image_size: int = 32
) -> Target:
    """Parse the positional arguments of a command into a target.

    Args:
        words: one JOB, KIND or FILE.py, and ``key=value`` overrides.
        variant: variant of a JOB.
        image_size: default side for a KIND or FILE.py, which do not define one.

    Raises SpecError naming what is wrong, and the nearest name.
    """
    from colddiff.checkpoints.references import describe_checkpoint, find_checkpoint
    from colddiff.degradations import DEGRADATIONS
    from colddiff.errors import SpecError
    from colddiff.jobs.recipes import list_recipes, load_recipe
    from colddiff.spec import apply_overrides, nearest, parse
    from colddiff.verbs.train.job import TrainJob

    named = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    if len(named) != 1:
        raise SpecError(f"expected one JOB, KIND or FILE.py, got {' '.join(named) or 'none'}")
    name = named[0]
    if name.endswith(".py") or name in DEGRADATIONS:
        if variant is not None:
            raise SpecError("--variant requires a JOB that has variants")
        kinds = _kinds_of(name) if name.endswith(".py") else [name]
        return _of_kind(kinds, overrides, image_size)
    if name not in list_recipes() and REFERENCE.search(name):
        if variant is not None:
            raise SpecError("--variant requires a JOB that has variants, and no training")
        trained = describe_checkpoint(find_checkpoint(name)).job
        changed = parse(TrainJob, apply_overrides(trained.to_dict(), overrides))
        return Target(name, changed.degradation, changed.shape, changed.augment)
    if not name.endswith((".yaml", ".yml")) and name not in list_recipes():
        known = [*DEGRADATIONS, *list_recipes()]
        raise SpecError(
            f"{name!r} is neither a kind of degradation nor a recipe{nearest(name, known)} (see "
            "`colddiff degradations` and `colddiff recipes`, or use a .yaml or .py file)"
        )
    job = load_recipe(name, variant).job("train", overrides)
    assert isinstance(job, TrainJob)
    return Target(name, job.degradation, job.shape, job.augment)


def _kinds_of(path: str) -> list[str]:
    from colddiff.errors import SpecError
    from colddiff.spec.plugins import load_plugin

    kinds = load_plugin(path).kinds_of("degradation")
    if not kinds:
        raise SpecError(f"plugin {path!r} registers no kind of degradation")
    return kinds


def _of_kind(kinds: Sequence[str], overrides: Sequence[str], image_size: int) -> Target:
    from colddiff.degradations import DEGRADATIONS
    from colddiff.errors import SpecError
    from colddiff.spec import apply_overrides
    from colddiff.types import ImageShape

    size: dict[str, object] = {"image_size": image_size, "channels": 3}
    fields = apply_overrides({}, [word.removeprefix("degradation.") for word in overrides])
    kind = fields.pop("kind", kinds[0] if len(kinds) == 1 else None)
    if kind not in kinds:
        offered = " or ".join(f"kind={name}" for name in kinds)
        raise SpecError(f"choose one degradation of the file: {offered}")
    size |= {name: fields.pop(name) for name in JOB_FIELDS if name in fields}
    for name, value in size.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1024:
            raise SpecError([(name, f"must be a whole number from 1 to 1024, got {value!r}")])
    side, channels = (int(str(size[name])) for name in JOB_FIELDS)
    spec = DEGRADATIONS.parse({"kind": kind, **fields})
    return Target(kind, spec, ImageShape(channels, side, side))
