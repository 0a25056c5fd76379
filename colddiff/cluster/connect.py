"""The cluster of a command: where a job runs, or where one is submitted to."""

from __future__ import annotations

import logging
import os

from colddiff.cluster import local_cluster
from colddiff.cluster.address import Cluster, given_address, parse_address, remote_cluster
from colddiff.cluster.home import Home
from colddiff.cluster.ray_jobs import RayJobs
from colddiff.jobs.folder import JobFolder
from colddiff.jobs.submit import newest_attempt

log = logging.getLogger(__name__)

HERE = os.uname().nodename
RECORDED = "the job's record"
"""Where an address is from that nobody has given now."""


def jobs_of(folder: JobFolder, address: str | None) -> RayJobs | None:
    """The cluster that runs a job's newest attempt; None if it no longer exists.

    ``--address`` overrides the address in the attempt's claim; COLDDIFF_ADDRESS and RAY_ADDRESS do
    not, they only apply to submitting. Raises ClusterError if a remote one does not respond.
    """
    claim, where = folder.read_claim(newest_attempt(folder, folder.status())), "--address"
    if address is None and claim.get("local") and claim.get("host", HERE) != HERE:
        return None  # the local cluster of another machine
    if address is None and not claim.get("local"):
        address, where = claim.get("address"), RECORDED
        if address is None:
            return None
    home = Home.from_environment()
    record = local_cluster.running(home)
    if record is not None and (address is None or parse_address(address, where) == record.address):
        return RayJobs(local_cluster.local(home, record))
    return RayJobs(remote_cluster(address, where)) if address is not None else None


def given_cluster(address: str | None, home: Home) -> Cluster | None:
    """The cluster that ``--address``, COLDDIFF_ADDRESS or RAY_ADDRESS names; contacts nothing.

    None if none of them is set. The address of the running local cluster selects that one.
    """
    named = given_address(address)
    if named is None:
        return None
    cluster = remote_cluster(*named)
    record = local_cluster.running(home)
    if record is not None and cluster.address == record.address:
        return local_cluster.local(home, record)
    return cluster


def started_cluster(home: Home) -> Cluster:
    """The local cluster, started if none is running; logs that it keeps running."""
    before = local_cluster.running(home)
    record = local_cluster.start(home)
    if before is None:
        log.info(
            "local cluster at %s keeps running; `colddiff cluster stop` ends it", record.address
        )
    return local_cluster.local(home, record)
