"""`colddiff cluster`: manages the local Ray cluster."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from colddiff.cli.options import Json
from colddiff.cli.output import emit, emit_json, note

app = typer.Typer(
    no_args_is_help=True,
    help="Manage the local cluster. It is used if no address is set.",
)


@app.command()
def start(
    port: Annotated[
        int | None, typer.Option("--port", help="Port of Ray's GCS, outside 10002-19999.")
    ] = None,
    dashboard_port: Annotated[
        int | None,
        typer.Option("--dashboard-port", help="Port of the dashboard and Jobs API, on loopback."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Start the local cluster, or print its address if it is running.

    It keeps the environment that it was started with.

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
        note("`colddiff cluster stop` stops it")


@app.command()
def stop(as_json: Json = False) -> None:
    """Stop the local cluster. All its processes end; its jobs resume when submitted again."""
    from colddiff.cluster import local_cluster
    from colddiff.cluster.home import Home

    was_running = local_cluster.stop(Home.from_environment())
    if as_json:
        emit_json({"running": False, "stopped": was_running})
    else:
        note("the local cluster has stopped" if was_running else "no local cluster is running")


@app.command()
def status(as_json: Json = False) -> None:
    """Show whether the local cluster is running, and its address."""
    from colddiff.cluster import local_cluster
    from colddiff.cluster.home import Home

    record = local_cluster.running(Home.from_environment())
    if as_json:
        emit_json({"running": record is not None, **(asdict(record) if record else {})})
    elif record is None:
        emit("no local cluster is running; `colddiff cluster start` or any submit starts one")
    else:
        minutes = (time.time() - record.started) / 60
        emit(f"running at {record.address} for {minutes:.0f} min (pid {record.pid})")
        note(f"log: {record.log}")
