"""Several processes and one store: who makes, who waits, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from store_processes import Start, go_on, kill, line
from store_specs import paths, spec

from raycl.observe.events import Waiting
from raycl.store import Store, collect

SHORT = 0.6
"""A time to live, in seconds, that a test can wait for."""


def test_of_two_processes_one_makes_and_the_other_waits(start: Start, uri: str) -> None:
    Store.open(uri)
    maker = start("make", uri)
    assert line(maker) == "making"
    waiter = start("make", uri)
    assert line(waiter).startswith(f"waiting for process {maker.pid} on ")
    go_on(maker)
    assert line(maker) == f"computed {maker.pid}"
    assert line(waiter) == f"reused {maker.pid}"
    assert maker.wait(60) == waiter.wait(60) == 0
    assert paths(Store.open(uri), "leases") == []


def test_of_many_processes_that_start_at_once_one_makes(start: Start, local: Store) -> None:
    crowd = [start("make", local.uri) for _ in range(5)]
    for process in crowd:
        go_on(process)
    said = [process.communicate(timeout=120)[0].splitlines()[-1].split() for process in crowd]
    assert sorted(verb for verb, _ in said) == ["computed", *["reused"] * 4]
    assert len({pid for _, pid in said}) == 1


@pytest.mark.parametrize("reap", [True, False], ids=["reaped", "zombie"])
def test_when_a_holder_is_killed_the_next_takes_over(
    start: Start, local: Store, reap: bool
) -> None:
    maker = start("make", local.uri)
    assert line(maker) == "making"
    waiter = start("make", local.uri)
    assert line(waiter).startswith("waiting for")
    kill(maker, reap=reap)
    # The time to live is ten minutes: only the holder's death can hand the lease over.
    assert line(waiter) == "making"
    go_on(waiter)
    assert line(waiter) == f"computed {waiter.pid}"


def test_when_a_holder_stalls_both_make_and_nothing_breaks(start: Start, local: Store) -> None:
    stalled = start("make", local.uri, SHORT)
    assert line(stalled) == "making"
    os.kill(stalled.pid, signal.SIGSTOP)
    other = start("make", local.uri, SHORT)
    assert line(other).startswith("waiting for")
    assert line(other) == "making"
    os.kill(stalled.pid, signal.SIGCONT)
    go_on(stalled)
    go_on(other)
    assert line(stalled) in (f"computed {stalled.pid}", f"reused {other.pid}")
    assert line(other) == f"computed {other.pid}"
    assert stalled.wait(60) == other.wait(60) == 0
    found = local.get(spec())
    assert found is not None and found["by.json"] in (stalled.pid, other.pid)
    assert found["big.bin"] == str(found["by.json"]).encode() * 1000
    assert list(local.verify()) == []


def test_a_heartbeat_keeps_a_slow_holder_alive(start: Start, local: Store) -> None:
    maker = start("make", local.uri, 1.5)
    assert line(maker) == "making"
    (claim,) = paths(local, "leases")
    waiter = start("make", local.uri, 1.5)
    assert line(waiter).startswith("waiting for")
    before = beats(local, claim)
    while beats(local, claim) < before + 8:  # longer than the time to live
        assert maker.poll() is None
    go_on(maker)
    assert line(waiter) == f"reused {maker.pid}"


def beats(store: Store, path: str) -> int:
    return int(json.loads(store.location.read(path) or b"{}")["beats"])


def test_a_claim_from_a_rebooted_or_another_host_dies_by_its_heartbeat(
    local: Store, start: Start, events: list[object]
) -> None:
    holder = start("hold", local.uri)
    assert line(holder) == "holding"
    (path,) = paths(local, "leases")
    claim = (local.location.read(path) or b"").decode()
    kill(holder)
    here = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert here in claim
    local.location.write(path, claim.replace(here, "another boot").encode())
    patient = Store.open(local.uri, events.append, lease_ttl=SHORT)
    assert patient.get_or_make(spec(), lambda: {"a.json": 1}) == {"a.json": 1}
    assert [e.key for e in events if isinstance(e, Waiting)] == [spec().key]


def test_a_kill_in_the_middle_of_puts_leaves_a_whole_artefact(start: Start, local: Store) -> None:
    last = -1
    for _ in range(5):
        writer = start("puts", local.uri)
        assert line(writer) == "putting"
        seen = [local.get(spec()) for _ in range(30)]
        kill(writer)
        seen.append(Store.open(local.uri).get(spec()))
        for found in seen:
            assert found is not None
            assert found["n.bin"] == bytes([found["n.json"] % 256]) * 20_000
        assert list(local.verify()) == []
        last = max(last, found["n.json"])
    assert last > 0
    collect(local, delete=True, grace=0)
    assert len(paths(local, "artefacts")) == 3


def test_the_collector_spares_what_a_live_process_holds_and_needs(
    start: Start, local: Store
) -> None:
    for name in ("dog", "dog-part", "cat"):
        local.put(spec(name), {"a.json": name})
    holder = start("hold", local.uri)
    assert line(holder) == "holding"
    removed = collect(local, delete=True, older_than=0, grace=0)
    assert [item.key for item in removed] == [spec("cat").key]
    kill(holder)
    removed = collect(local, delete=True, older_than=0, grace=0)
    assert sorted(item.reason for item in removed) == [
        "a dead lease",
        "no result, pin or lease needs it",
        "no result, pin or lease needs it",
    ]
    assert paths(local, "artefacts") == paths(local, "leases") == []


def test_a_process_that_ends_inside_a_lease_ends_at_once(uri: str) -> None:
    code = """
import sys
from raycl.store import ArtefactSpec, Store
store = Store.open(sys.argv[1], lease_ttl=0.06)
with store.lease(ArtefactSpec("generator", "dog", {}, {})):
    store.put(ArtefactSpec("generator", "cat", {}, {}), {"a.json": 1})
    sys.exit(7)
"""
    Store.open(uri)
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code, uri], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (7, "")
    assert paths(Store.open(uri), "leases") == []


def test_torch_and_pyarrow_are_imported_only_by_what_needs_them(tmp_path: Path) -> None:
    code = """
import sys
from raycl.store import ArtefactSpec, Store
heavy = lambda: sorted({"torch", "pyarrow", "ray"} & set(sys.modules))
store = Store.open(sys.argv[1])
plain = ArtefactSpec("generator", "plain", {}, {})
store.get_or_make(plain, lambda: {"a.json": 1, "b.txt": ""}), store.get(plain)
print(heavy())
import pyarrow as pa
store.put(plain, {"a.parquet": pa.table({"a": [1]}), "b.arrow": pa.table({"a": [1]})})
store.get(plain)
print(heavy())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[]", "['pyarrow']"]
