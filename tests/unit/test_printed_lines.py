# ruff: noqa: E501, W291  # lines as they were printed
"""Which lines of a log are kept, on lines that jobs have printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from colddiff.machine.printed_lines import LogLines, parted, stamped, unstamped

PACKAGES = "/srv/venv/lib/python3.11/site-packages"
NOISE = f"""
2026-11-27 01:27:01,659\tINFO worker.py:1691 -- Using address 192.0.2.2:52995 set in the environment
2026-11-27 01:27:01,767\tINFO worker.py:2029 -- Connected. View the dashboard at \x1b[1m\x1b[32mhttp://127.0.0.1:39381 \x1b[39m\x1b[22m
(TrainController pid=7327) Requesting resources: {{'CPU': 1.0}} * 2
(TrainController pid=7327) Attempting to start training worker group of size 2 with the following resources: [{{'CPU': 1.0}}] * 2
(PlacementGroupCleaner pid=7631) Found multiple active Ray instances: {{'192.0.2.2:52995', '192.0.2.2:41299'}}. Connecting to latest cluster at 192.0.2.2:41299.
(PlacementGroupCleaner pid=7631) Failed to query Ray Train Controller actor state. State API may be temporarily unavailable. Continuing to monitor.
(PlacementGroupCleaner pid=7631, ip=10.0.0.3) Traceback (most recent call last):
(PlacementGroupCleaner pid=7631, ip=10.0.0.3)   File "{PACKAGES}/ray/util/state/api.py", line 1, in get
(RayTrainWorker pid=7805) Setting up process group for: env:// [rank=0, world_size=2]
(TrainController pid=7327) [2026-11-27 01:28:01,258 E 7327 7394] core_worker.cc:2465: Actor with class name: 'PreemptionWatcher' and ID: '45b2' has constructor arguments in the object store
(TrainController pid=7327) Started training worker group of size 2: 
(TrainController pid=7327) - (ip=192.0.2.2, pid=7805) world_rank=0, local_rank=0, node_rank=0
[2026-11-27 01:28:01,258 I 7327 7394] core_worker.cc:902: Exit signal received, this process will exit
(raylet) [2026-11-27 01:28:01,258 I 7327 7394] core_worker_shutdown_executor.cc:94: Executing handle exit: INTENDED_SYSTEM_EXIT
(RayTrainWorker pid=7806) resuming from the checkpoint of step 4 [repeated 1x across cluster] (Ray deduplicates logs by default.)
{PACKAGES}/PIL/TiffImagePlugin.py:900: UserWarning: Truncated File Read
  warnings.warn(str(msg))
(RayTrainWorker pid=7805) {PACKAGES}/PIL/Image.py:1047: UserWarning: Palette images with Transparency
(RayTrainWorker pid=7805)   warnings.warn(
/usr/lib/python3.11/multiprocessing/popen_fork.py:66: DeprecationWarning: use of fork() may lead
  self.pid = os.fork()
    [state-dump] \tNodeManagerService.grpc_server.GetSystemConfig.HandleRequestImpl - 1 total (0 active), Execution time: mean = 0.03ms
    [state-dump]
(RayTrainWorker pid=28507) Found credentials in environment variables.
(RayTrainWorker pid=28507) Found endpoint for s3 via: environment_global.
2026/11/27 01:27:05 WARNING mlflow.utils.autologging_utils: MLflow issued a warning
2026/11/27 01:27:05 INFO mlflow.store.db.utils: Creating initial MLflow database tables...
INFO  [alembic.runtime.migration] Running upgrade  -> 451aebb31d03, add metric step
INFO  [botocore.credentials] Found credentials in environment variables.
2026/11/27 01:27:05 INFO botocore.credentials: Found credentials in shared credentials file: ~/.aws/credentials
(RayTrainWorker pid=7805) 2026-11-27 01:27:05,100 INFO botocore.credentials -- Found credentials from IAM Role: training
(TrainController pid=7327) [2026-11-27 01:28:01,258 E 7327 7394] gcs_rpc_client.h:149: Failed to connect to GCS at address 10.0.0.3:6379
2026-11-27 20:20:17,035\tINFO job_manager.py:581 -- Runtime env is setting up.
Running entrypoint for job train-quickstart-b4e29189-1: python -P -m colddiff.cluster.driver job.json --attempt 1
(TrainController pid=7327) Detected ready resources for 2 workers in the cluster. Deciding to start/restart training with this worker group size.
(autoscaler +1m4s) Error: No available node types can fulfill resource request {{'GPU': 1.0}}
"""[1:]
KEPT = f"""
terminal distribution gmm fitted in 0.7 s
(RayTrainWorker pid=7805) step 20/60  loss 0.36263  68.7 img/s
(RayTrainWorker pid=7805, ip=10.0.0.3) step 40/60  loss 0.18954  119.0 img/s
  rmse         0.2325    0.1327
2026-11-27 01:27:01,659\tWARNING worker.py:1691 -- The autoscaler failed
(raylet) [2026-11-27 01:28:01,258 E 7327 7394] node_manager.cc:3193: 1 Workers killed due to memory pressure (OOM)
(raylet) Raylet is terminated. Termination is unexpected. Possible reasons include: (1) SIGKILL by the user
(TrainController pid=7327) Traceback (most recent call last):
(TrainController pid=7327) ValueError: no such group
2026/11/27 01:27:05 ERROR mlflow.store.db.utils: SQLAlchemy database error
{PACKAGES}/colddiff/restorers/base.py:12: UserWarning: ours
./kspace.py:12: UserWarning: the user's own

train-quickstart-b4e29189 is done (60 of 60 steps)
"""[1:]


def sorted_lines(*pieces: bytes) -> tuple[str, str]:
    kept: list[bytes] = []
    aside: list[bytes] = []
    lines = LogLines(kept.append, aside.append, lambda: 0.0)
    for piece in pieces:
        lines.feed(piece)
    lines.flush()
    return b"".join(kept).decode(), b"".join(aside).decode()


@pytest.mark.parametrize("line", KEPT.splitlines())
def test_lines_about_the_job_are_kept(line: str) -> None:
    assert sorted_lines(f"{line}\n".encode()) == (f"{stamped(line, 0)}\n", "")


def test_lines_of_other_libraries_are_set_aside_with_times_and_without_colours() -> None:
    kept, aside = sorted_lines(NOISE.encode())
    assert kept == ""
    assert len(aside.splitlines()) == len(NOISE.splitlines())
    assert all(line.startswith("1970-01-01 00:00:00Z ") for line in aside.splitlines())
    assert "\x1b" not in aside


def test_all_lines_of_both_kinds_arrive_in_whatever_pieces() -> None:
    text = f"{KEPT}{NOISE}{KEPT}".encode()
    whole = sorted_lines(text)
    assert whole == sorted_lines(*(text[i : i + 7] for i in range(0, len(text), 7)))
    lines = [unstamped(line) for line in whole[0].splitlines()]
    assert lines == KEPT.splitlines() * 2


def test_code_after_something_else_than_a_warning_is_kept() -> None:
    warning, code = NOISE.splitlines()[15:17]
    kept, _ = sorted_lines(f"{warning}\n{code}\n{code}\n".encode())
    assert kept == f"{stamped(code, 0)}\n"
    kept, _ = sorted_lines(f"{warning}\nours\n{code}\n".encode())
    assert [unstamped(line) for line in kept.splitlines()] == ["ours", code]


def test_a_line_without_an_end_arrives_at_the_end_or_when_it_is_long() -> None:
    assert sorted_lines(b"50 %\r60 %")[0].endswith("60 %\n")
    assert len(sorted_lines(b"x" * 70_000, b"x" * 10)[0].splitlines()) == 2


UNANSWERED = f"""
(TrainController pid=7327) Traceback (most recent call last):
(TrainController pid=7327)   File "{PACKAGES}/ray/util/state/api.py", line 1, in get
(TrainController pid=7327)     return ray.get(reference, timeout=30)
(TrainController pid=7327) 
(TrainController pid=7327) During handling of the above exception, another exception occurred:
(TrainController pid=7327) 
(TrainController pid=7327) Traceback (most recent call last):
(TrainController pid=7327)   File "/usr/lib/python3.11/asyncio/tasks.py", line 1, in wait_for
(TrainController pid=7327)   File "python/ray/_raylet.pyx", line 3471, in ray._raylet.get_objects
(TrainController pid=7327)   File "python/ray/includes/common.pxi", line 107, in check_status
(TrainController pid=7327) ray.exceptions.GetTimeoutError: Get timed out: some object(s) not ready.
"""[1:]


def test_a_traceback_of_ray_that_had_no_answer_is_set_aside_whole() -> None:
    failed = "(TrainController pid=7327) Failed to send resource request for train-66f6. If this"
    kept, aside = sorted_lines(f"before\n{failed}\n{UNANSWERED}after\n".encode())
    assert [unstamped(line) for line in kept.splitlines()] == ["before", "after"]
    assert len(aside.splitlines()) == 1 + len(UNANSWERED.splitlines())


@pytest.mark.parametrize(
    "other",
    [
        UNANSWERED.replace("/usr/lib/python3.11/asyncio/tasks.py", "/home/ada/kspace.py"),
        UNANSWERED.replace("ray.exceptions.GetTimeoutError", "ValueError"),
        UNANSWERED.rpartition("(TrainController")[0],
    ],
    ids=["through other code", "another error", "cut off"],
)
def test_other_tracebacks_are_kept_whole_and_in_order(other: str) -> None:
    kept, aside = sorted_lines(f"before\n{other}(raylet) after\n".encode())
    assert (kept, aside) == (
        "".join(f"{stamped(line, 0)}\n" for line in f"before\n{other}(raylet) after".splitlines()),
        "",
    )


GUESSES = "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was killed by the OOM killer due to high memory usage, (2) ray stop --force was called"
FIELDS = """
The actor died unexpectedly before finishing this task.
\tclass_name: RayTrainWorker
\tactor_id: 7e1fc2d470f2819b1c9dd09302000000
\tpid: 25469
\tnamespace: 15af7ad9-e096-4bc2-a33e-bc93c6dd043a
\tip: 192.0.2.2
"""[1:]
SNIPPET = f"""
[Rank 0 Error Snippet]:
A worker health check failed.
Worker info: Worker(
  actor=Actor(RayTrainWorker, 7e1fc2d470f2819b1c9dd09302000000),
  metadata=ActorMetadata(
    hostname='node7',
    node_id='8ccd16e8eee961335338c9322458af6054a821a5037352746bba99cd',
    node_ip='192.0.2.2',
    pid=25469,
  ),
  distributed_context=DistributedContext(world_rank=0, world_size=2, local_rank=0),
  log_file_path='/tmp/ray/session_2026-11-27/logs/train/ray-train-app-worker-c731.log',
)
{FIELDS}{GUESSES}
"""[1:]
KILLED = f"""
[FailurePolicy] RAISE
  Source: worker group
  Error count: 1 (max allowed: 0)
Error: Training failed due to worker errors:
{SNIPPET}ray.train.WorkerGroupError: Training failed due to worker errors:
{SNIPPET}Graceful shutdown of backend failed. This is expected if one of the workers has crashed.
Traceback (most recent call last):
  File "{PACKAGES}/ray/train/torch/config.py", line 333, in on_shutdown
    ray.get(futures, timeout=timeout_s)
ray.exceptions.ActorDiedError: {FIELDS}{GUESSES}
"""[1:]
OUR_LINE = "workers failed (The actor died unexpectedly before finishing this task.); restarting them in 0 s: failure 1 since step 0, max_failures=3"


def by(source: str, text: str) -> str:
    return "".join(f"({source} pid=25336) {line}\n" for line in text.splitlines())


def test_of_a_killed_worker_our_own_line_is_kept() -> None:
    raylet = f"(raylet) A worker died or was killed while executing a task by an unexpected system error. {GUESSES}\n"
    said = by("TrainController", KILLED)
    kept, aside = sorted_lines(f"{raylet}{OUR_LINE}\n{said}".encode())
    assert kept == f"{stamped(OUR_LINE, 0)}\n"
    assert len(aside.splitlines()) == 1 + len(KILLED.splitlines())


def test_an_error_in_a_worker_is_kept_from_what_its_controller_says() -> None:
    error = """Traceback (most recent call last):
  File "/home/ada/kspace.py", line 7, in _degrade
    x = f(x)
ValueError: 3 is no odd width"""
    said = KILLED[: KILLED.index("A worker health")] + error
    kept, _ = sorted_lines(by("TrainController", said).encode())
    assert [unstamped(line) for line in kept.splitlines()] == [
        f"(TrainController pid=25336) {line}" for line in error.splitlines()
    ]


DENIED = """
Error in training function:
Traceback (most recent call last):
  File "/tmp/ray/session_1/colddiff/verbs/train/on_ray.py", line 160, in _worker
    with (
  File "/usr/lib/python3.11/contextlib.py", line 158, in __exit__
    self.gen.throw(typ, value, traceback)
  File "/tmp/ray/session_1/colddiff/cluster/nodes/places.py", line 40, in denied_node_named
    raise StoreDenied(unreached_store(storage, error, f"node {node}")) from None
colddiff.errors.StoreDenied: node 10.0.0.3 cannot reach s3://b: no credentials

"""[1:]
# Of what it says twice, Ray leaves out lines that another process has said.
QUOTED = """
[FailurePolicy] RAISE
Error: Training failed due to worker errors:
[Rank 0,1 Error Snippet]:
  File "/tmp/ray/session_1/colddiff/cluster/nodes/place...
... (Output truncated. See individual worker logs for full details) ...
ied_node_named
ray.train.WorkerGroupError: Training failed due to worker errors:
[Rank 0 Error Snippet]:
... (Output truncated. See individual worker logs for full details) ...
 denied_node_named

"""[1:]
READING = """Traceback (most recent call last):
  File "/tmp/ray/session_1/colddiff/data/readers/lanes.py", line 7, in read
    return image(data)
OSError: cannot identify image file

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/tmp/ray/session_1/colddiff/data/readers/lanes.py", line 9, in read
    raise DataError(name) from error
colddiff.errors.DataError: a.png cannot be decoded
"""


def test_the_traceback_of_an_error_of_ours_is_set_aside_with_what_quotes_it() -> None:
    said = by("RayTrainWorker", DENIED) + by("TrainController", QUOTED)
    said += by("RayTrainWorker", READING)
    said += by("RayTrainWorker", "\n".join(DENIED.splitlines()[6:8])) + by("raylet", "\n")
    kept, aside = sorted_lines(f"before\n{said}{OUR_LINE}\n".encode())
    assert [unstamped(line) for line in kept.splitlines()] == ["before", OUR_LINE]
    assert len(aside.splitlines()) == len(said.splitlines())


@pytest.mark.parametrize(
    "other",
    [
        DENIED.partition("\n")[2].replace("colddiff.errors.StoreDenied", "ValueError"),
        # One of ours in the middle is not what it ended with.
        "\n".join(
            (READING.rstrip(), "", READING.splitlines()[5], "", READING.partition("\n\n")[0])
        ),
        READING.partition("\n\n")[0].replace("OSError: ", "kspace.errors.StoreDenied: "),
    ],
    ids=["unexpected", "while one of ours is handled", "another package"],
)
def test_the_traceback_of_any_other_error_is_kept_whole(other: str) -> None:
    other = by("RayTrainWorker", other)
    kept, _ = sorted_lines(f"{other}{OUR_LINE}\n".encode())
    lines = [*other.splitlines(), OUR_LINE]
    assert [unstamped(line) for line in kept.splitlines()] == [line.rstrip() for line in lines]


def test_a_log_of_a_cluster_is_parted_without_new_times() -> None:
    ours = f"{stamped('step 1/2', 0)}\n{stamped('step', 0)}"
    before = "\n".join(NOISE.splitlines()[-2:])
    assert parted(f"{before}\n{ours}".encode()) == (ours.encode(), f"{before}\n".encode())
    assert parted(b"") == (b"", b"")


PRINTING = """
import sys
from pathlib import Path
from colddiff.jobs import logs
folder = Path(sys.argv[1])
with logs.printed((folder / "log.txt").write_bytes, (folder / "debug.txt").write_bytes):
    print('step 1/2', flush=True)
    print("(PlacementGroupCleaner pid=1) Failed to query", file=sys.stderr, flush=True)
    print('step 2/2', flush=True)
"""


def test_a_driver_prints_what_is_kept_and_stores_both(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRINTING, str(tmp_path)], capture_output=True, text=True, check=True
    )
    log = (tmp_path / "log.txt").read_text()
    assert [unstamped(line) for line in log.splitlines()] == ["step 1/2", "step 2/2"]
    assert done.stdout == log
    (noise,) = (tmp_path / "debug.txt").read_text().splitlines()
    assert unstamped(noise) == "(PlacementGroupCleaner pid=1) Failed to query"
