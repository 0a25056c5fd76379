"""`colddiff import-reference`: converts a checkpoint of the paper's code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from colddiff.cli.degradation.target import Variant
from colddiff.cli.options import Json
from colddiff.cli.output import emit, emit_json, note
from colddiff.errors import SpecError

if TYPE_CHECKING:
    from colddiff.checkpoints.paper_weights import Weights


def import_reference(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="A model.pt file of the paper's code.")
    ],
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Recipe that matches its training, see `colddiff recipes`."
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", metavar="URI", help="A folder, or s3://bucket/prefix.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value ...]", help="Fields of the recipe's train section."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="Packed training images, to fit the terminal for generation."
        ),
    ] = None,
    weights: Annotated[
        str, typer.Option(metavar="ema|model", help="Averaged (ema) or last (model) weights.")
    ] = "ema",
    variant: Variant = None,
    as_json: Json = False,
) -> None:
    """Convert a checkpoint of the paper's code. Nothing in it is executed."""
    from dataclasses import asdict

    from colddiff.checkpoints.paper_import import import_paper_checkpoint as make
    from colddiff.jobs.recipes import load_recipe
    from colddiff.verbs.train.job import TrainJob

    job = load_recipe(recipe, variant).job("train", overrides or ())
    if not isinstance(job, TrainJob):
        raise SpecError(f"--recipe {recipe}: has no train section")
    done = make(checkpoint, job, out, data=data, weights=cast("Weights", weights))
    state = "imported" if done.fresh else "already imported"
    note(f"{checkpoint}: step {done.step}, {weights} weights, {state}; {_terminal(done.terminal)}")
    if as_json:
        emit_json(asdict(done))
    else:
        emit(done.uri)


def _terminal(kind: str | None) -> str:
    if kind is None:
        return "no terminal: restoring only; to generate, pass --data if the degradation has one"
    return f"terminal {kind}"
