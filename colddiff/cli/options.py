"""Options shared by many commands."""

from __future__ import annotations

from typing import Annotated

import typer

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="Dashboard URL; default: COLDDIFF_ADDRESS, RAY_ADDRESS, else the local cluster.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URI",
        help="Where jobs are stored; default: COLDDIFF_STORAGE, else ./runs.",
    ),
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="Job id, see `colddiff list`.")]
JobIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Job ids, see `colddiff list`.")]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="Python file with degradations, restorers or samplers.",
    ),
]
TrustedPlugins = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-plugin",
        metavar="SHA256",
        help="Allow this plugin, which came with the checkpoint, to run: read it first.",
    ),
]
