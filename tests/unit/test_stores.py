"""The contract of a store, on every one there is, a real S3 service among them.

``COLDDIFF_TEST_S3_ENDPOINT``, with credentials in the usual AWS variables, puts a new bucket of
another service in the place of the one that the tests start themselves.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from colddiff.errors import Exists, Missing, SpecError, StoreError
from colddiff.ports import ListedKey, Store
from colddiff.stores.local_store import LocalStore
from colddiff.stores.memory_store import MemoryStore
from colddiff.stores.s3_store import S3Store
from tests.conftest import S3Service
from tests.faulty_s3 import FaultyS3


@pytest.fixture(
    params=[
        "memory",
        "local",
        "s3-moto",
        "s3-at-the-root",
        "s3-faulty",
        pytest.param("s3-real", marks=pytest.mark.system),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    if request.param == "local":
        yield LocalStore(tmp_path / "deep" / "root")
        return
    prefix = "" if request.param == "s3-at-the-root" else "some/prefix"
    fixture = "real_s3_service" if request.param == "s3-real" else "s3_service"
    service = request.getfixturevalue(fixture)
    if request.param == "s3-faulty":
        with FaultyS3(service.endpoint) as faulty:
            yield S3Store(service.new_bucket(), prefix, endpoint_url=faulty.endpoint)
        return
    yield S3Store(service.new_bucket(), prefix, endpoint_url=service.endpoint)


def keys(store: Store, prefix: str = "") -> list[str]:
    return [item.key for item in store.list(prefix)]


def test_all_below_a_prefix_is_cleared(store: Store) -> None:
    for key in ("jobs/a/x", "jobs/a/deep/y", "jobs/ab/x", "other"):
        store.put(key, b"1")
    if isinstance(store, LocalStore):
        (store.root / "jobs/a/empty/within").mkdir(parents=True)
    store.clear("jobs/a/")
    store.clear("jobs/never/")
    assert keys(store) == ["jobs/ab/x", "other"]
    assert list(store.folders("jobs/")) == ["ab"]


def test_what_was_put_is_read_back_whole(store: Store) -> None:
    data = bytes(range(256)) * 5000
    store.put("a/b/c.bin", data)
    assert store.get("a/b/c.bin") == data
    assert store.size("a/b/c.bin") == len(data)
    store.put("a/b/c.bin", b"")
    assert store.get("a/b/c.bin") == b""
    assert store.size("a/b/c.bin") == 0


def test_folders_are_found_without_what_is_in_them(store: Store) -> None:
    assert list(store.folders("jobs/")) == []
    for key in ("jobs/b/x/1", "jobs/b/x/2", "jobs/a/job.json", "jobs/file", "other/c/d"):
        store.put(key, b"x")
    assert list(store.folders("jobs/")) == ["a", "b"]
    assert list(store.folders("jobs/b/")) == ["x"]
    store.delete("jobs/a/job.json")
    assert list(store.folders("jobs/")) == ["b"]


def test_what_is_not_there_is_missing(store: Store) -> None:
    store.put("a/b", b"x")
    for key in ("nothing", "a", "a/b/c", "a/bc"):
        assert store.size(key) is None
        with pytest.raises(Missing, match=key):
            store.get(key)
        store.delete(key)
    assert keys(store) == ["a/b"]


def test_put_new_never_replaces(store: Store) -> None:
    store.put_new("claim.json", b"first")
    with pytest.raises(Exists, match=r"claim\.json"):
        store.put_new("claim.json", b"second")
    # Equal bytes are no excuse: two workers that claim with the same words are still two.
    with pytest.raises(Exists):
        store.put_new("claim.json", b"first")
    assert store.get("claim.json") == b"first"
    assert keys(store) == ["claim.json"]


def test_one_of_sixteen_racers_wins(store: Store) -> None:
    start = threading.Barrier(16)

    def claim(racer: int) -> bytes | None:
        data = f"racer {racer}".encode() * 1000
        start.wait()
        try:
            store.put_new("race/claim", data)
        except Exists:
            return None
        return data

    with ThreadPoolExecutor(16) as pool:
        won = [data for data in pool.map(claim, range(16)) if data is not None]
    assert won == [store.get("race/claim")]


def test_a_reader_never_sees_half_an_object(store: Store) -> None:
    versions = {bytes([n]) * 300_000 for n in range(4)}
    store.put("object", bytes([0]) * 300_000)
    done = threading.Event()

    def write() -> None:
        for n in range(20):
            store.put("object", bytes([n % 4]) * 300_000)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert store.get("object") in versions
    writer.join()


def test_listing_is_by_prefix_in_key_order(store: Store) -> None:
    names = ["b", "a/2", "a/10", "a-b/x", "a0", "a/b/c", "shard-000001.tar", "shard-000000.tar"]
    for name in names:
        store.put(name, name.encode())
    assert keys(store) == sorted(names)
    assert keys(store, "a/") == ["a/10", "a/2", "a/b/c"]
    assert keys(store, "a/b") == ["a/b/c"]
    assert keys(store, "shard-") == ["shard-000000.tar", "shard-000001.tar"]
    assert keys(store, "a") == ["a-b/x", "a/10", "a/2", "a/b/c", "a0"]
    assert keys(store, "nothing/") == []
    assert [item.size for item in store.list("a/")] == [4, 3, 5]


def test_an_empty_store_lists_nothing(store: Store) -> None:
    assert keys(store) == []
    assert store.size("x") is None


def test_deletion(store: Store) -> None:
    store.put("a/b/c", b"1")
    store.put("a/d", b"2")
    store.delete("a/b/c")
    store.delete("a/b/c")
    assert keys(store) == ["a/d"]
    store.put_new("a/b/c", b"3")
    assert store.get("a/b/c") == b"3"


def test_odd_keys(store: Store) -> None:
    odd = ("with space", "ümläut/日本", "a+b=c&d@e,f;g", "100%", "a%2Fb", "dots..in/..name", "#?*")
    for key in odd:
        store.put(key, key.encode())
        assert store.get(key) == key.encode()
        assert keys(store) == [key]
        with pytest.raises(Exists):
            store.put_new(key, b"")
        store.delete(key)
        assert keys(store) == []


def test_keys_that_could_leave_the_store_are_refused(store: Store) -> None:
    within = (
        "/etc/passwd",
        "../up",
        "a/../../b",
        "a//b",
        "./a",
        "a\\b",
        "a\nb",
        ".tmp-x",
        "\ud800",
    )
    for key in ("", "a/", *within):
        for use in (store.get, store.size, store.delete, lambda k: store.put(k, b"x")):
            with pytest.raises(SpecError, match="store key"):
                use(key)
        if key in within:
            with pytest.raises(SpecError, match="store key"):
                keys(store, key)


# --- a disk


def test_what_a_crash_leaves_behind_is_not_listed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    script = (
        "import os, sys, pathlib; from colddiff.stores import local_store\n"
        "local_store.os.fsync = lambda handle: os._exit(9)\n"  # killed in the middle of a write
        "local_store.LocalStore(pathlib.Path(sys.argv[1])).put('a/object', b'x' * 1000)\n"
    )
    (tmp_path / "a").mkdir()
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert killed.returncode == 9
    assert len(list((tmp_path / "a").iterdir())) == 1
    assert keys(store) == []
    store.put("a/object", b"y")
    assert keys(store) == ["a/object"]


def test_a_deletion_leaves_no_empty_folders(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "root")
    store.put("jobs/x/checkpoints/step/model", b"1")
    store.put("jobs/y/job.json", b"2")
    store.delete("jobs/x/checkpoints/step/model")
    assert [path.name for path in (tmp_path / "root" / "jobs").iterdir()] == ["y"]
    store.delete("jobs/y/job.json")
    assert (tmp_path / "root").is_dir()


def test_a_write_succeeds_although_its_reader_has_pruned_the_folder(tmp_path: Path) -> None:
    """As the spool of a worker, which the driver of its job collects at any moment."""
    store = LocalStore(tmp_path)
    real = Path.replace

    def taken(path: Path, target: Path) -> Path:
        moved = real(path, target)
        LocalStore(tmp_path).delete("a/b/entry")
        return moved

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", taken)
        store.put("a/b/entry", b"x")
    assert not (tmp_path / "a").exists()


def test_writes_and_deletions_in_one_folder_do_not_trip_over_each_other(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)

    def churn(worker: int) -> None:
        for _ in range(100):
            store.put(f"a/b/{worker}", b"x")
            store.delete(f"a/b/{worker}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, range(4)))
    assert keys(store) == []


def test_a_link_in_a_circle_is_listed_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "image.png").write_bytes(b"x")
    (tmp_path / "real" / "back").symlink_to(tmp_path)
    (tmp_path / "other").symlink_to(tmp_path / "real")
    assert keys(LocalStore(tmp_path)) == ["other/image.png", "real/image.png"]


def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "self").symlink_to("self")
    store = LocalStore(tmp_path)
    for key in ("pipe", "zero"):
        with pytest.raises(StoreError, match=rf"{key}: is not a regular file"):
            store.get(key)
        assert store.size(key) is None
    with pytest.raises(StoreError, match=r"self: its links lead in a circle"):
        store.get("self")
    assert keys(store) == []


def test_what_is_no_file_is_named_by_a_full_listing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "back").symlink_to(tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    found: dict[str, str] = {}
    listed = LocalStore(tmp_path).list_all(found.__setitem__)
    assert [item.key for item in listed] == ["file"]
    link = "links to what is no file"
    assert found == {
        "back": "links to a folder that contains them",
        "gone": link,
        "pipe": "pipes, devices and sockets",
        "self": link,
    }


def test_objects_of_others_are_read_by_the_key_they_have(tmp_path: Path) -> None:
    names = ["two\nlines", "back\\slash", "a\tb", os.fsdecode(b"caf\xe9")]
    for name in names:
        (tmp_path / name).write_bytes(name.encode(errors="surrogateescape"))
    store = LocalStore(tmp_path)
    found = {item.key: store.get(item.key) for item in store.list()}
    assert found == {name: name.encode(errors="surrogateescape") for name in names}
    for name in ("../up", "/etc/passwd", "a/../../b", "a\0b"):
        with pytest.raises(SpecError, match="not below the folder"):
            store.get(ListedKey(name))


def test_an_empty_part_in_a_key_does_not_make_a_prefix_unusable(s3_service: S3Service) -> None:
    bucket = s3_service.new_bucket()
    other = S3Store(bucket, endpoint_url=s3_service.endpoint)
    other.put(ListedKey("set/a//b.png"), b"1")
    other.put("set/c.png", b"2")
    store = S3Store(bucket, "set", endpoint_url=s3_service.endpoint)
    found = {item.key: store.get(item.key) for item in store.list()}
    assert found == {"a//b.png": b"1", "c.png": b"2"}


def test_a_disk_that_takes_no_more_is_one_line(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys\n"
        "from colddiff.stores.local_store import LocalStore\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))\n"
        "store = LocalStore(sys.argv[1])\n"
        "try: store.put('big', bytes(1_000_000))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"StoreError {tmp_path / 'big'}: ")
    assert list(tmp_path.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 10_000


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for store, key in ((LocalStore(tmp_path / "file"), "a"), (LocalStore(tmp_path), "file/a")):
        with pytest.raises(StoreError, match=r"file.*a part of this path is a file"):
            store.put(key, b"x")
        with pytest.raises(StoreError, match="a part of this path is a file"):
            store.put_new(key, b"x")
        assert keys(store) in ([], ["file"])


def test_a_place_where_nothing_can_be_written_is_named() -> None:
    said = r"^/proc/colddiff.*: cannot be written \(.*\); use another location$"
    with pytest.raises(StoreError, match=said):
        LocalStore("/proc/colddiff").put("a", b"x")
