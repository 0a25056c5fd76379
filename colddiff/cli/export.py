"""`colddiff export`: writes a checkpoint as a self-contained folder, for use without a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from colddiff.cli.options import Json
from colddiff.cli.output import emit, emit_json, note


def export(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A job, checkpoint or mlflow:RUN_ID; with @last, @best, @step=N.",
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", metavar="DIR", help="A folder, or s3://bucket/prefix.")
    ],
    plugin: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Plugin it was trained with, if not stored with it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a checkpoint for others. Weights, degradation, terminal and card: all that restore
    and generate need.
    """
    from dataclasses import asdict

    from colddiff.checkpoints.export import export as make

    done = make(checkpoint, out, plugins=tuple(plugin or ()))
    state = "exported" if done.fresh else "already exported"
    weights = f"EMA weights {done.weights_sha256[:12]}..."
    code = f", with {', '.join(done.plugins)}" if done.plugins else ""
    note(f"{checkpoint}: step {done.step}, {weights}, {state}{code}")
    if as_json:
        emit_json(asdict(done))
    else:
        emit(done.uri)
