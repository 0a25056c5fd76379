"""Options that many commands share, spelt the same everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="Dashboard of the cluster; else COLDDIFF_ADDRESS, RAY_ADDRESS, the local cluster.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Data as one line of JSON.")]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URI",
        help="Where jobs are kept; else COLDDIFF_STORAGE, ./runs.",
    ),
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="Id of a job, see `colddiff list`.")]
Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="FILE", help="Python file that registers kinds of your own."),
]
TrustedPlugins = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-plugin",
        metavar="SHA256",
        help="Run this plugin, which came with the checkpoint: read it first.",
    ),
]
