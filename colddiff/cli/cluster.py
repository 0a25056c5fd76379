"""`colddiff cluster`: the Ray cluster on this machine."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from colddiff.cli.options import Json
from colddiff.cli.output import emit, emit_json, talk

app = typer.Typer(
    no_args_is_help=True,
    help="The local cluster, used when no address is given.",
)


@app.command()
def start(
    port: Annotated[
        int | None, typer.Option("--port", help="Of Ray's control store, outside 10002-19999.")
    ] = None,
    dashboard_port: Annotated[
        int | None, typer.Option("--dashboard-port", help="Of dashboard and Jobs API, on loopback.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Start it, or say where it runs already; it keeps the environment it is started with.

    Credentials for its jobs (AWS_*, MLFLOW_TRACKING_*) come from this environment and from the
    file `credentials` in COLDDIFF_HOME (NAME=value lines, mode 0600).
    """
    from colddiff.cluster import local_cluster
    from colddiff.cluster.home import Home

    record = local_cluster.start(Home.from_environment(), port=port, dashboard_port=dashboard_port)
    if as_json:
        emit_json({"running": True, **asdict(record)})
    else:
        emit(record.address)
        talk("`colddiff cluster stop` ends it")


@app.command()
def stop(as_json: Json = False) -> None:
    """End it with all its processes; jobs on it go on when they are submitted again."""
    from colddiff.cluster import local_cluster
    from colddiff.cluster.home import Home

    was_running = local_cluster.stop(Home.from_environment())
    if as_json:
        emit_json({"running": False, "stopped": was_running})
    else:
        talk("the local cluster has ended" if was_running else "no local cluster runs")


@app.command()
def status(as_json: Json = False) -> None:
    """Say whether it runs, and where."""
    from colddiff.cluster import local_cluster
    from colddiff.cluster.home import Home

    record = local_cluster.running(Home.from_environment())
    if as_json:
        emit_json({"running": record is not None, **(asdict(record) if record else {})})
    elif record is None:
        emit("no local cluster runs; `colddiff cluster start` or any submit starts it")
    else:
        minutes = (time.time() - record.started) / 60
        emit(f"running at {record.address} for {minutes:.0f} min (pid {record.pid})")
        talk(f"log: {record.log}")
